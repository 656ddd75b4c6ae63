//! Gate `condition`: an expression in CEL holds for one object.
//!
//! It is a health gate: an object that says that it is intact proves nothing. Secrets are refused by group, kind and resource, before and
//! after the read.

use kube::core::{ApiResource, GroupVersionKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Question, evidence};
use crate::api::GateReason;
use crate::api::gate::{ConditionSpec, ObjectScope};

/// Maximum size of an object as JSON, in bytes.
pub const OBJECT_LIMIT: usize = 1 << 20;
/// Maximum length of an expression, in characters. The schema has the same bound.
pub const EXPRESSION_LIMIT: usize = 1024;
/// Annotation in which `kubectl apply` stores the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object that a gate evaluates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Kind and resource.
    pub resource: ApiResource,
    /// Namespace. `None`: an object of the cluster.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl Target {
    /// Returns kind, namespace and name, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        let slash = if self.namespace.is_some() { "/" } else { "" };
        let namespace = self.namespace.as_deref().unwrap_or_default();
        format!("{} {namespace}{slash}{}", self.resource.kind, self.name)
    }
}

/// What an evaluator is asked, as JSON.
#[derive(Serialize, Deserialize, Debug)]
pub struct Evaluation {
    /// Expression in CEL.
    pub expression: String,
    /// Value of its variable `object`.
    pub object: Value,
}

/// Why an expression has no value, as an evaluator answers it. No message has a value of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EvaluationError {
    /// It is not valid CEL.
    DoesNotCompile(String),
    /// Its value is not a boolean.
    NotBoolean(String),
    /// It fails for this object.
    Failed(String),
    /// It takes more memory or time than it may.
    LimitExceeded(String),
    /// The evaluator itself failed.
    Evaluator(String),
}

impl EvaluationError {
    fn answer(self, title: &str) -> Answer {
        let (reason, what, why) = match self {
            Self::DoesNotCompile(why) => (GateReason::DoesNotCompile, "the expression is not valid CEL", why),
            Self::NotBoolean(why) => {
                (GateReason::NotBoolean, "the expression is neither true nor false", why)
            }
            Self::Failed(why) => (GateReason::EvaluationFailed, "the expression fails for this object", why),
            Self::LimitExceeded(why) => (GateReason::LimitExceeded, "the expression takes too much", why),
            Self::Evaluator(why) => {
                (GateReason::EvaluatorFailed, "the expression could not be evaluated", why)
            }
        };
        Answer::unknown(reason, format!("{title}: {what}: {why}"))
    }
}

/// Returns the object that a gate evaluates.
///
/// # Errors
/// An Unknown: it is a Secret, its namespace is ambiguous, or the expression is too long.
pub fn target(spec: &ConditionSpec, namespaces: &[String]) -> Result<Target, Answer> {
    let malformed = |message: String| Err(Answer::unknown(GateReason::Malformed, message));
    let (group, version) = match spec.api_version.split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", spec.api_version.as_str()),
    };
    let kind = GroupVersionKind::gvk(group, version, &spec.kind);
    let resource = match &spec.resource {
        Some(plural) => ApiResource::from_gvk_with_plural(&kind, plural),
        None => ApiResource::from_gvk(&kind),
    };
    if is_secret(group, &spec.kind, &resource.plural) {
        return Err(refused(&spec.kind, &spec.name));
    }
    if spec.cel.chars().count() > EXPRESSION_LIMIT {
        return malformed(format!("the expression is longer than {EXPRESSION_LIMIT} characters"));
    }
    let path = [group, version, &resource.plural, &spec.name];
    let is_path = |part: &&str| part.contains(['/', '?', '#', '%']) || *part == ".." || *part == ".";
    if path.iter().any(is_path) || spec.name.is_empty() || resource.plural.is_empty() {
        return malformed(format!("{} '{}' is no name of an object", spec.kind, spec.name));
    }
    let namespace = match (spec.scope, &spec.namespace, namespaces) {
        (ObjectScope::Cluster, None, _) => None,
        (ObjectScope::Cluster, Some(_), _) => {
            return malformed(format!("{} {} of the cluster has a namespace", spec.kind, spec.name));
        }
        (ObjectScope::Namespaced, Some(namespace), _) => Some(namespace.clone()),
        (ObjectScope::Namespaced, None, [only]) => Some(only.clone()),
        (ObjectScope::Namespaced, None, all) => {
            let (kind, name) = (&spec.kind, &spec.name);
            return malformed(format!("{kind} {name} needs a namespace: the service has {}", all.len()));
        }
    };
    Ok(Target { resource, namespace, name: spec.name.clone() })
}

