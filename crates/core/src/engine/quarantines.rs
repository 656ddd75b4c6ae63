//! `quarantinePolicy: Create`: an armed plan isolates what is not isolated yet.
//!
//! The rule: a Quarantine is made while its service has not begun (stage `Isolated`), and only if none was seen in this attempt,
//! whoever made it. Deleting one is a release, and is not undone behind the back of whoever released it; a Decision to retry,
//! which asks for isolation, allows for one more. What was seen is in `ServiceRecovery.status.quarantined`.

use super::next::Next;
use super::slots::is_armed;
use super::{Effect, Observation, QuarantineObservation};
use crate::api::{DnsLabel, ServiceRecoveryStatus, Stage, protected_namespace};
use crate::plan::{Plan, ServiceId};

/// Remembers what was seen, and makes what is missing. Nothing else comes first: isolating waits for no dependency, no slot and
/// no correction of the plan.
pub(super) fn make(plan: &Plan, seen: &Observation, id: ServiceId, next: &mut Next) {
    if !plan.creates_quarantines {
        return;
    }
    let of = &seen.services[id];
    for q in of.quarantines.iter().filter(|q| q.exists) {
        let name = DnsLabel(q.namespace.clone());
        if !next.status.quarantined.contains(&name) {
            next.status.quarantined.push(name);
        }
    }
    let missing = of.quarantines.iter().filter(|q| is_to_be_made(plan, seen, id, q));
    let namespaces: Vec<String> = missing.map(|q| q.namespace.clone()).collect();
    if namespaces.is_empty() {
        return;
    }
    if let Some(refused) = &of.refused {
        next.block(refused.reason, &plan.services[id].name, refused.message.clone());
        next.wake.push(refused.again_at);
        if refused.again_at > seen.now {
            return;
        }
    }
    next.effect = Some(Effect::Quarantine { namespaces });
}

/// Is this the plan's to make, now?
pub(super) fn is_to_be_made(
    plan: &Plan,
    seen: &Observation,
    id: ServiceId,
    q: &QuarantineObservation,
) -> bool {
    let status = &seen.services[id].status;
    plan.creates_quarantines
        && is_armed(plan, seen)
        && status.stage == Stage::Isolated
        && !q.exists
        && !was_released(plan, status, q)
        && protected_namespace(&q.namespace).is_none()
}

/// Was there one in this attempt, which somebody has deleted since?
pub(super) fn was_released(plan: &Plan, status: &ServiceRecoveryStatus, q: &QuarantineObservation) -> bool {
    plan.creates_quarantines && status.quarantined.iter().any(|name| name.0 == q.namespace)
}

/// What to say of one that was.
pub(super) fn released(namespace: &str) -> String {
    format!(
        "namespace {namespace} was let out: its Quarantine was deleted, and the plan makes none again in this attempt. Whoever is on call can make one"
    )
}
