//! Removes what isolating left on the objects of a released namespace, as the core decides. Nothing here changes a value of the estate,
//! and no failure here may keep a namespace isolated: the caller logs it and tries again.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::api::{Patch, PatchParams};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::workloads::{Inventory, Kind, Lists, Workload, list_kind};
use crate::api::field_manager;
use crate::calls::{IoError, call_opt, each};

pub use resurgam_core::isolation::controls::cleanup::{
    account, awaits_start, is_left, managers, rollout, rollouts, started, workload,
};

/// Workloads written at a time.
const PARALLEL: usize = 8;
/// Attempts to change an object that other writers change.
const ATTEMPTS: usize = 3;

/// Returns the parameters of a write that is no part of isolating or restoring. A manager of ours is not recorded where no value is set.
fn params() -> PatchParams {
    PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() }
}

/// Returns whether something is left on a workload. `inventory`: from the cluster cache, for instance.
#[must_use]
pub fn is_anything_left(inventory: &Inventory) -> bool {
    inventory.workloads.iter().any(is_left) || !rollouts(inventory).is_empty()
}

/// Removes records and field managers from the workloads that run, and marks the records of stopped ones as released. `known`: the
/// workloads, from the cluster cache; only those kinds on which something is left are read live.
///
/// # Errors
/// The first [`IoError`]. Everything else was done, and the next call continues.
pub async fn workloads(client: &Client, namespace: &str, known: &Inventory) -> Result<(), IoError> {
    let mut known = known.clone();
    let kinds: BTreeSet<Kind> = known.workloads.iter().filter(|w| is_left(w)).map(|w| w.kind).collect();
    let mut failed = None;
    for attempt in 1..=ATTEMPTS {
        let found = list(client, namespace, &kinds).await?.workloads;
        let writes: Vec<_> = found
            .iter()
            .filter_map(|w| Some((w, workload(w)?)))
            .map(|(w, patch)| write(client, w, patch))
            .collect();
        failed = each(PARALLEL, writes).await.err();
        known.workloads.retain(|workload| !kinds.contains(&workload.kind));
        known.workloads.extend(found.into_iter().filter(awaits_start));
        if !failed.as_ref().is_some_and(|error| error.is_conflict()) || attempt == ATTEMPTS {
            break;
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    // The controllers of Deployments have copied their annotations to these. Cached versions suffice, as only annotations are removed.
    for attempt in 1..=ATTEMPTS {
        let copied: Vec<_> = rollouts(&known)
            .into_iter()
            .filter_map(|set| Some((set, rollout(set)?)))
            .map(|(set, patch)| write(client, set, patch))
            .collect();
        match each(PARALLEL, copied).await {
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => {
                known = list(client, namespace, &[Kind::Deployment, Kind::ReplicaSet].into()).await?;
            }
            outcome => {
                outcome?;
                break;
            }
        }
    }
    Ok(())
}

/// Lists the workloads of these kinds.
async fn list(client: &Client, namespace: &str, kinds: &BTreeSet<Kind>) -> Result<Inventory, IoError> {
    let mut lists = Lists::default();
    for kind in kinds {
        match kind {
            Kind::Deployment => lists.deployments = list_kind(client, namespace).await?,
            Kind::StatefulSet => lists.statefulsets = list_kind(client, namespace).await?,
            Kind::ReplicaSet => lists.replicasets = list_kind(client, namespace).await?,
            Kind::ReplicationController => lists.controllers = list_kind(client, namespace).await?,
            Kind::DaemonSet => lists.daemonsets = list_kind(client, namespace).await?,
            Kind::CronJob => lists.cronjobs = list_kind(client, namespace).await?,
            Kind::Job => lists.jobs = list_kind(client, namespace).await?,
        }
    }
    Ok(lists.into())
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
    call_opt(format!("clean up {workload}"), api.patch_metadata(name, &params(), &Patch::Merge(patch)))
        .await?;
    Ok(())
}

/// Removes our field managers from an object, given its metadata as it is now.
///
/// # Errors
/// [`IoError`], such as a conflict with another writer.
pub async fn remove_managers_once<K>(api: &Api<K>, meta: &ObjectMeta) -> Result<(), IoError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let Some(patch) = managers(meta) else { return Ok(()) };
    let name = meta.name.clone().unwrap_or_default();
    let what = format!("remove field managers from {} {name}", K::kind(&()));
    call_opt(what, api.patch_metadata(&name, &params(), &Patch::Merge(patch))).await.map(drop)
}

/// Removes our field managers from an object, given its metadata. Returns whether it had any.
///
/// # Errors
/// [`IoError`], such as a conflict with other writers after some attempts.
pub async fn remove_managers<K>(api: &Api<K>, meta: &ObjectMeta) -> Result<bool, IoError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let name = meta.name.clone().unwrap_or_default();
    let what = || format!("remove field managers from {} {name}", K::kind(&()));
    let mut current = meta.clone();
    for attempt in 1.. {
        let Some(patch) = managers(&current) else { return Ok(attempt > 1) };
        match call_opt(what(), api.patch_metadata(&name, &params(), &Patch::Merge(patch))).await {
            Ok(_) => return Ok(true),
            Err(error) if !error.is_conflict() || attempt == ATTEMPTS => return Err(error),
            Err(_) => match call_opt(what(), api.get_metadata(&name)).await? {
                Some(now) => current = now.metadata,
                None => return Ok(true),
            },
        }
    }
    Ok(true)
}
