//! Stores of our own kinds, watched in full so that decisions need no reads, and the wake-ups of gates by changes in the cluster cache.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::accepted;
use crate::api::{
    Decision, Incident, Quarantine, RECORDS_NAMESPACE, RecoveryPlan, ServiceRecovery, field_manager,
};
pub(crate) use crate::cluster_cache::Guarded;
use crate::cluster_cache::{
    Change as CacheChange, Changes as CacheChanges, ClusterCache, Kind, KindCache, MetadataChange,
    MetadataChanges, MetadataNotice, Notice, Version,
};
use crate::gates::Interest;

/// Stores of watched objects. ServiceRecoveries, Quarantines and accounts come from the cluster cache.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) plans: Store<Guarded<RecoveryPlan>>,
    pub(crate) records: Store<Guarded<ServiceRecovery>>,
    pub(crate) quarantines: Store<Guarded<Quarantine>>,
    pub(crate) incidents: Store<Guarded<Incident>>,
    pub(crate) decisions: Store<Guarded<Decision>>,
    pub(crate) accounts: Arc<KindCache<ServiceAccount>>,
    pub(crate) namespaces: Arc<KindCache<Namespace>>,
    pub(crate) config_maps: Arc<KindCache<Version>>,
    /// Records of accepted requirements.
    pub(crate) accepted: Store<ConfigMap>,
}

/// A change of a watched object.
#[derive(Debug)]
pub(crate) enum Change {
    /// A plan, by namespace and name; `gone` if it was deleted.
    Plan { namespace: String, name: String, gone: bool },
    /// A ServiceRecovery; `gone` is the resourceVersion of its deletion.
    Record { namespace: String, name: String, gone: Option<String> },
    /// The Quarantine of a namespace.
    Quarantine { namespace: String },
    /// An Incident.
    Incident { name: String },
    /// A Decision. `is_judged`: its status says what became of it, so that nothing new follows from it.
    Decision { namespace: String, is_judged: bool },
    /// A service account.
    Account { namespace: String },
    /// A record of accepted requirements; `gone` is the resourceVersion of its deletion.
    Accepted { name: String, gone: Option<String> },
    /// A list was read again, so anything may have changed.
    Everything,
}

impl Stores {
    /// Starts the watches that the cluster cache does not have. `on_change` is called after the store was updated.
    pub(crate) fn start(
        client: &Client,
        cache: &ClusterCache,
        tasks: &mut JoinSet<()>,
        on_change: impl Fn(Change) + Clone + Send + Sync + 'static,
    ) -> Self {
        let text = |s: Option<&String>| s.cloned().unwrap_or_default();
        tasks.spawn(follow_cache(cache.subscribe(), on_change.clone()));
        Self {
            plans: watch(client, tasks, on_change.clone(), move |meta, gone| Change::Plan {
                namespace: text(meta.namespace.as_ref()),
                name: text(meta.name.as_ref()),
                gone,
            }),
            records: cache.kinds().service_recoveries.store(),
            quarantines: cache.kinds().quarantines.store(),
            incidents: watch(client, tasks, on_change.clone(), move |meta, _| Change::Incident {
                name: text(meta.name.as_ref()),
            }),
            decisions: watch(client, tasks, on_change.clone(), move |meta, gone| Change::Decision {
                namespace: text(meta.namespace.as_ref()),
                is_judged: !gone && has_verdict(meta),
            }),
            accounts: cache.kinds().service_accounts.clone(),
            namespaces: cache.kinds().namespaces.clone(),
            config_maps: cache.kinds().config_maps.clone(),
            accepted: {
                let (store, writer) = reflector::store();
                let stream = watcher(
                    Api::<ConfigMap>::namespaced(client.clone(), RECORDS_NAMESPACE),
                    watcher::Config::default().labels(&accepted::selector()),
                );
                let changes = follow(
                    reflector::reflector(writer, stream.default_backoff()),
                    on_change,
                    move |meta, gone| Change::Accepted {
                        name: text(meta.name.as_ref()),
                        gone: gone.then(|| text(meta.resource_version.as_ref())),
                    },
                );
                tasks.spawn(changes);
                store
            },
        }
    }

    /// Returns once every initial list has been read.
    pub(crate) async fn ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.plans.wait_until_ready().await?;
        self.records.wait_until_ready().await?;
        self.quarantines.wait_until_ready().await?;
        self.incidents.wait_until_ready().await?;
        self.decisions.wait_until_ready().await?;
        self.accounts.confirmation().ready().await;
        self.accepted.wait_until_ready().await
    }
}

/// Returns whether the operator has written the status of a Decision, whose spec never changes.
fn has_verdict(meta: &kube::api::ObjectMeta) -> bool {
    let is_ours = |manager: Option<&str>| manager == Some(field_manager::DECISION);
    meta.managed_fields.iter().flatten().any(|fields| is_ours(fields.manager.as_deref()))
}

