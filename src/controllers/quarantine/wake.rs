//! What wakes a Quarantine: itself, its namespace, its claimant, what is in its namespace, the policies.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::watch;

use super::{Context, Guarded};
use crate::api::{Isolation, OPERATOR_NAMESPACE, ServiceRecovery};
use crate::cluster_cache::{Change, Kind, Notice};
use crate::isolation::other_policies::RECHECK;
use crate::isolation::{egress_exceptions, list};

/// What is queued; a watch's own errors are retried within it.
pub(super) type Wake = Result<ObjectRef<Guarded>, watcher::Error>;

/// The store of Quarantines, and everything that wakes one of them.
pub(super) fn wakes(context: &Arc<Context>) -> (Store<Guarded>, BoxStream<'static, Wake>) {
    let client = &context.client;
    let reader = context.cache.kinds().quarantines.store();
    let at = |is_woken: fn(Isolation) -> bool| {
        let (context, reader) = (context.clone(), reader.clone());
        move |()| {
            let woken = |q: &Arc<Guarded>| context.level(&q.name_any()).is_some_and(is_woken);
            let all: Vec<_> = reader.state().into_iter().filter(woken).collect();
            stream::iter(all.into_iter().map(|q| ObjectRef::from_obj(q.as_ref())).collect::<Vec<_>>())
        }
    };
    let isolated = |level| level != Isolation::Open;
    let policies = {
        let reader = reader.clone();
        changes(context.options.fence.subscribe()).flat_map(move |()| stream::iter(all(&reader)))
    };
    let holes = hole_changes(client).flat_map(at(|level| level == Isolation::CleanRoom));
    // A verdict on the cluster's network is one on every isolated namespace, and all are tried on an API server that is new.
    let verdicts = changes(context.options.network.subscribe());
    let servers = changes(context.servers.subscribe());
    let cluster = stream::select(verdicts, servers).flat_map(at(isolated));
    let others = other_policies(client, context, &reader).flat_map(at(isolated));
    let everything =
        vec![in_cache(context, &reader), others.boxed(), policies.boxed(), holes.boxed(), cluster.boxed()];
    (reader, stream::select_all(everything).map(Ok).boxed())
}

/// Those that a change in the cluster's cache concerns, and at first all.
fn in_cache(context: &Arc<Context>, reader: &Store<Guarded>) -> BoxStream<'static, ObjectRef<Guarded>> {
    let changes = stream::unfold(context.cache.subscribe(), |mut changes| async move {
        changes.next().await.map(|notice| (notice, changes))
    });
    let mut waker = Waker {
        context: context.clone(),
        reader: reader.clone(),
        quarantines: HashMap::new(),
        recoveries: HashMap::new(),
        listed: BTreeMap::new(),
    };
    let at_first = stream::once(std::future::ready(Notice::Missed));
    at_first.chain(changes).flat_map(move |notice| stream::iter(waker.concerned(notice))).boxed()
}

fn all(reader: &Store<Guarded>) -> Vec<ObjectRef<Guarded>> {
    reader.state().iter().map(|q| ObjectRef::from_obj(q.as_ref())).collect()
}

/// Knows which changes in the cache are news to a Quarantine.
struct Waker {
    context: Arc<Context>,
    reader: Store<Guarded>,
    /// What was last seen of each Quarantine, by name.
    quarantines: HashMap<String, String>,
    /// What was last seen of each ServiceRecovery, by namespace and name.
    recoveries: HashMap<(String, String), RecoveryNews>,
    /// What each isolation list said of each namespace.
    listed: BTreeMap<String, BTreeMap<String, String>>,
}

/// UID, generation and deletion: what a service's status says is nothing to a Quarantine.
type RecoveryNews = (Option<String>, Option<i64>, Option<Time>);

impl Waker {
    /// Returns the Quarantines that a change concerns. Before its first pass one has no level: that pass reads everything anyway.
    fn concerned(&mut self, notice: Notice) -> Vec<ObjectRef<Guarded>> {
        let Notice::Changed(change) = notice else {
            self.context.lists.changed();
            return all(&self.reader);
        };
        if !change.is_judged {
            return Vec::new();
        }
        let is_sealed = |level| level == Isolation::Sealed;
        match change.kind {
            Kind::Quarantine => self.quarantine(&change),
            Kind::ServiceRecovery => self.recovery(change),
            Kind::Namespace => self.one(&change.name).into_iter().collect(),
            Kind::IsolationList => self.list(&change),
            Kind::NetworkPolicy => self.at(&change.namespace, |level| level != Isolation::Open),
            Kind::Pod if change.on_node_network => {
                self.at(&change.namespace, |level| level != Isolation::Open)
            }
            // What is in a ConfigMap isolates nothing.
            Kind::ConfigMap => Vec::new(),
            Kind::Pod
            | Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::ReplicaSet
            | Kind::ReplicationController
            | Kind::Job
            | Kind::CronJob
            | Kind::ServiceAccount => self.at(&change.namespace, is_sealed),
        }
    }

    fn one(&self, name: &str) -> Option<ObjectRef<Guarded>> {
        let wake = ObjectRef::<Guarded>::new(name);
        self.reader.get(&wake).is_some().then_some(wake)
    }

    /// The namespace's Quarantine, where its level is one of those.
    fn at(&self, namespace: &str, is_woken: fn(Isolation) -> bool) -> Vec<ObjectRef<Guarded>> {
        let wake = self.one(namespace).filter(|_| self.context.level(namespace).is_some_and(is_woken));
        wake.into_iter().collect()
    }

