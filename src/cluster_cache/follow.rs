//! Maintains the cache of one kind: lists it page by page, then watches it.
//!
//! A dead connection reports no error. So each watch ends after [`RENEWED_AFTER`] and is resumed, and the API server's answer confirms
//! the cache, which bounds its age.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Kind;
use super::changes::{Change, Subscribers};
use super::kind::{Confirmation, Difference, moment};

/// Page size of a list.
const PAGE: u32 = 500;
/// Deadline for one page of a list.
const PAGE_WITHIN: Duration = Duration::from_secs(15);
/// Deadline for a watch to start.
const BEGINS_WITHIN: Duration = Duration::from_secs(5);
/// Duration of a watch, in seconds.
const RENEWED_AFTER: u32 = 10;
/// A watch that lasts this much longer than requested counts as dead.
const GRACE: Duration = Duration::from_secs(3);
/// Minimum time between the starts of two watches.
const SHORTEST: Duration = Duration::from_millis(200);
/// Pause after the first failure; doubled after each further one.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Why a list or a watch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Unanswered(Duration),
    #[error("the watch did not end in time; the connection is considered dead")]
    Silent,
    #[error("a list without a version")]
    NoVersion,
}

impl WatchError {
    /// Returns whether the API server no longer has the version from which to resume.
    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 410)
    }
}

/// The cache of one kind.
pub(super) trait ObjectCache: Send + Sync + 'static {
    /// Called before all objects are listed.
    fn begin_list(&self) {}

    /// Called after all objects were listed.
    fn end_list(&self) {}

    /// Returns the namespace and name of each object.
    fn names(&self) -> Vec<(String, String)>;

    /// Returns the state of the watch.
    fn confirmation(&self) -> &Confirmation;
}

/// A kind that is cached.
pub(super) trait Source: 'static {
    /// Type of an object from the API server.
    type Arrived: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static;
    /// Type of the cache.
    type Cache: ObjectCache;

    /// The kind.
    const KIND: Kind;

    /// Creates an empty cache.
    fn cache() -> Self::Cache;

    /// Returns the API and label selector to watch. Default: all objects.
    fn watched(client: &Client) -> (Api<Self::Arrived>, Option<String>) {
        (Api::all(client.clone()), None)
    }

    /// Stores an object. Returns what changed, and whether it uses its node's network.
    fn put(cache: &Self::Cache, namespace: &str, name: &str, arrived: Self::Arrived) -> (Difference, bool);

    /// Removes an object. Returns whether it used its node's network.
    fn remove(cache: &Self::Cache, namespace: &str, name: &str) -> bool;
}

/// Maintains the cache of one kind.
pub(super) struct Follower<S: Source> {
    api: Api<S::Arrived>,
    /// Label selector. `None`: all objects.
    labels: Option<String>,
    cache: Arc<S::Cache>,
    subscribers: Subscribers,
    /// resourceVersion from which to resume the watch. `None`: everything is listed first.
    version: Option<String>,
}

impl<S: Source> Follower<S> {
    pub(super) fn new(client: &Client, cache: Arc<S::Cache>, subscribers: Subscribers) -> Self {
        let (api, labels) = S::watched(client);
        Self { api, labels, cache, subscribers, version: None }
    }

    /// Maintains the cache until the future is dropped.
    pub(super) async fn run(mut self) {
        let mut pause = RETRY;
        loop {
            let began = Instant::now();
            match self.follow().await {
                Ok(()) => {
                    pause = RETRY;
                    sleep_until(began + SHORTEST).await;
                }
                Err(error) => {
                    if error.is_expired() {
                        self.version = None;
                    }
                    tracing::warn!(%error, kind = %S::KIND, "watch failed; restarting it");
                    self.cache.confirmation().failed(error.to_string());
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// Lists if necessary, and watches until the watch ends.
    async fn follow(&mut self) -> Result<(), WatchError> {
        let version = match self.version.clone() {
            Some(version) => version,
            None => {
                let version = self.list().await?;
                self.version = Some(version.clone());
                version
            }
        };
        let mut params = WatchParams::default().timeout(RENEWED_AFTER);
        params.label_selector.clone_from(&self.labels);
        let asked = moment();
        let watch = timeout(BEGINS_WITHIN, self.api.watch(&params, &version)).await;
        let mut events = std::pin::pin!(watch.map_err(|_| WatchError::Unanswered(BEGINS_WITHIN))??);
        self.cache.confirmation().confirm(asked);
        let dead_at = Instant::now() + Duration::from_secs(RENEWED_AFTER.into()) + GRACE;
        loop {
            match timeout_at(dead_at, events.next()).await {
                Ok(Some(event)) => self.apply(event?)?,
                Ok(None) => return Ok(()),
                Err(_) => return Err(WatchError::Silent),
            }
        }
    }

    /// Lists all objects. Returns the list's resourceVersion.
    async fn list(&self) -> Result<String, WatchError> {
        let asked = moment();
        self.cache.begin_list();
        let mut gone: BTreeSet<(String, String)> = self.cache.names().into_iter().collect();
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector.clone_from(&self.labels);
        let version = loop {
            let page = timeout(PAGE_WITHIN, self.api.list(&params)).await;
            let page = page.map_err(|_| WatchError::Unanswered(PAGE_WITHIN))??;
            for object in page.items {
                gone.remove(&key(&object));
                self.put(object);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break page.metadata.resource_version.unwrap_or_default(),
            }
        };
        for (namespace, name) in gone {
            self.remove(namespace, name, version.clone());
        }
        self.cache.end_list();
        self.cache.confirmation().confirm(asked);
        Ok(version)
    }

    fn apply(&mut self, event: WatchEvent<S::Arrived>) -> Result<(), WatchError> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.version = object.resource_version();
                self.put(object);
            }
            WatchEvent::Deleted(object) => {
                self.version = object.resource_version();
                let (namespace, name) = key(&object);
                self.remove(namespace, name, self.version.clone().unwrap_or_default());
            }
            WatchEvent::Bookmark(bookmark) => self.version = Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(WatchError::Api(kube::Error::Api(status))),
        }
        Ok(())
    }

    fn put(&self, object: S::Arrived) {
        let (namespace, name) = key(&object);
        let (difference, on_node_network) = S::put(&self.cache, &namespace, &name, object);
        let is_judged = difference == Difference::Judged;
        self.subscribers.publish(Change {
            kind: S::KIND,
            namespace,
            name,
            gone: None,
            on_node_network,
            is_judged,
        });
    }

    /// `version`: resourceVersion of the deletion.
    fn remove(&self, namespace: String, name: String, version: String) {
        let on_node_network = S::remove(&self.cache, &namespace, &name);
        let gone = Some(version);
        self.subscribers.publish(Change {
            kind: S::KIND,
            namespace,
            name,
            gone,
            on_node_network,
            is_judged: true,
        });
    }
}

/// Returns namespace and name of an object.
fn key<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}
