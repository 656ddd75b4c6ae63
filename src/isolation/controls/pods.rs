//! Pods of a sealed namespace: every one that lives goes, whatever its owner says, and none comes back. The object is never taken
//! away before the processes are, so that what is said to be gone is gone.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt, each, list_all};

/// Selects pods that use the network of their node: no NetworkPolicy touches those.
pub const NODE_NETWORK: &str = "spec.hostNetwork=true";
/// Seconds that a process has to end. Never 0: then the object would vanish before the process.
const GRACE_SECONDS: u32 = 1;
/// Pods written at a time.
const PARALLEL: usize = 8;
/// Pods listed at a time.
const PAGE: u32 = 500;
/// Finalizers of controllers of the cluster's own, which the fence lets take them off.
const OF_THE_CLUSTER: &str = "batch.kubernetes.io/";

/// Reads the namespace's pods, page by page.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn list(client: &Client, namespace: &str) -> Result<Vec<Pod>, IoError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    list_all(&format!("list pods in namespace {namespace}"), &api, ListParams::default(), PAGE).await
}

/// Names of the pods that may run on the network of their nodes.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn on_node_network(client: &Client, namespace: &str) -> Result<Vec<String>, IoError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selected = format!("{NODE_NETWORK},status.phase!=Succeeded,status.phase!=Failed");
    let what = format!("list pods on their nodes' network in namespace {namespace}");
    let found = call(what, api.list_metadata(&ListParams::default().fields(&selected))).await?;
    Ok(found.items.iter().map(ResourceExt::name_any).collect())
}

/// Is this a static pod's shadow? The kubelet of its node runs it, whatever the API server says. The annotation alone says
/// nothing: anybody may write it, and no kubelet runs such a pod.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    let of_node = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
        owner.api_version == "v1" && owner.kind == "Node" && owner.controller == Some(true)
    };
    pod.annotations().contains_key("kubernetes.io/config.mirror")
        && pod.owner_references().iter().any(of_node)
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
enum Todo {
    Delete,
    /// Its processes have ended, and these finalizers alone keep the object.
    Finalize(Vec<String>),
}

fn todo(pod: &Pod) -> Option<Todo> {
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

/// Ends every pod, as far as it gets: deletes those that live, with a grace period of a second, and takes the finalizers off those
/// whose containers have ended. Returns how many were written.
///
/// # Errors
/// The first refusal or failure; the other pods were written all the same.
pub async fn end(client: &Client, namespace: &str, pods: &[Pod]) -> Result<usize, IoError> {
    let writes = pods.iter().filter_map(|pod| Some((pod, todo(pod)?)));
    let all = writes.map(|(pod, todo)| write(client, namespace, pod, todo));
    Ok(each(PARALLEL, all).await?.len())
}

async fn write(client: &Client, namespace: &str, pod: &Pod, todo: Todo) -> Result<(), IoError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = pod.name_any();
    match todo {
        Todo::Delete => {
            let same = Preconditions { uid: pod.uid(), resource_version: None };
            let params = DeleteParams::default().grace_period(GRACE_SECONDS).preconditions(same);
            call_opt(format!("delete Pod {namespace}/{name}"), api.delete(&name, &params)).await?;
        }
        Todo::Finalize(kept) => {
            let params = PatchParams {
                field_manager: Some(field_manager::ISOLATION.to_owned()),
                ..PatchParams::default()
            };
            let patch = json!({"metadata": {
                "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": kept,
            }});
            let what = format!("take finalizers off Pod {namespace}/{name}, which has ended");
            match call_opt(what, api.patch_metadata(&name, &params, &Patch::Merge(patch))).await {
                // Its status was written in between: its next change wakes us.
                Err(error) if error.is_conflict() => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
