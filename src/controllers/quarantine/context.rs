//! What passes share: clients, who takes turns, and what is remembered of each namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource, ResourceExt};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout;

use super::{ANSWERS, QuarantineOptions, gitops};
use crate::api::quarantine::ControlName;
use crate::api::{Isolation, Quarantine, conditions};
use crate::calls::call;
use crate::cluster_cache::ClusterCache;
use crate::isolation::identity::SealMark;
use crate::isolation::list::Lists;
use crate::isolation::other_policies::PolicyReader;
use crate::isolation::pass::ClusterState;
use crate::isolation::probe::{ProbeReport, Servers};
use crate::isolation::target::{NextAction, PlanState};

/// Quarantines of which is read at a time what is to be enforced. As many requests as can be under way would keep each other waiting, and
/// among them those that fence.
const READING: usize = 16;
/// Namespaces cut off, fenced off, or let out, at a time.
const FENCING: usize = 16;
/// Namespaces emptied at a time.
const STOPPING: usize = 16;
/// How long those whose networks are yet to be cut go first, at most; and how long after the last of them made progress: nobody waits
/// for one that hangs.
const CUTS_FIRST: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2));
/// Namespaces of which evidence is taken at a time. That takes a hundred times as long: those who wait for it hold up nobody
/// who has yet to be fenced off.
const CAPTURING: usize = 4;

/// What is remembered of a namespace between passes. All of it can be lost: then it is found out again.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// What is to be enforced: decides which events matter.
    pub(super) level: Option<Isolation>,
    /// What was tried, and held.
    pub(super) seen: Option<Held>,
    /// Since when, and how often, it has been tried in vain.
    pub(super) probing: Option<(Instant, u32)>,
    /// When it first only had yet to be heard whether what its claimant depends on is healthy.
    pub(super) unknown_since: Option<Instant>,
    /// The level that evidence was last kept for, and its digest. Nothing of it after the namespace was let in or out.
    pub(super) captured: Option<(Isolation, String)>,
    /// Since when each control has failed.
    pub(super) failing: BTreeMap<ControlName, Instant>,
    /// How long it took to fence it was counted, or it was fenced before this process led.
    pub(super) is_timed: bool,
    /// The metadata of the Quarantine as this process wrote it last: nothing is judged by an older version.
    pub(super) written: Option<ObjectMeta>,
    /// The sealing of which all accounts are recreated, and their record is gone.
    pub(super) renewed: Option<SealMark>,
    /// Passes that failed in a row.
    pub(super) failures: u32,
    /// It was told that this one is deleted, and why it stays isolated all the same.
    pub(super) kept: bool,
}

/// A try of the fence that showed what was wanted.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) seal: Seal,
    pub(super) at: Timestamp,
    /// What it showed on which API server. Empty for a namespace that was opened.
    pub(super) probed: ProbeReport,
}

/// What a try of the fence is good for: another namespace, level, set of policies or of API servers has to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) namespace: Option<String>,
    pub(super) level: Isolation,
    pub(super) epoch: u64,
    pub(super) servers: u64,
}

pub(super) struct Context {
    pub(super) client: Client,
    /// What is in the cluster.
    pub(super) cache: ClusterCache,
    pub(super) servers: Servers,
    pub(super) options: QuarantineOptions,
    pub(super) recorder: Recorder,
    pub(super) memory: Mutex<HashMap<String, Memory>>,
    pub(super) turns: Turns,
    pub(super) lists: Lists,
    pub(super) gitops: gitops::Shelf,
    /// What was read of network policies of other APIs.
    pub(super) other_policies: PolicyReader,
    /// Passes that are under way.
    pub(super) under_way: AtomicUsize,
}

/// One pass that is under way, for as long as this is there.
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who does how much at once: everything is fenced off before much time goes into anything else.
pub(super) struct Turns {
    reading: Semaphore,
    fencing: Semaphore,
    capturing: Semaphore,
    stopping: Semaphore,
    uncut: watch::Sender<usize>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            reading: Semaphore::new(READING),
            fencing: Semaphore::new(FENCING),
            capturing: Semaphore::new(CAPTURING),
            stopping: Semaphore::new(STOPPING),
            uncut: watch::Sender::new(0),
        }
    }
}

