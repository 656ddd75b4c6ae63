//! `AcceptException`: a person accepts that a gate fails for exactly the finding shown, or that what was proved is superseded. It is
//! recorded as an exception.

use crate::api::conditions::shorten;
use crate::api::service_recovery::AcceptedGate;
use crate::api::{Action, Reason, ServiceRecoveryStatus};

use super::super::context::{ServiceContext, except};
use super::super::next::{Next, time};
use super::super::phase_gates::finding;
use super::{DecisionObservation, Row, Takes};

/// Maximum number of accepted gates in a status.
const ACCEPTED_LIMIT: usize = 32;

pub(super) const ROW: Row = Row {
    action: Action::AcceptException,
    answers: |reason| matches!(reason, Reason::GateFailed | Reason::Regressed | Reason::Superseded),
    outcome: "goes on although the finding stands, as an exception",
    takes: Takes::OnTheQuestion(accept),
};

fn accept(service: &ServiceContext<'_>, next: &mut Next, decision: &DecisionObservation) {
    let Some(question) = next.status.decision.clone() else { return };
    let by = format!("accepted by {} (Decision {}): {}", decision.by, decision.name, decision.reason);
    if question.reason == Reason::Superseded {
        next.status.compromised_since = service.observed.compromised_since.map(time);
        let exception = format!("proved for a later compromisedSince: {by}");
        answered(next, question.reason, &exception);
        return;
    }
    let asks = |reason: Reason| reason == question.reason;
    let Some(gate) = next.blocks.iter().find(|block| asks(block.reason)).map(|block| block.name.clone())
    else {
        return;
    };
    let Some((finding, message)) = service.failed_finding(next, &gate) else { return };
    if !has_room(&next.status, &gate) {
        return;
    }
    next.status.accepted_gates.retain(|accepted| accepted.name != gate);
    next.status.accepted_gates.push(AcceptedGate { name: gate.clone(), finding });
    let exception = format!("gate '{gate}' fails: {}: {by}", shorten(&message, 200));
    answered(next, question.reason, &exception);
}

/// Returns whether the failure of a gate can be accepted: a status holds a limited number.
pub(in super::super) fn has_room(status: &ServiceRecoveryStatus, gate: &str) -> bool {
    let others = status.accepted_gates.iter().filter(|accepted| accepted.name != gate);
    others.count() < ACCEPTED_LIMIT
}

fn answered(next: &mut Next, reason: Reason, exception: &str) {
    next.status.decision = None;
    next.blocks.retain(|block| block.reason != reason);
    except(next, &shorten(exception, 600));
}

impl ServiceContext<'_> {
    /// Returns what a failed gate found, and its message: as observed now, or as it was recorded with the question.
    fn failed_finding(&self, next: &Next, gate: &str) -> Option<(String, String)> {
        let observed = self.of.gates.iter().find(|(key, state)| key.name == gate && state.failed);
        if let Some((_, state)) = observed {
            return Some((finding(state.evidence.as_deref(), &state.message), state.message.clone()));
        }
        let recorded = next
            .status
            .gates
            .iter()
            .find(|status| status.name == gate && status.verdict == crate::api::Verdict::Fail)?;
        Some((finding(recorded.evidence.as_deref(), &recorded.message), recorded.message.clone()))
    }
}
