//! Tasks that evaluate gates: one per gate, at its interval and when an object that it observes changes.
//!
//! A gate that the cluster cache can answer is evaluated on the cache. If the result would open something, or count against a service
//! before it is Recovered, the gate is evaluated again by live reads, and only that result counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use resurgam_core::time::after;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tracing::{Instrument, Span};

use super::metrics::Metrics;
use super::running::Wake;
use super::stores::Wakeups;
use crate::api::{Phase, Verdict};
use crate::clock;
use crate::cluster_cache::ClusterCache;
use crate::engine::{Answer, GateState, Tracker};
use crate::gates::{Account, Asker, Cached, KeptReads, Question, cached, interests};
use crate::plan::GatePolicy;

/// Gates evaluated at a time, over all plans, so that a recovery does not overload the API server.
const ASKED_AT_ONCE: usize = 64;
/// Minimum time between two evaluations of a gate, since changes come in bursts.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The same for evaluations by live reads, which cost requests.
const LIVE_DEBOUNCE: Duration = Duration::from_secs(1);
/// The same for gates that the cache cannot answer.
const UNCACHED_DEBOUNCE: Duration = Duration::from_secs(10);
/// The same for gates that read what has changed, as a multiple of what the last evaluation took: from [`LIVE_DEBOUNCE`] to the interval.
const KEPT_DEBOUNCE: u32 = 10;
/// How long what such a gate has read counts without another evaluation, which reviews what the account may still read.
const REVIEWED_AFTER: Duration = Duration::from_secs(50);
/// How long a live Pass is valid at least while the cache agrees. Shorter than the freshness of every gate.
const LIVE_LASTS: Duration = Duration::from_secs(10);

/// State that all gate tasks share.
#[derive(Clone)]
pub(crate) struct GateRunner {
    asker: Arc<Asker>,
    cache: ClusterCache,
    wakeups: Wakeups,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// What a verdict is bound to. When any of it changes, the gate starts again as Unknown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Binding {
    pub(crate) question: Question,
    /// Time of the claim. A renewed claim voids verdicts from before it.
    pub(crate) claimed_at: Option<Time>,
    pub(crate) account: String,
}

/// Task that evaluates one gate. Dropping it ends the task.
pub(crate) struct GateTask {
    pub(crate) binding: Binding,
    tracker: Arc<Mutex<Tracker>>,
    handle: AbortHandle,
    /// Keeps the wake-up alive, which the index holds weakly.
    _wake: Arc<Notify>,
    /// Keeps what the gate has read, and the watches that tell what has changed.
    _kept: Option<Arc<KeptReads>>,
}

impl Drop for GateTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl GateTask {
    /// Returns a gate task with one verdict that is never evaluated again.
    #[cfg(test)]
    pub(crate) fn answered(binding: Binding, policy: GatePolicy, answer: crate::engine::Answer) -> Self {
        let now = clock::now();
        let mut tracker = Tracker::new(policy, now);
        tracker.record(answer, now);
        let handle = tokio::spawn(std::future::ready(())).abort_handle();
        Self { binding, tracker: Arc::new(Mutex::new(tracker)), handle, _wake: Arc::default(), _kept: None }
    }

    /// Returns the gate's state.
    pub(crate) fn state(&self, now: Timestamp) -> GateState {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner).state(now)
    }
}

impl GateRunner {
    pub(crate) fn new(asker: Asker, cache: ClusterCache, wakeups: Wakeups, metrics: Arc<Metrics>) -> Self {
        let slots = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        Self { asker: Arc::new(asker), cache, wakeups, slots, metrics }
    }

    /// Reads and parses what a gate is configured with, as an account. It does not evaluate the gate.
    ///
    /// # Errors
    /// An Unknown: it cannot be read, or the gate cannot use it.
    pub(crate) async fn check_inputs(
        &self,
        account: &Account,
        question: &Question,
    ) -> Result<(), crate::gates::Answer> {
        self.asker.check_inputs(account, question).await
    }

    /// Keeps what some gate reads, if that is of use to it, for as long as what is returned lives.
    pub(crate) fn keep_reads(&self, question: &Question) -> Option<Arc<KeptReads>> {
        (cached(&question.spec) == Cached::Kept).then(|| self.asker.keep_reads(&self.cache))
    }

    /// Starts evaluating, with log lines in `span`. `tell` is woken when the result differs from the previous one.
    pub(crate) fn begin(
        &self,
        account: Account,
        binding: Binding,
        policy: GatePolicy,
        tell: Wake,
        span: Span,
    ) -> GateTask {
        let wake = Arc::new(Notify::new());
        self.wakeups.register(interests(&binding.question), &wake);
        let kept = self.keep_reads(&binding.question);
        let tracker = Arc::new(Mutex::new(Tracker::new(policy, clock::now())));
        let asking = GateLoop {
            runner: self.clone(),
            account,
            question: binding.question.clone(),
            interval: policy.interval,
            tracker: tracker.clone(),
            tell,
            live: None,
        };
        let task = tokio::spawn(asking.run(wake.clone()).instrument(span));
        GateTask { binding, tracker, handle: task.abort_handle(), _wake: wake, _kept: kept }
    }
}

