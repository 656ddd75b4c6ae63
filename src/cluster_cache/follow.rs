//! Keeps the cache of one kind: lists it page by page, then watches it.
//!
//! A connection that is dead says nothing. So each watch ends after [`RENEWED_AFTER`] and is begun again where it ended, and the API
//! server's answer to that confirms the cache: how old it can be is known without any error being reported.

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

/// Objects of one answer to a list.
const PAGE: u32 = 500;
/// How long one page of a list may take.
const PAGE_WITHIN: Duration = Duration::from_secs(15);
/// How long a watch may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(5);
/// How long a watch lasts, in seconds.
const RENEWED_AFTER: u32 = 10;
/// How much later than it should end a watch is taken for dead.
const GRACE: Duration = Duration::from_secs(3);
/// A watch that ends at once is not begun again at once.
const SHORTEST: Duration = Duration::from_millis(200);
/// Pause after a first failure; twice as long after each further one.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Unanswered(Duration),
    #[error("the watch did not end in time; the connection is considered dead")]
    Silent,
}

impl WatchError {
    /// Has the API server forgotten the version from which the watch was to go on?
    fn is_expired(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 410)
    }
}

/// What is kept of one kind.
pub(super) trait ObjectCache: Send + Sync + 'static {
    /// All objects are about to be listed.
    fn begin_list(&self) {}

    /// All objects have been listed.
    fn end_list(&self) {}

    /// Returns the namespace and name of each object.
    fn names(&self) -> Vec<(String, String)>;

    /// Returns how far it can be relied on.
    fn confirmation(&self) -> &Confirmation;
}

/// A kind that is cached.
pub(super) trait Source: 'static {
    /// An object as it arrives.
    type Arrived: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static;
    /// What is kept of all objects.
    type Cache: ObjectCache;

    /// The kind.
    const KIND: Kind;

    /// Creates an empty cache.
    fn cache() -> Self::Cache;

    /// Returns what is watched: everything, unless it says otherwise.
    fn watched(client: &Client) -> (Api<Self::Arrived>, Option<String>) {
        (Api::all(client.clone()), None)
    }

    /// Keeps an object. Returns what differs from before, and whether it uses the network of its node.
    fn put(cache: &Self::Cache, namespace: &str, name: &str, arrived: Self::Arrived) -> (Difference, bool);

    /// Forgets an object. Returns whether it used the network of its node.
    fn remove(cache: &Self::Cache, namespace: &str, name: &str) -> bool;
}

/// The cache of one kind, being kept.
pub(super) struct Follower<S: Source> {
    api: Api<S::Arrived>,
    /// Selects the objects. `None`: all.
    labels: Option<String>,
    cache: Arc<S::Cache>,
    subscribers: Subscribers,
    /// From where the next watch goes on. `None`: everything is listed first.
    version: Option<String>,
}

impl<S: Source> Follower<S> {
    pub(super) fn new(client: &Client, cache: Arc<S::Cache>, subscribers: Subscribers) -> Self {
        let (api, labels) = S::watched(client);
        Self { api, labels, cache, subscribers, version: None }
    }

    /// Keeps the cache for as long as it is polled.
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

    /// Lists, if need be, and watches until the watch ends.
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

    /// Reads everything, and returns as of which version.
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

    /// `version`: as of which it is gone.
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