fn watch<K>(
    client: &Client,
    tasks: &mut JoinSet<()>,
    on_change: impl Fn(Change) + Send + Sync + 'static,
    describe: impl Fn(&kube::api::ObjectMeta, bool) -> Change + Send + Sync + 'static,
) -> Store<Guarded<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream =
        watcher(Api::<Guarded<K>>::all(client.clone()), watcher::Config::default()).default_backoff();
    tasks.spawn(follow(reflector::reflector(writer, stream), on_change, describe));
    store
}

async fn follow<K: Resource>(
    stream: impl futures::Stream<Item = watcher::Result<Event<K>>>,
    on_change: impl Fn(Change),
    describe: impl Fn(&kube::api::ObjectMeta, bool) -> Change,
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(object)) => on_change(describe(object.meta(), false)),
            Ok(Event::Delete(object)) => on_change(describe(object.meta(), true)),
            Ok(Event::InitDone) => on_change(Change::Everything),
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => tracing::warn!(%error, "watch failed; restarting it"),
        }
    }
}

/// Forwards changes in the cluster cache of the kinds that plans observe.
async fn follow_cache(mut changes: CacheChanges, on_change: impl Fn(Change)) {
    while let Some(notice) = changes.next().await {
        let change = match notice {
            Notice::Changed(change) if change.is_judged => change,
            Notice::Changed(_) => continue,
            Notice::Missed => {
                on_change(Change::Everything);
                continue;
            }
        };
        let CacheChange { kind, namespace, name, gone, .. } = change;
        match kind {
            Kind::ServiceRecovery => on_change(Change::Record { namespace, name, gone }),
            Kind::Quarantine => on_change(Change::Quarantine { namespace: name }),
            Kind::ServiceAccount => on_change(Change::Account { namespace }),
            _ => {}
        }
    }
}

/// Wakes gates when an object that they observe changes.
#[derive(Clone, Default)]
pub(crate) struct Wakeups(Arc<Mutex<HashMap<Interest, Vec<Weak<Notify>>>>>);

impl Wakeups {
    /// Registers a gate's interests for the lifetime of `notify`.
    pub(crate) fn register(&self, interests: Vec<Interest>, notify: &Arc<Notify>) {
        let mut index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for interest in interests {
            let list = index.entry(interest).or_default();
            list.retain(|known| known.strong_count() > 0);
            list.push(Arc::downgrade(notify));
        }
    }

    fn wake(&self, interest: &Interest) {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        index
            .get(interest)
            .into_iter()
            .flatten()
            .filter_map(Weak::upgrade)
            .for_each(|notify| notify.notify_one());
    }

    fn wake_all(&self) {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        index.values().flatten().filter_map(Weak::upgrade).for_each(|notify| notify.notify_one());
    }

    /// Wakes gates on changes in the cache until the future is dropped.
    pub(crate) async fn follow(self, mut changes: CacheChanges) {
        while let Some(notice) = changes.next().await {
            match notice {
                Notice::Changed(change) if change.is_judged => {
                    if let Some(interest) = interest(change) {
                        self.wake(&interest);
                    }
                }
                Notice::Changed(_) => {}
                Notice::Missed => self.wake_all(),
            }
        }
    }

    /// Wakes gates on changes of whatever baselines compare, until the future is dropped.
    pub(crate) async fn follow_change_logs(self, mut changes: MetadataChanges) {
        while let Some(notice) = changes.next().await {
            match notice {
                MetadataNotice::Changed(MetadataChange { namespace: Some(namespace), .. }) => {
                    let interest = match namespace.as_str() {
                        "" => Interest::Outside,
                        _ => Interest::Anything { namespace },
                    };
                    self.wake(&interest);
                }
                MetadataNotice::Changed(MetadataChange { namespace: None, .. }) => self.wake_compared(),
                MetadataNotice::Missed => self.wake_all(),
            }
        }
    }

    /// Wakes gates that compare whatever there is.
    fn wake_compared(&self) {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let compares =
            |interest: &Interest| matches!(interest, Interest::Anything { .. } | Interest::Outside);
        let all = index.iter().filter(|(interest, _)| compares(interest)).flat_map(|(_, list)| list);
        all.filter_map(Weak::upgrade).for_each(|notify| notify.notify_one());
    }
}

/// Returns the interest that a change matches.
fn interest(change: CacheChange) -> Option<Interest> {
    let CacheChange { kind, namespace, name, .. } = change;
    match kind {
        Kind::Pod => Some(Interest::Pods { namespace }),
        Kind::ConfigMap => Some(Interest::ConfigMap { namespace, name }),
        Kind::Namespace => Some(Interest::Namespace { name }),
        Kind::ServiceAccount
        | Kind::NetworkPolicy
        | Kind::IsolationList
        | Kind::Quarantine
        | Kind::ServiceRecovery => None,
        Kind::Deployment
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::ReplicaSet
        | Kind::ReplicationController
        | Kind::Job
        | Kind::CronJob => Some(Interest::Workloads { namespace }),
    }
}