/// State of a running gate task.
struct GateLoop {
    runner: GateRunner,
    account: Account,
    question: Question,
    interval: Duration,
    tracker: Arc<Mutex<Tracker>>,
    tell: Wake,
    /// Time of the last evaluation by live reads, if the cache is evaluated first.
    live: Option<Timestamp>,
}

impl GateLoop {
    async fn run(mut self, wake: Arc<Notify>) {
        loop {
            // The semaphore is never closed. If it were, the verdict would go stale, which blocks.
            let Ok(slot) = self.runner.slots.clone().acquire_owned().await else { return };
            let asked = tokio::time::Instant::now();
            let next = self.evaluate().await;
            let took = asked.elapsed();
            drop(slot);
            let pause = next.duration_since(clock::now());
            let pause = Duration::try_from(pause).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wake.notified() => tokio::time::sleep_until(asked + self.debounce(took)).await,
            }
        }
    }

    /// Returns the minimum time between two evaluations. `took`: the time that the last one took.
    fn debounce(&self, took: Duration) -> Duration {
        match cached(&self.question.spec) {
            Cached::Whole => DEBOUNCE,
            Cached::Kept => (took * KEPT_DEBOUNCE).max(LIVE_DEBOUNCE).min(self.interval),
            Cached::No => UNCACHED_DEBOUNCE.min(self.interval),
        }
    }

    /// Evaluates the gate once. Returns when to evaluate it again unless something wakes it earlier.
    async fn evaluate(&mut self) -> Timestamp {
        let began = Instant::now();
        let Some(cached) =
            self.runner.asker.ask_cached(&self.runner.cache, &self.account, &self.question).await
        else {
            let answer = self.runner.asker.ask(&self.account, &self.question).await;
            self.live = Some(clock::now());
            return self.record(answer, began);
        };
        let now = clock::now();
        let use_of_it = {
            let tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
            usage(self.question.phase, &tracker, &cached, (self.interval, self.live), now)
        };
        match use_of_it {
            Usage::Counts => {
                let next = self.record(cached, began);
                match crate::gates::cached(&self.question.spec) {
                    Cached::Kept => next.min(after(clock::now(), REVIEWED_AFTER)),
                    Cached::Whole | Cached::No => next,
                }
            }
            Usage::IsKnown { until } | Usage::AskLiveLater { at: until } => until,
            Usage::AskLive => {
                let answer = self.runner.asker.ask(&self.account, &self.question).await;
                self.live = Some(clock::now());
                self.record(answer, began)
            }
        }
    }

    /// Records a result and wakes the plan if it differs from the previous one. Returns when to evaluate the gate again.
    fn record(&self, answer: Answer, began: Instant) -> Timestamp {
        self.runner.metrics.answered(self.question.spec.type_name(), answer.verdict, began.elapsed());
        let now = clock::now();
        let said = (answer.verdict, answer.reason);
        let (changed, next) = {
            let mut tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
            let before = tracker.state(now);
            tracker.record(answer, now);
            let after = tracker.state(now);
            let same = (before.verdict, before.failed, &before.reason, &before.evidence)
                == (after.verdict, after.failed, &after.reason, &after.evidence);
            (!same, tracker.next_ask(now))
        };
        if changed {
            tracing::info!(verdict = said.0.as_str(), reason = %said.1, "gate answered");
            self.tell.notify_one();
        }
        next
    }
}

/// How a result from the cache is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// It counts.
    Counts,
    /// It equals the last live result, which stays valid until then; nothing is recorded.
    IsKnown { until: Timestamp },
    /// The gate has to be evaluated by live reads, and that result counts.
    AskLive,
    /// The same, but not before this time.
    AskLiveLater { at: Timestamp },
}

