//! How an attempt begins: a service is taken up, or a person decides to try again.

use k8s_openapi::jiff::Timestamp;

use crate::api::service_recovery::PastAttempt;
use crate::api::{Reason, ServiceRecoveryStatus, Stage};

use super::next::{Next, time};
use super::{Effect, ServiceObservation};

/// Attempts kept in a ServiceRecovery's history.
const HISTORY_LIMIT: usize = 20;

/// A service without a ServiceRecovery gets one; one that an earlier plan of this name left is continued with the next
/// attempt, at the stage where it stood if it is recovered, as a re-applied plan must not stop what runs.
pub(super) fn adopt(of: &ServiceObservation, now: Timestamp) -> Option<Next> {
    if of.exists && of.other_plan.is_none() {
        return None;
    }
    let mut next = Next::begun(of.status.clone());
    if of.exists && of.status.stage != Stage::Recovered && !replaced_already(&of.status) {
        next.status = next_attempt(&of.status, now, Reason::PlanReplaced, "the plan was made anew");
    }
    if of.refused.as_ref().is_some_and(|r| r.again_at > now) {
        next.wake.extend(of.refused.as_ref().map(|r| r.again_at));
    } else {
        next.effect = Some(Effect::Adopt);
    }
    Some(next)
}

/// Has the attempt been begun for a new plan before, and nothing since? Then adopting it again (it was refused, or the
/// operator ended in between) begins no other.
fn replaced_already(status: &ServiceRecoveryStatus) -> bool {
    status.stage == Stage::Isolated
        && status.history.first().is_some_and(|past| past.reason == Reason::PlanReplaced.as_str())
}

/// The next attempt: everything is proved afresh. Isolation stays as it is.
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
    next.steps.clear();
    next.resumes.clear();
    next.blocked_by.clear();
    next.decision = None;
    next.accepted.clear();
    next.exceptions.clear();
    next.claimed_at = None;
    next.recovered_at = None;
    next
}
