//! Triggers of a reconciliation: the Quarantine, its namespace, its claimant, the objects in its namespace, the policies.

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
use crate::api::{Isolation, OPERATOR_NAMESPACE, SEAL_ANNOTATION, ServiceRecovery};
use crate::cluster_cache::{Change, Kind, Notice};
use crate::isolation::other_policies::RECHECK;
use crate::isolation::{egress_exceptions, list};

/// An item of the queue. Errors of a watch are retried within it.
pub(super) type Wake = Result<ObjectRef<Guarded>, watcher::Error>;

/// Returns the store of Quarantines, and a stream of all triggers.
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
    let exceptions = dns_changes(client).flat_map(at(|level| level == Isolation::CleanRoom));
    // A network verdict applies to every isolated namespace, and every namespace is probed on a new API server.
    let verdicts = changes(context.options.network.subscribe());
    let servers = changes(context.servers.subscribe());
    let cluster = stream::select(verdicts, servers).flat_map(at(isolated));
    let others = other_policies(client, context, &reader).flat_map(at(isolated));
    let everything = vec![
        cache_changes(context, &reader),
        others.boxed(),
        policies.boxed(),
        exceptions.boxed(),
        cluster.boxed(),
    ];
    (reader, stream::select_all(everything).map(Ok).boxed())
}

/// Returns the Quarantines that each change in the cluster cache affects, and initially all of them.
fn cache_changes(context: &Arc<Context>, reader: &Store<Guarded>) -> BoxStream<'static, ObjectRef<Guarded>> {
    let changes = stream::unfold(context.cache.subscribe(), |mut changes| async move {
        changes.next().await.map(|notice| (notice, changes))
    });
    let mut filter = ChangeFilter {
        context: context.clone(),
        reader: reader.clone(),
        quarantines: HashMap::new(),
        recoveries: HashMap::new(),
        listed: BTreeMap::new(),
    };
    let at_first = stream::once(std::future::ready(Notice::Missed));
    at_first.chain(changes).flat_map(move |notice| stream::iter(filter.affected(notice))).boxed()
}

fn all(reader: &Store<Guarded>) -> Vec<ObjectRef<Guarded>> {
    reader.state().iter().map(|q| ObjectRef::from_obj(q.as_ref())).collect()
}

/// Filters changes in the cache for those that affect a Quarantine.
struct ChangeFilter {
    context: Arc<Context>,
    reader: Store<Guarded>,
    /// Last observed version of each Quarantine, by name.
    quarantines: HashMap<String, String>,
    /// Last observed version of each ServiceRecovery, by namespace and name.
    recoveries: HashMap<(String, String), RecoveryVersion>,
    /// Levels of the namespaces on each isolation list.
    listed: BTreeMap<String, BTreeMap<String, String>>,
}

/// UID, generation, deletion time, and whether a person holds it. Nothing else of a ServiceRecovery's status lets a Quarantine be loosened.
type RecoveryVersion = (Option<String>, Option<i64>, Option<Time>, bool);

