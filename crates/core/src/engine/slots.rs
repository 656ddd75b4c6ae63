//! Units as they stand, and which of them may move: `maxParallel` at once, and whoever waits for a person gives the slot back.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::api::{Health, Isolation, Phase, Stage};
use crate::plan::loosening::{Allowance, Dependency, allowance};
use crate::plan::{Plan, ServiceId, UnitId};

use super::deadlines;
use super::memory::Standing;
use super::phase_gates::holds_now;
use super::quarantines::open_original;
use super::ratchet::is_loosened;
use super::room::is_reachable;
use super::superseded::is_superseded;
use super::{ClaimState, Observation, Presence, QuarantineState, ServiceObservation};

/// One unit as it stands.
#[derive(Clone, Debug)]
pub(super) struct UnitView {
    /// Dependencies that are not, by what is written, recovered and healthy, or whose gates do not pass just now.
    pub unmet: Vec<ServiceId>,
    /// It may move: dependencies met, a slot, armed, an account, nobody waited for.
    pub go: bool,
    /// It would move, but for a slot.
    pub wants_slot: bool,
}

/// Is a service recovered and healthy, so that dependents may go on? By its written status *and* its gates now.
pub(super) fn satisfies_dependents(plan: &Plan, seen: &Observation, id: ServiceId) -> bool {
    allowance([dependency(plan, seen, id)]) == Allowance::Allowed
}

/// What is known of a service that others depend on.
fn dependency<'a>(plan: &'a Plan, seen: &'a Observation, id: ServiceId) -> Dependency<'a> {
    let (service, of) = (&plan.services[id], &seen.services[id]);
    // Gates that were loosened say less than what its dependents rely on.
    let counts = of.other_plan.is_none()
        && of.status.isolating.is_none()
        && isolated_again(of).is_none()
        && !is_loosened(plan, seen, id)
        && !is_superseded(seen, of);
    let passes = service.gates_of(Phase::Continuous).all(|gate| holds_now(of, gate));
    Dependency {
        service: &service.name,
        record: Some(&of.status).filter(|_| counts),
        health: if passes { Health::Healthy } else { Health::Unhealthy },
    }
}

/// The namespace of a recovered service that somebody isolated again, if there is one.
pub(super) fn isolated_again(of: &ServiceObservation) -> Option<&str> {
    let is_closed = |found: &QuarantineState| {
        found.hold.is_some() || found.isolation.is_some_and(|i| i != Isolation::Open)
    };
    of.quarantines.iter().find(|q| q.found.as_ref().is_some_and(is_closed)).map(|q| q.namespace.as_str())
}

/// The namespace that somebody holds, and where, if there is one.
pub(super) fn held(of: &ServiceObservation) -> Option<(&str, Isolation)> {
    of.quarantines.iter().find_map(|q| Some((q.namespace.as_str(), q.found.as_ref()?.hold?)))
}

/// May anything begin under this plan at all?
pub(super) fn is_armed(plan: &Plan, seen: &Observation) -> bool {
    plan.incident.is_some() && seen.incident == Presence::Present && seen.account == Presence::Present
}

/// Has this attempt begun, without having ended?
fn is_active(service: &ServiceObservation) -> bool {
    let attempt = service.status.attempt;
    match service.status.stage {
        Stage::Isolated => service
            .quarantines
            .iter()
            .any(|q| q.found.as_ref().is_some_and(|found| found.claim == ClaimState::Mine { attempt })),
        Stage::PreChecks | Stage::Restoring | Stage::PostChecks | Stage::Reconnecting => true,
        Stage::Recovered => false,
    }
}

/// Is all in place that the level of a Quarantine needs, but for what a person has accepted in this attempt?
pub(super) fn holds(service: &ServiceObservation, namespace: &str, found: &QuarantineState) -> bool {
    let accepted =
        |control| service.status.accepted.iter().any(|a| a.namespace.0 == namespace && a.control == control);
    found.ready || found.lacking.is_some_and(accepted)
}

/// Could this member be claimed, as far as its Quarantines go?
pub(super) fn is_claimable(service: &ServiceObservation) -> bool {
    open_original(service).is_none()
        && service.quarantines.iter().all(|q| {
            q.found.as_ref().is_some_and(|found| {
                holds(service, &q.namespace, found)
                    && found.hold.is_none()
                    && found.isolation.is_some()
                    && !matches!(found.claim, ClaimState::Other { .. })
            })
        })
}

/// Who keeps a slot. `false` comes first, and the first field that differs decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence {
    has_not_begun: bool,
    does_not_act: bool,
    is_not_claimed: bool,
    is_not_being_claimed: bool,
}

/// What decides about a unit's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UnitState {
    /// It wants a slot, and in which order it gets one.
    wants: Option<Precedence>,
    /// It is under way, whatever has changed since.
    acts: bool,
}

