//! A log of which kinds changed in which namespaces, by metadata watches with the operator's account. No object is kept, and no value of
//! a Secret arrives.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::ApiResource;
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::changes::BEHIND;
use super::metadata::MetadataWatch;

/// Maximum age of the API server's confirmation of a watch. More than a watch lasts.
pub(crate) const CONFIRMED_WITHIN: Duration = Duration::from_secs(45);
/// Maximum number of kinds that are watched. Further ones count as changed.
const MAX_KINDS: usize = 500;
/// Maximum number of namespaces of one kind whose last change is recorded. Beyond that, all count as changed.
const MAX_NAMESPACES: usize = 20_000;

/// Group and plural of a kind; group empty for the core's.
pub(crate) type KindName = (String, String);

/// Moment of the last change of a kind in a namespace. Later changes have larger ones.
pub(crate) type ChangeMark = u64;

/// Objects of a kind changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetadataChange {
    /// The kind.
    pub(crate) kind: KindName,
    /// The namespace, for a Namespace its own name. Empty for another kind of the cluster. `None`: anywhere.
    pub(crate) namespace: Option<String>,
}

/// A notice to a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MetadataNotice {
    /// Objects changed.
    Changed(MetadataChange),
    /// The subscriber missed changes, so anything may have changed.
    Missed,
}

/// Changes of metadata since the subscription.
#[derive(Debug)]
pub(crate) struct MetadataChanges(broadcast::Receiver<MetadataChange>);

