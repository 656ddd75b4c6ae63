//! Blockers of waiting services, with the root blocker (I7).

use std::collections::VecDeque;

use crate::api::conditions::shorten;
use crate::api::service_recovery::Block;
use crate::api::{Reason, ServiceRecoveryStatus, Stage};
use crate::plan::{Plan, ServiceId};

use super::memory::{ServiceMemory, Stuck};
use super::next::{Next, missing_quarantine};
use super::quarantines;
use super::slots::{UnitView, holds};
use super::{ClaimState, Observation, Presence, QuarantineState, ServiceObservation};

/// Maximum number of blockers in a status.
const BLOCKS_LIMIT: usize = 16;

/// Adds the services that a service waits for, after its own blockers. `roots`: for each service the one at the root of its wait.
pub(super) fn fill_blocks(
    plan: &Plan,
    observed: &Observation,
    units: &[UnitView],
    services: &[ServiceMemory],
    roots: &[Option<ServiceId>],
    id: ServiceId,
    of: &mut Next,
) {
    let unit = plan.services[id].unit;
    if of.status.stage != Stage::Recovered {
        // A stuck member holds up its whole group.
        let mates = plan.units[unit].members.iter().filter(|&&mate| mate != id);
        for &mate in mates.filter(|&&mate| services[mate].stuck.is_some()) {
            let name = &plan.services[mate].name;
            if !of.blocks.iter().any(|b| b.reason == Reason::WaitingForGroup && b.name == *name) {
                let message = "goes together with this one, and is held up".to_owned();
                of.blocks.push(Block { reason: Reason::WaitingForGroup, name: name.clone(), message });
            }
        }
    }
    for &dependency in units[unit].unmet.iter().take(BLOCKS_LIMIT.saturating_sub(of.blocks.len())) {
        let message = dependency_message(plan, observed, services, roots[dependency], dependency);
        let name = plan.services[dependency].name.clone();
        of.blocks.push(Block { reason: Reason::Dependency, name, message });
    }
    of.blocks.truncate(BLOCKS_LIMIT);
    let recovered = of.status.stage == Stage::Recovered && of.status.decision.is_none();
    of.status.blocked_by = if recovered { Vec::new() } else { std::mem::take(&mut of.blocks) };
    let held_up_by = roots[id].filter(|_| !recovered);
    of.status.held_up_by = held_up_by.map(|root| plan.services[root].name.clone());
    let root = roots[id].filter(|&root| root != id).map(|root| plan.services[root].name.as_str());
    of.status.waiting_for = waiting_for(&of.status.blocked_by, root);
}

/// Returns whether the namespace is isolated and its isolation holds or was accepted as it is.
fn is_isolated(of: &ServiceObservation, namespace: &str, found: &QuarantineState) -> bool {
    found.isolation.is_some() && holds(of, namespace, found)
}

/// Adds external blockers before the service's own, or after the decision that is needed.
pub(super) fn add_external_blocks(
    plan: &Plan,
    observed: &Observation,
    units: &[UnitView],
    id: ServiceId,
    of: &mut Next,
) {
    if of.status.stage == Stage::Recovered {
        return;
    }
    let mut blocks = external_blocks(plan, observed, units, id, of);
    if of.status.decision.is_some() {
        of.blocks.append(&mut blocks);
    } else {
        blocks.append(&mut of.blocks);
        of.blocks = blocks;
    }
}

/// Returns the blockers outside the service's own stage.
fn external_blocks(
    plan: &Plan,
    observed: &Observation,
    units: &[UnitView],
    id: ServiceId,
    next: &Next,
) -> Vec<Block> {
    let service = &plan.services[id];
    let of = &observed.services[id];
    let mut blocks: Vec<Block> = Vec::new();
    let mut block = |reason: Reason, name: &str, message: String| {
        blocks.push(Block { reason, name: shorten(name, 128), message: shorten(&message, 512) });
    };
    for problem in &service.problems {
        block(problem.reason, &problem.culprit, problem.message.clone());
    }
    let incident = plan.incident.as_deref().unwrap_or_default();
    match &observed.incident {
        Presence::Present => {}
        Presence::Missing => {
            block(Reason::IncidentMissing, incident, format!("there is no Incident named {incident}"))
        }
        Presence::Unknown(why) => block(Reason::IncidentUnknown, incident, why.clone()),
    }
    match &observed.account {
        Presence::Present => {}
        Presence::Missing => {
            let message =
                format!("there is no ServiceAccount {} in namespace {}", plan.account, plan.namespace);
            block(Reason::ServiceAccountMissing, &plan.account, message);
        }
        Presence::Unknown(why) => block(Reason::ServiceAccountUnknown, &plan.account, why.clone()),
    }
    if let Some(refused) = of.refused.as_ref().filter(|_| !of.exists || of.other_plan.is_some()) {
        block(refused.reason, &service.name, refused.message.clone());
    }
    let unit = &units[service.unit];
    if of.status.stage == Stage::Isolated {
        for q in &of.quarantines {
            match &q.found {
                None if quarantines::is_to_be_made(plan, observed, id, q) => {}
                None if quarantines::was_released(plan, id, &of.status, q) => {
                    block(Reason::QuarantineReleased, &q.namespace, quarantines::released(&q.namespace));
                }
                None => block(Reason::QuarantineMissing, &q.namespace, missing_quarantine(&q.namespace)),
                Some(found) => match &found.claim {
                    ClaimState::Other { holder } => {
                        let message = format!(
                            "namespace {} is claimed by {holder}: two plans cannot both recover it",
                            q.namespace
                        );
                        block(Reason::ClaimedByAnother, &q.namespace, message);
                    }
                    ClaimState::Free | ClaimState::Mine { .. }
                        if !is_isolated(of, &q.namespace, found) && !is_asked_about(next) =>
                    {
                        block(Reason::QuarantineNotReady, &q.namespace, found.message.clone());
                    }
                    ClaimState::Free | ClaimState::Mine { .. } => {}
                },
            }
        }
        if plan.suspend && unit.unmet.is_empty() {
            block(Reason::Suspended, &plan.name, "the plan is suspended: it starts nothing new".to_owned());
        }
    }
    if let Some(original) = quarantines::open_original(of) {
        block(Reason::OriginalNotIsolated, original, quarantines::not_isolated(original));
    }
    if unit.wants_slot && !unit.go {
        let message = format!("{} units are under way, as many as maxParallel allows", plan.max_parallel);
        block(Reason::Slot, "maxParallel", message);
    }
    blocks
}

