//! `quarantinePolicy: Create`: an armed plan creates missing Quarantines.
//!
//! Rule: a Quarantine is created while its service is at stage `Isolated`, and only if none existed in this attempt, whoever created it.
//! Deleting one is a release, which the plan does not undo; a Decision to retry requests isolation, and permits one more.
//! `ServiceRecovery.status.quarantined` records the namespaces that had one.

use super::next::Next;
use super::slots::is_armed;
use super::{Effect, Observation, QuarantineObservation, ServiceObservation};
use crate::api::{DnsLabel, Isolation, ServiceRecoveryStatus, Stage, protected_namespace};
use crate::plan::{Plan, ServiceId};

/// Records existing Quarantines and creates missing ones. This precedes everything else: isolation waits for no dependency, no slot and
/// no correction of the plan.
pub(super) fn make(plan: &Plan, observed: &Observation, id: ServiceId, next: &mut Next) {
    if !plan.services[id].creates_quarantines(plan) {
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
    let effect = match namespaces.is_empty() {
        false => Effect::Quarantine { namespaces },
        true => match missing_namespaces(plan, observed, id) {
            namespaces if namespaces.is_empty() => return,
            namespaces => Effect::CreateNamespaces { namespaces },
        },
    };
    if let Some(refused) = &of.refused {
        next.block(refused.reason, &plan.services[id].name, refused.message.clone());
        next.wake.push(refused.again_at);
        if refused.again_at > observed.now {
            return;
        }
    }
    next.effect = Some(effect);
}

/// Returns the namespaces to create for a service that is rebuilt beside its original. Their Quarantines exist, so that they are isolated
/// before they exist.
fn missing_namespaces(plan: &Plan, observed: &Observation, id: ServiceId) -> Vec<String> {
    let of = &observed.services[id];
    if plan.services[id].replaces.is_empty()
        || !is_armed(plan, observed)
        || of.status.stage != Stage::Isolated
    {
        return Vec::new();
    }
    let is_missing =
        |q: &&QuarantineObservation| q.found.as_ref().is_some_and(|found| found.is_namespace_missing);
    of.quarantines.iter().filter(is_missing).map(|q| q.namespace.clone()).collect()
}

/// Returns the first namespace of the original that nothing isolates. The service is rebuilt beside a sealed original only.
pub(super) fn open_original(of: &ServiceObservation) -> Option<&str> {
    let is_isolated = |q: &QuarantineObservation| {
        q.found
            .as_ref()
            .is_some_and(|found| found.isolation.is_some_and(|level| level < Isolation::CleanRoom))
    };
    of.originals.iter().find(|q| !is_isolated(q)).map(|q| q.namespace.as_str())
}

/// Returns the message about an original that nothing isolates.
pub(super) fn not_isolated(namespace: &str) -> String {
    format!(
        "namespace {namespace}, the original that it is rebuilt beside, is not isolated: on-call staff isolate it"
    )
}

/// Returns whether the plan may create this Quarantine now.
pub(super) fn is_to_be_made(
    plan: &Plan,
    observed: &Observation,
    id: ServiceId,
    q: &QuarantineObservation,
) -> bool {
    let status = &observed.services[id].status;
    plan.services[id].creates_quarantines(plan)
        && is_armed(plan, observed)
        && status.stage == Stage::Isolated
        && !q.exists
        && !was_released(plan, id, status, q)
        && protected_namespace(&q.namespace).is_none()
}

/// Returns whether a Quarantine existed in this attempt and was deleted since.
pub(super) fn was_released(
    plan: &Plan,
    id: ServiceId,
    status: &ServiceRecoveryStatus,
    q: &QuarantineObservation,
) -> bool {
    plan.services[id].creates_quarantines(plan) && status.quarantined.iter().any(|name| name.0 == q.namespace)
}

/// Returns the message about a deleted Quarantine.
pub(super) fn released(namespace: &str) -> String {
    format!(
        "namespace {namespace} was let out: its Quarantine was deleted, and the plan makes none again in this attempt. Whoever is on call can make one"
    )
}