fn is_secret(group: &str, kind: &str, plural: &str) -> bool {
    let is = |text: &str, name: &str| text.eq_ignore_ascii_case(name);
    group.is_empty() && (is(kind, "Secret") || is(kind, "Secrets") || is(plural, "secrets"))
}

fn refused(kind: &str, name: &str) -> Answer {
    Answer::unknown(
        GateReason::SecretRefused,
        format!(
            "{kind} {name}: no condition looks into a Secret; gate credentialsRotated compares its values"
        ),
    )
}

/// Returns what the expression is evaluated on. `object`: as it was read, if it exists.
///
/// # Errors
/// An Unknown: the object is missing, of another kind, a Secret, too large, being deleted, or its status is of an earlier generation.
pub fn input(target: &Target, object: Option<Value>) -> Result<Value, Answer> {
    let title = target.title();
    let unknown = |reason, message: String| Err(Answer::unknown(reason, format!("{title} {message}")));
    let Some(mut object) = object else {
        return unknown(GateReason::ObjectMissing, "does not exist".to_owned());
    };
    let (api_version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
    if api_version == Some("v1") && kind.is_some_and(|kind| kind.eq_ignore_ascii_case("Secret")) {
        return Err(refused(&target.resource.kind, &target.name));
    }
    if (api_version, kind) != (Some(&target.resource.api_version), Some(&target.resource.kind)) {
        let (api_version, kind) = (api_version.unwrap_or("none"), kind.unwrap_or("none"));
        return unknown(GateReason::Unreadable, format!("is of kind {kind} in {api_version}"));
    }
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return unknown(GateReason::Unreadable, "has no metadata".to_owned());
    };
    // Neither says what the object is, and together they are most of it.
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    if metadata.get("uid").and_then(Value::as_str).is_none_or(str::is_empty) {
        return unknown(GateReason::Unreadable, "has no UID".to_owned());
    }
    if metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null()) {
        return unknown(GateReason::InProgress, "is being deleted".to_owned());
    }
    let generation = metadata.get("generation").and_then(Value::as_i64);
    let observed = object["status"]["observedGeneration"].as_i64();
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return unknown(
            GateReason::InProgress,
            format!(
                "is at generation {generation}, and its status of generation {observed}: its controller has not acted yet"
            ),
        );
    }
    let size = object.to_string().len();
    if size > OBJECT_LIMIT {
        return unknown(
            GateReason::ObjectTooLarge,
            format!("has {size} bytes, and at most {OBJECT_LIMIT} are evaluated"),
        );
    }
    Ok(object)
}

/// Returns the gate's answer for the value of its expression. `object`: what [`input`] returned.
#[must_use]
pub fn judge(
    spec: &ConditionSpec,
    question: &Question,
    target: &Target,
    object: &Value,
    value: Result<bool, EvaluationError>,
) -> Answer {
    let title = target.title();
    let holds = match value {
        Ok(holds) => holds,
        Err(error) => return error.answer(&title),
    };
    let metadata = &object["metadata"];
    // The resource version is left out: a heartbeat in the status is no other answer.
    let evidence = evidence::digest(&json!({
        "gate": "condition",
        "phase": question.phase.as_str(),
        "apiVersion": target.resource.api_version,
        "kind": target.resource.kind,
        "namespace": target.namespace,
        "name": target.name,
        "uid": metadata["uid"],
        "generation": metadata["generation"],
        "cel": spec.cel,
        "value": holds,
    }));
    if holds {
        Answer::pass(GateReason::ConditionHolds, format!("{title}: the expression is true"), evidence)
    } else {
        let cel: String = spec.cel.chars().take(200).collect();
        let dots = if cel.len() < spec.cel.len() { "…" } else { "" };
        Answer::fail(
            GateReason::ConditionFalse,
            format!("{title}: the expression is false: {cel}{dots}"),
            evidence,
        )
    }
}

#[cfg(test)]
mod tests;
