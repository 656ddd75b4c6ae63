//! Reads plans from a file of manifests, as people keep them: several documents, other kinds among them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::{GROUP, RecoveryPlan, RecoveryPlanSpec};

/// Why a file holds no plan that could be played.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read as YAML, or not as a plan; the message tells the line.
    #[error(transparent)]
    Malformed(#[from] serde_yaml::Error),
    /// A plan of a version that we do not know.
    #[error("a RecoveryPlan of apiVersion '{0}': only {GROUP}/v1alpha1 is known")]
    Version(String),
    /// A value that the API server would refuse.
    #[error("RecoveryPlan {name}: {what}")]
    Refused {
        /// The plan.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No plan in it.
    #[error("there is no RecoveryPlan in it{0}")]
    NoPlan(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// A plan as written by hand: nothing is passed over silently.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: ObjectMeta,
    spec: RecoveryPlanSpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The plans in a text of one or more YAML documents.
///
/// # Errors
///
/// [`LoadError`], with the line where there is one.
pub fn load(text: &str) -> Result<Vec<RecoveryPlan>, LoadError> {
    let mut heads = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        heads.push(Option::<Head>::deserialize(document)?);
    }
    let mut plans = Vec::new();
    for (head, document) in heads.iter().zip(serde_yaml::Deserializer::from_str(text)) {
        let Some(head) = head.as_ref().filter(|head| head.kind == "RecoveryPlan") else { continue };
        if head.api_version != format!("{GROUP}/v1alpha1") {
            return Err(LoadError::Version(head.api_version.clone()));
        }
        let written = Written::deserialize(document)?;
        let refuse = |what| {
            let name = written.metadata.name.clone().unwrap_or_default();
            Err(LoadError::Refused { name, what })
        };
        if written.metadata.name.is_none() {
            return refuse("metadata.name is missing");
        }
        if written.spec.max_parallel < 1 {
            return refuse("maxParallel must be at least 1");
        }
        if written.spec.services.is_empty() {
            return refuse("it has no services");
        }
        plans.push(RecoveryPlan { metadata: written.metadata, spec: written.spec, status: None });
    }
    if plans.is_empty() {
        let kinds: Vec<&str> =
            heads.iter().flatten().map(|h| h.kind.as_str()).filter(|k| !k.is_empty()).collect();
        let found = if kinds.is_empty() { String::new() } else { format!(", only {}", kinds.join(", ")) };
        return Err(LoadError::NoPlan(found));
    }
    Ok(plans)
}