impl MetadataChanges {
    /// Returns the next notice. `None`: there will be none.
    pub(crate) async fn next(&mut self) -> Option<MetadataNotice> {
        match self.0.recv().await {
            Ok(change) => Some(MetadataNotice::Changed(change)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(MetadataNotice::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Sends changes to subscribers, who may subscribe before any log starts.
#[derive(Clone, Debug)]
pub(super) struct MetadataSubscribers(broadcast::Sender<MetadataChange>);

impl Default for MetadataSubscribers {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl MetadataSubscribers {
    pub(super) fn add(&self) -> MetadataChanges {
        MetadataChanges(self.0.subscribe())
    }
}

/// The log. Dropping it ends its watches.
pub(crate) struct ChangeLog {
    client: Client,
    clock: Arc<AtomicU64>,
    subscribers: MetadataSubscribers,
    kinds: Mutex<HashMap<KindName, Followed>>,
    watches: Mutex<JoinSet<()>>,
}

/// A kind that is watched, and in which version. Metadata is the same in all.
struct Followed {
    log: Arc<KindLog>,
    version: String,
    watch: AbortHandle,
}

impl fmt::Debug for ChangeLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeLog").finish_non_exhaustive()
    }
}

impl ChangeLog {
    /// Creates a log without watches.
    pub(super) fn new(client: &Client, subscribers: MetadataSubscribers) -> Self {
        Self {
            client: client.clone(),
            clock: Arc::default(),
            subscribers,
            kinds: Mutex::default(),
            watches: Mutex::default(),
        }
    }

    /// Starts watching a kind, unless it is watched already.
    pub(crate) fn follow(&self, kind: &ApiResource) {
        let name = (kind.group.clone(), kind.plural.clone());
        let mut kinds = lock(&self.kinds);
        match kinds.get(&name) {
            // The version may be served no longer.
            Some(followed) if followed.log.is_refused() && followed.version != kind.version => {
                followed.watch.abort();
            }
            Some(_) => return,
            None if kinds.len() >= MAX_KINDS => return,
            None => {}
        }
        let log = Arc::new(KindLog::new(name.clone(), self.clock.clone(), self.subscribers.clone()));
        let watch = MetadataWatch::new(&self.client, kind.clone(), log.clone()).run();
        let watch = lock(&self.watches).spawn(watch);
        kinds.insert(name, Followed { log, version: kind.version.clone(), watch });
    }

    /// Waits until the watch of each kind has started or was refused, at most for this long.
    pub(crate) async fn settled(&self, within: Duration) {
        let kinds: Vec<Arc<KindLog>> =
            lock(&self.kinds).values().map(|followed| followed.log.clone()).collect();
        let all = futures::future::join_all(kinds.iter().map(|kind| kind.settled()));
        // A kind whose watch is not there in time counts as changed.
        let _ = tokio::time::timeout(within, all).await;
    }

    /// Returns the moment of the last change of a kind in a namespace (empty: of a kind of the cluster). `None`: nobody knows, as its
    /// watch does not run.
    pub(crate) fn mark(&self, kind: &KindName, namespace: &str) -> Option<ChangeMark> {
        let log = lock(&self.kinds).get(kind)?.log.clone();
        log.mark(namespace, CONFIRMED_WITHIN)
    }
}

/// What a watch of a kind has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchState {
    /// It starts, or starts again after a failure.
    Starting,
    /// It runs.
    Running,
    /// The API server refuses it, or does not serve the kind.
    Refused,
}

/// Changes of one kind.
#[derive(Debug)]
pub(super) struct KindLog {
    name: KindName,
    clock: Arc<AtomicU64>,
    subscribers: MetadataSubscribers,
    changes: Mutex<KindChanges>,
    state: watch::Sender<WatchState>,
}

#[derive(Debug, Default)]
struct KindChanges {
    /// When the API server confirmed the watch. `None`: it does not run.
    confirmed: Option<Instant>,
    /// Last change of whatever is not in `namespaces`.
    all: ChangeMark,
    namespaces: HashMap<String, ChangeMark>,
}

impl KindLog {
    pub(super) fn new(name: KindName, clock: Arc<AtomicU64>, subscribers: MetadataSubscribers) -> Self {
        let state = watch::Sender::new(WatchState::Starting);
        Self { name, clock, subscribers, changes: Mutex::default(), state }
    }

    /// Records a change in a namespace (empty: of an object of the cluster).
    pub(super) fn changed(&self, namespace: &str) {
        {
            let mut changes = lock(&self.changes);
            let now = self.tick();
            if let Some(mark) = changes.namespaces.get_mut(namespace) {
                *mark = now;
            } else if changes.namespaces.len() >= MAX_NAMESPACES {
                changes.namespaces.clear();
                changes.all = now;
            } else {
                changes.namespaces.insert(namespace.to_owned(), now);
            }
        }
        self.publish(Some(namespace.to_owned()));
    }

    /// Records that anything may have changed: the watch starts at another version than it ended at.
    pub(super) fn restarted(&self) {
        {
            let mut changes = lock(&self.changes);
            changes.namespaces.clear();
            changes.all = self.tick();
        }
        self.publish(None);
    }

    /// Records that the API server confirmed the watch. `asked`: when it was requested.
    pub(super) fn confirm(&self, asked: Instant) {
        lock(&self.changes).confirmed = Some(asked);
        self.state.send_replace(WatchState::Running);
    }

    /// Records that the watch does not run. Whatever changes is not recorded.
    pub(super) fn failed(&self, is_refused: bool) {
        lock(&self.changes).confirmed = None;
        self.state.send_replace(if is_refused { WatchState::Refused } else { WatchState::Starting });
    }

    /// Returns whether the watch is refused.
    pub(super) fn is_refused(&self) -> bool {
        *self.state.borrow() == WatchState::Refused
    }

    fn mark(&self, namespace: &str, within: Duration) -> Option<ChangeMark> {
        let changes = lock(&self.changes);
        changes.confirmed.filter(|at| at.elapsed() <= within)?;
        Some(changes.namespaces.get(namespace).copied().unwrap_or(changes.all))
    }

    async fn settled(&self) {
        // The sender lives as long as `self`.
        let _ = self.state.subscribe().wait_for(|state| *state != WatchState::Starting).await;
    }

    fn tick(&self) -> ChangeMark {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn publish(&self, namespace: Option<String>) {
        // There may be no subscriber.
        let _ = self.subscribers.0.send(MetadataChange { kind: self.name.clone(), namespace });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Duration = Duration::from_secs(60);

    fn log() -> (KindLog, MetadataChanges) {
        let subscribers = MetadataSubscribers::default();
        let changes = subscribers.add();
        (KindLog::new((String::new(), "configmaps".to_owned()), Arc::default(), subscribers), changes)
    }

    #[test]
    fn a_change_marks_its_namespace_and_no_other() {
        let (log, _changes) = log();
        assert_eq!(log.mark("a", FRESH), None, "the watch has not started");
        log.restarted();
        log.confirm(Instant::now());
        let (a, b) = (log.mark("a", FRESH), log.mark("b", FRESH));
        assert!(a.is_some() && b.is_some());
        log.changed("a");
        assert!(log.mark("a", FRESH) > a);
        assert_eq!(log.mark("b", FRESH), b);
        let a = log.mark("a", FRESH);
        log.restarted();
        assert!(log.mark("a", FRESH) > a && log.mark("b", FRESH) > b, "anything may have changed");
    }

    #[test]
    fn a_watch_that_fails_or_is_old_tells_nothing() {
        let (log, _changes) = log();
        log.confirm(Instant::now());
        assert!(log.mark("a", FRESH).is_some());
        assert_eq!(log.mark("a", Duration::ZERO), None, "not confirmed for too long");
        for is_refused in [false, true] {
            log.failed(is_refused);
            assert_eq!(log.mark("a", FRESH), None);
            assert_eq!(log.is_refused(), is_refused);
            log.confirm(Instant::now());
        }
    }

    #[test]
    fn too_many_namespaces_all_count_as_changed() {
        let (log, _changes) = log();
        log.confirm(Instant::now());
        (0..MAX_NAMESPACES).for_each(|id| log.changed(&format!("n{id}")));
        let before = log.mark("n7", FRESH);
        log.changed("another");
        assert!(log.mark("n7", FRESH) > before);
        assert!(lock(&log.changes).namespaces.is_empty());
    }

    #[tokio::test]
    async fn subscribers_learn_what_changed_where() {
        let (log, mut changes) = log();
        log.changed("a");
        log.restarted();
        for namespace in [Some("a".to_owned()), None] {
            let Some(MetadataNotice::Changed(change)) = changes.next().await else { unreachable!() };
            assert_eq!(change, MetadataChange { kind: log.name.clone(), namespace });
        }
    }
}
