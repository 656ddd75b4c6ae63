//! Scales workloads to zero: lists what starts pods, and writes what the core decides.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::Right;
use crate::api::field_manager;
use crate::calls::{IoError, call_opt, each, list_all};
use crate::isolation::failure::has_no_room;
use crate::isolation::records::{Kind as RecordKind, Record, RecordError};

pub use resurgam_core::isolation::controls::workloads::{
    Inventory, Kind, Lists, NOWHERE, NotRecorded, Shape, Workload, recorded_nodes, recorded_replicas,
    recorded_suspend,
};

/// Objects listed at a time.
const PAGE: u32 = 500;

/// Lists one kind in a namespace.
///
/// # Errors
/// [`IoError`], naming the kind and namespace.
pub async fn list_kind<K>(client: &Client, namespace: &str) -> Result<Vec<K>, IoError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let what = format!("list {} in namespace {namespace}", K::plural(&()));
    list_all(&what, &api, ListParams::default(), PAGE).await
}

/// Returns the rights that [`inventory`] requires.
#[must_use]
pub fn inventory_rights(namespace: &str) -> Vec<Right> {
    vec![
        Right::list::<Deployment>(namespace),
        Right::list::<StatefulSet>(namespace),
        Right::list::<ReplicaSet>(namespace),
        Right::list::<ReplicationController>(namespace),
        Right::list::<DaemonSet>(namespace),
        Right::list::<CronJob>(namespace),
        Right::list::<Job>(namespace),
    ]
}

/// Lists everything in a namespace that starts pods.
///
/// # Errors
/// [`IoError`] of the first kind that could not be listed.
pub async fn inventory(client: &Client, namespace: &str) -> Result<Inventory, IoError> {
    let (deployments, statefulsets, replicasets, controllers, daemonsets, cronjobs, jobs) = futures::try_join!(
        list_kind::<Deployment>(client, namespace),
        list_kind::<StatefulSet>(client, namespace),
        list_kind::<ReplicaSet>(client, namespace),
        list_kind::<ReplicationController>(client, namespace),
        list_kind::<DaemonSet>(client, namespace),
        list_kind::<CronJob>(client, namespace),
        list_kind::<Job>(client, namespace),
    )?;
    let lists = Lists { deployments, statefulsets, replicasets, controllers, daemonsets, cronjobs, jobs };
    Ok(lists.into())
}

/// Lists the top-level workloads of a namespace.
///
/// # Errors
/// [`IoError`] of the first kind that could not be listed.
pub async fn list(client: &Client, namespace: &str) -> Result<Vec<Workload>, IoError> {
    Ok(inventory(client, namespace).await?.workloads)
}

/// Workloads written at a time.
const PARALLEL: usize = 8;

/// Stops everything not yet stopped and recorded under this seal, as far as possible, and updates `found`. Returns how many were written.
///
/// # Errors
/// The first failure. The other workloads were written, but `found` is not updated.
pub async fn stop(client: &Client, found: &mut Inventory, seal: &str) -> Result<usize, IoError> {
    let all: Vec<_> = found
        .stops(seal)
        .into_iter()
        .map(|(workload, patch)| stop_one(client, workload, patch, seal))
        .collect();
    let written = each(PARALLEL, all).await?;
    let count = written.len();
    let mut now: HashMap<Option<String>, Option<Workload>> = written.into_iter().collect();
    for all in [&mut found.workloads, &mut found.rollouts] {
        *all = std::mem::take(all)
            .into_iter()
            .filter_map(|workload| now.remove(&workload.meta.uid).unwrap_or(Some(workload)))
            .collect();
    }
    Ok(count)
}

/// Stops one workload. If it has no room for the record, the record is kept where no tenant writes. If that fails, the workload is
/// stopped anyway: its manifest is evidence, and the plan names the replicas. Returns its UID and its state after the write.
async fn stop_one(
    client: &Client,
    workload: &Workload,
    patch: Value,
    seal: &str,
) -> Result<(Option<String>, Option<Workload>), IoError> {
    let written = match write(client, workload, patch).await {
        Err(error) if error.status().is_some_and(has_no_room) => {
            if let Err(error) = record_apart(client, workload, seal).await {
                tracing::warn!(%workload, %error, "replicas not recorded; the workload is stopped anyway, its manifest is in the evidence");
            }
            write(client, workload, workload.halt()).await
        }
        outcome => outcome,
    };
    Ok((workload.meta.uid.clone(), written?))
}

/// Replicas of a workload, recorded outside of it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct RecordedApart {
    /// Kind, namespace and name.
    workload: String,
    /// Value of the annotation.
    was: String,
}

async fn record_apart(client: &Client, workload: &Workload, seal: &str) -> Result<(), RecordError> {
    let namespace = workload.meta.namespace.as_deref().unwrap_or_default();
    let key = workload.meta.uid.clone().unwrap_or_default();
    let entry = RecordedApart { workload: workload.to_string(), was: workload.was() };
    Record { client, kind: RecordKind::Workloads, namespace, seal }.add(&BTreeMap::from([(key, entry)])).await
}

/// Returns the workload after the write. `None`: it is gone.
async fn write(client: &Client, workload: &Workload, patch: Value) -> Result<Option<Workload>, IoError> {
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

async fn write_as<K>(client: &Client, workload: &Workload, patch: Value) -> Result<Option<Workload>, IoError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
    Workload: From<K>,
{
    let namespace = workload.meta.namespace.as_deref().unwrap_or_default();
    let name = workload.meta.name.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let manager =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let now = call_opt(format!("stop {workload}"), api.patch(name, &manager, &Patch::Merge(patch))).await?;
    Ok(now.map(Workload::from))
}
