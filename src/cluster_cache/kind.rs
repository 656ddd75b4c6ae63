//! The objects of one kind, by namespace, and the state of their watch.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::follow::ObjectCache;
use crate::clock;

/// The cached fields of an object, or why it cannot be deserialized, which does not affect others.
pub(crate) type Entry<T> = Result<T, String>;

/// What changed in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// A cached field, or the object was created or deleted.
    Judged,
    /// Something that is not cached.
    Other,
}

/// A kind whose watch fails. No decision may be based on its cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Plural of the kind.
    pub(crate) resource: &'static str,
    /// When the API server last confirmed the cache. `None`: never.
    pub(crate) since: Option<Timestamp>,
    /// Last error of the watch.
    pub(crate) error: Option<String>,
}

/// Entries of one namespace, by name.
type Within<T> = BTreeMap<String, Arc<Entry<T>>>;

/// The objects of one kind.
#[derive(Debug)]
pub(crate) struct KindCache<T> {
    objects: RwLock<HashMap<String, Within<T>>>,
    confirmation: Confirmation,
}

/// State of a watch: when the API server last confirmed the cache.
#[derive(Debug)]
pub(crate) struct Confirmation {
    resource: &'static str,
    health: Mutex<Health>,
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Health {
    confirmed: Option<(Instant, Timestamp)>,
    error: Option<String>,
}

impl<T: PartialEq> KindCache<T> {
    /// Creates an empty, unconfirmed cache. `resource`: plural of the kind.
    pub(crate) fn new(resource: &'static str) -> Self {
        Self { objects: RwLock::default(), confirmation: Confirmation::new(resource) }
    }

    /// Returns the cached objects of a namespace.
    pub(crate) fn within(&self, namespace: &str) -> Vec<Arc<Entry<T>>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(namespace).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Returns a cached object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry<T>>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(namespace)?.get(name).cloned()
    }

    /// Stores an object. Returns what changed.
    pub(super) fn put(&self, namespace: &str, name: &str, entry: Entry<T>) -> Difference {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        if !objects.contains_key(namespace) {
            objects.insert(namespace.to_owned(), BTreeMap::new());
        }
        let Some(within) = objects.get_mut(namespace) else { return Difference::Judged };
        if within.get(name).is_some_and(|before| **before == entry) {
            return Difference::Other;
        }
        within.insert(name.to_owned(), Arc::new(entry));
        Difference::Judged
    }

    /// Removes an object. Returns what was cached of it.
    pub(super) fn remove(&self, namespace: &str, name: &str) -> Option<Arc<Entry<T>>> {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let within = objects.get_mut(namespace)?;
        let removed = within.remove(name);
        if within.is_empty() {
            objects.remove(namespace);
        }
        removed
    }

    /// Returns the state of the watch.
    pub(crate) fn confirmation(&self) -> &Confirmation {
        &self.confirmation
    }

    /// # Errors
    /// The API server has not confirmed the cache for longer than `bound`.
    pub(crate) fn is_fresh(&self, bound: Duration) -> Result<(), Stale> {
        self.confirmation.is_fresh(bound)
    }
}

impl<T: PartialEq + Send + Sync + 'static> ObjectCache for KindCache<T> {
    fn names(&self) -> Vec<(String, String)> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let of = |(namespace, within): (&String, &Within<T>)| {
            within.keys().map(|name| (namespace.clone(), name.clone())).collect::<Vec<_>>()
        };
        objects.iter().flat_map(of).collect()
    }

    fn confirmation(&self) -> &Confirmation {
        &self.confirmation
    }
}

impl Confirmation {
    /// Creates the unconfirmed state. `resource`: plural of the kind.
    pub(super) fn new(resource: &'static str) -> Self {
        Self { resource, health: Mutex::default(), ready: watch::Sender::new(false) }
    }

    /// Records that the API server answered a list or watch that was requested at `asked`. All earlier changes are in the cache or about
    /// to arrive.
    pub(super) fn confirm(&self, asked: (Instant, Timestamp)) {
        *self.health() = Health { confirmed: Some(asked), error: None };
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Records that the watch failed.
    pub(super) fn failed(&self, error: String) {
        self.health().error = Some(error);
    }

    /// Waits until everything was read for the first time.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// # Errors
    /// The API server has not confirmed the cache for longer than `bound`.
    pub(crate) fn is_fresh(&self, bound: Duration) -> Result<(), Stale> {
        let health = self.health();
        if health.confirmed.is_some_and(|(at, _)| at.elapsed() <= bound) {
            return Ok(());
        }
        Err(Stale {
            resource: self.resource,
            since: health.confirmed.map(|(_, at)| at),
            error: health.error.clone(),
        })
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the current time for [`Confirmation::confirm`].
pub(super) fn moment() -> (Instant, Timestamp) {
    (Instant::now(), clock::now())
}