    /// A status that we wrote ourselves is no news.
    fn quarantine(&mut self, change: &Change) -> Vec<ObjectRef<Guarded>> {
        let Some(object) = self.reader.get(&ObjectRef::new(&change.name)) else {
            self.quarantines.remove(&change.name);
            return Vec::new();
        };
        let news = news(&object);
        let is_known = self.quarantines.insert(change.name.clone(), news.clone()) == Some(news);
        if is_known { Vec::new() } else { vec![ObjectRef::from_obj(object.as_ref())] }
    }

    fn recovery(&mut self, change: Change) -> Vec<ObjectRef<Guarded>> {
        let Change { namespace, name, .. } = change;
        let store = self.context.cache.kinds().service_recoveries.store();
        let Some(object) = store.get(&ObjectRef::new(&name).within(&namespace)) else {
            self.recoveries.remove(&(namespace.clone(), name.clone()));
            return self.claimed_by(&namespace, &name);
        };
        let meta = object.meta();
        let news = (meta.uid.clone(), meta.generation, meta.deletion_timestamp.clone());
        let is_known = self.recoveries.insert((namespace.clone(), name.clone()), news.clone()) == Some(news);
        match &object.0 {
            Err(_) => self.claimed_by(&namespace, &name),
            Ok(_) if is_known => Vec::new(),
            Ok(ServiceRecovery { spec, .. }) => {
                spec.namespaces.iter().filter_map(|n| self.one(&n.0)).collect()
            }
        }
    }

    /// Those whose claim names that ServiceRecovery.
    fn claimed_by(&self, namespace: &str, name: &str) -> Vec<ObjectRef<Guarded>> {
        let is_claimed = |quarantine: &Guarded| {
            let claim = quarantine
                .0
                .as_ref()
                .ok()
                .and_then(|q| q.status.as_ref())
                .and_then(|s| s.claimed_by.as_ref());
            claim.is_some_and(|c| c.plan_namespace == namespace && c.service_recovery() == name)
        };
        self.reader
            .state()
            .iter()
            .filter(|q| is_claimed(q))
            .map(|q| ObjectRef::from_obj(q.as_ref()))
            .collect()
    }

    /// Namespaces of which an isolation list says something else than before. Lost, it says nothing of any more.
    fn list(&mut self, change: &Change) -> Vec<ObjectRef<Guarded>> {
        // Before anybody is woken, who would read what was there before.
        self.context.lists.changed();
        let entry = self.context.cache.kinds().isolation_lists.get(OPERATOR_NAMESPACE, &change.name);
        let now = entry.and_then(|entry| entry.as_ref().as_ref().ok().map(list::levels)).unwrap_or_default();
        let known = self.listed.insert(change.name.clone(), now.clone()).unwrap_or_default();
        let differs = |key: &&String| known.get(*key) != now.get(*key);
        known.keys().chain(now.keys()).filter(differs).filter_map(|name| self.one(name)).collect()
    }
}

/// What of a Quarantine is not written by this controller.
fn news(object: &Guarded) -> String {
    let meta = object.meta();
    let claim = object.0.as_ref().ok().and_then(|q| q.status.as_ref()).and_then(|s| s.claimed_by.as_ref());
    let unread = object.0.is_err().then(|| meta.resource_version.clone());
    format!("{:?}", (&meta.uid, meta.generation, &meta.deletion_timestamp, &meta.finalizers, claim, unread))
}

/// The cluster's DNS moved: what clean rooms may talk to of it follows. The API servers wake whatever is isolated.
fn hole_changes(client: &Client) -> impl Stream<Item = ()> + Send + use<> {
    let dns = Api::<PartialObjectMeta<Service>>::namespaced(client.clone(), egress_exceptions::DNS_NAMESPACE);
    let (key, value) = egress_exceptions::DNS_LABEL;
    watcher(dns, watcher::Config::default().labels(&format!("{key}={value}")))
        .default_backoff()
        .touched_objects()
        .filter_map(|object| async move { object.ok().map(drop) })
}

/// When network policies of other APIs have come, gone or changed, as far as anything is isolated: one list of each kind that is served
/// for the whole cluster, and no more.
fn other_policies(
    client: &Client,
    context: &Arc<Context>,
    reader: &Store<Guarded>,
) -> BoxStream<'static, ()> {
    let (client, context, reader) = (client.clone(), context.clone(), reader.clone());
    let looks = stream::unfold(None, move |before: Option<u64>| {
        let (client, context, reader) = (client.clone(), context.clone(), reader.clone());
        async move {
            tokio::time::sleep(RECHECK).await;
            let is_isolated =
                |q: &Arc<Guarded>| context.level(&q.name_any()).is_some_and(|level| level != Isolation::Open);
            if !reader.state().iter().any(is_isolated) {
                // A first pass looks by itself.
                return Some((false, None));
            }
            let now = context.other_policies.fingerprint(&client).await;
            // What was there before the first of these looks is told once too often rather than not at all.
            Some((before != Some(now), Some(now)))
        }
    });
    looks.filter_map(|has_changed| std::future::ready(has_changed.then_some(()))).boxed()
}

/// Each change of something that is shared.
fn changes<T: Send + Sync + 'static>(shared: watch::Receiver<T>) -> BoxStream<'static, ()> {
    stream::unfold(shared, |mut shared| async move { shared.changed().await.ok().map(|()| ((), shared)) })
        .boxed()
}
