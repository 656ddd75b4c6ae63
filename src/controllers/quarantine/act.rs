//! What the controller does to workloads and pods. Each is safe to do again.

use std::fmt::Debug;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt};
use crate::isolation::workloads::{self, Kind, Workload};

/// Workloads or pods written at a time.
const PARALLEL: usize = 8;
/// Selects pods that use the network of their node: no NetworkPolicy touches those.
pub(super) const NODE_NETWORK: &str = "spec.hostNetwork=true";

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() }
}

/// Stops every workload that is not stopped and recorded under this seal. Tells how many were written.
pub(super) async fn stop(client: &Client, found: &[Workload], seal: &str) -> Result<usize, IoError> {
    let writes: Vec<_> = found.iter().filter_map(|w| w.stop(seal).map(|patch| (w, patch))).collect();
    let count = writes.len();
    stream::iter(writes)
        .map(|(workload, patch)| write(client, workload, patch))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    Ok(count)
}

async fn write(client: &Client, workload: &Workload, patch: Value) -> Result<(), IoError> {
    match workload.kind {
        Kind::Deployment => write_as::<Deployment>(client, workload, patch).await,
        Kind::StatefulSet => write_as::<StatefulSet>(client, workload, patch).await,
        Kind::ReplicaSet => write_as::<ReplicaSet>(client, workload, patch).await,
        Kind::ReplicationController => write_as::<ReplicationController>(client, workload, patch).await,
        Kind::DaemonSet => write_as::<DaemonSet>(client, workload, patch).await,
        Kind::CronJob => write_as::<CronJob>(client, workload, patch).await,
        Kind::Job => write_as::<Job>(client, workload, patch).await,
    }
}

async fn write_as<K>(client: &Client, workload: &Workload, patch: Value) -> Result<(), IoError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let namespace = workload.meta.namespace.as_deref().unwrap_or_default();
    let name = workload.meta.name.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    call_opt(format!("stop {workload}"), api.patch_metadata(name, &manager(), &Patch::Merge(patch))).await?;
    Ok(())
}

/// The pods in which something may run.
pub(super) async fn live_pods(client: &Client, namespace: &str) -> Result<Vec<Pod>, IoError> {
    let mut pods = workloads::list_kind::<Pod>(client, namespace).await?;
    pods.retain(workloads::is_live);
    Ok(pods)
}

/// Names of the pods that may run on the network of their nodes.
pub(super) async fn on_node_network(client: &Client, namespace: &str) -> Result<Vec<String>, IoError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selected = format!("{NODE_NETWORK},status.phase!=Succeeded,status.phase!=Failed");
    let what = format!("list pods on their nodes' network in namespace {namespace}");
    let found = call(what, api.list_metadata(&ListParams::default().fields(&selected))).await?;
    Ok(found.items.iter().map(ResourceExt::name_any).collect())
}

/// Deletes pods that no workload accounts for. Gives their names.
pub(super) async fn delete_bare(
    client: &Client,
    namespace: &str,
    pods: &[Pod],
) -> Result<Vec<String>, IoError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut gone = Vec::new();
    for pod in pods {
        let going = pod.metadata.deletion_timestamp.is_some();
        if going || workloads::is_static(pod) || !workloads::is_bare(pod) {
            continue;
        }
        let name = pod.name_any();
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        let params = DeleteParams::default().preconditions(same);
        call_opt(format!("delete bare Pod {namespace}/{name}"), api.delete(&name, &params)).await?;
        gone.push(name);
    }
    Ok(gone)
}
