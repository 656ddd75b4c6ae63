//! `Retry`: starts the next attempt, in which everything is proved again. Loosens nothing.

use k8s_openapi::jiff::Timestamp;

use crate::api::{Action, Reason};

use super::super::ServiceObservation;
use super::super::attempts::next_attempt;
use super::super::next::Next;
use super::{DecisionObservation, Row, Takes};

pub(super) const ROW: Row = Row {
    action: Action::Retry,
    answers: |reason| {
        // A step that overruns still works: the next attempt would start it beside itself.
        let has_another_answer = matches!(reason, Reason::OnHold | Reason::StepOverrunning);
        !has_another_answer && !matches!(reason, Reason::ControlNotEnforced | Reason::Loosened | Reason::Held)
    },
    outcome: "this attempt began",
    takes: Takes::OnTheRecord(begin),
};

/// Begins the next attempt. A retry requests isolation, so that a missing Quarantine may be created once more.
fn begin(of: &ServiceObservation, reason: Reason, decision: &DecisionObservation, now: Timestamp) -> Next {
    let message = format!("retry by {} (Decision {}): {}", decision.by, decision.name, decision.reason);
    let mut next = next_attempt(&of.status, now, reason, &message);
    next.quarantined.clear();
    Next::begun(next)
}
