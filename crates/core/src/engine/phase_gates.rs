//! Combined verdict of the gates of one phase.

use crate::api::service_recovery::GateStatus;
use crate::api::{Phase, Proof, Reason, Verdict};
use crate::plan::{Plan, ServiceId};

use super::ServiceObservation;
use super::context::{ServiceContext, except};
use super::next::{Next, time};

/// Combined verdict of the gates of one phase.
pub(super) struct PhaseGates {
    pub passed: bool,
    pub statuses: Vec<GateStatus>,
    /// What passes although it is not proved in full.
    pub exceptions: Vec<String>,
}

impl ServiceContext<'_> {
    /// Requests the evaluation of a phase's gates and adds their blockers. A gate that counts as failed needs a Decision.
    pub(super) fn ask(&self, next: &mut Next, phase: Phase) -> PhaseGates {
        let (mut statuses, mut exceptions) = (Vec::new(), Vec::new());
        let mut passed = self.service().ungated.is_some() || self.service().gates_of(phase).next().is_some();
        for gate in self.service().gates_of(phase) {
            let name = &gate.spec.name;
            let Some(state) = self.of.gates.get(&gate.key) else {
                passed = false;
                next.block(Reason::GateUnknown, name, "not asked yet");
                continue;
            };
            next.wake.extend(state.changes_at);
            exceptions.extend(state.exceptions.iter().cloned());
            statuses.push(GateStatus {
                phase,
                name: name.clone(),
                verdict: state.verdict,
                reason: crate::api::conditions::shorten(state.reason, 64),
                message: crate::api::conditions::shorten(&state.message, 512),
                proof: if state.exceptions.is_empty() { Proof::Full } else { Proof::Partial },
                evidence: state.evidence.clone(),
                since: time(state.since),
            });
            match state.verdict {
                Verdict::Pass => {}
                Verdict::Fail if state.failed => {
                    passed = false;
                    self.need(next, Reason::GateFailed, name, &state.message, state.evidence.as_deref());
                }
                Verdict::Fail => {
                    passed = false;
                    next.block(Reason::GateFailing, name, state.message.clone());
                }
                Verdict::Unknown => {
                    passed = false;
                    if state.is_overdue {
                        self.need(next, Reason::GateUnknown, name, &state.message, None);
                    } else {
                        next.block(Reason::GateUnknown, name, state.message.clone());
                    }
                }
            }
        }
        if next.status.decision.is_some() {
            keep(&mut next.status.gates, phase, statuses.clone());
        }
        PhaseGates { passed, statuses, exceptions }
    }
}

/// Returns whether all gates of a phase pass now. Without any gate it does not pass, unless the plan says `ungated`.
pub(super) fn passes(plan: &Plan, of: &ServiceObservation, id: ServiceId, phase: Phase) -> bool {
    let service = &plan.services[id];
    let mut gates = service.gates_of(phase).peekable();
    (gates.peek().is_some() || service.ungated.is_some())
        && gates.all(|gate| of.gates.get(&gate.key).is_some_and(|state| state.verdict == Verdict::Pass))
}

impl PhaseGates {
    /// Records the verdicts and the exceptions of a phase that is passed.
    pub(super) fn record(self, next: &mut Next, phase: Phase) {
        keep(&mut next.status.gates, phase, self.statuses);
        for exception in &self.exceptions {
            except(next, &crate::api::conditions::shorten(exception, 600));
        }
    }
}

/// Replaces the entries of one phase.
fn keep(gates: &mut Vec<GateStatus>, phase: Phase, statuses: Vec<GateStatus>) {
    gates.retain(|gate| gate.phase != phase);
    gates.extend(statuses);
}
