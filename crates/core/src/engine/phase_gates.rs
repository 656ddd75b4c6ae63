//! Combined verdict of the gates of one phase.

use crate::api::service_recovery::GateStatus;
use crate::api::{GateReason, Phase, Proof, Reason, Verdict};
use crate::plan::{Gate, Plan, ServiceId};

use super::ServiceObservation;
use super::approvals::{self, Approvable};
use super::context::{ServiceContext, digest, except};
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
        for gate in self.service().gates_of(phase).filter(|gate| gate.spec.approval.is_none()) {
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
                Verdict::Fail if is_accepted_failure(self.of, gate) => {}
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
        for gate in self.service().gates_of(phase) {
            if let Some(status) = self.ask_people(next, gate, passed) {
                passed &= status.verdict == Verdict::Pass;
                statuses.push(status);
            }
        }
        if next.status.decision.is_some() {
            keep(&mut next.status.gates, phase, statuses.clone());
        }
        PhaseGates { passed, statuses, exceptions }
    }

    /// Asks for the approvals of a gate `approval`, once everything else passes: people decide on what they can see. `None`: a gate of
    /// another type.
    fn ask_people(&self, next: &mut Next, gate: &Gate, others_pass: bool) -> Option<GateStatus> {
        let asked = approvable(gate)?;
        let (phase, name) = (gate.phase, &gate.spec.name);
        let approvals = approvals::judge(self.plan, self.id, self.of, asked);
        self.count(next, &approvals);
        let (verdict, reason) = match approvals.missing.is_empty() {
            true => (Verdict::Pass, GateReason::PeopleApproved),
            false => (Verdict::Unknown, GateReason::AwaitsApproval),
        };
        let message = approvals.to_string();
        if !approvals.missing.is_empty() && others_pass {
            self.publish(next, Reason::ApprovalNeeded, name, &message, approvals.digest.clone());
        } else if !approvals.missing.is_empty() {
            next.block(Reason::GateUnknown, name, "people are asked once all other gates pass");
        }
        let before = self.of.status.gates.iter().find(|of| (of.phase, &of.name) == (phase, name));
        let since = before.filter(|before| before.verdict == verdict).map(|before| before.since.clone());
        Some(GateStatus {
            phase,
            name: name.clone(),
            verdict,
            reason: reason.as_str().to_owned(),
            message: crate::api::conditions::shorten(&message, 512),
            proof: Proof::Full,
            evidence: Some(approvals.digest),
            since: since.unwrap_or_else(|| time(self.observed.now)),
        })
    }
}

/// Returns who has to approve, for a gate `approval`.
pub(super) fn approvable(gate: &Gate) -> Option<Approvable<'_>> {
    let spec = gate.spec.approval.as_ref()?;
    Some(Approvable {
        what: (gate.phase.as_str(), &gate.spec.name),
        parties: &spec.parties,
        distinct: spec.distinct,
    })
}

/// Returns the digest of what a failed gate found: its evidence, or what it says if it has none.
pub(super) fn finding(evidence: Option<&str>, message: &str) -> String {
    evidence.map_or_else(|| digest(&crate::api::conditions::shorten(message, 512)), str::to_owned)
}

/// Returns whether a gate fails for exactly what a person accepted.
pub(super) fn is_accepted_failure(of: &ServiceObservation, gate: &Gate) -> bool {
    of.status.accepted_gates.iter().filter(|accepted| accepted.name == gate.spec.name).any(|accepted| {
        of.gates.get(&gate.key).is_some_and(|state| {
            state.verdict == Verdict::Fail
                && finding(state.evidence.as_deref(), &state.message) == accepted.finding
        })
    })
}

/// Returns whether a gate passes now, or fails as a person accepted.
pub(super) fn holds_now(of: &ServiceObservation, gate: &Gate) -> bool {
    of.gates.get(&gate.key).is_some_and(|state| state.verdict == Verdict::Pass)
        || is_accepted_failure(of, gate)
}

/// Returns whether all gates of a phase pass now. Without any gate it does not pass, unless the plan says `ungated`.
pub(super) fn passes(plan: &Plan, of: &ServiceObservation, id: ServiceId, phase: Phase) -> bool {
    let service = &plan.services[id];
    let mut gates = service.gates_of(phase).peekable();
    (gates.peek().is_some() || service.ungated.is_some())
        && gates.all(|gate| match approvable(gate) {
            Some(asked) => approvals::judge(plan, id, of, asked).missing.is_empty(),
            None => holds_now(of, gate),
        })
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
