//! The objects of one kind, by namespace, and how far they can be relied on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::follow::ObjectCache;
use crate::clock;

/// What is kept of an object, or why it cannot be read: one that cannot stops none of the others.
pub(crate) type Entry<T> = Result<T, String>;

/// What changed of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Something that is kept, or the object came or went.
    Judged,
    /// Something else.
    Other,
}

/// A kind whose watch does not work. Nothing may be judged by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Its plural.
    pub(crate) resource: &'static str,
    /// When the API server last confirmed the cache. `None`: it has not been read yet.
    pub(crate) since: Option<Timestamp>,
    /// What the watch failed with.
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

/// How far a cache can be relied on.
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
    /// Creates an empty cache, which nothing has confirmed yet, of a kind with this plural.
    pub(crate) fn new(resource: &'static str) -> Self {
        Self { objects: RwLock::default(), confirmation: Confirmation::new(resource) }
    }

    /// Returns what is kept of the objects in a namespace.
    pub(crate) fn within(&self, namespace: &str) -> Vec<Arc<Entry<T>>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(namespace).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Returns what is kept of an object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry<T>>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(namespace)?.get(name).cloned()
    }

    /// Keeps an object. Returns what differs from what was kept of it before.
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

    /// Forgets an object. Returns what was kept of it.
    pub(super) fn remove(&self, namespace: &str, name: &str) -> Option<Arc<Entry<T>>> {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let within = objects.get_mut(namespace)?;
        let removed = within.remove(name);
        if within.is_empty() {
            objects.remove(namespace);
        }
        removed
    }

    /// Returns how far it can be relied on.
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
    /// Creates one of a kind with this plural, which nothing has confirmed yet.
    pub(super) fn new(resource: &'static str) -> Self {
        Self { resource, health: Mutex::default(), ready: watch::Sender::new(false) }
    }

    /// Notes that the API server answered a list or watch which was asked for at `asked`: the cache lacks nothing from before, or is
    /// about to be told.
    pub(super) fn confirm(&self, asked: (Instant, Timestamp)) {
        *self.health() = Health { confirmed: Some(asked), error: None };
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Notes that the watch failed.
    pub(super) fn failed(&self, error: String) {
        self.health().error = Some(error);
    }

    /// Returns once everything has been read for the first time.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as this does.
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

/// Returns this moment, as [`Confirmation::confirm`] takes it.
pub(super) fn moment() -> (Instant, Timestamp) {
    (Instant::now(), clock::now())
}
