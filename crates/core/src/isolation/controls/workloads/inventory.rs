//! Everything in a namespace that starts pods, from listed objects.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde_json::Value;

use super::super::{pods, rollouts};
use super::{Kind, Shape, Workload};
use crate::api::quarantine::Contents;

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
pub(super) fn is_rollout(set: &ReplicaSet, deployments: &BTreeSet<String>) -> bool {
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
