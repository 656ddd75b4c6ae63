//! Reads the objects in a service's namespaces as the plan's account.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{Api, ListParams};
use kube::{Client, Resource};
use resurgam_core::gates::inventory::Inventory;
use serde::de::DeserializeOwned;

use super::{Answer, Interest};
use crate::access::Right;
use crate::api::GateReason;
use crate::cluster_cache::{ClusterCache, Entry, STALE_AFTER, Stale};

/// Page size of a list.
const PAGE: u32 = 500;

/// Returns the interests of an inventory.
pub fn interests(namespaces: &[String]) -> impl Iterator<Item = Interest> {
    namespaces.iter().flat_map(|namespace| {
        let namespace = namespace.clone();
        [Interest::Workloads { namespace: namespace.clone() }, Interest::Pods { namespace }]
    })
}

/// Returns the rights that [`gather`] requires.
pub fn rights(namespaces: &[String]) -> Vec<Right> {
    let of = |namespace: &String| {
        [
            Right::list::<Deployment>(namespace),
            Right::list::<StatefulSet>(namespace),
            Right::list::<DaemonSet>(namespace),
            Right::list::<ReplicaSet>(namespace),
            Right::list::<ReplicationController>(namespace),
            Right::list::<Job>(namespace),
            Right::list::<CronJob>(namespace),
            Right::list::<Pod>(namespace),
        ]
    };
    namespaces.iter().flat_map(of).collect()
}

/// Returns the inventory in the cache, which holds only the fields that gates use.
///
/// # Errors
/// An Unknown: a kind is stale, or an object cannot be deserialized.
pub fn from_cache(cache: &ClusterCache, namespaces: &[String]) -> Result<Inventory, Answer> {
    fn checked<T>(fresh: Result<T, Stale>) -> Result<T, Answer> {
        fresh.map_err(|error| stale(&error))
    }
    fn readable<T: Clone>(entries: &[Arc<Entry<T>>]) -> Result<Vec<T>, Answer> {
        let one = |entry: &Arc<Entry<T>>| {
            entry.as_ref().clone().map_err(|error| Answer::unknown(GateReason::Unreadable, error))
        };
        entries.iter().map(one).collect()
    }
    let kinds = cache.kinds();
    checked(kinds.deployments.is_fresh(STALE_AFTER))?;
    checked(kinds.stateful_sets.is_fresh(STALE_AFTER))?;
    checked(kinds.daemon_sets.is_fresh(STALE_AFTER))?;
    checked(kinds.replica_sets.is_fresh(STALE_AFTER))?;
    checked(kinds.replication_controllers.is_fresh(STALE_AFTER))?;
    checked(kinds.jobs.is_fresh(STALE_AFTER))?;
    checked(kinds.cron_jobs.is_fresh(STALE_AFTER))?;
    checked(kinds.pods.is_fresh(STALE_AFTER))?;
    let mut all = Inventory::default();
    for namespace in namespaces {
        all.deployments.extend(readable(&kinds.deployments.within(namespace))?);
        all.stateful_sets.extend(readable(&kinds.stateful_sets.within(namespace))?);
        all.daemon_sets.extend(readable(&kinds.daemon_sets.within(namespace))?);
        all.replica_sets.extend(readable(&kinds.replica_sets.within(namespace))?);
        all.replication_controllers.extend(readable(&kinds.replication_controllers.within(namespace))?);
        all.jobs.extend(readable(&kinds.jobs.within(namespace))?);
        all.cron_jobs.extend(readable(&kinds.cron_jobs.within(namespace))?);
        all.pods.extend(readable(&kinds.pods.within(namespace))?);
    }
    Ok(all)
}

/// Lists all objects live.
///
/// # Errors
/// An Unknown: a kind cannot be listed.
pub async fn gather(client: &Client, namespaces: &[String]) -> Result<Inventory, Answer> {
    let mut all = Inventory::default();
    for namespace in namespaces {
        let (deployments, stateful_sets, daemon_sets, replica_sets) = futures::try_join!(
            list(client, namespace),
            list(client, namespace),
            list(client, namespace),
            list(client, namespace),
        )?;
        let (replication_controllers, jobs, cron_jobs, pods) = futures::try_join!(
            list(client, namespace),
            list(client, namespace),
            list(client, namespace),
            list(client, namespace),
        )?;
        all.deployments.extend::<Vec<_>>(deployments);
        all.stateful_sets.extend::<Vec<_>>(stateful_sets);
        all.daemon_sets.extend::<Vec<_>>(daemon_sets);
        all.replica_sets.extend::<Vec<_>>(replica_sets);
        all.replication_controllers.extend::<Vec<_>>(replication_controllers);
        all.jobs.extend::<Vec<_>>(jobs);
        all.cron_jobs.extend::<Vec<_>>(cron_jobs);
        all.pods.extend::<Vec<_>>(pods);
    }
    Ok(all)
}

/// Lists all objects of one kind in one namespace.
async fn list<K>(client: &Client, namespace: &str) -> Result<Vec<K>, Answer>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut objects = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await.map_err(|error| {
            unreadable(&format!("cannot list {} in namespace {namespace}", K::plural(&())), &error)
        })?;
        objects.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(objects),
        }
    }
}

/// Returns the Unknown for a kind whose watch fails.
pub fn stale(stale: &Stale) -> Answer {
    let since = stale.since.map_or_else(
        || "has not been read yet".to_owned(),
        |at| format!("was last confirmed by the API server at {at}"),
    );
    let why = stale.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    Answer::unknown(
        GateReason::CacheStale,
        format!("the operator's cache of {} {since}{why}", stale.resource),
    )
}

/// Returns the Unknown for a failed read. The API server's message names account, verb, resource and namespace.
pub fn unreadable(what: &str, error: &kube::Error) -> Answer {
    if let kube::Error::Api(status) = error {
        let reason = match status.code {
            401 => GateReason::Unauthorized,
            403 => GateReason::Forbidden,
            _ => GateReason::ApiError,
        };
        Answer::unknown(reason, format!("{what}: {}", status.message))
    } else {
        Answer::unknown(GateReason::ApiUnreachable, format!("{what}: {error}"))
    }
}
