//! Workloads to zero, and back. What a workload was like is recorded on itself, by the very patch that stops it, together with
//! the UID of the Quarantine (the seal): a crash re-records nothing, and the record of another seal is ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use crate::api::{RECORDED_ANNOTATION, SEAL_ANNOTATION, WHEN_SCALED_ANNOTATION};

/// Node label that no node has: a DaemonSet that asks for it runs nowhere.
pub const NOWHERE: &str = "resurgam.dev/nowhere";

/// Bytes of annotations that the API server takes, and what a record may need of them.
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

/// How a workload's spec says how much of it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// So many replicas.
    Replicas(i32),
    /// On nodes with these labels.
    Nodes(BTreeMap<String, String>),
    /// Suspended or not.
    Suspend(bool),
}

/// A workload, as far as stopping and starting it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its kind.
    pub kind: Kind,
    /// Its metadata.
    pub meta: ObjectMeta,
    /// What its spec says now.
    pub shape: Shape,
    /// A StatefulSet that deletes the volume claims of what is scaled down: to zero, that is all of them.
    pub drops_claims: bool,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.meta.namespace.as_deref().unwrap_or_default();
        write!(f, "{} {namespace}/{}", self.kind, self.meta.name.as_deref().unwrap_or_default())
    }
}

/// What is recorded on a workload, if it is by this seal.
fn recorded<'a>(meta: &'a ObjectMeta, seal: &str, annotation: &str) -> Option<&'a str> {
    let annotations = meta.annotations.as_ref()?;
    if annotations.get(SEAL_ANNOTATION).map(String::as_str) != Some(seal) {
        return None;
    }
    annotations.get(annotation).map(String::as_str)
}

/// The record on a workload, if it is this seal's.
fn record<'a>(meta: &'a ObjectMeta, seal: &str) -> Option<&'a str> {
    recorded(meta, seal, RECORDED_ANNOTATION)
}

/// How many replicas it had when this seal stopped it. `None`: not recorded by this seal, or unreadable.
#[must_use]
pub fn recorded_replicas(meta: &ObjectMeta, seal: &str) -> Option<i32> {
    record(meta, seal)?.parse().ok().filter(|n| *n >= 0)
}

/// The node selector it had when this seal stopped it. `None`: not recorded by this seal, or unreadable.
#[must_use]
pub fn recorded_nodes(meta: &ObjectMeta, seal: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(record(meta, seal)?).ok()
}

/// Whether it was suspended when this seal stopped it. `None`: not recorded by this seal, or unreadable.
#[must_use]
pub fn recorded_suspend(meta: &ObjectMeta, seal: &str) -> Option<bool> {
    record(meta, seal)?.parse().ok()
}

impl Workload {
    /// Does its spec start nothing?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        match &self.shape {
            Shape::Replicas(n) => *n == 0,
            Shape::Nodes(nodes) => nodes.contains_key(NOWHERE),
            Shape::Suspend(suspended) => *suspended,
        }
    }

    /// The merge patch that stops it and records, in one, what it was like. `None`: it is stopped and recorded.
    /// A record of this seal is never written again.
    #[must_use]
    pub fn stop(&self, seal: &str) -> Option<Value> {
        let recorded =
            self.meta.annotations.as_ref().and_then(|a| a.get(SEAL_ANNOTATION)).map(String::as_str)
                == Some(seal);
        if (recorded || self.is_full()) && self.is_stopped() && !self.drops_claims {
            return None;
        }
        let mut patch = self.halt();
        let mut annotations = serde_json::Map::new();
        if !recorded {
            annotations.insert(RECORDED_ANNOTATION.to_owned(), json!(self.was()));
            annotations.insert(SEAL_ANNOTATION.to_owned(), json!(seal));
            if self.meta.annotations.as_ref().is_some_and(|a| a.contains_key(WHEN_SCALED_ANNOTATION)) {
                annotations.insert(WHEN_SCALED_ANNOTATION.to_owned(), Value::Null);
            }
        }
        if self.drops_claims {
            annotations.insert(WHEN_SCALED_ANNOTATION.to_owned(), json!("Delete"));
        }
        if !annotations.is_empty() {
            patch["metadata"]["annotations"] = Value::Object(annotations);
        }
        Some(patch)
    }

    /// Returns how much of it runs, as it is recorded.
    #[must_use]
    pub fn was(&self) -> String {
        match &self.shape {
            Shape::Replicas(n) => n.to_string(),
            Shape::Nodes(nodes) => {
                // One that we stopped under another seal is not as it was: our own mark is not recorded.
                let was: BTreeMap<_, _> = nodes.iter().filter(|(key, _)| *key != NOWHERE).collect();
                json!(was).to_string()
            }
            Shape::Suspend(suspended) => suspended.to_string(),
        }
    }

    /// The merge patch that stops it, and records nothing.
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

    /// Is there no room for a record on it?
    fn is_full(&self) -> bool {
        let sizes = self.meta.annotations.iter().flatten().map(|(key, value)| key.len() + value.len());
        sizes.sum::<usize>() + RECORD_ROOM > ANNOTATIONS_LIMIT
    }

    /// The merge patch that starts it: `replicas` if given, else what this seal recorded. `Ok(None)`: it runs already, or
    /// is a Job or CronJob, which stay suspended.
    ///
    /// # Errors
    /// Nothing, or zero, is recorded by this seal, and no number is given.
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
                        Some(0) => return Err(not_recorded("it was at zero replicas when it was stopped")),
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

