//! Pods of a sealed namespace: which of them live, and what ends them. The object is never taken away before the processes are, so that
//! what is said to be gone is gone.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

/// Seconds that a process has to end. Never 0: then the object would vanish before the process.
pub const GRACE_SECONDS: u32 = 1;
/// On a static pod's shadow.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Finalizers of controllers of the cluster's own, which the fence lets take them off.
const OF_THE_CLUSTER: &str = "batch.kubernetes.io/";

/// Is this a static pod's shadow? The kubelet of its node runs it, whatever the API server says. The annotation alone says
/// nothing: anybody may write it, and no kubelet runs such a pod.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    let of_node = |owner: &OwnerReference| {
        owner.api_version == "v1" && owner.kind == "Node" && owner.controller == Some(true)
    };
    pod.annotations().contains_key(MIRROR_ANNOTATION) && pod.owner_references().iter().any(of_node)
}

/// May anything of it still run? Its end is what its kubelet says of its containers, not that somebody deleted it.
#[must_use]
pub fn is_live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let gone = pod.metadata.deletion_timestamp.is_some() && has_ended(pod);
    !matches!(phase, Some("Succeeded" | "Failed")) && !gone
}

/// Has every container ended, or was none ever started?
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

/// A pod that no workload of the cluster's own kinds brings back: bare, or owned by something else. `workloads`: the UIDs of all
/// that there are, by which an owner is known; its kind's name says nothing.
#[must_use]
pub fn is_unmanaged(pod: &Pod, workloads: &BTreeSet<String>) -> bool {
    !pod.owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && workloads.contains(&owner.uid))
}

/// What is to be done to a pod so that it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    /// It lives, and is not being deleted within [`GRACE_SECONDS`].
    Delete,
    /// Its processes have ended, and these finalizers alone keep the object.
    Finalize(Vec<String>),
}

/// Returns what ends a pod. `None`: nothing has to be done, or its kubelet alone can.
#[must_use]
pub fn todo(pod: &Pod) -> Option<Todo> {
    if is_static(pod) {
        return None;
    }
    let meta = &pod.metadata;
    let soon = meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.is_some_and(|seconds| seconds <= i64::from(GRACE_SECONDS));
    if is_live(pod) && !soon {
        return Some(Todo::Delete);
    }
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    let kept: Vec<_> = finalizers.iter().filter(|f| f.starts_with(OF_THE_CLUSTER)).cloned().collect();
    let is_stuck = meta.deletion_timestamp.is_some() && has_ended(pod) && kept.len() < finalizers.len();
    is_stuck.then_some(Todo::Finalize(kept))
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
