//! Reads the plans of a file, as far as an API server would take them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kube::CustomResourceExt;
use serde::Deserialize;
use serde_json::Value;

use crate::api::RecoveryPlan;
use crate::simulate::load;
use crate::validation::Validator;

/// Where the rest of a plan is, if a part of it is simulated.
const PART: &str = "If several field managers own the plan, and this is the part of one, take the whole plan: \
                    kubectl get recoveryplan NAME -o yaml | resurgam … -";

/// Returns the file's display name and the plans in it. Other kinds are passed over.
///
/// # Errors
/// The file cannot be read, has no plan, or an API server would refuse one.
pub(super) fn read(path: &Path) -> Result<(String, Vec<RecoveryPlan>)> {
    let (file, text) = super::read(path)?;
    let plans = parse(&text).context(file.clone())?;
    Ok((file, plans))
}

fn parse(text: &str) -> Result<Vec<RecoveryPlan>> {
    // This tells a misspelt field or a wrong type with its line.
    let plans = load(text).map_err(|error| {
        let part = error.to_string().contains("missing field").then_some(PART);
        let error = anyhow::Error::from(error);
        part.map_or_else(|| error.to_string(), |part| format!("{error}\n{part}"))
    });
    let plans = plans.map_err(anyhow::Error::msg)?;
    let validator = Validator::new(RecoveryPlan::crd()).map_err(anyhow::Error::msg)?;
    let mut refused = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let object = Value::deserialize(document)?;
        if object["kind"] != "RecoveryPlan" {
            continue;
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let found = validator.violations(object);
        refused.extend(found.iter().map(|violation| format!("  RecoveryPlan {name}: {violation}")));
    }
    if !refused.is_empty() {
        bail!("an API server would refuse it:\n{}", refused.join("\n"));
    }
    Ok(plans)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = include_str!("../../examples/smallest.yaml");

    #[test]
    fn what_only_rules_refuse_is_told_with_service_and_step() {
        let text = SMALLEST.replace(
            "{name: library-db}\n",
            "{name: library-db, restore: [{name: load, retries: 11, apply: {configMaps: [{name: a}]}}]}\n",
        );
        assert_ne!(text, SMALLEST);
        insta::assert_snapshot!(parse(&text).unwrap_err());
    }
}
