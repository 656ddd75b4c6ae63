//! Control `Workloads`: scales workloads to zero and back. The patch that stops a workload also records its state on it, with the UID of
//! the Quarantine (the seal). After a crash nothing is recorded again, and the record of another seal is ignored.

use std::collections::BTreeMap;
use std::fmt;

use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::rollouts::RolloutRecord;
use crate::api::{
    RECORDED_ANNOTATION, RELEASED_ANNOTATION, ROLLOUT_ANNOTATION, SEAL_ANNOTATION, WHEN_SCALED_ANNOTATION,
};

mod inventory;

pub use inventory::{Inventory, Lists, has_not_ended};

/// Node label that no node has. A DaemonSet that selects it runs nowhere.
pub const NOWHERE: &str = "resurgam.dev/nowhere";

/// Maximum size of annotations in bytes, and the part that a record may need.
const ANNOTATIONS_LIMIT: usize = 256 << 10;
const RECORD_ROOM: usize = 2 << 10;

/// The kinds that start pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `apps/v1`
    Deployment,
    /// `apps/v1`
    StatefulSet,
    /// `apps/v1`, if no Deployment owns it.
    ReplicaSet,
    /// `v1`
    ReplicationController,
    /// `apps/v1`
    DaemonSet,
    /// `batch/v1`
    CronJob,
    /// `batch/v1`
    Job,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Field of a workload's spec that determines how much of it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Number of replicas.
    Replicas(i32),
    /// Node selector.
    Nodes(BTreeMap<String, String>),
    /// Suspended or not.
    Suspend(bool),
}

/// A workload, with the fields that stopping and starting it need.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its kind.
    pub kind: Kind,
    /// Its metadata.
    pub meta: ObjectMeta,
    /// How much of it its spec asks for.
    pub shape: Shape,
    /// Whether it is a StatefulSet that deletes the volume claims of pods that are scaled down.
    pub drops_claims: bool,
    /// Its rollout, if the serving revision cannot be restored.
    pub rollout: Option<RolloutRecord>,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.meta.namespace.as_deref().unwrap_or_default();
        write!(f, "{} {namespace}/{}", self.kind, self.meta.name.as_deref().unwrap_or_default())
    }
}

/// Returns what this seal recorded in an annotation.
fn recorded<'a>(meta: &'a ObjectMeta, seal: &str, annotation: &str) -> Option<&'a str> {
    let annotations = meta.annotations.as_ref()?;
    if annotations.get(SEAL_ANNOTATION).map(String::as_str) != Some(seal) {
        return None;
    }
    annotations.get(annotation).map(String::as_str)
}

/// Returns the record of this seal on a workload.
fn record<'a>(meta: &'a ObjectMeta, seal: &str) -> Option<&'a str> {
    recorded(meta, seal, RECORDED_ANNOTATION)
}

/// Returns the replicas that this seal recorded. `None`: no record of this seal, or a malformed one.
#[must_use]
pub fn recorded_replicas(meta: &ObjectMeta, seal: &str) -> Option<i32> {
    record(meta, seal)?.parse().ok().filter(|n| *n >= 0)
}

/// Returns the node selector that this seal recorded. `None`: no record of this seal, or a malformed one.
#[must_use]
pub fn recorded_nodes(meta: &ObjectMeta, seal: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(record(meta, seal)?).ok()
}

/// Returns the rollout that was not complete when this seal stopped the workload.
#[must_use]
pub fn recorded_rollout(meta: &ObjectMeta, seal: &str) -> Option<RolloutRecord> {
    let text = recorded(meta, seal, ROLLOUT_ANNOTATION)?;
    // One that is malformed names no revision, so that nothing mends it.
    let malformed = |_| RolloutRecord {
        serving: Vec::new(),
        message: "the record of its rollout is malformed".to_owned(),
    };
    Some(serde_json::from_str(text).unwrap_or_else(malformed))
}

/// Returns whether the workload was suspended when this seal stopped it. `None`: no record of this seal, or a malformed one.
#[must_use]
pub fn recorded_suspend(meta: &ObjectMeta, seal: &str) -> Option<bool> {
    record(meta, seal)?.parse().ok()
}