/// Returns whether a needed decision is about the service's Quarantines already.
fn is_asked_about(next: &Next) -> bool {
    next.status.decision.as_ref().is_some_and(|decision| decision.reason == Reason::ControlNotEnforced)
}

/// Returns why a person has to look at the service, if it blocks itself: the decision that is needed, or else the first blocker that is
/// not a matter of turns.
pub(super) fn stuck(status: &ServiceRecoveryStatus, blocks: &[Block]) -> Option<Stuck> {
    if status.decision.is_some() || status.stage == Stage::Recovered {
        return asked_about(status, blocks);
    }
    let cause = blocks.iter().find(|block| !block.reason.is_in_turn())?;
    Some(Stuck { cause: Some(cause.clone()), since: None })
}

/// Returns the decision that is needed.
pub(super) fn asked_about(status: &ServiceRecoveryStatus, blocks: &[Block]) -> Option<Stuck> {
    let decision = status.decision.as_ref()?;
    let cause = blocks.iter().find(|block| block.reason == decision.reason).cloned();
    Some(Stuck { cause, since: Some(decision.since.clone()) })
}

/// Returns for each service the nearest stuck service that it waits for, directly or indirectly; itself if it is stuck.
pub(super) fn roots(plan: &Plan, units: &[UnitView], services: &[ServiceMemory]) -> Vec<Option<ServiceId>> {
    let mut roots: Vec<Option<ServiceId>> = vec![None; services.len()];
    let mut queue: VecDeque<ServiceId> = VecDeque::new();
    for id in (0..services.len()).filter(|&id| services[id].stuck.is_some()) {
        roots[id] = Some(id);
        queue.push_back(id);
    }
    while let Some(id) = queue.pop_front() {
        let unit = plan.services[id].unit;
        // Who asks a person keeps the slot from its group, even where it is recovered.
        let mates = plan.units[unit].members.iter().copied().filter(|&m| !services[m].is_recovered);
        // A service that satisfies its dependents does not hold them up.
        let satisfies = services[id].standing.satisfies;
        let dependents = plan.units[unit].dependents.iter().copied().filter(|_| !satisfies);
        let waiting = dependents.filter(|&d| units[d].unmet.iter().any(|&u| plan.services[u].unit == unit));
        for other in waiting.flat_map(|d| plan.units[d].members.iter().copied()).chain(mates) {
            if roots[other].is_none() {
                roots[other] = roots[id];
                queue.push_back(other);
            }
        }
    }
    roots
}

fn dependency_message(
    plan: &Plan,
    observed: &Observation,
    services: &[ServiceMemory],
    root: Option<ServiceId>,
    dependency: ServiceId,
) -> String {
    // The recorded stage, not the one just decided: a dependent stops waiting once that is written.
    let stage = observed.services[dependency].status.stage;
    match root {
        Some(root) => {
            let cause = services[root].stuck.as_ref().and_then(|stuck| stuck.cause.as_ref());
            let why = cause.map_or_else(String::new, |b| format!(" ({}: {})", b.reason, b.message));
            let owner = plan.services[root]
                .owner
                .as_ref()
                .map_or_else(String::new, |o| format!("; {o} can clear it"));
            let name = &plan.services[root].name;
            let message = if root == dependency {
                format!("held up{why}{owner}")
            } else {
                format!("held up by {name}{why}{owner}")
            };
            shorten(&message, 512)
        }
        None if stage == Stage::Recovered => {
            "recovered, but its continuous gates do not pass just now".to_owned()
        }
        // The message omits the stage: each change would cause a write for every dependent.
        None => "not recovered yet".to_owned(),
    }
}

/// Returns the text of the printer column: the first few names, and the root that a person has to look at.
fn waiting_for(blocks: &[Block], root: Option<&str>) -> Option<String> {
    let first = blocks.first()?;
    let same: Vec<&str> =
        blocks.iter().filter(|b| b.reason == first.reason).map(|b| b.name.as_str()).collect();
    let shown = same.iter().take(2).copied().collect::<Vec<_>>().join(", ");
    let more = if same.len() > 2 { format!(" +{}", same.len() - 2) } else { String::new() };
    let text = match (first.reason, root) {
        (Reason::Dependency, Some(root)) if !same.contains(&root) => {
            format!("{shown}{more} (held up by {root})")
        }
        (Reason::Dependency, _) => format!("{shown}{more}"),
        (reason, _) => format!("{reason}: {shown}{more}"),
    };
    Some(shorten(&text, 256))
}
