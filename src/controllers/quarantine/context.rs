//! State that passes share: clients, concurrency limits, and what is remembered of each namespace.

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

use super::{HEALTH_GRACE, QuarantineOptions, gitops};
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

/// Quarantines whose target is read at a time. A higher limit would delay the requests that fence.
const READING: usize = 16;
/// Namespaces whose fence or network is changed at a time.
const FENCING: usize = 16;
/// Namespaces whose workloads are stopped at a time.
const STOPPING: usize = 16;
/// How long passes wait for pending network cuts: in total, and after the last cut made progress.
const CUTS_FIRST: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(2));
/// Namespaces captured at a time. A capture takes a hundred times as long as a fence, and has a limit of its own to delay no fence.
const CAPTURING: usize = 4;

/// What is remembered of a namespace between passes. All of it can be lost and is then determined again.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// Level to be enforced. Determines which events matter.
    pub(super) level: Option<Isolation>,
    /// The last successful verification of the fence.
    pub(super) verification: Option<FenceVerification>,
    /// Time of the first of consecutive failed probes, and their number.
    pub(super) failed_probes: Option<(Instant, u32)>,
    /// Time since which only the health of the claimant's dependencies is missing.
    pub(super) unknown_since: Option<Instant>,
    /// Level and digest of the last capture. Cleared when the namespace is loosened.
    pub(super) captured: Option<(Isolation, String)>,
    /// Time since which each control has failed.
    pub(super) failing: BTreeMap<ControlName, Instant>,
    /// The time to fence was recorded, or the namespace was fenced before this process became leader.
    pub(super) is_timed: bool,
    /// Metadata of the Quarantine as this process wrote it last. Older versions from the watch are ignored.
    pub(super) written: Option<ObjectMeta>,
    /// The sealing whose accounts are all recreated, and whose record is deleted.
    pub(super) renewed: Option<SealMark>,
    /// Consecutive failed passes.
    pub(super) failures: u32,
    /// The Event was published that a deleted Quarantine stays isolated, and why.
    pub(super) is_retention_reported: bool,
    /// The namespace is open, and its last cleanup did not finish.
    pub(super) is_cleanup_due: bool,
    /// The namespace is open, and people have yet to start a workload of it.
    pub(super) awaits_start: bool,
}

/// A successful verification of the fence.
#[derive(Clone, Debug)]
pub(super) struct FenceVerification {
    pub(super) scope: VerificationScope,
    pub(super) at: Timestamp,
    /// Result per API server. Empty for a namespace that was opened.
    pub(super) probed: ProbeReport,
}

/// What a verification applies to. With another namespace, level, set of policies or of API servers, the fence is probed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VerificationScope {
    pub(super) namespace: Option<String>,
    pub(super) level: Isolation,
    pub(super) epoch: u64,
    pub(super) servers: u64,
}

pub(super) struct Context {
    pub(super) client: Client,
    /// The cluster cache.
    pub(super) cache: ClusterCache,
    pub(super) servers: Servers,
    pub(super) options: QuarantineOptions,
    pub(super) recorder: Recorder,
    pub(super) memory: Mutex<HashMap<String, Memory>>,
    pub(super) limits: ConcurrencyLimits,
    pub(super) lists: Lists,
    pub(super) gitops: gitops::GitOpsCache,
    /// Cached network policies of other APIs.
    pub(super) other_policies: PolicyReader,
    /// Number of running passes.
    pub(super) under_way: AtomicUsize,
}

/// Counts a running pass until it is dropped.
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Concurrency limits of passes. They let every namespace be fenced before much time goes into other work.
pub(super) struct ConcurrencyLimits {
    reading: Semaphore,
    fencing: Semaphore,
    capturing: Semaphore,
    stopping: Semaphore,
    pending_cuts: watch::Sender<usize>,
}

impl Default for ConcurrencyLimits {
    fn default() -> Self {
        Self {
            reading: Semaphore::new(READING),
            fencing: Semaphore::new(FENCING),
            capturing: Semaphore::new(CAPTURING),
            stopping: Semaphore::new(STOPPING),
            pending_cuts: watch::Sender::new(0),
        }
    }
}

/// Counts a pending network cut until it is dropped.
pub(super) struct PendingCut<'a>(&'a watch::Sender<usize>);

impl Drop for PendingCut<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl ConcurrencyLimits {
    /// Waits for a permit to read what a Quarantine is to enforce.
    pub(super) async fn acquire_read(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphores are never closed.
        self.reading.acquire().await.ok()
    }

