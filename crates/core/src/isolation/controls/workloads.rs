//! Control `Workloads`: scales workloads to zero and back. The patch that stops a workload also records its state on it, with the UID of
//! the Quarantine (the seal). After a crash nothing is recorded again, and the record of another seal is ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::rollouts::RolloutRecord;
use super::{pods, rollouts};
use crate::api::quarantine::Contents;
use crate::api::{
    RECORDED_ANNOTATION, RELEASED_ANNOTATION, ROLLOUT_ANNOTATION, SEAL_ANNOTATION, WHEN_SCALED_ANNOTATION,
};

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

/// Workloads of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Everything that starts pods on its own, except finished Jobs.
    pub workloads: Vec<Workload>,
    /// ReplicaSets owned by those Deployments. Each follows its Deployment, unless the Deployment does not adopt it.
    pub rollouts: Vec<Workload>,
    /// UIDs of all workloads, including finished ones: they identify the owners of pods.
    pub uids: BTreeSet<String>,
}

/// Listed objects of each kind that starts pods.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// `apps/v1`
    pub deployments: Vec<Deployment>,
    /// `apps/v1`
    pub statefulsets: Vec<StatefulSet>,
    /// `apps/v1`
    pub replicasets: Vec<ReplicaSet>,
    /// `v1`
    pub controllers: Vec<ReplicationController>,
    /// `apps/v1`
    pub daemonsets: Vec<DaemonSet>,
    /// `batch/v1`
    pub cronjobs: Vec<CronJob>,
    /// `batch/v1`
    pub jobs: Vec<Job>,
}

impl From<Lists> for Inventory {
    fn from(lists: Lists) -> Self {
        let Lists { deployments, statefulsets, replicasets, controllers, daemonsets, cronjobs, jobs } = lists;
        let owners: BTreeSet<String> = deployments.iter().filter_map(ResourceExt::uid).collect();
        let (rollouts, alone): (Vec<_>, Vec<_>) =
            replicasets.into_iter().partition(|set| is_rollout(set, &owners));
        let (jobs, ended): (Vec<_>, Vec<_>) = jobs.into_iter().partition(has_not_ended);
        let deployments: Vec<Workload> = deployments
            .into_iter()
            .map(|object| {
                let rollout = rollouts::of_deployment(&object, &rollouts);
                Workload { rollout, ..Workload::from(object) }
            })
            .collect();
        let rollouts: Vec<Workload> = rollouts.into_iter().map(Workload::from).collect();
        let workloads: Vec<Workload> = deployments
            .into_iter()
            .chain(statefulsets.into_iter().map(Workload::from))
            .chain(alone.into_iter().map(Workload::from))
            .chain(controllers.into_iter().map(Workload::from))
            .chain(daemonsets.into_iter().map(Workload::from))
            .chain(cronjobs.into_iter().map(Workload::from))
            .chain(jobs.into_iter().map(Workload::from))
            .collect();
        let known = workloads.iter().chain(&rollouts).filter_map(|workload| workload.meta.uid.clone());
        let uids = known.chain(ended.iter().filter_map(ResourceExt::uid)).collect();
        Self { workloads, rollouts, uids }
    }
}

impl Inventory {
    /// Returns what the namespace contains. CronJobs and Jobs do not count: they come and go by themselves.
    #[must_use]
    pub fn contents(&self, pods: &[Pod]) -> Contents {
        let runs = |workload: &&Workload| !matches!(workload.kind, Kind::CronJob | Kind::Job);
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        Contents {
            workloads: count(self.workloads.iter().filter(runs).count()),
            unmanaged_pods: count(pods.iter().filter(|pod| self.is_lost(pod)).count()),
        }
    }

    /// Returns whether nothing brings a live pod back once it is deleted.
    #[must_use]
    pub fn is_lost(&self, pod: &Pod) -> bool {
        pods::is_live(pod) && !pods::is_static(pod) && pods::is_unmanaged(pod, &self.uids)
    }

