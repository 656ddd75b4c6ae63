//! Ends the pods of a sealed namespace: deletes every live one, whatever its owner, so that none comes back.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt, each, list_all};

pub use resurgam_core::isolation::controls::pods::{
    GRACE_SECONDS, PodAction, is_live, is_static, is_unmanaged, next_action,
};

/// Field selector of pods on their node's network, which NetworkPolicies do not affect.
pub const NODE_NETWORK: &str = "spec.hostNetwork=true";
/// Pods written at a time.
const PARALLEL: usize = 8;
/// Pods listed at a time.
const PAGE: u32 = 500;

/// Reads the namespace's pods, page by page.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn list(client: &Client, namespace: &str) -> Result<Vec<Pod>, IoError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    list_all(&format!("list pods in namespace {namespace}"), &api, ListParams::default(), PAGE).await
}

/// Returns the names of live pods on their node's network.
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

/// Ends every pod as far as possible: deletes live ones with a grace period of a second, and removes finalizers from those whose
/// containers have ended. Returns how many were written.
///
/// # Errors
/// The first failure. The other pods were written.
pub async fn end(client: &Client, namespace: &str, pods: &[Pod]) -> Result<usize, IoError> {
    let writes = pods.iter().filter_map(|pod| Some((pod, next_action(pod)?)));
    let all: Vec<_> = writes.map(|(pod, action)| write(client, namespace, pod, action)).collect();
    Ok(each(PARALLEL, all).await?.len())
}

async fn write(client: &Client, namespace: &str, pod: &Pod, action: PodAction) -> Result<(), IoError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = pod.name_any();
    match action {
        PodAction::Delete => {
            let same = Preconditions { uid: pod.uid(), resource_version: None };
            let params = DeleteParams::default().grace_period(GRACE_SECONDS).preconditions(same);
            call_opt(format!("delete Pod {namespace}/{name}"), api.delete(&name, &params)).await?;
        }
        PodAction::Finalize(kept) => {
            let params = PatchParams {
                field_manager: Some(field_manager::ISOLATION.to_owned()),
                ..PatchParams::default()
            };
            let patch = json!({"metadata": {
                "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": kept,
            }});
            let what = format!("take finalizers off Pod {namespace}/{name}, which has ended");
            match call_opt(what, api.patch_metadata(&name, &params, &Patch::Merge(patch))).await {
                // The pod's status changed in between; that change wakes a pass.
                Err(error) if error.is_conflict() => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}