/// What those who depend on a service go by.
pub(super) fn standing(plan: &Plan, seen: &Observation, id: ServiceId) -> Standing {
    Standing {
        satisfies: satisfies_dependents(plan, seen, id),
        is_reachable: is_reachable(seen, id),
        is_recovered: seen.services[id].status.stage == Stage::Recovered,
        is_held_up: seen.services[id].status.held_up_by.is_some(),
    }
}

/// One unit as it stands, without its slot.
pub(super) fn unit_state(
    plan: &Plan,
    seen: &Observation,
    satisfies: &impl Fn(ServiceId) -> bool,
    id: UnitId,
) -> (UnitState, UnitView) {
    let unit = &plan.units[id];
    // One that is held up is not waited for where the plan goes on without it, nor is one without which the unit has begun.
    let has_begun = unit.members.iter().any(|&m| seen.services[m].status.stage != Stage::Isolated);
    let is_given_up = |d: &ServiceId| {
        unit.optional.contains(d) && (has_begun || seen.services[*d].status.held_up_by.is_some())
    };
    let unmet: Vec<ServiceId> =
        unit.dependencies.iter().copied().filter(|d| !satisfies(*d) && !is_given_up(d)).collect();
    let members = || unit.members.iter().map(|&m| &seen.services[m]);
    let active = members().any(is_active);
    let begins = members().any(|m| m.status.stage == Stage::Isolated);
    let wants_slot = is_armed(plan, seen)
        && unmet.is_empty()
        && unit.members.iter().all(|&m| plan.services[m].problems.is_empty())
        && members().all(|m| held(m).is_none() && m.status.isolating.is_none())
        && members().all(|m| m.status.decision.is_none() || deadlines::tries_again(m, seen.now))
        && members().all(|m| m.other_plan.is_none() && m.exists)
        && members().any(|m| m.status.stage != Stage::Recovered)
        && members().filter(|m| m.status.stage == Stage::Isolated).all(is_claimable)
        && (active || (begins && !plan.suspend));
    let acting = members().any(|m| m.busy && is_active(m));
    let precedence = || Precedence {
        has_not_begun: !members().any(|m| m.status.stage != Stage::Isolated && is_active(m)),
        does_not_act: !acting,
        is_not_claimed: !active,
        is_not_being_claimed: !members().any(|m| m.busy),
    };
    let state = UnitState { wants: wants_slot.then(precedence), acts: acting };
    (state, UnitView { unmet, go: false, wants_slot })
}

/// Who has the slots of a plan: those under way first, then by tier, then what most depends on.
#[derive(Debug, Default)]
pub(super) struct Slots {
    states: Vec<UnitState>,
    wanting: BTreeSet<Place>,
    /// Units that act and want no slot: what is under way cannot be called back, whatever has changed since.
    acting: usize,
    granted: BTreeSet<UnitId>,
}

/// A unit's place among those that want a slot.
type Place = (Precedence, i32, Reverse<usize>, UnitId);

impl Slots {
    /// No unit of the plan wants any.
    pub(super) fn new(plan: &Plan) -> Self {
        Self { states: vec![UnitState::default(); plan.units.len()], ..Self::default() }
    }

    /// Takes in how a unit stands now.
    pub(super) fn set(&mut self, plan: &Plan, id: UnitId, state: UnitState) {
        let unit = &plan.units[id];
        let place = |precedence| (precedence, unit.tier.unwrap_or(i32::MAX), Reverse(unit.height), id);
        let before = std::mem::replace(&mut self.states[id], state);
        if before == state {
            return;
        }
        match before.wants {
            Some(precedence) => drop(self.wanting.remove(&place(precedence))),
            None => self.acting -= usize::from(before.acts),
        }
        match state.wants {
            Some(precedence) => drop(self.wanting.insert(place(precedence))),
            None => self.acting += usize::from(state.acts),
        }
    }

    /// Gives the slots away. Returns the units that have got one, or have one no more.
    pub(super) fn allot(&mut self, plan: &Plan) -> Vec<UnitId> {
        let slots = plan.max_parallel.saturating_sub(self.acting);
        let granted: BTreeSet<UnitId> = self.wanting.iter().take(slots).map(|&(.., id)| id).collect();
        let turned = granted.symmetric_difference(&self.granted).copied().collect();
        self.granted = granted;
        turned
    }

    /// Returns whether a unit has a slot.
    pub(super) fn has(&self, id: UnitId) -> bool {
        self.granted.contains(&id)
    }
}

/// All units as they stand, slots included.
#[cfg(test)]
pub(super) fn views(plan: &Plan, seen: &Observation) -> Vec<UnitView> {
    let satisfies = |id: ServiceId| satisfies_dependents(plan, seen, id);
    let mut slots = Slots::new(plan);
    let of = |id| {
        let (state, view) = unit_state(plan, seen, &satisfies, id);
        slots.set(plan, id, state);
        view
    };
    let mut views: Vec<UnitView> = (0..plan.units.len()).map(of).collect();
    slots.allot(plan);
    views.iter_mut().enumerate().for_each(|(id, view)| view.go = slots.has(id));
    views
}
