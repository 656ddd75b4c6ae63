//! Gates being asked: a task for each, which asks at its interval and when something it looks at changes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tracing::{Instrument, Span};

use super::metrics::Metrics;
use super::running::Wake;
use super::stores::Wakeups;
use crate::clock;
use crate::engine::{GateState, Tracker};
use crate::gates::{Asker, Question, interests, type_name};
use crate::plan::GatePolicy;

/// As many gates are asked at once, over all plans: a recovery must not be what brings the API server down.
const ASKED_AT_ONCE: usize = 64;

/// What all gates share.
#[derive(Clone)]
pub(crate) struct Gatekeeper {
    asker: Arc<Asker>,
    wakeups: Wakeups,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// What a verdict is bound to. When any of it changes, the gate begins anew, as Unknown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Binding {
    pub(crate) question: Question,
    pub(crate) attempt: i64,
    /// A claim that has to be written once more is another: what was asked before it counts for nothing.
    pub(crate) claimed_at: Option<Time>,
    pub(crate) account: String,
    pub(crate) compromised_since: Option<Timestamp>,
}

/// One gate being asked. Dropping it ends the asking.
pub(crate) struct GateTask {
    pub(crate) binding: Binding,
    tracker: Arc<Mutex<Tracker>>,
    handle: AbortHandle,
    /// Kept alive here, as the index of wake-ups holds it weakly.
    _wake: Arc<Notify>,
}

impl Drop for GateTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl GateTask {
    /// A gate that has answered once, and is asked no more.
    #[cfg(test)]
    pub(crate) fn answered(binding: Binding, policy: GatePolicy, answer: crate::engine::Answer) -> Self {
        let now = clock::now();
        let mut tracker = Tracker::new(policy, now);
        tracker.record(answer, now);
        let handle = tokio::spawn(std::future::ready(())).abort_handle();
        Self { binding, tracker: Arc::new(Mutex::new(tracker)), handle, _wake: Arc::default() }
    }

    /// Where the gate stands.
    pub(crate) fn state(&self, now: Timestamp) -> GateState {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner).state(now)
    }
}

impl Gatekeeper {
    pub(crate) fn new(asker: Asker, wakeups: Wakeups, metrics: Arc<Metrics>) -> Self {
        Self { asker: Arc::new(asker), wakeups, slots: Arc::new(Semaphore::new(ASKED_AT_ONCE)), metrics }
    }

    /// Begins to ask, and logs within `span`. `tell` is woken when the gate says something else than before.
    pub(crate) fn begin(
        &self,
        client: Client,
        binding: Binding,
        policy: GatePolicy,
        tell: Wake,
        span: Span,
    ) -> GateTask {
        let wake = Arc::new(Notify::new());
        self.wakeups.register(interests(&binding.question), &wake);
        let tracker = Arc::new(Mutex::new(Tracker::new(policy, clock::now())));
        let question = binding.question.clone();
        let asking = ask_on(self.clone(), client, question, tracker.clone(), wake.clone(), tell);
        let task = tokio::spawn(asking.instrument(span));
        GateTask { binding, tracker, handle: task.abort_handle(), _wake: wake }
    }
}

async fn ask_on(
    keeper: Gatekeeper,
    client: Client,
    question: Question,
    tracker: Arc<Mutex<Tracker>>,
    wake: Arc<Notify>,
    tell: Wake,
) {
    loop {
        // The semaphore is never closed; were it, asking would end and the verdict go stale, which blocks.
        let Ok(slot) = keeper.slots.acquire().await else { return };
        let began = Instant::now();
        let answer = keeper.asker.ask(&client, &question).await;
        drop(slot);
        keeper.metrics.answered(type_name(&question.spec), answer.verdict, began.elapsed());
        let now = clock::now();
        let said = (answer.verdict, answer.reason.clone());
        let (changed, next) = {
            let mut tracker = tracker.lock().unwrap_or_else(PoisonError::into_inner);
            let before = tracker.state(now);
            tracker.record(answer, now);
            let after = tracker.state(now);
            let same = (before.verdict, before.failed, &before.reason, &before.evidence)
                == (after.verdict, after.failed, &after.reason, &after.evidence);
            (!same, tracker.next_ask(now))
        };
        if changed {
            tracing::info!(verdict = said.0.as_str(), reason = %said.1, "gate answered");
            tell.notify_one();
        }
        let pause = next.duration_since(now).unsigned_abs();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake.notified() => {}
        }
    }
}
