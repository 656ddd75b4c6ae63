//! The cluster cache: one watch per kind that gates or isolation depend on, shared by all controllers.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ReplicationController, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use tokio::task::JoinSet;

use crate::api::{Quarantine, ServiceRecovery};
use change_log::MetadataSubscribers;
pub(crate) use change_log::{
    ChangeLog, ChangeMark, KindName, MetadataChange, MetadataChanges, MetadataNotice,
};
use changes::Subscribers;
pub(crate) use changes::{Change, Changes, Notice};
use follow::{Follower, Source};
pub(crate) use kind::{Confirmation, Entry, KindCache, Stale};
pub(crate) use reduce::Reduce;
use sources::IsolationList;
pub(crate) use store::{Guarded, StoreCache};

mod change_log;
mod changes;
mod follow;
mod kind;
mod metadata;
mod reduce;
mod sources;
mod store;

/// Maximum age of the API server's confirmation for decisions. Less than the freshness of every gate, which is at least half a minute,
/// and more than the duration of a watch.
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
    /// `configmaps`, resourceVersions only.
    ConfigMap,
    /// `serviceaccounts`, metadata only.
    ServiceAccount,
    /// `namespaces`.
    Namespace,
    /// `networkpolicies.networking.k8s.io`.
    NetworkPolicy,
    /// The isolation lists: ConfigMaps in the operator's namespace.
    IsolationList,
    /// `quarantines.resurgam.dev`.
    Quarantine,
    /// `servicerecoveries.resurgam.dev`.
    ServiceRecovery,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// resourceVersion of an object, of which nothing else is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version(pub(crate) Option<String>);

/// The cache of all kinds. Clones share it; the watches end with the last clone.
#[derive(Clone, Debug)]
pub struct ClusterCache(Arc<Shared>);

struct Shared {
    client: Client,
    kinds: Kinds,
    subscribers: Subscribers,
    metadata_subscribers: MetadataSubscribers,
    /// Dropping it ends the watches.
    _watches: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("kinds", &self.kinds).finish_non_exhaustive()
    }
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
    pub(crate) service_accounts: Arc<KindCache<ServiceAccount>>,
    pub(crate) namespaces: Arc<KindCache<Namespace>>,
    pub(crate) network_policies: Arc<KindCache<NetworkPolicy>>,
    pub(crate) isolation_lists: Arc<KindCache<ConfigMap>>,
    pub(crate) quarantines: Arc<StoreCache<Quarantine>>,
    pub(crate) service_recoveries: Arc<StoreCache<ServiceRecovery>>,
}

impl ClusterCache {
    /// Starts one watch task per kind.
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
            namespaces: follow::<Namespace>(client, all, watching),
            network_policies: follow::<NetworkPolicy>(client, all, watching),
            isolation_lists: follow::<IsolationList>(client, all, watching),
            quarantines: follow::<Quarantine>(client, all, watching),
            service_recoveries: follow::<ServiceRecovery>(client, all, watching),
        };
        Self(Arc::new(Shared {
            client: client.clone(),
            kinds,
            subscribers,
            metadata_subscribers: MetadataSubscribers::default(),
            _watches: Mutex::new(watches),
        }))
    }

    /// Returns the cache of each kind.
    pub(crate) fn kinds(&self) -> &Kinds {
        &self.0.kinds
    }

    /// Subscribes to all further changes. A change is published after the cache contains it.
    pub(crate) fn subscribe(&self) -> Changes {
        self.0.subscribers.add()
    }

    /// Starts a log of changes of any kind. It watches what it is told to follow.
    pub(crate) fn start_change_log(&self) -> ChangeLog {
        ChangeLog::new(&self.0.client, self.0.metadata_subscribers.clone())
    }

    /// Subscribes to all further changes in logs of changes.
    pub(crate) fn subscribe_to_change_logs(&self) -> MetadataChanges {
        self.0.metadata_subscribers.add()
    }

    /// Waits until every kind was read for the first time.
    pub(crate) async fn ready(&self) {
        futures::future::join_all(self.kinds().confirmations().map(Confirmation::ready)).await;
    }

    /// Returns whether the API server confirmed every kind recently.
    pub(crate) fn is_fresh(&self) -> bool {
        self.kinds().confirmations().iter().all(|confirmation| confirmation.is_fresh(STALE_AFTER).is_ok())
    }
}

impl Kinds {
    fn confirmations(&self) -> [&Confirmation; 15] {
        [
            self.deployments.confirmation(),
            self.stateful_sets.confirmation(),
            self.daemon_sets.confirmation(),
            self.replica_sets.confirmation(),
            self.replication_controllers.confirmation(),
            self.jobs.confirmation(),
            self.cron_jobs.confirmation(),
            self.pods.confirmation(),
            self.config_maps.confirmation(),
            self.service_accounts.confirmation(),
            self.namespaces.confirmation(),
            self.network_policies.confirmation(),
            self.isolation_lists.confirmation(),
            self.quarantines.confirmation(),
            self.service_recoveries.confirmation(),
        ]
    }
}

fn follow<S: Source>(client: &Client, subscribers: &Subscribers, watches: &mut JoinSet<()>) -> Arc<S::Cache> {
    let cache = Arc::new(S::cache());
    watches.spawn(Follower::<S>::new(client, cache.clone(), subscribers.clone()).run());
    cache
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]
mod tests;