impl ChangeFilter {
    /// Returns the Quarantines that a change affects. Before its first pass, a Quarantine has no level and is not affected: that pass
    /// reads everything.
    fn affected(&mut self, notice: Notice) -> Vec<ObjectRef<Guarded>> {
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
            Kind::Namespace => self.if_exists(&change.name).into_iter().collect(),
            Kind::IsolationList => self.list(&change),
            Kind::NetworkPolicy => self.at_level(&change.namespace, |level| level != Isolation::Open),
            Kind::Pod if change.on_node_network => {
                self.at_level(&change.namespace, |level| level != Isolation::Open)
            }
            // The contents of a ConfigMap do not affect isolation.
            Kind::ConfigMap => Vec::new(),
            Kind::Pod | Kind::ServiceAccount => self.at_level(&change.namespace, is_sealed),
            Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::ReplicaSet
            | Kind::ReplicationController
            | Kind::Job
            | Kind::CronJob => {
                // In a released namespace, the record of a workload is removed once somebody has started it, and the copy of a removed
                // record that its Deployment's controller made of an older version of the Deployment.
                let is_woken = if self.context.awaits_start(&change.namespace) || self.has_copy(&change) {
                    |level| matches!(level, Isolation::Sealed | Isolation::Open)
                } else {
                    is_sealed
                };
                self.at_level(&change.namespace, is_woken)
            }
        }
    }

    /// Returns whether the change is that of a ReplicaSet with a record.
    fn has_copy(&self, change: &Change) -> bool {
        let sets = &self.context.cache.kinds().replica_sets;
        change.kind == Kind::ReplicaSet
            && sets.get(&change.namespace, &change.name).is_some_and(|set| {
                set.as_ref().as_ref().is_ok_and(|set| set.annotations().contains_key(SEAL_ANNOTATION))
            })
    }

    fn if_exists(&self, name: &str) -> Option<ObjectRef<Guarded>> {
        let wake = ObjectRef::<Guarded>::new(name);
        self.reader.get(&wake).is_some().then_some(wake)
    }

    /// Returns the namespace's Quarantine if its level satisfies `is_woken`.
    fn at_level(&self, namespace: &str, is_woken: fn(Isolation) -> bool) -> Vec<ObjectRef<Guarded>> {
        let wake = self.if_exists(namespace).filter(|_| self.context.level(namespace).is_some_and(is_woken));
        wake.into_iter().collect()
    }

    /// Status writes of this controller are no change.
    fn quarantine(&mut self, change: &Change) -> Vec<ObjectRef<Guarded>> {
        let Some(object) = self.reader.get(&ObjectRef::new(&change.name)) else {
            self.quarantines.remove(&change.name);
            return Vec::new();
        };
        let version = external_version(&object);
        let is_unchanged = self.quarantines.insert(change.name.clone(), version.clone()) == Some(version);
        if is_unchanged { Vec::new() } else { vec![ObjectRef::from_obj(object.as_ref())] }
    }

    fn recovery(&mut self, change: Change) -> Vec<ObjectRef<Guarded>> {
        let Change { namespace, name, .. } = change;
        let store = self.context.cache.kinds().service_recoveries.store();
        let Some(object) = store.get(&ObjectRef::new(&name).within(&namespace)) else {
            self.recoveries.remove(&(namespace.clone(), name.clone()));
            return self.claimed_by(&namespace, &name);
        };
        let meta = object.meta();
        let orders = object.0.as_ref().ok().and_then(|of| of.status.as_ref()?.standing_orders.as_ref());
        let is_on_hold = orders.is_some_and(|orders| orders.hold.is_some());
        let version = (meta.uid.clone(), meta.generation, meta.deletion_timestamp.clone(), is_on_hold);
        let is_unchanged =
            self.recoveries.insert((namespace.clone(), name.clone()), version.clone()) == Some(version);
        match &object.0 {
            Err(_) => self.claimed_by(&namespace, &name),
            Ok(_) if is_unchanged => Vec::new(),
            Ok(ServiceRecovery { spec, .. }) => {
                spec.namespaces.iter().filter_map(|n| self.if_exists(&n.0)).collect()
            }
        }
    }

    /// Returns the Quarantines whose claim names this ServiceRecovery.
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

    /// Returns the Quarantines whose level on an isolation list changed. A deleted list names none.
    fn list(&mut self, change: &Change) -> Vec<ObjectRef<Guarded>> {
        // The list cache is invalidated before a pass can read it.
        self.context.lists.changed();
        let entry = self.context.cache.kinds().isolation_lists.get(OPERATOR_NAMESPACE, &change.name);
        let now = entry.and_then(|entry| entry.as_ref().as_ref().ok().map(list::levels)).unwrap_or_default();
        let known = self.listed.insert(change.name.clone(), now.clone()).unwrap_or_default();
        let differs = |key: &&String| known.get(*key) != now.get(*key);
        known.keys().chain(now.keys()).filter(differs).filter_map(|name| self.if_exists(name)).collect()
    }
}

/// Returns a version that changes with everything that other writers change in a Quarantine.
fn external_version(object: &Guarded) -> String {
    let meta = object.meta();
    let claim = object.0.as_ref().ok().and_then(|q| q.status.as_ref()).and_then(|s| s.claimed_by.as_ref());
    let unread = object.0.is_err().then(|| meta.resource_version.clone());
    format!("{:?}", (&meta.uid, meta.generation, &meta.deletion_timestamp, &meta.finalizers, claim, unread))
}

/// Returns a stream of changes of the cluster's DNS Service, which clean rooms may reach. Changes of API servers wake all isolated
/// namespaces already.
fn dns_changes(client: &Client) -> impl Stream<Item = ()> + Send + use<> {
    let dns = Api::<PartialObjectMeta<Service>>::namespaced(client.clone(), egress_exceptions::DNS_NAMESPACE);
    let (key, value) = egress_exceptions::DNS_LABEL;
    watcher(dns, watcher::Config::default().labels(&format!("{key}={value}")))
        .default_backoff()
        .touched_objects()
        .filter_map(|object| async move { object.ok().map(drop) })
}

/// Returns a stream of changes of network policies of other APIs, while anything is isolated. It lists each served kind once,
/// cluster-wide.
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
                // The first pass reads the policies itself.
                return Some((false, None));
            }
            let now = context.other_policies.fingerprint(&client).await;
            // The first read counts as a change: a superfluous wake-up is better than a missed change.
            Some((before != Some(now), Some(now)))
        }
    });
    looks.filter_map(|has_changed| std::future::ready(has_changed.then_some(()))).boxed()
}

/// Returns a stream of the changes of a watched value.
fn changes<T: Send + Sync + 'static>(shared: watch::Receiver<T>) -> BoxStream<'static, ()> {
    stream::unfold(shared, |mut shared| async move { shared.changed().await.ok().map(|()| ((), shared)) })
        .boxed()
}
