//! The invariants of DESIGN §4, judged by what is observed and by what the [`Witness`] saw, and not by anything that the engine concludes.

use super::super::random::needs;
use super::plans::Stated;
use super::state::{Local, Says, Services, Witness};
use crate::api::service_recovery::StepState;
use crate::api::{Isolation, Phase, Stage, StepPhase, Verdict};
use crate::engine::{Effect, ServiceObservation};
use crate::plan::{Gate, ServiceId};

/// What may not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invariant {
    /// I1: something is loosened or started while a required dependency is not recovered with passing gates.
    Order,
    /// I2: a clean room or an opening without every gate passed in this attempt.
    Gates,
    /// I3: an Unknown gate opens something.
    Unknown,
    /// I4: isolation loosens otherwise than by I2 or a person.
    Monotone,
    /// I5: a step starts twice in one attempt without a recorded failure in between.
    Once,
    /// A Decision `Hold` or `Abort` is in force, and something is loosened.
    Orders,
    /// Nothing goes on without a person, and nobody is told.
    Reported,
}

impl Invariant {
    pub(super) const ALL: [Self; 7] =
        [Self::Order, Self::Gates, Self::Unknown, Self::Monotone, Self::Once, Self::Orders, Self::Reported];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Order => "I1: nothing starts before what it requires",
            Self::Gates => "I2: nothing opens before its gates",
            Self::Unknown => "I3: Unknown opens nothing",
            Self::Monotone => "I4: isolation loosens by I2 or a person only",
            Self::Once => "I5: a step starts once",
            Self::Orders => "Hold and Abort loosen nothing",
            Self::Reported => "no unreported deadlock",
        }
    }

    pub(super) const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A plan in force, and all of its services in one state.
pub(super) struct Judge<'a> {
    pub stated: &'a Stated,
    pub services: &'a Services,
}