    /// Counts a namespace whose network is yet to be cut.
    pub(super) fn register_cut(&self) -> PendingCut<'_> {
        self.pending_cuts.send_modify(|count| *count = count.saturating_add(1));
        PendingCut(&self.pending_cuts)
    }

    /// Waits until all pending network cuts are done, as long as they make progress.
    pub(super) async fn wait_for_cuts(&self) {
        self.wait_for_cuts_within(CUTS_FIRST).await;
    }

    async fn wait_for_cuts_within(&self, (most, stuck): (Duration, Duration)) {
        let mut pending = self.pending_cuts.subscribe();
        let others = async {
            while *pending.borrow_and_update() > 0 {
                if !matches!(timeout(stuck, pending.changed()).await, Ok(Ok(()))) {
                    return;
                }
            }
        };
        let _ = timeout(most, others).await;
    }

    /// Waits for a permit for the next action, in order of arrival. Dropping the permit frees it.
    pub(super) async fn acquire(&self, next: NextAction) -> Option<SemaphorePermit<'_>> {
        let queue = match next {
            NextAction::List | NextAction::Label | NextAction::Probe | NextAction::Network => &self.fencing,
            NextAction::Capture => &self.capturing,
            NextAction::Stop | NextAction::AwaitPods | NextAction::Identity => &self.stopping,
            NextAction::Done => return None,
        };
        // The semaphores are never closed.
        queue.acquire().await.ok()
    }
}

impl Context {
    /// Returns the observed state of the whole cluster.
    pub(super) fn cluster_state(&self) -> ClusterState {
        ClusterState { fence: self.options.fence.state(), network: self.options.network.verdict() }
    }

    /// Counts a running pass until the returned value is dropped.
    pub(super) fn under_way(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.under_way)
    }

    pub(super) fn remember<T>(&self, name: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(name.to_owned()).or_default())
    }

    /// Returns whether only the health of dependencies is missing, and may still arrive within [`HEALTH_GRACE`].
    pub(super) fn is_waiting_for_health(&self, name: &str, plan: PlanState) -> bool {
        plan == PlanState::Unknown
            && self.remember(name, |memory| {
                memory.unknown_since.get_or_insert_with(Instant::now).elapsed() < HEALTH_GRACE
            })
    }

    /// Tells the network prober whether anything is isolated.
    pub(super) fn update_network_demand(&self) {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let isolated = memory.values().any(|m| m.level.is_some_and(|level| level != Isolation::Open));
        self.options.network.set_needed(isolated);
    }

    pub(super) fn level(&self, name: &str) -> Option<Isolation> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(name).and_then(|memory| memory.level)
    }

    /// Returns whether people have yet to start a workload of this released namespace.
    pub(super) fn awaits_start(&self, name: &str) -> bool {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(name).is_some_and(|memory| memory.awaits_start)
    }

    pub(super) async fn publish_event(
        &self,
        quarantine: &Quarantine,
        type_: EventType,
        reason: &str,
        note: String,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(conditions::shorten(&note, 1000)),
            action: "Isolate".to_owned(),
            secondary: None,
        };
        let what = format!("publish event about Quarantine {}", quarantine.name_any());
        if let Err(error) = call(what, self.recorder.publish(&event, &quarantine.object_ref(&()))).await {
            tracing::warn!(%error, "event not published; it is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pending_cuts_are_awaited_unless_one_makes_no_progress() {
        let limits = ConcurrencyLimits::default();
        let waits = (Duration::from_secs(60), Duration::from_secs(2));
        limits.wait_for_cuts_within(waits).await;

        // All other cuts are done, one after the other.
        let others: Vec<_> = (0..5).map(|_| limits.register_cut()).collect();
        let one_by_one = async {
            for other in others {
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop(other);
            }
        };
        let (at_the_end, ()) = futures::join!(
            async {
                limits.wait_for_cuts_within(waits).await;
                *limits.pending_cuts.borrow()
            },
            one_by_one
        );
        assert_eq!(at_the_end, 0);

        let _hangs = limits.register_cut();
        let impatient = (Duration::from_secs(3600), Duration::from_millis(10));
        limits.wait_for_cuts_within(impatient).await;
        let busy = (Duration::from_millis(10), Duration::from_secs(3600));
        limits.wait_for_cuts_within(busy).await;
    }
}