/// One whose network is yet to be cut, for as long as this is there.
pub(super) struct Uncut<'a>(&'a watch::Sender<usize>);

impl Drop for Uncut<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Turns {
    /// Waits until it is this one's turn to be looked at.
    pub(super) async fn read(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes them.
        self.reading.acquire().await.ok()
    }

    /// Counts one whose network is yet to be cut.
    pub(super) fn uncut(&self) -> Uncut<'_> {
        self.uncut.send_modify(|count| *count = count.saturating_add(1));
        Uncut(&self.uncut)
    }

    /// Lets those go first whose networks are yet to be cut, while they get on.
    pub(super) async fn after_cuts(&self) {
        self.after_cuts_within(CUTS_FIRST).await;
    }

    async fn after_cuts_within(&self, (most, stuck): (Duration, Duration)) {
        let mut uncut = self.uncut.subscribe();
        let others = async {
            while *uncut.borrow_and_update() > 0 {
                if !matches!(timeout(stuck, uncut.changed()).await, Ok(Ok(()))) {
                    return;
                }
            }
        };
        let _ = timeout(most, others).await;
    }

    /// Waits until it is this one's turn to do what comes next, in the order in which turns were asked for. The turn ends with what is
    /// returned.
    pub(super) async fn take(&self, next: NextAction) -> Option<SemaphorePermit<'_>> {
        let queue = match next {
            NextAction::List | NextAction::Label | NextAction::Probe | NextAction::Network => &self.fencing,
            NextAction::Capture => &self.capturing,
            NextAction::Stop | NextAction::AwaitPods | NextAction::Identity => &self.stopping,
            NextAction::Done => return None,
        };
        // Nobody closes them.
        queue.acquire().await.ok()
    }
}

impl Context {
    /// Returns what is observed of the whole cluster now.
    pub(super) fn cluster_state(&self) -> ClusterState {
        ClusterState { fence: self.options.fence.state(), network: self.options.network.verdict() }
    }

    /// Counts a pass that is under way.
    pub(super) fn under_way(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.under_way)
    }

    pub(super) fn remember<T>(&self, name: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(name.to_owned()).or_default())
    }

    /// Is it only to be waited for what has yet to be heard?
    pub(super) fn awaits_answers(&self, name: &str, plan: PlanState) -> bool {
        plan == PlanState::Unknown
            && self.remember(name, |memory| {
                memory.unknown_since.get_or_insert_with(Instant::now).elapsed() < ANSWERS.0
            })
    }

    /// Lets whoever tries the network know whether anybody needs to know.
    pub(super) fn tell_network(&self) {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let isolated = memory.values().any(|m| m.level.is_some_and(|level| level != Isolation::Open));
        self.options.network.needed(isolated);
    }

    pub(super) fn level(&self, name: &str) -> Option<Isolation> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(name).and_then(|memory| memory.level)
    }

    pub(super) async fn tell(&self, quarantine: &Quarantine, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(conditions::shorten(&note, 1000)),
            action: "Isolate".to_owned(),
            secondary: None,
        };
        let what = format!("tell about Quarantine {}", quarantine.name_any());
        if let Err(error) = call(what, self.recorder.publish(&event, &quarantine.object_ref(&()))).await {
            tracing::warn!(%error, "event lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_cut_waits_for_the_others_while_they_get_on_and_for_none_that_hangs() {
        let turns = Turns::default();
        let waits = (Duration::from_secs(60), Duration::from_secs(2));
        turns.after_cuts_within(waits).await;

        // All others are cut, one after the other.
        let others: Vec<_> = (0..5).map(|_| turns.uncut()).collect();
        let one_by_one = async {
            for other in others {
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop(other);
            }
        };
        let (at_the_end, ()) = futures::join!(
            async {
                turns.after_cuts_within(waits).await;
                *turns.uncut.borrow()
            },
            one_by_one
        );
        assert_eq!(at_the_end, 0);

        let _hangs = turns.uncut();
        let impatient = (Duration::from_secs(3600), Duration::from_millis(10));
        turns.after_cuts_within(impatient).await;
        let busy = (Duration::from_millis(10), Duration::from_secs(3600));
        turns.after_cuts_within(busy).await;
    }
}
