//! What becomes of one service when something happens to it.

use super::environment::decidable;
use super::shell::{NOW, days_ago};
use super::state::{Goes, Local, Op, Witness};
use crate::api::service_recovery::StepState;
use crate::api::{Action, Health, Isolation, Reason, Verdict};
use crate::engine::{
    AcceptedState, Asked, ClaimState, DecisionObservation, Effect, GateKey, QuarantineObservation,
    QuarantineState, Refusal, Room, ServiceObservation, StepProgress, StepRun, pod_security,
};
use crate::plan::{Plan, Service, ServiceId};

/// An effect that has failed for so many days.
pub(super) fn refusal(reason: Reason, days: i64) -> Refusal {
    Refusal { reason, message: "refused".to_owned(), again_at: NOW, since: Some(days_ago(days)) }
}

impl Local {
    /// A service whose ServiceRecovery is to be made, in a namespace that is contained.
    pub(super) fn first(service: &Service) -> Self {
        let contained = QuarantineState {
            isolation: Some(Isolation::Contained),
            ready: true,
            message: String::new(),
            unready_since: None,
            lacking: None,
            claim: ClaimState::Free,
            hold: None,
            overruled: false,
            is_namespace_missing: false,
            unmanaged_pods: Vec::new(),
        };
        let quarantine = |namespace: &String| QuarantineObservation {
            namespace: namespace.clone(),
            exists: true,
            found: Some(contained.clone()),
        };
        let of = ServiceObservation {
            exists: true,
            generation: Some(1),
            quarantines: service.namespaces.iter().map(quarantine).collect(),
            // Texts that only inform are not written: they decide nothing.
            written_at: Some(NOW),
            ..ServiceObservation::default()
        };
        Self { of, ask: Vec::new(), health: Health::default(), op: None, witness: Witness::default() }
    }

    /// What was under way has ended.
    pub(super) fn ends(&mut self, refused: Option<Refusal>) {
        self.of.refused = refused;
        self.op = None;
        self.of.busy = false;
    }

    pub(super) fn is_written(&mut self) {
        let Some(Op { write: Some(status), effect, plan }) = self.op.take() else { return };
        let of = &mut self.of;
        if status.attempt != of.status.attempt {
            of.gates.clear();
            of.steps.clear();
            of.inspection = None;
            self.witness = Witness { is_aborted: self.witness.is_aborted, ..Witness::default() };
        }
        self.witness.is_aborted |= status.isolating.as_ref().is_some_and(|of| of.reason == Reason::Aborted);
        self.witness.started.retain(|&index| {
            // A recorded failure permits another start.
            let (before, now) = (of.status.steps.get(index), status.steps.get(index));
            let is_counted = now.map(|step| step.retries) > before.map(|step| step.retries);
            !is_counted && now.is_some_and(|step| step.state != StepState::Failed)
        });
        of.status = *status;
        of.busy = effect.is_some();
        self.op = effect.map(|effect| Op { write: None, effect: Some(effect), plan });
    }

