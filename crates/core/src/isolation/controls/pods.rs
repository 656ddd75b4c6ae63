//! Pods of a sealed namespace: which are alive, and how they are ended. A pod object is never removed before its processes have ended, so
//! that a pod that is reported as gone no longer runs.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

/// Grace period of a deletion in seconds. Never 0: the object would be removed before its processes end.
pub const GRACE_SECONDS: u32 = 1;
/// Annotation on the mirror pod of a static pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Prefix of finalizers of built-in controllers. The fence permits those controllers to remove them.
const OF_THE_CLUSTER: &str = "batch.kubernetes.io/";

/// Returns whether the pod is a mirror pod: its kubelet runs it whatever the API server says. The annotation alone does not count, as any
/// client may set it.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    let of_node = |owner: &OwnerReference| {
        owner.api_version == "v1" && owner.kind == "Node" && owner.controller == Some(true)
    };
    pod.annotations().contains_key(MIRROR_ANNOTATION) && pod.owner_references().iter().any(of_node)
}

/// Returns whether any container may still run. It relies on the status that the kubelet reports, not on the deletion timestamp.
#[must_use]
pub fn is_live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let gone = pod.metadata.deletion_timestamp.is_some() && has_ended(pod);
    !matches!(phase, Some("Succeeded" | "Failed")) && !gone
}

/// Returns whether every container has terminated or was never started.
fn has_ended(pod: &Pod) -> bool {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.is_some()) else { return true };
    let Some(status) = &pod.status else { return false };
    let ended =
        |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let not_running = |statuses: &Option<Vec<ContainerStatus>>| {
        statuses
            .iter()
            .flatten()
            .all(|status| status.state.as_ref().is_none_or(|state| state.running.is_none()))
    };
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    containers.len() == spec.containers.len()
        && containers.iter().all(ended)
        && not_running(&status.init_container_statuses)
        && not_running(&status.ephemeral_container_statuses)
}

/// Returns whether no built-in workload recreates the pod: it is bare, or its owner is of another kind. `workloads`: UIDs of all
/// workloads. The owner is identified by UID, as any client may choose the kind in an owner reference.
#[must_use]
pub fn is_unmanaged(pod: &Pod, workloads: &BTreeSet<String>) -> bool {
    !pod.owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && workloads.contains(&owner.uid))
}

/// Action that ends a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodAction {
    /// Delete it: it is alive, and not being deleted within [`GRACE_SECONDS`].
    Delete,
    /// Keep only these finalizers: its processes have ended, and finalizers of built-in controllers alone keep the object.
    Finalize(Vec<String>),
}

/// Returns the action that ends a pod. `None`: nothing to do, or only its kubelet can end it.
#[must_use]
pub fn next_action(pod: &Pod) -> Option<PodAction> {
    if is_static(pod) {
        return None;
    }
    let meta = &pod.metadata;
    let soon = meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.is_some_and(|seconds| seconds <= i64::from(GRACE_SECONDS));
    if is_live(pod) && !soon {
        return Some(PodAction::Delete);
    }
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    let kept: Vec<_> = finalizers.iter().filter(|f| f.starts_with(OF_THE_CLUSTER)).cloned().collect();
    let is_stuck = meta.deletion_timestamp.is_some() && has_ended(pod) && kept.len() < finalizers.len();
    is_stuck.then_some(PodAction::Finalize(kept))
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
