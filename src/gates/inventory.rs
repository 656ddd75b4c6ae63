//! What is in a service's namespaces, as the plan's account may see it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::api::{Api, ListParams};
use kube::core::{Selector, SelectorExt};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::Answer;
use crate::access::Right;
use crate::cluster_cache::{ClusterCache, Entry, STALE_AFTER, Stale};

/// Objects of one answer of the API server.
const PAGE: u32 = 500;

/// All workloads of some namespaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    pub deployments: Vec<Deployment>,
    pub stateful_sets: Vec<StatefulSet>,
    pub daemon_sets: Vec<DaemonSet>,
    pub replica_sets: Vec<ReplicaSet>,
    pub replication_controllers: Vec<ReplicationController>,
    pub jobs: Vec<Job>,
    pub cron_jobs: Vec<CronJob>,
    pub pods: Vec<Pod>,
}

impl Inventory {
    /// What [`Inventory::gather`] takes.
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

    /// Returns what the cache holds, which is no more than gates judge.
    ///
    /// # Errors
    /// An Unknown: a kind is not confirmed any more, or an object could not be read.
    pub fn from_cache(cache: &ClusterCache, namespaces: &[String]) -> Result<Self, Answer> {
        fn checked<T>(fresh: Result<T, Stale>) -> Result<T, Answer> {
            fresh.map_err(|error| stale(&error))
        }
        fn readable<T: Clone>(entries: &[Arc<Entry<T>>]) -> Result<Vec<T>, Answer> {
            let one = |entry: &Arc<Entry<T>>| {
                entry.as_ref().clone().map_err(|error| Answer::unknown("Unreadable", error))
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
        let mut all = Self::default();
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

    /// Lists everything; what cannot be listed makes the whole an Unknown.
    pub async fn gather(client: &Client, namespaces: &[String]) -> Result<Self, Answer> {
        let mut all = Self::default();
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

    /// The objects that may own others here.
    pub fn owners(&self) -> Owners<'_> {
        let mut owners = Owners::default();
        for object in &self.deployments {
            let selector = object.spec.as_ref().map(|spec| &spec.selector);
            owners.add(object, selector);
        }
        self.stateful_sets.iter().for_each(|object| owners.add(object, None));
        self.daemon_sets.iter().for_each(|object| owners.add(object, None));
        self.replica_sets.iter().for_each(|object| owners.add(object, None));
        self.replication_controllers.iter().for_each(|object| owners.add(object, None));
        self.jobs.iter().for_each(|object| owners.add(object, None));
        self.cron_jobs.iter().for_each(|object| owners.add(object, None));
        owners
    }

    /// The first of the namespaces in which nothing at all was found.
    pub fn empty_namespace<'a>(&self, namespaces: &'a [String]) -> Option<&'a str> {
        fn of<K: Resource>(objects: &[K]) -> impl Iterator<Item = &str> {
            objects.iter().filter_map(|object| object.meta().namespace.as_deref())
        }
        let inhabited: BTreeSet<&str> = of(&self.deployments)
            .chain(of(&self.stateful_sets))
            .chain(of(&self.daemon_sets))
            .chain(of(&self.replica_sets))
            .chain(of(&self.replication_controllers))
            .chain(of(&self.jobs))
            .chain(of(&self.cron_jobs))
            .chain(of(&self.pods))
            .collect();
        namespaces.iter().map(String::as_str).find(|namespace| !inhabited.contains(namespace))
    }
}

/// The listed objects that may own others, by UID.
///
/// An owner reference is text that whoever creates the object chooses. It counts only if it agrees in everything with a listed
/// object of a kind that makes objects of the owned kind; otherwise the object is judged as a workload of its own.
#[derive(Debug, Default)]
pub struct Owners<'a>(BTreeMap<&'a str, Owner<'a>>);

#[derive(Debug)]
struct Owner<'a> {
    group: String,
    kind: String,
    namespace: &'a str,
    name: &'a str,
    /// What the labels of an owned object match. `None`: the kind's controller decides by UID alone.
    selector: Option<&'a LabelSelector>,
}

/// A group and a kind.
type GroupKind = (&'static str, &'static str);

/// Which built-in kinds make objects of which: the owned kind, then the kinds of its owner.
const MAKES: [(GroupKind, &[GroupKind]); 3] = [
    (("apps", "ReplicaSet"), &[("apps", "Deployment")]),
    (("batch", "Job"), &[("batch", "CronJob")]),
    (
        ("", "Pod"),
        &[
            ("apps", "ReplicaSet"),
            ("apps", "StatefulSet"),
            ("apps", "DaemonSet"),
            ("batch", "Job"),
            ("", "ReplicationController"),
        ],
    ),
];

impl<'a> Owners<'a> {
    fn add<K: Resource<DynamicType = ()>>(&mut self, object: &'a K, selector: Option<&'a LabelSelector>) {
        let meta = object.meta();
        let (Some(uid), Some(namespace), Some(name)) = (&meta.uid, &meta.namespace, &meta.name) else {
            return;
        };
        let (group, kind) = (K::group(&()).into_owned(), K::kind(&()).into_owned());
        self.0.insert(uid, Owner { group, kind, namespace, name, selector });
    }

    /// Returns whether a listed object made this one, so that judging that one is enough.
    pub fn has_owner_of<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        let meta = object.meta();
        let own = (K::group(&()), K::kind(&()));
        let makers = MAKES.iter().find(|((group, kind), _)| *group == own.0 && *kind == own.1);
        let Some((_, makers)) = makers else { return false };
        meta.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true)).any(|owner| {
            let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
            self.0.get(owner.uid.as_str()).is_some_and(|listed| {
                makers.contains(&(listed.group.as_str(), listed.kind.as_str()))
                    && (group, owner.kind.as_str()) == (listed.group.as_str(), listed.kind.as_str())
                    && owner.name == listed.name
                    && meta.namespace.as_deref() == Some(listed.namespace)
                    && listed.selector.is_none_or(|selector| selects(selector, meta))
            })
        })
    }
}

/// A selector that is empty or cannot be read selects nothing: no controller adopts by one.
fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    let Ok(selector) = Selector::try_from(selector.clone()) else { return false };
    !selector.selects_all() && selector.matches(meta.labels.as_ref().unwrap_or(&BTreeMap::new()))
}

/// One object as a person names it, and its UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl ObjectRef {
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            kind: K::kind(&()).into_owned(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// All objects of one kind in one namespace, page by page.
async fn list<K>(client: &Client, namespace: &str) -> Result<Vec<K>, Answer>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + fmt::Debug,
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

/// The Unknown that a kind is whose watch does not work.
pub fn stale(stale: &Stale) -> Answer {
    let since = stale.since.map_or_else(
        || "has not been read yet".to_owned(),
        |at| format!("was last confirmed by the API server at {at}"),
    );
    let why = stale.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    Answer::unknown("CacheStale", format!("the operator's cache of {} {since}{why}", stale.resource))
}

/// The Unknown that a failed read is. The API server's own message names account, verb, resource and namespace.
pub fn unreadable(what: &str, error: &kube::Error) -> Answer {
    if let kube::Error::Api(status) = error {
        let reason = match status.code {
            401 => "Unauthorized",
            403 => "Forbidden",
            _ => "ApiError",
        };
        Answer::unknown(reason, format!("{what}: {}", status.message))
    } else {
        Answer::unknown("ApiUnreachable", format!("{what}: {error}"))
    }
}

#[cfg(test)]
mod tests;
