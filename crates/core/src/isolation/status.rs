//! Makes the status of a Quarantine from the result of a pass.

mod controls;
mod ready;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::pass::{ClusterState, Pass, PassFailure};
use crate::api::conditions::{self, State};
use crate::api::quarantine::{Control, ControlName, ControlState, DelivererState};
use crate::api::{Isolation, Quarantine, QuarantineReason, QuarantineStatus};
use controls::controls;
use ready::ready;
pub use ready::unverified_fence;

/// Maximum number of unmanaged pods in a status.
const UNMANAGED: usize = 64;

/// Returns a time in whole seconds, as the API server stores it, so that a value read back equals the one written.
#[must_use]
pub fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Returns the status that follows from a pass, with the claim unchanged.
#[must_use]
pub fn after(quarantine: &Quarantine, pass: &Pass, known: &ClusterState, now: Timestamp) -> QuarantineStatus {
    let old = quarantine.status.clone().unwrap_or_default();
    let generation = quarantine.metadata.generation;
    let isolation = pass.enforced(old.isolation);
    let controls = controls(&quarantine.name_any(), pass, known, &old, now);
    // Evidence of an earlier sealing does not count for this one.
    let stale = isolation == Some(Isolation::Contained)
        && !pass.in_place.captured
        && matches!(old.isolation, None | Some(Isolation::CleanRoom | Isolation::Open));
    let capture = pass.capture.clone().or(if stale { None } else { old.capture });
    let required = controls.iter().filter(|c| c.state != ControlState::NotRequired).count();
    let tested = controls.iter().filter(|c| c.state == ControlState::Tested).count();
    let mut deliverers = pass.deliverers.clone().unwrap_or(old.deliverers);
    if isolation == Some(Isolation::Open) {
        // Suspended objects have to be resumed by people. Nothing else is denied any more.
        deliverers.retain(|deliverer| deliverer.state == DelivererState::Suspended);
    }
    // Unmanaged pods of this sealing only: a recovered namespace has other pods.
    let mut unmanaged_pods = if stale { Vec::new() } else { old.unmanaged_pods };
    unmanaged_pods.extend(pass.unmanaged.iter().cloned());
    unmanaged_pods.sort();
    unmanaged_pods.dedup();
    unmanaged_pods.truncate(UNMANAGED);
    let before = if stale { None } else { old.lost_token_secrets };
    let lost_token_secrets = match &pass.lost_token_secrets {
        Some(lost) => Some(before.unwrap_or_default().and(lost)),
        None => before,
    };
    // The highest of all passes: what a pass deletes, the next one does not find.
    let contents = match (old.contents, pass.contents) {
        (Some(before), Some(now)) => Some(before.max(now)),
        (before, now) => before.or(now),
    };
    let overruled = if pass.target.overrules { old.claimed_by.clone() } else { old.overruled };
    let mut conditions = old.conditions;
    let mut set = |type_, state, reason: QuarantineReason, message: &str| {
        conditions::set(&mut conditions, type_, state, reason.as_str(), message, generation, now);
    };
    match &known.fence.drift {
        None if known.fence.newer => set(
            conditions::FENCE_INTACT,
            State::True,
            QuarantineReason::Newer,
            "admission policies of a newer version are in place: this operator leaves them as they are",
        ),
        None => set(
            conditions::FENCE_INTACT,
            State::True,
            QuarantineReason::AsWritten,
            "the admission policies are as we wrote them",
        ),
        Some(why) => set(conditions::FENCE_INTACT, State::False, QuarantineReason::Missing, why),
    }
    let (state, reason, message) = ready(pass, &controls);
    set(conditions::READY, state, reason, &message);
    match () {
        () if state == State::False => {
            set(conditions::STALLED, State::True, reason, &message);
            conditions::clear(&mut conditions, conditions::RECONCILING);
        }
        () if state == State::True => {
            conditions::clear(&mut conditions, conditions::STALLED);
            conditions::clear(&mut conditions, conditions::RECONCILING);
        }
        () => {
            set(conditions::RECONCILING, State::True, reason, &message);
            conditions::clear(&mut conditions, conditions::STALLED);
        }
    }
    QuarantineStatus {
        observed_generation: generation,
        isolation,
        incidents: quarantine.spec.incidents(),
        tested: Some(format!("{tested}/{required}")),
        overruled: overruled.filter(|claim| old.claimed_by.as_ref() == Some(claim)),
        claimed_by: old.claimed_by,
        controls,
        capture,
        deliverers,
        contents,
        unmanaged_pods,
        lost_token_secrets,
        conditions,
    }
}

/// Returns the status of a Quarantine that cannot be enforced at all.
#[must_use]
pub fn impossible(quarantine: &Quarantine, failure: &PassFailure, now: Timestamp) -> QuarantineStatus {
    let mut status = quarantine.status.clone().unwrap_or_default();
    let generation = quarantine.metadata.generation;
    status.observed_generation = generation;
    let conditions = &mut status.conditions;
    for (type_, state) in [(conditions::READY, State::False), (conditions::STALLED, State::True)] {
        conditions::set(conditions, type_, state, failure.reason.as_str(), &failure.message, generation, now);
    }
    conditions::clear(conditions, conditions::RECONCILING);
    status
}

/// Returns when lock, fence and guard were last tested, if the status says that all of them hold at this level.
#[must_use]
pub fn last_verified(status: &QuarantineStatus, level: Isolation) -> Option<Timestamp> {
    let stands =
        |control: &&Control| matches!(control.state, ControlState::Tested | ControlState::Unverifiable);
    let of = |name| status.controls.iter().find(|control| control.name == name).filter(stands);
    let tried = [ControlName::Lock, ControlName::Fence, ControlName::Guard]
        .map(|name| Some(of(name)?.tried.as_ref()?.0));
    tried.into_iter().min()?.filter(|_| status.isolation == Some(level))
}

/// Names one pod only: the message would otherwise change, and be written, with every pod that ends.
fn still_alive(pods: &[String]) -> String {
    pods.iter()
        .min()
        .map_or_else(|| "pods have yet to end".to_owned(), |pod| format!("pods have yet to end: {pod}"))
}

#[cfg(test)]
mod tests;
