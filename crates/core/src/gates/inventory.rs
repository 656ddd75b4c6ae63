//! Objects in a service's namespaces, as read with the plan's account.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Resource;
use kube::core::{Selector, SelectorExt};

use super::Question;
use crate::isolation::controls::workloads::has_not_ended;
use crate::isolation::seal;

/// Workloads and pods of some namespaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// StatefulSets.
    pub stateful_sets: Vec<StatefulSet>,
    /// DaemonSets.
    pub daemon_sets: Vec<DaemonSet>,
    /// ReplicaSets.
    pub replica_sets: Vec<ReplicaSet>,
    /// ReplicationControllers.
    pub replication_controllers: Vec<ReplicationController>,
    /// Jobs.
    pub jobs: Vec<Job>,
    /// CronJobs.
    pub cron_jobs: Vec<CronJob>,
    /// Pods.
    pub pods: Vec<Pod>,
}

impl Inventory {
    /// Returns the objects that may own others in the inventory.
    #[must_use]
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

    /// Returns why it proves nothing that no pod runs: a namespace contains nothing that runs pods, although it did when it was isolated,
    /// or that is not known.
    #[must_use]
    pub fn nothing_runs(&self, question: &Question) -> Option<String> {
        missing(question, &self.running())
    }

    /// Returns why it proves nothing that there is no image. As [`Inventory::nothing_runs`], but CronJobs and unfinished Jobs count.
    #[must_use]
    pub fn nothing_starts(&self, question: &Question) -> Option<String> {
        let jobs = self.jobs.iter().filter(|job| has_not_ended(job));
        let mut inhabited = self.running();
        inhabited.extend(namespaces(&self.cron_jobs));
        inhabited.extend(jobs.filter_map(|job| job.metadata.namespace.as_deref()));
        missing(question, &inhabited)
    }

    /// Returns the namespaces with something that runs pods all the time.
    fn running(&self) -> BTreeSet<&str> {
        let live = self.pods.iter().filter(|pod| is_live(pod));
        namespaces(&self.deployments)
            .chain(namespaces(&self.stateful_sets))
            .chain(namespaces(&self.daemon_sets))
            .chain(namespaces(&self.replica_sets))
            .chain(namespaces(&self.replication_controllers))
            .chain(live.filter_map(|pod| pod.metadata.namespace.as_deref()))
            .collect()
    }
}

fn namespaces<K: Resource>(objects: &[K]) -> impl Iterator<Item = &str> {
    objects.iter().filter_map(|object| object.meta().namespace.as_deref())
}

fn missing(question: &Question, inhabited: &BTreeSet<&str>) -> Option<String> {
    let mut empty = question.namespaces.iter().filter(|namespace| !inhabited.contains(namespace.as_str()));
    empty.find_map(|namespace| seal::missing(&question.seals, namespace, question.phase))
}

/// Returns whether any container of the Pod may still run.
#[must_use]
pub fn is_live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Listed objects that may own others, by UID.
///
/// Any client may write an owner reference. It counts only if it matches a listed object in every field, and that object's kind creates
/// objects of the owned kind; otherwise the object is checked as a workload of its own.
#[derive(Debug, Default)]
pub struct Owners<'a>(BTreeMap<&'a str, Owner<'a>>);

#[derive(Debug)]
struct Owner<'a> {
    group: String,
    kind: String,
    namespace: &'a str,
    name: &'a str,
    /// Selector that the labels of an owned object match. `None`: the kind's controller decides by UID alone.
    selector: Option<&'a LabelSelector>,
}

/// Group and kind.
pub(crate) type GroupKind = (&'static str, &'static str);

/// Built-in kinds with the kinds that may own them.
pub(crate) const MAKES: [(GroupKind, &[GroupKind]); 3] = [
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

    /// Returns whether a listed object owns this one, so that checking the owner suffices.
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

/// Returns whether the selector matches. An empty or malformed selector matches nothing: no controller adopts by one.
fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    let Ok(selector) = Selector::try_from(selector.clone()) else { return false };
    !selector.selects_all() && selector.matches(meta.labels.as_ref().unwrap_or(&BTreeMap::new()))
}

/// Reference to an object, with its UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl ObjectRef {
    /// Returns a reference to the object.
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

#[cfg(test)]
mod tests;
