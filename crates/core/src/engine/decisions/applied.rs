//! Record of the Decisions that took effect, in the write that carries out their effect: whatever happens after it, it is known.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::service_recovery::{AppliedDecision, AppliedDecisions};

use super::super::next::{Next, time};
use super::{DecisionObservation, ServiceObservation};

/// Maximum number of Decisions in the record. Those whose own status says that they took effect give way first.
const LIMIT: usize = 32;

/// Begins the record.
pub(in super::super) fn begin(next: &mut Next, now: Timestamp) {
    of(next, now);
}

fn of(next: &mut Next, now: Timestamp) -> &mut AppliedDecisions {
    let begun = || AppliedDecisions { since: time(now), latest: Vec::new() };
    next.status.applied_decisions.get_or_insert_with(begun)
}

/// Records that a Decision took effect, once. If the record is full of others that nobody has been told of, the
/// oldest gives way, and the record begins after it.
pub(in super::super) fn record(
    next: &mut Next,
    observed: &ServiceObservation,
    decision: &DecisionObservation,
    now: Timestamp,
) {
    if !add(next, observed, decision, now) {
        return;
    }
    let record = of(next, now);
    if let Some(lost) = record.latest.get(LIMIT) {
        let after = lost.at.0.checked_add(SignedDuration::from_secs(1)).unwrap_or(now);
        record.since = time(after.max(record.since.0));
        record.latest.truncate(LIMIT);
    }
}

/// Records that a Decision is counted, once. Counted ones are found again at each pass, so that none takes the place of another.
pub(in super::super) fn count(
    next: &mut Next,
    observed: &ServiceObservation,
    decision: &DecisionObservation,
    now: Timestamp,
) {
    if add(next, observed, decision, now) {
        let latest = &mut of(next, now).latest;
        if latest.len() > LIMIT {
            latest.remove(0);
        }
    }
}

/// Adds a Decision. Returns whether it was not recorded yet.
fn add(
    next: &mut Next,
    observed: &ServiceObservation,
    decision: &DecisionObservation,
    now: Timestamp,
) -> bool {
    let attempt = next.status.attempt;
    let record = of(next, now);
    if decision.is_applied || record.latest.iter().any(|known| known.uid == decision.uid) {
        return false;
    }
    let is_untold =
        |known: &AppliedDecision| observed.decisions.iter().any(|of| of.uid == known.uid && !of.is_applied);
    record.latest.retain(is_untold);
    let applied =
        AppliedDecision { name: decision.name.clone(), uid: decision.uid.clone(), at: time(now), attempt };
    record.latest.insert(0, applied);
    true
}