/// What a workload was like was not recorded, so nobody knows what starting it means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{workload}: {why}; say in the plan how many replicas it is to have")]
pub struct NotRecorded {
    /// Kind and name.
    pub workload: String,
    /// What is not known.
    pub why: &'static str,
}

/// What starts pods in a namespace.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Everything that starts pods by itself, but Jobs that have ended.
    pub workloads: Vec<Workload>,
    /// ReplicaSets of Deployments that are among those: they follow their Deployment, unless it does not know them.
    pub rollouts: Vec<Workload>,
    /// UIDs of all workloads, those that have ended included: by these a pod's owner is known.
    pub uids: BTreeSet<String>,
}

/// What was listed in a namespace of each kind that starts pods.
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
        let rollouts: Vec<Workload> = rollouts.into_iter().map(Workload::from).collect();
        let workloads: Vec<Workload> = deployments
            .into_iter()
            .map(Workload::from)
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
    /// Returns the merge patches that stop everything that is not stopped and recorded under this seal.
    #[must_use]
    pub fn stops(&self, seal: &str) -> Vec<(&Workload, Value)> {
        let mut writes: Vec<_> =
            self.workloads.iter().filter_map(|w| w.stop(seal).map(|patch| (w, patch))).collect();
        // Their Deployments are at zero, and they are not: those do not know them.
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

/// Is it owned by one of these Deployments? Its owner is known by its UID: anybody may write the name of a kind.
fn is_rollout(set: &ReplicaSet, deployments: &BTreeSet<String>) -> bool {
    let is_of = |owner: &OwnerReference| owner.controller == Some(true) && deployments.contains(&owner.uid);
    set.owner_references().iter().any(is_of)
}

/// May it still start anything?
#[must_use]
pub fn has_not_ended(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    !conditions.iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
}

// The API server fills in one replica where a spec says none.
fn replicas(kind: Kind, meta: ObjectMeta, replicas: Option<i32>) -> Workload {
    Workload { kind, meta, shape: Shape::Replicas(replicas.unwrap_or(1)), drops_claims: false }
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
        let plain = replicas(Kind::StatefulSet, object.metadata, object.spec.and_then(|s| s.replicas));
        Self { drops_claims, ..plain }
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
        Self { kind: Kind::DaemonSet, meta: object.metadata, shape: Shape::Nodes(nodes), drops_claims: false }
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
        }
    }
}

impl From<Job> for Workload {
    fn from(object: Job) -> Self {
        let suspended = object.spec.and_then(|s| s.suspend).unwrap_or(false);
        Self { kind: Kind::Job, meta: object.metadata, shape: Shape::Suspend(suspended), drops_claims: false }
    }
}

#[cfg(test)]
#[path = "workloads_tests.rs"]
mod tests;
