//! Beginning of an attempt: a service is adopted, or a person decides to retry.

use k8s_openapi::jiff::Timestamp;

use crate::api::service_recovery::PastAttempt;
use crate::api::{Reason, ServiceRecoveryStatus, Stage};

use super::next::{Next, time};
use super::steps::begun;
use super::{Effect, ServiceObservation};

/// Maximum number of past attempts in a ServiceRecovery.
const HISTORY_LIMIT: usize = 20;

/// Returns the next state of a service to adopt. A service without a ServiceRecovery gets one. One that an earlier plan of this name left
/// continues with the next attempt, at its stage if it is recovered, as a re-applied plan must not stop what runs.
pub(super) fn adopt(of: &ServiceObservation, now: Timestamp) -> Option<Next> {
    if of.exists && of.other_plan.is_none() {
        return None;
    }
    let mut next = Next::begun(of.status.clone());
    if of.exists && of.status.stage != Stage::Recovered && !replaced_already(&of.status) {
        next.status =
            next_attempt(&of.status, now, Reason::PlanReplaced, "another plan of this name replaced it");
    }
    if of.refused.as_ref().is_some_and(|r| r.again_at > now) {
        next.wake.extend(of.refused.as_ref().map(|r| r.again_at));
    } else {
        next.effect = Some(Effect::Adopt);
    }
    Some(next)
}

/// Returns whether the attempt was begun for a new plan already and nothing happened since. Adopting it again (after a denial or a
/// restart of the operator) then begins no further attempt.
fn replaced_already(status: &ServiceRecoveryStatus) -> bool {
    status.stage == Stage::Isolated
        && status.history.first().is_some_and(|past| past.reason == Reason::PlanReplaced.as_str())
}

/// Returns the next attempt: everything is proved again, and isolation is unchanged.
pub(super) fn next_attempt(
    status: &ServiceRecoveryStatus,
    now: Timestamp,
    reason: Reason,
    message: &str,
) -> ServiceRecoveryStatus {
    let mut next = status.clone();
    next.history.insert(
        0,
        PastAttempt {
            attempt: status.attempt,
            claimed_at: status.claimed_at.clone(),
            ended_at: time(now),
            stage: status.stage,
            reason: reason.as_str().to_owned(),
            message: crate::api::conditions::shorten(message, 600),
        },
    );
    next.history.truncate(HISTORY_LIMIT);
    next.attempt += 1;
    next.stage = Stage::Isolated;
    next.gates.clear();
    next.begun_before = begun(status);
    next.steps.clear();
    next.resumes.clear();
    next.blocked_by.clear();
    next.decision = None;
    next.accepted.clear();
    next.accepted_rollouts.clear();
    next.accepted_gates.clear();
    next.isolating = None;
    next.compromised_since = None;
    next.held_up_by = None;
    next.failing_since = None;
    next.exceptions.clear();
    next.claimed_at = None;
    next.recovered_at = None;
    next
}
