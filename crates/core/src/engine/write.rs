//! When a status that has changed is written.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::ServiceRecoveryStatus;

use super::next::Next;
use super::{Effect, ServiceObservation};

/// Texts that only tell what is waited for are rewritten at most this often, so that a long chain does not write each of
/// its services once for every link.
const STATUS_DEBOUNCE: SignedDuration = SignedDuration::from_secs(10);

/// Is the difference worth a write now? What only tells what is waited for can wait a little.
pub(super) fn must_write(before: &ServiceObservation, decided: &mut Next, now: Timestamp) -> bool {
    let next = &decided.status;
    if !before.exists || before.status == *next {
        return false;
    }
    if differs_in_substance(&before.status, next) {
        return true;
    }
    // What waits no more says so with its next stage.
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

/// Do they differ in more than what merely tells: of others, of what its Quarantines say themselves, of why it waits?
fn differs_in_substance(a: &ServiceRecoveryStatus, b: &ServiceRecoveryStatus) -> bool {
    // A field that is new counts until somebody has decided that it does not.
    let ServiceRecoveryStatus {
        observed_generation: _,
        waiting_for: _,
        isolation: _,
        blocked_by,
        stage,
        attempt,
        decision,
        gates,
        steps,
        resumes,
        holes,
        quarantined,
        exceptions,
        accepted,
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
        && *steps == b.steps
        && *resumes == b.resumes
        && *holes == b.holes
        && *quarantined == b.quarantined
        && *exceptions == b.exceptions
        && *accepted == b.accepted
        && *claimed_at == b.claimed_at
        && *recovered_at == b.recovered_at
        && *history == b.history
        && same_conditions;
    !same
}