    pub(super) fn takes_place(
        &mut self,
        plan: &Plan,
        id: ServiceId,
        effect: Effect,
        refused: Option<Reason>,
    ) {
        if let Some(reason) = refused {
            self.ends(Some(refusal(reason, 0)));
            return;
        }
        self.ends(None);
        let of = &mut self.of;
        match effect {
            Effect::Accept { records } => {
                let scopes = plan.scopes(id);
                of.accepted.resize(scopes.len(), AcceptedState::Missing);
                for (scope, seen) in scopes.iter().zip(&mut of.accepted) {
                    if let Some(new) = records.iter().find(|new| new.scope == *scope) {
                        let record = new.record.clone();
                        *seen = AcceptedState::Record { revision: "1".to_owned(), record };
                    }
                }
            }
            Effect::Inspect { .. } => drop(of.inspection.get_or_insert_default()),
            Effect::Claim { attempt } => {
                for found in of.quarantines.iter_mut().filter_map(|q| q.found.as_mut()) {
                    found.claim = ClaimState::Mine { attempt };
                    // It was of another claim.
                    found.overruled = false;
                }
            }
            Effect::Ask { isolation, attempt, reachable, .. } => {
                of.asked = Some(Asked { isolation, attempt });
                let allow_egress = plan.services[id].allow_egress.clone();
                of.room = match isolation {
                    Isolation::CleanRoom => Room {
                        reachable,
                        allow_egress,
                        pod_security: pod_security(&plan.services[id]),
                        ..Room::default()
                    },
                    Isolation::Sealed | Isolation::Contained | Isolation::Open => Room::default(),
                };
            }
            Effect::Follow { room, .. } => of.room = room,
            Effect::Step { index, .. } => {
                of.steps.insert(StepRun::latest(&of.status, index), StepProgress::Running(String::new()));
                self.witness.started.push(index);
            }
            Effect::Adopt
            | Effect::Quarantine { .. }
            | Effect::CreateNamespaces { .. }
            | Effect::LookAtSuspended { .. }
            | Effect::Resume { .. } => {
                unreachable!("no plan of the model has this effect: {effect:?}")
            }
        }
    }

    pub(super) fn step_goes(&mut self, index: usize, goes: Goes) {
        let message = "told".to_owned();
        let progress = match goes {
            Goes::Succeeds => StepProgress::Succeeded,
            Goes::Fails => StepProgress::Failed(message),
            Goes::Pauses => StepProgress::Retry { message, at: NOW, since: NOW, denied: false },
            Goes::Unseen => StepProgress::Unobserved { message, since: days_ago(9) },
        };
        if goes == Goes::Pauses {
            self.witness.started.retain(|&started| started != index);
        }
        self.of.steps.insert(StepRun::latest(&self.of.status, index), progress);
    }

    pub(super) fn is_decided(&mut self, action: Action) {
        let digest = decidable(&self.of).find(|(of, _)| *of == action).map(|(_, digest)| digest.to_owned());
        let Some(decided_on) = digest else { return };
        match action {
            Action::AcceptException => {
                let failing = self.of.gates.iter().filter(|(_, state)| state.verdict == Verdict::Fail);
                // One that is not evaluated any more was shown as it is recorded.
                let shown = self.of.status.gates.iter().filter(|gate| gate.verdict == Verdict::Fail);
                let shown = shown.map(|gate| GateKey { phase: gate.phase, name: gate.name.clone() });
                self.witness.accepted = failing.map(|(key, _)| key.clone()).chain(shown).collect();
            }
            Action::Approve => drop(self.witness.approved.insert(self.asks_about())),
            Action::Reject => drop(self.witness.approved.remove(&self.asks_about())),
            Action::Unhold => self.witness.is_aborted = false,
            _ => {}
        }
        self.of.decisions.push(DecisionObservation {
            name: format!("d{}", self.of.decisions.len()),
            uid: format!("u{}", self.of.decisions.len()),
            created_at: None,
            is_applied: false,
            by: "wren".to_owned(),
            action,
            reason: "told".to_owned(),
            decided_on,
            group: Some("leads".to_owned()),
        });
    }

    /// The gate or the step that people are asked about.
    pub(super) fn asks_about(&self) -> String {
        let status = &self.of.status;
        let reason = status.decision.as_ref().map(|question| question.reason);
        let block = status.blocked_by.iter().find(|block| Some(block.reason) == reason);
        block.map(|block| block.name.clone()).unwrap_or_default()
    }

    pub(super) fn is_held(&mut self, level: Option<Isolation>) {
        for found in self.of.quarantines.iter_mut().filter_map(|q| q.found.as_mut()) {
            found.hold = level;
            found.ready = false;
        }
    }

    /// All that the operator has in memory is lost; what is recorded stays.
    pub(super) fn crashes(&mut self) {
        self.ends(None);
        self.of.gates.clear();
        self.of.steps.clear();
        self.of.inspection = None;
        self.ask.clear();
        self.health = Health::default();
        // It may be started again: the effect has the same name.
        self.witness.started.clear();
    }
}
