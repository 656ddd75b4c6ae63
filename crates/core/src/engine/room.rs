//! Permissions of a clean room. They follow the dependencies: one that regresses or is isolated again is removed at once, one that
//! recovers is added.

use crate::api::{Isolation, PodSecurity, Reason, Stage};
use crate::plan::{Plan, Service, ServiceId};

use super::next::Next;
use super::ratchet::is_accepted;
use super::slots::isolated_again;
use super::{Effect, Observation, Room};

/// Returns the permissions that the clean room should have now: its group, its recovered dependencies, and the egress exceptions of the
/// plan.
pub(super) fn wanted(plan: &Plan, observed: &Observation, id: ServiceId) -> Room {
    let members = plan.units[plan.services[id].unit].members.iter().copied();
    let standing =
        plan.dependencies_of(id).into_iter().filter(|&dependency| is_reachable(observed, dependency));
    let mut reachable: Vec<String> =
        members.chain(standing).flat_map(|service| plan.services[service].namespaces.clone()).collect();
    reachable.sort();
    reachable.dedup();
    Room {
        reachable,
        allow_egress: plan.services[id].allow_egress.clone(),
        allow_egress_to: plan.services[id].allow_egress_to.clone(),
        pod_security: pod_security(&plan.services[id]),
    }
}

/// Returns the Pod Security Standard of a service's clean room, as the plan says.
pub fn pod_security(service: &Service) -> PodSecurity {
    if service.host_access.is_some() { PodSecurity::Privileged } else { PodSecurity::Baseline }
}

/// Returns whether a clean room may connect to this dependency. A gate that is Unknown for a moment does not remove it; one that counts
/// as failed does.
pub(super) fn is_reachable(observed: &Observation, id: ServiceId) -> bool {
    let of = &observed.services[id];
    of.status.stage == Stage::Recovered
        && of.other_plan.is_none()
        // A loosened plan neither closes its services nor disconnects their dependents.
        && of.status.isolating.is_none()
        && of.status.decision.as_ref().is_none_or(|decision| {
            matches!(decision.reason, Reason::Loosened | Reason::OnHold | Reason::Superseded)
        })
        && isolated_again(of).is_none()
}

/// Requests a change of the clean room's permissions if they differ. Removals come before anything else and need no proof; additions wait
/// for their turn.
pub(super) fn follow(plan: &Plan, observed: &Observation, id: ServiceId, next: &mut Next) {
    let of = &observed.services[id];
    let is_room = of.asked.is_some_and(|asked| asked.isolation == Isolation::CleanRoom);
    if !is_room {
        next.status.holes.clear();
        return;
    }
    next.status.holes.clone_from(&of.room.allow_egress);
    let wanted = wanted(plan, observed, id);
    if wanted == of.room {
        return;
    }
    let kept = both(&of.room, &wanted);
    let tightens = kept != of.room;
    if !tightens && (next.effect.is_some() || !is_accepted(plan, observed, id)) {
        return;
    }
    if let Some(refused) = of.refused.as_ref().filter(|refused| refused.again_at > observed.now) {
        next.wake.push(refused.again_at);
        return;
    }
    let is_new = |id: &ServiceId| {
        plan.services[*id].namespaces.iter().any(|namespace| !of.room.reachable.contains(namespace))
    };
    next.effect = Some(if tightens {
        Effect::Follow { room: kept, dependencies: Vec::new() }
    } else {
        let standing =
            plan.dependencies_of(id).into_iter().filter(|&dependency| is_reachable(observed, dependency));
        Effect::Follow {
            room: wanted,
            dependencies: standing.filter(is_new).map(|id| plan.key(id)).collect(),
        }
    });
}

/// Returns the permissions that both allow.
fn both(a: &Room, b: &Room) -> Room {
    Room {
        reachable: a.reachable.iter().filter(|name| b.reachable.contains(name)).cloned().collect(),
        allow_egress: a
            .allow_egress
            .iter()
            .filter(|service| b.allow_egress.contains(service))
            .copied()
            .collect(),
        allow_egress_to: a
            .allow_egress_to
            .iter()
            .filter(|block| b.allow_egress_to.contains(block))
            .cloned()
            .collect(),
        pod_security: a.pod_security.min(b.pod_security),
    }
}