impl Workload {
    /// Returns whether its spec starts nothing.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        match &self.shape {
            Shape::Replicas(n) => *n == 0,
            Shape::Nodes(nodes) => nodes.contains_key(NOWHERE),
            Shape::Suspend(suspended) => *suspended,
        }
    }

    /// Returns the merge patch that stops the workload and records its state. `None`: it is stopped and recorded. A record of this seal
    /// is never overwritten, unless the workload was released and runs again: its state may have changed since. A released workload that
    /// nobody has started keeps its record, whatever its seal.
    #[must_use]
    pub fn stop(&self, seal: &str) -> Option<Value> {
        let annotation = |key| self.meta.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str);
        let released = annotation(RELEASED_ANNOTATION).is_some();
        let recorded = annotation(SEAL_ANNOTATION) == Some(seal) && (!released || self.is_stopped());
        if (recorded || self.is_full()) && self.is_stopped() && !self.drops_claims && !released {
            return None;
        }
        let mut patch = self.halt();
        let mut annotations = serde_json::Map::new();
        if !recorded {
            let keeps = released && self.is_stopped() && annotation(RECORDED_ANNOTATION).is_some();
            if !keeps {
                annotations.insert(RECORDED_ANNOTATION.to_owned(), json!(self.was()));
                if annotation(WHEN_SCALED_ANNOTATION).is_some() {
                    annotations.insert(WHEN_SCALED_ANNOTATION.to_owned(), Value::Null);
                }
                if self.rollout.is_some() || annotation(ROLLOUT_ANNOTATION).is_some() {
                    let record = self.rollout.as_ref().map(|rollout| json!(rollout).to_string());
                    annotations.insert(ROLLOUT_ANNOTATION.to_owned(), json!(record));
                }
            }
            annotations.insert(SEAL_ANNOTATION.to_owned(), json!(seal));
        }
        if released {
            annotations.insert(RELEASED_ANNOTATION.to_owned(), Value::Null);
        }
        if self.drops_claims {
            annotations.insert(WHEN_SCALED_ANNOTATION.to_owned(), json!("Delete"));
        }
        if !annotations.is_empty() {
            patch["metadata"]["annotations"] = Value::Object(annotations);
        }
        Some(patch)
    }

    /// Returns the state to record.
    #[must_use]
    pub fn was(&self) -> String {
        match &self.shape {
            Shape::Replicas(n) => n.to_string(),
            Shape::Nodes(nodes) => {
                // A workload that another seal has stopped carries our own selector, which is not its original state.
                let was: BTreeMap<_, _> = nodes.iter().filter(|(key, _)| *key != NOWHERE).collect();
                json!(was).to_string()
            }
            Shape::Suspend(suspended) => suspended.to_string(),
        }
    }

    /// Returns the merge patch that stops the workload without a record.
    #[must_use]
    pub fn halt(&self) -> Value {
        let mut spec = match &self.shape {
            Shape::Replicas(_) => json!({"replicas": 0}),
            Shape::Nodes(_) => json!({"template": {"spec": {"nodeSelector": {NOWHERE: "true"}}}}),
            Shape::Suspend(_) => json!({"suspend": true}),
        };
        if self.drops_claims {
            spec["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Retain"});
        }
        json!({"metadata": {"resourceVersion": self.meta.resource_version}, "spec": spec})
    }

    /// Returns whether the workload has no space for the record.
    fn is_full(&self) -> bool {
        let sizes = self.meta.annotations.iter().flatten().map(|(key, value)| key.len() + value.len());
        sizes.sum::<usize>() + RECORD_ROOM > ANNOTATIONS_LIMIT
    }

    /// Returns the merge patch that starts the workload, at `replicas` or at the number that this seal recorded. `Ok(None)`: it runs
    /// already, or is a Job or CronJob, which stay suspended.
    ///
    /// # Errors
    /// No number is given, and this seal recorded none.
    pub fn start(&self, seal: Option<&str>, replicas: Option<i32>) -> Result<Option<Value>, NotRecorded> {
        let not_recorded = |why| NotRecorded { workload: self.to_string(), why };
        match &self.shape {
            Shape::Replicas(now) => {
                let wanted = match replicas {
                    Some(number) => number,
                    None => match seal.and_then(|seal| recorded_replicas(&self.meta, seal)) {
                        None => {
                            return Err(not_recorded(
                                "no number of replicas was recorded when it was stopped",
                            ));
                        }
                        Some(number) => number,
                    },
                };
                let mut spec = serde_json::Map::new();
                if *now != wanted {
                    spec.insert("replicas".to_owned(), json!(wanted));
                }
                let dropped = seal.and_then(|seal| recorded(&self.meta, seal, WHEN_SCALED_ANNOTATION));
                if dropped == Some("Delete") && !self.drops_claims {
                    let policy = json!({"whenScaled": "Delete"});
                    spec.insert("persistentVolumeClaimRetentionPolicy".to_owned(), policy);
                }
                Ok((!spec.is_empty()).then(|| json!({"spec": spec})))
            }
            Shape::Nodes(now) => {
                if !now.contains_key(NOWHERE) {
                    return Ok(None);
                }
                let recorded = seal.and_then(|seal| recorded_nodes(&self.meta, seal));
                let Some(wanted) = recorded else {
                    return Err(not_recorded("no node selector was recorded when it was stopped"));
                };
                let mut selector: BTreeMap<&str, Value> =
                    now.keys().map(|key| (key.as_str(), Value::Null)).collect();
                selector.extend(wanted.iter().map(|(key, value)| (key.as_str(), json!(value))));
                Ok(Some(json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}})))
            }
            Shape::Suspend(_) => Ok(None),
        }
    }
}

/// A workload's state before was not recorded, so that it is not known how to start it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{workload}: {why}; say in the plan how many replicas it is to have")]
pub struct NotRecorded {
    /// Kind and name of the workload.
    pub workload: String,
    /// What is missing.
    pub why: &'static str,
}

#[cfg(test)]
#[path = "workloads_tests.rs"]
mod tests;
