//! `Override`: a person accepts that a control does not hold, in exactly the namespaces shown, or that workloads come back in another
//! revision than the one that served. It is recorded as an exception.

use crate::api::conditions::shorten;
use crate::api::service_recovery::AcceptedControl;
use crate::api::{Action, DnsLabel, Reason, Stage};

use super::super::context::{ServiceContext, except};
use super::super::next::Next;
use super::super::slots::holds;
use super::{DecisionObservation, Row, Takes};

/// Maximum number of accepted controls in a status.
const ACCEPTED_LIMIT: usize = 32;
/// Maximum number of accepted rollouts in a status.
const ROLLOUTS_LIMIT: usize = 64;

pub(super) const ROW: Row = Row {
    action: Action::Override,
    answers: |reason| matches!(reason, Reason::ControlNotEnforced | Reason::RolloutNotRestorable),
    outcome: "goes on although it does not hold, as an exception",
    takes: Takes::OnTheQuestion(accept),
};

fn accept(service: &ServiceContext<'_>, next: &mut Next, decision: &DecisionObservation) {
    match next.status.decision.as_ref().map(|question| question.reason) {
        Some(Reason::RolloutNotRestorable) => accept_rollouts(service, next, decision),
        _ => accept_controls(service, next, decision),
    }
}

/// Accepts that workloads come back in another revision than the one that served.
fn accept_rollouts(service: &ServiceContext<'_>, next: &mut Next, decision: &DecisionObservation) {
    let rollouts = service.open_rollouts();
    next.status.decision = None;
    next.blocks.retain(|block| block.reason != Reason::RolloutNotRestorable);
    for rollout in rollouts {
        let by = format!("accepted by {} (Decision {}): {}", decision.by, decision.name, decision.reason);
        except(next, &shorten(&format!("{}: {}: {by}", rollout.workload, rollout.message), 600));
        next.status.accepted_rollouts.push(rollout.workload.clone());
    }
    next.status.accepted_rollouts.truncate(ROLLOUTS_LIMIT);
}

fn accept_controls(service: &ServiceContext<'_>, next: &mut Next, decision: &DecisionObservation) {
    let lacking = service.lacking_controls();
    let exception = format!(
        "not enforced: {}: accepted by {} (Decision {}): {}",
        listed(&lacking),
        decision.by,
        decision.name,
        decision.reason
    );
    next.status.decision = None;
    next.blocks.clear();
    next.status.accepted.extend(lacking);
    next.status.accepted.truncate(ACCEPTED_LIMIT);
    except(next, &shorten(&exception, 600));
}

fn listed(lacking: &[AcceptedControl]) -> String {
    let each = lacking.iter().map(|l| format!("{}/{:?}", l.namespace.0, l.control));
    each.collect::<Vec<_>>().join(", ")
}

impl ServiceContext<'_> {
    /// Requests a decision if a control does not hold and is not accepted in this attempt.
    pub(in super::super) fn has_lacking_control(&self, next: &mut Next) -> bool {
        let begins = self.of.status.stage == Stage::Isolated;
        let its_turn = self.unit.unmet.is_empty() && self.service().problems.is_empty() && !self.plan.suspend;
        if self.of.status.stage == Stage::Recovered || (begins && !its_turn) {
            return false;
        }
        let lacking = self.lacking_controls();
        let Some(first) = lacking.first() else { return false };
        let why = self.of.quarantines.iter().find(|q| q.namespace == first.namespace.0);
        let why = why.and_then(|q| q.found.as_ref()).map_or("", |found| &found.message);
        let which = listed(&lacking);
        let message = format!("{why}. Override goes on without that control, as an exception");
        self.need(next, Reason::ControlNotEnforced, &which, &message, Some(&which));
        true
    }

    /// Returns the controls that were tested, do not hold, and are not accepted.
    fn lacking_controls(&self) -> Vec<AcceptedControl> {
        self.of
            .quarantines
            .iter()
            .filter_map(|q| Some((q, q.found.as_ref()?)))
            .filter(|(q, found)| !holds(self.of, &q.namespace, found))
            .filter_map(|(q, found)| {
                Some(AcceptedControl { namespace: DnsLabel(q.namespace.clone()), control: found.lacking? })
            })
            .collect()
    }
}
