//! Events on transitions, for `kubectl describe` and event collectors. They never delay a decision.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;

use crate::api::conditions::{READY, find, shorten};
use crate::api::{Decision, RecoveryPlan, RecoveryPlanStatus, ServiceRecovery, ServiceRecoveryStatus};
use crate::calls::call;
use crate::engine::DecisionVerdict;

/// Maximum length of an Event's note.
const NOTE_LIMIT: usize = 1000;

/// Maximum number of Events that wait to be published. Further ones are dropped.
const WAITING_LIMIT: usize = 1_024;

/// Publishes Events from a task of its own.
pub(crate) struct Events(Sender<(Event, ObjectReference)>);

impl Events {
    pub(crate) fn start(client: Client, tasks: &mut JoinSet<()>) -> Self {
        let reporter = Reporter { controller: "resurgam".to_owned(), instance: None };
        let recorder = Recorder::new(client, reporter);
        let (sender, mut queue) = channel::<(Event, ObjectReference)>(WAITING_LIMIT);
        tasks.spawn(async move {
            while let Some((event, regarding)) = queue.recv().await {
                if let Err(error) = call("publish an Event", recorder.publish(&event, &regarding)).await {
                    tracing::debug!(%error, "Event not published; it is lost");
                }
            }
        });
        Self(sender)
    }

    fn publish(&self, regarding: ObjectReference, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shorten(note, NOTE_LIMIT)),
            action: "Recover".to_owned(),
            secondary: None,
        };
        // A dropped Event is harmless: the status has the same information.
        let _ = self.0.try_send((event, regarding));
    }

    /// Publishes a service's new stage, attempt, need of a Decision, exception, or that it is isolated again.
    pub(crate) fn stage_changed(
        &self,
        object: &ServiceRecovery,
        before: Option<&ServiceRecoveryStatus>,
        now: &ServiceRecoveryStatus,
    ) {
        if let Some(decision) = &now.decision
            && before.and_then(|b| b.decision.as_ref()).is_none_or(|b| b.digest != decision.digest)
        {
            let note =
                find(&now.conditions, crate::api::conditions::NEEDS_DECISION).map_or("", |c| &c.message);
            self.publish(object.object_ref(&()), EventType::Warning, decision.reason.as_str(), note);
        }
        if let Some(isolating) = &now.isolating
            && before.is_none_or(|before| before.isolating.is_none())
        {
            let reason = isolating.reason.as_str();
            self.publish(object.object_ref(&()), EventType::Warning, reason, &isolating.message);
        }
        let is_new = |exception: &&String| before.is_none_or(|before| !before.exceptions.contains(exception));
        for exception in now.exceptions.iter().filter(is_new) {
            self.publish(object.object_ref(&()), EventType::Warning, "Exception", exception);
        }
        let stood = before.map(|b| (b.stage, b.attempt));
        if stood != Some((now.stage, now.attempt)) {
            let note = match now
                .history
                .first()
                .filter(|_| stood.is_some_and(|(_, attempt)| attempt != now.attempt))
            {
                Some(past) => format!("attempt {} begins: {}", now.attempt, past.message),
                None => now.waiting_for.as_ref().map_or_else(String::new, |w| format!("waiting for {w}")),
            };
            self.publish(object.object_ref(&()), EventType::Normal, now.stage.as_str(), &note);
        }
    }

    /// Publishes what became of a Decision.
    pub(crate) fn decision_judged(&self, object: &Decision, verdict: &DecisionVerdict) {
        let type_ = if verdict.reason.is_effect() { EventType::Normal } else { EventType::Warning };
        self.publish(object.object_ref(&()), type_, verdict.reason.as_str(), &verdict.message);
    }

    /// Publishes a plan's new state.
    pub(crate) fn plan_changed(
        &self,
        object: &RecoveryPlan,
        before: &RecoveryPlanStatus,
        now: &RecoveryPlanStatus,
    ) {
        let state = |status: &RecoveryPlanStatus| {
            find(&status.conditions, READY).map(|c| (c.status.clone(), c.reason.clone()))
        };
        let Some(ready) = find(&now.conditions, READY) else { return };
        if state(before) != state(now) {
            let type_ = if ready.status == "False" { EventType::Warning } else { EventType::Normal };
            self.publish(object.object_ref(&()), type_, &ready.reason, &ready.message);
        }
    }
}