impl Judge<'_> {
    fn of(&self, id: ServiceId) -> &ServiceObservation {
        &self.services[id].of
    }

    fn gates(&self, id: ServiceId, phase: Phase) -> impl Iterator<Item = &Gate> {
        self.stated.plan.services[id].gates.iter().filter(move |gate| gate.phase == phase)
    }

    /// Does a gate pass now, or fail for exactly what a person has accepted?
    fn holds(&self, id: ServiceId, gate: &Gate) -> bool {
        let Local { of, witness, .. } = &self.services[id];
        if gate.spec.approval.is_some() {
            return witness.approved.contains(&gate.spec.name);
        }
        of.gates.get(&gate.key).is_some_and(|state| match state.verdict {
            Verdict::Pass => true,
            Verdict::Fail => {
                // Whoever accepts a gate accepts the finding that they were shown.
                witness.has_accepted(gate) && state.evidence.as_deref() == Says::Fail.evidence()
            }
            Verdict::Unknown => false,
        })
    }

    fn is_unknown(&self, id: ServiceId, gate: &Gate) -> bool {
        gate.spec.approval.is_none()
            && self.of(id).gates.get(&gate.key).is_none_or(|state| state.verdict == Verdict::Unknown)
    }

    /// I1: is every dependency that it requires recovered, with continuous gates that pass at this moment?
    fn dependencies_stand(&self, id: ServiceId) -> bool {
        needs(&self.stated.spec, id).into_iter().all(|on| {
            let status = &self.of(on).status;
            status.stage == Stage::Recovered
                && status.isolating.is_none()
                && self.gates(on, Phase::Continuous).all(|gate| self.holds(on, gate))
        })
    }

    /// Is this looser than what is enforced?
    pub(super) fn loosens(&self, id: ServiceId, to: Isolation) -> bool {
        self.of(id).quarantines.iter().filter_map(|q| q.found.as_ref()?.isolation).any(|now| now < to)
    }

    /// Does a step start in the clean room, or after the release, as the plan says?
    fn is_in_its_place(&self, id: ServiceId, index: usize) -> bool {
        let place = match self.stated.plan.services[id].steps[index].phase {
            StepPhase::CleanRoom => Isolation::CleanRoom,
            StepPhase::AfterRelease => Isolation::Open,
        };
        let found =
            self.of(id).quarantines.iter().map(|q| q.found.as_ref().and_then(|found| found.isolation));
        found.into_iter().all(|isolation| isolation == Some(place))
    }

    /// What an effect breaks that is decided now.
    pub(super) fn decided(&self, id: ServiceId, effect: &Effect) -> u16 {
        let mut broken = 0;
        let (loosens, starts) = match effect {
            Effect::Ask { isolation, .. } => (Some(*isolation).filter(|to| self.loosens(id, *to)), false),
            Effect::Step { .. } | Effect::Claim { .. } | Effect::Resume { .. } => (None, true),
            _ => (None, false),
        };
        if (loosens.is_some() || starts) && !self.dependencies_stand(id) {
            broken |= Invariant::Order.bit();
        }
        if let Effect::Step { index, .. } = effect
            && !self.is_in_its_place(id, *index)
        {
            broken |= Invariant::Gates.bit();
        }
        let (level, phase) = match loosens {
            Some(level @ Isolation::CleanRoom) => (level, Phase::BeforeRestore),
            Some(level @ Isolation::Open) => (level, Phase::BeforeRelease),
            Some(Isolation::Sealed | Isolation::Contained) | None => return broken,
        };
        let plan = &self.stated.plan;
        for &mate in &plan.units[plan.services[id].unit].members {
            let of = self.of(mate);
            let is_through = of.status.stage == Stage::Recovered
                || of
                    .asked
                    .is_some_and(|asked| asked.attempt == of.status.attempt && asked.isolation >= level);
            if mate != id && is_through {
                continue;
            }
            // Empty is not passed, unless the plan says so.
            let is_empty = self.gates(mate, phase).next().is_none() && plan.services[mate].ungated.is_none();
            if is_empty || !self.gates(mate, phase).all(|gate| self.holds(mate, gate)) {
                broken |= Invariant::Gates.bit();
            }
            if self.gates(mate, phase).any(|gate| self.is_unknown(mate, gate)) {
                broken |= Invariant::Unknown.bit();
            }
        }
        let status = &self.of(id).status;
        if status.isolating.is_some() || status.standing_orders.as_ref().is_some_and(|o| o.hold.is_some()) {
            broken |= Invariant::Orders.bit();
        }
        broken
    }

    /// What an effect breaks that takes place now, after its live reads.
    pub(super) fn done(&self, id: ServiceId, effect: &Effect) -> u16 {
        let loosens = matches!(effect, Effect::Ask { isolation, .. } if self.loosens(id, *isolation));
        let mut broken = 0;
        if (loosens || matches!(effect, Effect::Step { .. })) && !self.dependencies_stand(id) {
            broken |= Invariant::Order.bit();
        }
        if let Effect::Step { index, .. } = effect {
            let Local { of, witness, .. } = &self.services[id];
            let recorded = of.status.steps.get(*index).map(|step| step.state);
            // The intent is recorded, and it has not ended.
            let is_intended = recorded == Some(StepState::Running);
            if !is_intended || witness.started.contains(index) {
                broken |= Invariant::Once.bit();
            }
        }
        broken
    }

    /// What the Quarantine controller breaks by enforcing this level.
    pub(super) fn enforced(&self, id: ServiceId, level: Isolation) -> u16 {
        if !self.loosens(id, level) {
            return 0;
        }
        let Local { of, witness, .. } = &self.services[id];
        let mut broken = 0;
        if !self.dependencies_stand(id) {
            broken |= Invariant::Order.bit();
        }
        let is_of_this_attempt =
            of.asked.is_some_and(|asked| asked.attempt == of.status.attempt && asked.isolation >= level);
        if !is_of_this_attempt {
            broken |= Invariant::Monotone.bit();
        }
        if witness.is_aborted || of.status.isolating.is_some() {
            broken |= Invariant::Orders.bit();
        }
        broken
    }
}

impl Witness {
    pub(super) fn has_accepted(&self, gate: &Gate) -> bool {
        self.accepted.iter().any(|accepted| accepted.name == gate.spec.name)
    }
}
