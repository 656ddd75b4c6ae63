//! What is read of pods beside the controls.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::calls::{IoError, call};

/// Selects pods that use the network of their node: no NetworkPolicy touches those.
pub(super) const NODE_NETWORK: &str = "spec.hostNetwork=true";

/// Names of the pods that may run on the network of their nodes.
pub(super) async fn on_node_network(client: &Client, namespace: &str) -> Result<Vec<String>, IoError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selected = format!("{NODE_NETWORK},status.phase!=Succeeded,status.phase!=Failed");
    let what = format!("list pods on their nodes' network in namespace {namespace}");
    let found = call(what, api.list_metadata(&ListParams::default().fields(&selected))).await?;
    Ok(found.items.iter().map(ResourceExt::name_any).collect())
}
