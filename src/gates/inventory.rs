//! What is in a service's namespaces, as the plan's account may see it.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::Answer;

/// Objects of one answer of the API server.
const PAGE: u32 = 500;

/// All workloads of some namespaces, from the API server itself and not from a cache.
#[derive(Debug, Default)]
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

    /// UIDs of all that is here.
    pub fn uids(&self) -> BTreeSet<&str> {
        fn of<K: Resource>(objects: &[K]) -> impl Iterator<Item = &str> {
            objects.iter().filter_map(|object| object.meta().uid.as_deref())
        }
        of(&self.deployments)
            .chain(of(&self.stateful_sets))
            .chain(of(&self.daemon_sets))
            .chain(of(&self.replica_sets))
            .chain(of(&self.replication_controllers))
            .chain(of(&self.jobs))
            .chain(of(&self.cron_jobs))
            .collect()
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

/// Is it the work of an object that is looked at itself? An owner that nobody has seen does not count: otherwise whoever
/// names one would go unseen as well.
pub fn is_owned(meta: &ObjectMeta, uids: &BTreeSet<&str>) -> bool {
    meta.owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && uids.contains(owner.uid.as_str()))
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
