//! What a clean room may talk to, for as long as it is one. It follows its dependencies: one that regresses or is isolated
//! again goes out at once, one that recovers comes in.

use crate::api::{Isolation, PodSecurity, Reason, Stage};
use crate::plan::{Plan, Service, ServiceId};

use super::next::Next;
use super::ratchet::is_accepted;
use super::slots::isolated_again;
use super::{Effect, Observation, Room};

/// What it may talk to now: its group, the dependencies that stand, and the holes that the plan opts into.
pub(super) fn wanted(plan: &Plan, seen: &Observation, id: ServiceId) -> Room {
    let members = plan.units[plan.services[id].unit].members.iter().copied();
    let standing = plan.dependencies_of(id).into_iter().filter(|&dependency| stands(seen, dependency));
    let mut reachable: Vec<String> =
        members.chain(standing).flat_map(|service| plan.services[service].namespaces.clone()).collect();
    reachable.sort();
    reachable.dedup();
    Room {
        reachable,
        allow_egress: plan.services[id].allow_egress.clone(),
        pod_security: pod_security(&plan.services[id]),
    }
}

/// What the pods of a service may ask of their node, as the plan has it.
pub fn pod_security(service: &Service) -> PodSecurity {
    if service.host_access.is_some() { PodSecurity::Privileged } else { PodSecurity::Baseline }
}

/// Is it recovered, and does nothing speak against it? A gate that cannot be asked for a moment cuts nobody off; one that
/// failed for good does.
pub(super) fn stands(seen: &Observation, id: ServiceId) -> bool {
    let of = &seen.services[id];
    of.status.stage == Stage::Recovered
        && of.other_plan.is_none()
        // A plan that was loosened closes nothing, and cuts nobody off.
        && of.status.decision.as_ref().is_none_or(|decision| decision.reason == Reason::Loosened)
        && isolated_again(of).is_none()
}

/// Asks for the clean room that is wanted now, where another is asked for. What is taken away goes first, before anything else
/// that was to be done, and waits for no proof; what is added waits its turn.
pub(super) fn follow(plan: &Plan, seen: &Observation, id: ServiceId, next: &mut Next) {
    let of = &seen.services[id];
    let is_room = of.asked.is_some_and(|asked| asked.isolation == Isolation::CleanRoom);
    if !is_room {
        next.status.holes.clear();
        return;
    }
    next.status.holes.clone_from(&of.room.allow_egress);
    let wanted = wanted(plan, seen, id);
    if wanted == of.room {
        return;
    }
    let kept = both(&of.room, &wanted);
    let tightens = kept != of.room;
    if !tightens && (next.effect.is_some() || !is_accepted(plan, seen, id)) {
        return;
    }
    if let Some(refused) = of.refused.as_ref().filter(|refused| refused.again_at > seen.now) {
        next.wake.push(refused.again_at);
        return;
    }
    let is_new = |id: &ServiceId| {
        plan.services[*id].namespaces.iter().any(|namespace| !of.room.reachable.contains(namespace))
    };
    next.effect = Some(if tightens {
        Effect::Follow { room: kept, dependencies: Vec::new() }
    } else {
        let standing = plan.dependencies_of(id).into_iter().filter(|&dependency| stands(seen, dependency));
        Effect::Follow {
            room: wanted,
            dependencies: standing.filter(is_new).map(|id| plan.key(id)).collect(),
        }
    });
}

/// What both allow.
fn both(a: &Room, b: &Room) -> Room {
    Room {
        reachable: a.reachable.iter().filter(|name| b.reachable.contains(name)).cloned().collect(),
        allow_egress: a
            .allow_egress
            .iter()
            .filter(|service| b.allow_egress.contains(service))
            .copied()
            .collect(),
        pod_security: a.pod_security.min(b.pod_security),
    }
}
