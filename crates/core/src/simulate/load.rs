//! Loads plans from a file of manifests, which may contain several documents and other kinds. Bounds and rules are not checked: those
//! are in the schema.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::{GROUP, RecoveryPlan, RecoveryPlanSpec};

/// Why no plan could be loaded from a file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not valid YAML, or a plan in it is malformed. The message has the line.
    #[error(transparent)]
    Malformed(#[from] serde_yaml::Error),
    /// A plan has a version that this program does not know.
    #[error("a RecoveryPlan of apiVersion '{0}': only {GROUP}/v1alpha1 is known")]
    Version(String),
    /// A plan has no name.
    #[error("a RecoveryPlan without metadata.name")]
    Unnamed,
    /// The file contains no plan.
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

/// A plan as written by hand. Unknown fields are errors.
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

/// Returns the plans in a text of one or more YAML documents.
///
/// # Errors
///
/// [`LoadError`], with the line if there is one.
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
        if written.metadata.name.is_none() {
            return Err(LoadError::Unnamed);
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
