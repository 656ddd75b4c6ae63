//! One watch for each kind that gates look at, shared by everything that follows these kinds: gates judge what is kept here, and
//! Quarantines and gates are woken by what changes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ReplicationController, ServiceAccount};
use kube::Client;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use follow::{Follower, Source};
use kind::KindCache;
pub(crate) use kind::{Entry, Stale};
pub(crate) use reduce::Reduce;

mod follow;
mod kind;
mod reduce;

/// What the API server has not confirmed for longer may be judged by no more. Below the freshness of every gate, which is half a minute
/// or longer; above the time after which a watch is renewed.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(20);

/// A kind that is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `deployments.apps`.
    Deployment,
    /// `statefulsets.apps`.
    StatefulSet,
    /// `daemonsets.apps`.
    DaemonSet,
    /// `replicasets.apps`.
    ReplicaSet,
    /// `replicationcontrollers`.
    ReplicationController,
    /// `jobs.batch`.
    Job,
    /// `cronjobs.batch`.
    CronJob,
    /// `pods`.
    Pod,
    /// `configmaps`.
    ConfigMap,
    /// `serviceaccounts`.
    ServiceAccount,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A change of an object that is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Of a pod: it uses the network of its node.
    pub(crate) on_node_network: bool,
    /// Something changed that gates judge.
    pub(crate) is_judged: bool,
}

/// Whoever is told of changes.
#[derive(Clone, Debug, Default)]
struct Subscribers(Arc<Mutex<Vec<UnboundedSender<Change>>>>);

impl Subscribers {
    fn tell(&self, change: &Change) {
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }

    fn add(&self) -> UnboundedReceiver<Change> {
        let (sender, receiver) = unbounded_channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }
}

/// Which version of an object there is, where nothing else of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version(pub(crate) Option<String>);

/// The cache of all kinds. Clones share it; the watches end with the last of them.
#[derive(Clone, Debug)]
pub struct ClusterCache(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kinds: Kinds,
    subscribers: Subscribers,
    /// Ends the watches.
    _watches: Mutex<JoinSet<()>>,
}

/// The cache of each kind.
#[derive(Debug)]
pub(crate) struct Kinds {
    pub(crate) deployments: Arc<KindCache<Deployment>>,
    pub(crate) stateful_sets: Arc<KindCache<StatefulSet>>,
    pub(crate) daemon_sets: Arc<KindCache<DaemonSet>>,
    pub(crate) replica_sets: Arc<KindCache<ReplicaSet>>,
    pub(crate) replication_controllers: Arc<KindCache<ReplicationController>>,
    pub(crate) jobs: Arc<KindCache<Job>>,
    pub(crate) cron_jobs: Arc<KindCache<CronJob>>,
    pub(crate) pods: Arc<KindCache<Pod>>,
    pub(crate) config_maps: Arc<KindCache<Version>>,
    pub(crate) service_accounts: Arc<KindCache<Version>>,
}

impl ClusterCache {
    /// Begins to watch all kinds, each in a task of its own.
    #[must_use]
    pub fn start(client: &Client) -> Self {
        let subscribers = Subscribers::default();
        let mut watches = JoinSet::new();
        let (all, watching) = (&subscribers, &mut watches);
        let kinds = Kinds {
            deployments: follow::<Deployment>(client, all, watching),
            stateful_sets: follow::<StatefulSet>(client, all, watching),
            daemon_sets: follow::<DaemonSet>(client, all, watching),
            replica_sets: follow::<ReplicaSet>(client, all, watching),
            replication_controllers: follow::<ReplicationController>(client, all, watching),
            jobs: follow::<Job>(client, all, watching),
            cron_jobs: follow::<CronJob>(client, all, watching),
            pods: follow::<Pod>(client, all, watching),
            config_maps: follow::<ConfigMap>(client, all, watching),
            service_accounts: follow::<ServiceAccount>(client, all, watching),
        };
        Self(Arc::new(Shared { kinds, subscribers, _watches: Mutex::new(watches) }))
    }

    /// Returns the cache of each kind.
    pub(crate) fn kinds(&self) -> &Kinds {
        &self.0.kinds
    }

    /// Returns all changes from now on, each once the cache has it.
    pub(crate) fn subscribe(&self) -> UnboundedReceiver<Change> {
        self.0.subscribers.add()
    }

    /// Returns once every kind has been read for the first time.
    pub(crate) async fn ready(&self) {
        let kinds = self.kinds();
        futures::join!(
            kinds.deployments.ready(),
            kinds.stateful_sets.ready(),
            kinds.daemon_sets.ready(),
            kinds.replica_sets.ready(),
            kinds.replication_controllers.ready(),
            kinds.jobs.ready(),
            kinds.cron_jobs.ready(),
            kinds.pods.ready(),
            kinds.config_maps.ready(),
            kinds.service_accounts.ready(),
        );
    }
}

fn follow<S: Source>(
    client: &Client,
    subscribers: &Subscribers,
    watches: &mut JoinSet<()>,
) -> Arc<KindCache<S::Kept>>
where
    S::Kept: std::fmt::Debug,
{
    let cache = Arc::new(KindCache::new(S::KIND.plural()));
    watches.spawn(Follower::<S>::new(client, cache.clone(), subscribers.clone()).run());
    cache
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::ReplicaSet => "replicasets",
            Self::ReplicationController => "replicationcontrollers",
            Self::Job => "jobs",
            Self::CronJob => "cronjobs",
            Self::Pod => "pods",
            Self::ConfigMap => "configmaps",
            Self::ServiceAccount => "serviceaccounts",
        }
    }
}

/// Kinds of which what gates judge is kept.
macro_rules! objects {
    ($($kind:ident)+) => {$(
        impl Source for $kind {
            type Arrived = DeserializeGuard<Self>;
            type Kept = Self;
            const KIND: Kind = Kind::$kind;

            fn keep(arrived: Self::Arrived) -> Entry<Self> {
                reduced(Self::KIND, arrived)
            }
        }
    )+};
}

fn reduced<K: Reduce>(kind: Kind, arrived: DeserializeGuard<K>) -> Entry<K> {
    arrived.0.map(Reduce::reduced).map_err(|error| {
        let namespace = error.metadata.namespace.unwrap_or_default();
        let name = error.metadata.name.unwrap_or_default();
        format!("{kind} {namespace}/{name} cannot be read: {}", error.error)
    })
}

objects!(Deployment StatefulSet DaemonSet ReplicaSet ReplicationController Job CronJob);

impl Source for Pod {
    type Arrived = DeserializeGuard<Self>;
    type Kept = Self;
    const KIND: Kind = Kind::Pod;

    fn keep(arrived: Self::Arrived) -> Entry<Self> {
        reduced(Self::KIND, arrived)
    }

    /// Of one that cannot be read, nobody knows.
    fn is_on_node_network(entry: &Entry<Self>) -> bool {
        let uses = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        entry.as_ref().map_or(true, uses)
    }
}

/// Kinds of which only the version is kept.
macro_rules! versions {
    ($($kind:ident)+) => {$(
        impl Source for $kind {
            type Arrived = PartialObjectMeta<Self>;
            type Kept = Version;
            const KIND: Kind = Kind::$kind;

            fn keep(arrived: Self::Arrived) -> Entry<Version> {
                Ok(Version(arrived.metadata.resource_version))
            }
        }
    )+};
}

versions!(ConfigMap ServiceAccount);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
mod tests;
