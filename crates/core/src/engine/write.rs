//! Decides when a changed status is written.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::ServiceRecoveryStatus;

use super::next::Next;
use super::{Effect, ServiceObservation};

/// Minimum time between writes that change informational texts only. Otherwise a long chain would write each of its services once per
/// link.
const STATUS_DEBOUNCE: SignedDuration = SignedDuration::from_secs(10);

/// Returns whether the difference is worth a write now. Informational texts can wait.
pub(super) fn must_write(before: &ServiceObservation, decided: &mut Next, now: Timestamp) -> bool {
    let next = &decided.status;
    if !before.exists || before.status == *next {
        return false;
    }
    if has_relevant_change(&before.status, next) {
        return true;
    }
    // The next stage makes the text obsolete.
    if matches!(decided.effect, Some(Effect::Claim { .. })) {
        return false;
    }
    let due = before.written_at.and_then(|at| at.checked_add(STATUS_DEBOUNCE).ok());
    match due {
        Some(due) if due > now => {
            decided.wake.push(due);
            false
        }
        _ => true,
    }
}

/// Returns whether two statuses differ in more than informational texts about other services and Quarantines.
fn has_relevant_change(a: &ServiceRecoveryStatus, b: &ServiceRecoveryStatus) -> bool {
    // A new field counts as relevant until it is listed here as informational.
    let ServiceRecoveryStatus {
        observed_generation: _,
        waiting_for: _,
        isolation: _,
        blocked_by,
        stage,
        attempt,
        decision,
        gates,
        integrity,
        steps,
        begun_before,
        resumes,
        holes,
        quarantined,
        exceptions,
        accepted,
        accepted_rollouts,
        accepted_gates,
        standing_orders,
        applied_decisions,
        isolating,
        contained_at,
        compromised_since,
        held_up_by,
        failing_since,
        claimed_at,
        recovered_at,
        history,
        conditions,
    } = a;
    let same_conditions = conditions.len() == b.conditions.len()
        && conditions.iter().zip(&b.conditions).all(|(a, b)| {
            (&a.type_, &a.status, &a.last_transition_time) == (&b.type_, &b.status, &b.last_transition_time)
        });
    let same = *stage == b.stage
        && *attempt == b.attempt
        && *decision == b.decision
        && (decision.is_none() || *blocked_by == b.blocked_by)
        && *gates == b.gates
        && *integrity == b.integrity
        && *steps == b.steps
        && *begun_before == b.begun_before
        && *resumes == b.resumes
        && *holes == b.holes
        && *quarantined == b.quarantined
        && *exceptions == b.exceptions
        && *accepted == b.accepted
        && *accepted_rollouts == b.accepted_rollouts
        && *accepted_gates == b.accepted_gates
        && *standing_orders == b.standing_orders
        && *applied_decisions == b.applied_decisions
        && *isolating == b.isolating
        && *contained_at == b.contained_at
        && *compromised_since == b.compromised_since
        && held_up_by.is_some() == b.held_up_by.is_some()
        && *failing_since == b.failing_since
        && *claimed_at == b.claimed_at
        && *recovered_at == b.recovered_at
        && *history == b.history
        && same_conditions;
    !same
}
