//! What the controller does to a namespace: labels, workloads, pods. Each is safe to do again.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod, ReplicationController};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{
    INCIDENT_ANNOTATION, ISOLATION_LABEL, Isolation, Quarantine, REASON_ANNOTATION, field_manager,
};
use crate::calls::{IoError, call, call_opt};
use crate::isolation::workloads::{self, Kind, Workload};

/// Workloads or pods written at a time.
const PARALLEL: usize = 8;

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() }
}

/// Label and annotations that a namespace bears at a level; `None`: has to be absent.
fn marks(
    quarantine: &Quarantine,
    level: Isolation,
) -> (Option<&'static str>, BTreeMap<&'static str, Option<String>>) {
    let label = level.label();
    let incident = quarantine.spec.incident_ref.as_ref().map(|incident| incident.name.clone());
    // The fence's message is built of these, and must be one line.
    let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = Some(line(quarantine.spec.reason.clone()));
    let annotations = [(REASON_ANNOTATION, reason), (INCIDENT_ANNOTATION, incident)];
    (label, annotations.map(|(key, value)| (key, value.filter(|_| label.is_some()))).into())
}

/// Does the namespace bear what it has to at this level?
pub(super) fn is_labelled(namespace: &Namespace, quarantine: &Quarantine, level: Isolation) -> bool {
    let (label, annotations) = marks(quarantine, level);
    namespace.labels().get(ISOLATION_LABEL).map(String::as_str) == label
        && annotations.iter().all(|(key, value)| namespace.annotations().get(*key) == value.as_ref())
}

/// Writes label and annotations, if the namespace is still as it was read.
pub(super) async fn label(
    client: &Client,
    namespace: &Namespace,
    quarantine: &Quarantine,
    level: Isolation,
) -> Result<Namespace, IoError> {
    let (label, annotations) = marks(quarantine, level);
    let patch = json!({"metadata": {
        "resourceVersion": namespace.metadata.resource_version,
        "uid": namespace.metadata.uid,
        "labels": {ISOLATION_LABEL: label},
        "annotations": annotations,
    }});
    let name = namespace.name_any();
    let api: Api<Namespace> = Api::all(client.clone());
    call(format!("label namespace {name}"), api.patch(&name, &manager(), &Patch::Merge(patch))).await
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
