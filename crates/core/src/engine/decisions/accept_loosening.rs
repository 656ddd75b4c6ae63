//! `AcceptLoosening`: a person accepts that the plan requires less than was last accepted. It is recorded as an exception.

use crate::api::conditions::shorten;
use crate::api::{Action, Reason, Stage};

use super::super::Effect;
use super::super::context::{ServiceContext, digest, except};
use super::super::next::Next;
use super::super::ratchet::{self, Ratchet};
use super::{DecisionObservation, Row, Takes};

pub(super) const ROW: Row = Row {
    action: Action::AcceptLoosening,
    answers: |reason| reason == Reason::Loosened,
    outcome: "what the plan requires now is accepted, as an exception",
    takes: Takes::OnTheQuestion(accept),
};

fn accept(service: &ServiceContext<'_>, next: &mut Next, decision: &DecisionObservation) {
    let Ratchet::Loosened { lost, records, .. } = ratchet::judge(service.plan, service.observed, service.id)
    else {
        return;
    };
    let by = format!("{} (Decision {})", decision.by, decision.name);
    let what = shorten(&lost.join("; "), 300);
    let exception = shorten(&format!("loosened: {what}: accepted by {by}: {}", decision.reason), 600);
    next.status.decision = None;
    next.blocks.retain(|block| block.reason != Reason::Loosened);
    except(next, &exception);
    let records = ratchet::accepted_by(records, &by, &exception);
    service.effect(next, Effect::Accept { records });
}

impl ServiceContext<'_> {
    /// Requests a decision if the plan requires less than was last accepted. Nothing is loosened until a person accepts exactly that. A
    /// recovered service stays recovered; renewed isolation and failed gates take precedence.
    pub(in super::super) fn is_loosened(&self, next: &mut Next) -> bool {
        let Ratchet::Loosened { lost, before, .. } = ratchet::judge(self.plan, self.observed, self.id) else {
            // There is no readable record to compare with: nothing advances.
            return false;
        };
        if self.of.status.stage == Stage::Recovered {
            self.recovered(next);
        }
        let message = format!(
            "{}. AcceptLoosening takes the verb acceptloosening on recoveryplans/{} in namespace {}; or put it back in the plan",
            loosened(&lost),
            self.plan.name,
            self.plan.namespace
        );
        let evidence = digest(&(&before, &*self.service().requirements));
        self.need(next, Reason::Loosened, &self.service().name, &message, Some(&evidence));
        true
    }
}

/// Describes the loosened requirements in one sentence that leaves room for the names of those who may accept it.
pub(in super::super) fn loosened(lost: &[String]) -> String {
    let what = crate::api::conditions::shorten(&lost.join("; "), 280);
    format!("the plan requires less than was last accepted: {what}")
}