    /// Returns the merge patches that stop everything that is not stopped and recorded under this seal.
    #[must_use]
    pub fn stops(&self, seal: &str) -> Vec<(&Workload, Value)> {
        let mut writes: Vec<_> =
            self.workloads.iter().filter_map(|w| w.stop(seal).map(|patch| (w, patch))).collect();
        // Their Deployments are at zero while they are not: the Deployments have not adopted them.
        let stopped: BTreeSet<&str> = self
            .workloads
            .iter()
            .filter(|workload| workload.is_stopped())
            .filter_map(|workload| workload.meta.uid.as_deref())
            .collect();
        let is_unknown = |set: &&Workload| {
            let owners = set.meta.owner_references.iter().flatten();
            !set.is_stopped() && owners.into_iter().any(|owner| stopped.contains(owner.uid.as_str()))
        };
        writes.extend(self.rollouts.iter().filter(is_unknown).map(|set| (set, set.halt())));
        writes
    }
}

/// Returns whether one of these Deployments owns the ReplicaSet. The owner is identified by UID: any client may choose the kind.
fn is_rollout(set: &ReplicaSet, deployments: &BTreeSet<String>) -> bool {
    let is_of = |owner: &OwnerReference| owner.controller == Some(true) && deployments.contains(&owner.uid);
    set.owner_references().iter().any(is_of)
}

/// Returns whether the Job may still start pods.
#[must_use]
pub fn has_not_ended(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    !conditions.iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
}

// The API server defaults `replicas` to 1.
fn replicas(kind: Kind, meta: ObjectMeta, replicas: Option<i32>) -> Workload {
    Workload { kind, meta, shape: Shape::Replicas(replicas.unwrap_or(1)), drops_claims: false, rollout: None }
}

impl From<Deployment> for Workload {
    fn from(object: Deployment) -> Self {
        replicas(Kind::Deployment, object.metadata, object.spec.and_then(|s| s.replicas))
    }
}

impl From<StatefulSet> for Workload {
    fn from(object: StatefulSet) -> Self {
        let policy = object.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
        let drops_claims = policy.is_some_and(|p| p.when_scaled.as_deref() == Some("Delete"));
        let rollout = rollouts::of_stateful_set(&object);
        let plain = replicas(Kind::StatefulSet, object.metadata, object.spec.and_then(|s| s.replicas));
        Self { drops_claims, rollout, ..plain }
    }
}

impl From<ReplicaSet> for Workload {
    fn from(object: ReplicaSet) -> Self {
        replicas(Kind::ReplicaSet, object.metadata, object.spec.and_then(|s| s.replicas))
    }
}

impl From<ReplicationController> for Workload {
    fn from(object: ReplicationController) -> Self {
        replicas(Kind::ReplicationController, object.metadata, object.spec.and_then(|s| s.replicas))
    }
}

impl From<DaemonSet> for Workload {
    fn from(object: DaemonSet) -> Self {
        let nodes =
            object.spec.and_then(|s| s.template.spec).and_then(|s| s.node_selector).unwrap_or_default();
        Self {
            kind: Kind::DaemonSet,
            meta: object.metadata,
            shape: Shape::Nodes(nodes),
            drops_claims: false,
            rollout: None,
        }
    }
}

impl From<CronJob> for Workload {
    fn from(object: CronJob) -> Self {
        let suspended = object.spec.and_then(|s| s.suspend).unwrap_or(false);
        Self {
            kind: Kind::CronJob,
            meta: object.metadata,
            shape: Shape::Suspend(suspended),
            drops_claims: false,
            rollout: None,
        }
    }
}

impl From<Job> for Workload {
    fn from(object: Job) -> Self {
        let suspended = object.spec.and_then(|s| s.suspend).unwrap_or(false);
        Self {
            kind: Kind::Job,
            meta: object.metadata,
            shape: Shape::Suspend(suspended),
            drops_claims: false,
            rollout: None,
        }
    }
}

#[cfg(test)]
#[path = "workloads_tests.rs"]
mod tests;
