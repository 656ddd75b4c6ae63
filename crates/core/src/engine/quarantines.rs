//! `quarantinePolicy: Create`: an armed plan creates missing Quarantines.
//!
//! Rule: a Quarantine is created while its service is at stage `Isolated`, and only if none existed in this attempt, whoever created it.
//! Deleting one is a release, which the plan does not undo; a Decision to retry requests isolation, and permits one more.
//! `ServiceRecovery.status.quarantined` records the namespaces that had one.

use super::next::Next;
use super::slots::is_armed;
use super::{Effect, Observation, QuarantineObservation};
use crate::api::{DnsLabel, ServiceRecoveryStatus, Stage, protected_namespace};
use crate::plan::{Plan, ServiceId};

/// Records existing Quarantines and creates missing ones. This precedes everything else: isolation waits for no dependency, no slot and
/// no correction of the plan.
pub(super) fn make(plan: &Plan, observed: &Observation, id: ServiceId, next: &mut Next) {
    if !plan.creates_quarantines {
        return;
    }
    let of = &observed.services[id];
    for q in of.quarantines.iter().filter(|q| q.exists) {
        let name = DnsLabel(q.namespace.clone());
        if !next.status.quarantined.contains(&name) {
            next.status.quarantined.push(name);
        }
    }
    let missing = of.quarantines.iter().filter(|q| is_to_be_made(plan, observed, id, q));
    let namespaces: Vec<String> = missing.map(|q| q.namespace.clone()).collect();
    if namespaces.is_empty() {
        return;
    }
    if let Some(refused) = &of.refused {
        next.block(refused.reason, &plan.services[id].name, refused.message.clone());
        next.wake.push(refused.again_at);
        if refused.again_at > observed.now {
            return;
        }
    }
    next.effect = Some(Effect::Quarantine { namespaces });
}

/// Returns whether the plan may create this Quarantine now.
pub(super) fn is_to_be_made(
    plan: &Plan,
    observed: &Observation,
    id: ServiceId,
    q: &QuarantineObservation,
) -> bool {
    let status = &observed.services[id].status;
    plan.creates_quarantines
        && is_armed(plan, observed)
        && status.stage == Stage::Isolated
        && !q.exists
        && !was_released(plan, status, q)
        && protected_namespace(&q.namespace).is_none()
}

/// Returns whether a Quarantine existed in this attempt and was deleted since.
pub(super) fn was_released(plan: &Plan, status: &ServiceRecoveryStatus, q: &QuarantineObservation) -> bool {
    plan.creates_quarantines && status.quarantined.iter().any(|name| name.0 == q.namespace)
}

/// Returns the message about a deleted Quarantine.
pub(super) fn released(namespace: &str) -> String {
    format!(
        "namespace {namespace} was let out: its Quarantine was deleted, and the plan makes none again in this attempt. Whoever is on call can make one"
    )
}
