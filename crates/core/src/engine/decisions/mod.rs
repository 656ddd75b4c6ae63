//! Effect of Decisions: one file and one row per action. A Decision answers one published question, which it names by digest, and has no
//! effect on another.

use k8s_openapi::jiff::Timestamp;

use crate::api::{Action, Reason};

use super::context::ServiceContext;
use super::next::Next;
use super::{DecisionObservation, ServiceObservation};

mod accept_exception;
mod accept_loosening;
pub(super) mod applied;
mod approve;
pub(super) mod orders;
mod override_control;
mod retry;
mod skip;

pub(super) use accept_exception::has_room;
pub(super) use accept_loosening::loosened;

/// All actions. Messages offer them in this order.
const TABLE: [Row; 10] = [
    approve::APPROVE,
    approve::REJECT,
    retry::ROW,
    override_control::ROW,
    accept_loosening::ROW,
    accept_exception::ROW,
    skip::ROW,
    orders::HOLD,
    orders::UNHOLD,
    orders::ABORT,
];

/// Effect of the Decisions of one action.
struct Row {
    action: Action,
    /// Returns whether it answers a question with this reason.
    answers: fn(Reason) -> bool,
    /// What it led to, in a few words.
    outcome: &'static str,
    takes: Takes,
}

/// When an action takes effect.
enum Takes {
    /// Before anything else is decided, on the recorded question: it ends the attempt.
    OnTheRecord(fn(&ServiceObservation, Reason, &DecisionObservation, Timestamp) -> Next),
    /// After this pass has published the same question again: the attempt continues.
    OnTheQuestion(fn(&ServiceContext<'_>, &mut Next, &DecisionObservation)),
    /// Before anything else is decided, without a question: the service is held, and what this does comes on top.
    AtAnyTime(fn(&mut Next, &DecisionObservation, Timestamp)),
    /// What asks counts the Decisions itself.
    ByCounting,
}

/// Returns what a Decision of this action leads to.
pub(super) fn outcome(action: Action) -> &'static str {
    TABLE.iter().find(|row| row.action == action).map_or("", |row| row.outcome)
}

/// Returns the actions that answer a question with this reason.
pub(super) fn offered(reason: Reason) -> Vec<Action> {
    TABLE.iter().filter(|row| (row.answers)(reason)).map(|row| row.action).collect()
}

/// Returns the Decision of an action that answers this question.
fn fitting<'a>(of: &'a ServiceObservation, row: &Row, digest: &str) -> Option<&'a DecisionObservation> {
    of.decisions.iter().find(|decision| decision.action == row.action && decision.decided_on == digest)
}

/// Ends the attempt if a Decision on the recorded question says so.
pub(super) fn end_attempt(of: &ServiceObservation, now: Timestamp) -> Option<Next> {
    let question = of.status.decision.as_ref()?;
    TABLE.iter().filter(|row| question.actions.contains(&row.action)).find_map(|row| {
        let Takes::OnTheRecord(begin) = row.takes else { return None };
        let decision = fitting(of, row, &question.digest)?;
        let mut next = begin(of, question.reason, decision, now);
        applied::record(&mut next, of, decision, now);
        Some(next)
    })
}

/// Continues if a Decision answers the question that this pass has published.
pub(super) fn answer(service: &ServiceContext<'_>, next: &mut Next) {
    let Some(question) = next.status.decision.clone() else { return };
    for row in TABLE.iter().filter(|row| question.actions.contains(&row.action)) {
        if let Takes::OnTheQuestion(go_on) = row.takes
            && let Some(decision) = fitting(service.of, row, &question.digest)
        {
            go_on(service, next, decision);
            if next.status.decision.is_none() {
                applied::record(next, service.of, decision, service.observed.now);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests;
