//! Units as they stand, and which of them may move: `maxParallel` at once, and whoever waits for a person gives the slot back.

use crate::api::{Health, Isolation, Phase, Stage, Verdict};
use crate::plan::loosening::{Allowance, Dependency, allowance};
use crate::plan::{Plan, ServiceId, UnitId};

use super::ratchet::is_loosened;
use super::{ClaimSeen, GateKey, Presence, QuarantineFound, Seen, ServiceSeen};

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

/// Is a service recovered and healthy, so that dependants may go on? By its written status *and* its gates now.
pub(super) fn carries_dependants(plan: &Plan, seen: &Seen, id: ServiceId) -> bool {
    allowance([dependency(plan, seen, id)]) == Allowance::Allowed
}

/// What is known of a service that others depend on.
fn dependency<'a>(plan: &'a Plan, seen: &'a Seen, id: ServiceId) -> Dependency<'a> {
    let (service, of) = (&plan.services[id], &seen.services[id]);
    // Gates that were loosened say less than what its dependants rely on.
    let counts = of.other_plan.is_none() && isolated_again(of).is_none() && !is_loosened(plan, seen, id);
    let passes = service.gates_of(Phase::Continuous).all(|gate| {
        let key = GateKey { phase: Phase::Continuous, name: gate.spec.name.clone() };
        of.gates.get(&key).is_some_and(|state| state.verdict == Verdict::Pass)
    });
    Dependency {
        service: &service.name,
        record: Some(&of.status).filter(|_| counts),
        health: if passes { Health::Passes } else { Health::Doubtful },
    }
}

/// The namespace of a recovered service that somebody isolated again, if there is one.
pub(super) fn isolated_again(of: &ServiceSeen) -> Option<&str> {
    let is_closed = |found: &QuarantineFound| {
        found.hold.is_some() || found.isolation.is_some_and(|i| i != Isolation::Open)
    };
    of.quarantines.iter().find(|q| q.found.as_ref().is_some_and(is_closed)).map(|q| q.namespace.as_str())
}

/// The namespace that somebody holds, and where, if there is one.
pub(super) fn held(of: &ServiceSeen) -> Option<(&str, Isolation)> {
    of.quarantines.iter().find_map(|q| Some((q.namespace.as_str(), q.found.as_ref()?.hold?)))
}

/// May anything begin under this plan at all?
pub(super) fn is_armed(plan: &Plan, seen: &Seen) -> bool {
    plan.incident.is_some() && seen.incident == Presence::Present && seen.account == Presence::Present
}

/// Has this attempt begun, without having ended?
fn is_active(service: &ServiceSeen) -> bool {
    let attempt = service.status.attempt;
    match service.status.stage {
        Stage::Isolated => service
            .quarantines
            .iter()
            .any(|q| q.found.as_ref().is_some_and(|found| found.claim == ClaimSeen::Mine { attempt })),
        Stage::PreChecks | Stage::Restoring | Stage::PostChecks | Stage::Reconnecting => true,
        Stage::Recovered => false,
    }
}

/// Is all in place that the level of a Quarantine needs, but for what a person has accepted in this attempt?
pub(super) fn holds(service: &ServiceSeen, namespace: &str, found: &QuarantineFound) -> bool {
    let accepted =
        |control| service.status.accepted.iter().any(|a| a.namespace.0 == namespace && a.control == control);
    found.ready || found.lacking.is_some_and(accepted)
}

/// Could this member be claimed, as far as its Quarantines go?
pub(super) fn is_claimable(service: &ServiceSeen) -> bool {
    service.quarantines.iter().all(|q| {
        q.found.as_ref().is_some_and(|found| {
            holds(service, &q.namespace, found)
                && found.hold.is_none()
                && found.isolation.is_some()
                && !matches!(found.claim, ClaimSeen::Other { .. })
        })
    })
}

/// Who keeps a slot, `false` first, the first that differs deciding: what has begun, what acts at this moment, what is claimed, whose
/// claim is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence(bool, bool, bool, bool);

/// All units as they stand. Slots go to those under way first, then by tier, then to what most depends on.
pub(super) fn views(plan: &Plan, seen: &Seen) -> Vec<UnitView> {
    let armed = is_armed(plan, seen);
    let carries: Vec<bool> = (0..plan.services.len()).map(|id| carries_dependants(plan, seen, id)).collect();
    let mut wanting: Vec<(Precedence, UnitId)> = Vec::new();
    let mut slots = plan.max_parallel;
    let mut views: Vec<UnitView> = Vec::with_capacity(plan.units.len());
    for (id, unit) in plan.units.iter().enumerate() {
        let unmet: Vec<ServiceId> = unit.dependencies.iter().copied().filter(|&d| !carries[d]).collect();
        let members = || unit.members.iter().map(|&m| &seen.services[m]);
        let active = members().any(is_active);
        let begins = members().any(|m| m.status.stage == Stage::Isolated);
        let wants_slot = armed
            && unmet.is_empty()
            && unit.members.iter().all(|&m| plan.services[m].problems.is_empty())
            && members().all(|m| held(m).is_none())
            && members().all(|m| m.status.decision.is_none() && m.other_plan.is_none() && m.exists)
            && members().any(|m| m.status.stage != Stage::Recovered)
            && members().filter(|m| m.status.stage == Stage::Isolated).all(is_claimable)
            && (active || (begins && !plan.suspend));
        let acting = members().any(|m| m.busy && is_active(m));
        if wants_slot {
            let begun = members().any(|m| m.status.stage != Stage::Isolated && is_active(m));
            let busy = members().any(|m| m.busy);
            wanting.push((Precedence(!begun, !acting, !active, !busy), id));
        } else if acting {
            // What is under way cannot be called back, whatever has changed since.
            slots = slots.saturating_sub(1);
        }
        views.push(UnitView { unmet, go: false, wants_slot });
    }
    wanting.sort_by_key(|&(precedence, id)| {
        let unit = &plan.units[id];
        (precedence, unit.tier.unwrap_or(i32::MAX), std::cmp::Reverse(unit.height), id)
    });
    for &(_, id) in wanting.iter().take(slots) {
        views[id].go = true;
    }
    views
}