/// Returns how a result from the cache is used. `live`: time of the last evaluation by live reads.
///
/// Recovered services are evaluated on the cache alone. Before that, the cache suffices for results that open nothing: Unknown, a gate
/// that is not stable yet, an unchanged failure.
fn usage(
    phase: Phase,
    tracker: &Tracker,
    cached: &Answer,
    (interval, live): (Duration, Option<Timestamp>),
    now: Timestamp,
) -> Usage {
    if phase == Phase::Continuous || cached.verdict == Verdict::Unknown {
        return Usage::Counts;
    }
    let state = tracker.state(now);
    let within = |lasts| live.map(|at| after(at, lasts)).filter(|until| *until > now);
    let recorded = {
        let mut tracker = tracker.clone();
        tracker.record(cached.clone(), now);
        tracker.state(now)
    };
    let is_same = state.verdict == cached.verdict;
    match cached.verdict {
        Verdict::Pass if recorded.verdict != Verdict::Pass => return Usage::Counts,
        Verdict::Pass if is_same && state.evidence == cached.evidence => {
            if let Some(until) = within(interval.max(LIVE_LASTS)) {
                return Usage::IsKnown { until };
            }
        }
        // Within an interval, failures count once.
        Verdict::Fail if is_same && within(interval).is_some() => return Usage::Counts,
        Verdict::Pass | Verdict::Fail | Verdict::Unknown => {}
    }
    match within(LIVE_DEBOUNCE) {
        Some(at) => Usage::AskLiveLater { at },
        None => Usage::AskLive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::GateReason;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn answer(verdict: Verdict, evidence: &str) -> Answer {
        let evidence = Some(evidence.into());
        Answer {
            verdict,
            reason: GateReason::Current,
            message: "m".into(),
            evidence,
            subject: None,
            exceptions: Vec::new(),
        }
    }

    fn tracker(stable_ms: u64) -> Tracker {
        let ms = Duration::from_millis;
        let policy = GatePolicy {
            stable_for: ms(stable_ms),
            interval: ms(10_000),
            timeout: ms(500),
            failure_limit: 2,
            startup_grace: ms(0),
            unknown_deadline: ms(60_000),
        };
        Tracker::new(policy, at(0))
    }

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn nothing_passes_before_release_without_a_live_read() {
        let mut gate = tracker(300);
        let (pass, phase) = (answer(Verdict::Pass, "a"), Phase::BeforeRelease);
        let used = |gate: &Tracker, live, now| usage(phase, gate, &pass, (INTERVAL, live), at(now));
        assert_eq!(used(&gate, None, 0), Usage::Counts, "it begins to be stable");
        gate.record(pass.clone(), at(0));
        assert_eq!(used(&gate, None, 299), Usage::Counts, "it has yet to be stable");
        assert_eq!(used(&gate, None, 300), Usage::AskLive);
        gate.record(pass.clone(), at(310));
        let live = Some(at(310));
        assert_eq!(used(&gate, live, 400), Usage::IsKnown { until: at(10_310) });
        assert_eq!(used(&gate, live, 10_310), Usage::AskLive, "a live read lasts for an interval");
        for phase in [Phase::BeforeRestore, Phase::BeforeRelease] {
            let gate = tracker(0);
            assert_eq!(usage(phase, &gate, &pass, (INTERVAL, None), at(0)), Usage::AskLive);
        }
    }

    #[test]
    fn other_evidence_is_read_live_at_most_once_a_second() {
        let mut gate = tracker(0);
        gate.record(answer(Verdict::Pass, "a"), at(0));
        let other = answer(Verdict::Pass, "b");
        let used = |now| usage(Phase::BeforeRelease, &gate, &other, (INTERVAL, Some(at(0))), at(now));
        assert_eq!(used(400), Usage::AskLiveLater { at: at(1000) });
        assert_eq!(used(1000), Usage::AskLive);
    }

    #[test]
    fn failures_that_count_are_read_live() {
        let mut gate = tracker(0);
        let fail = answer(Verdict::Fail, "a");
        let used =
            |gate: &Tracker, live, now| usage(Phase::BeforeRestore, gate, &fail, (INTERVAL, live), at(now));
        assert_eq!(used(&gate, None, 0), Usage::AskLive);
        gate.record(fail.clone(), at(0));
        assert_eq!(used(&gate, Some(at(0)), 2000), Usage::Counts);
        let mut within = gate.clone();
        within.record(fail.clone(), at(2000));
        assert!(!within.state(at(2000)).failed, "one failure within an interval");
        assert_eq!(used(&gate, Some(at(0)), 10_000), Usage::AskLive);
        gate.record(answer(Verdict::Pass, "a"), at(3000));
        assert_eq!(used(&gate, Some(at(3000)), 5000), Usage::AskLive, "the first of a row counts");
    }

    #[test]
    fn unknown_and_recovered_are_judged_by_the_cache_alone() {
        let gate = tracker(0);
        let unknown = Answer::unknown(GateReason::CacheStale, "m");
        for phase in [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous] {
            assert_eq!(usage(phase, &gate, &unknown, (INTERVAL, None), at(0)), Usage::Counts);
        }
        for verdict in [Verdict::Pass, Verdict::Fail] {
            let answer = answer(verdict, "a");
            assert_eq!(usage(Phase::Continuous, &gate, &answer, (INTERVAL, None), at(0)), Usage::Counts);
        }
    }
}
