//! Condition types, and helpers that set and read conditions by the conventions of kstatus (`Ready`, `Reconciling`, `Stalled`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The service is open again, and its gates have passed. On a plan: every service is recovered.
pub const RECOVERED: &str = "Recovered";
/// The continuous gates pass.
pub const HEALTHY: &str = "Healthy";
/// Recovery does not proceed until a person makes a Decision. The reason says why; the message says which Decision clears it.
pub const NEEDS_DECISION: &str = "NeedsDecision";
/// kstatus: the object has reached the desired state.
pub const READY: &str = "Ready";
/// kstatus: the object is on its way to the desired state.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: the object does not reach the desired state without a change by a person.
pub const STALLED: &str = "Stalled";
/// The plan no longer names this service; the object is kept as history.
pub const ORPHANED: &str = "Orphaned";
/// Everything that the plan will need exists: its account, rights, namespaces and lists. It blocks nothing, and `Ready` ignores it.
pub const PREPARED: &str = "Prepared";
/// On a Decision: it had an effect. False: it has none, and the reason says why. Absent: it has not been considered yet.
pub const APPLIED: &str = "Applied";
/// The admission policies are as the operator wrote them.
pub const FENCE_INTACT: &str = "FenceIntact";

/// Reason of a Quarantine that is not `Ready` because the cluster's network does not enforce its policies. Everything else that the level
/// needs is in place.
pub const NETWORK_NOT_ENFORCED: &str = "NetworkNotEnforced";

/// Reason of a Contained Quarantine that is not `Ready` because it has pods on the host network, which no NetworkPolicy isolates. Sealing
/// stops them.
pub const HOST_NETWORK_PODS: &str = "HostNetworkPods";

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The operator cannot determine whether the condition holds.
    Unknown,
}

impl State {
    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Maximum length of a condition's message in bytes. The API server allows 32 KiB, more than a person reads.
pub const MESSAGE_LIMIT: usize = 1024;

/// Sets one condition. `lastTransitionTime` changes only with the status, as Kubernetes conventions require.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    state: State,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let Some(condition) = conditions.iter_mut().find(|c| c.type_ == type_) else {
        conditions.push(Condition {
            type_: type_.to_owned(),
            status: state.as_str().to_owned(),
            reason: reason.to_owned(),
            message: shorten(message, MESSAGE_LIMIT),
            observed_generation: generation,
            last_transition_time: Time(now),
        });
        return;
    };
    if condition.status != state.as_str() {
        state.as_str().clone_into(&mut condition.status);
        condition.last_transition_time = Time(now);
    }
    if condition.reason != reason {
        reason.clone_into(&mut condition.reason);
    }
    if condition.message != message {
        condition.message = shorten(message, MESSAGE_LIMIT);
    }
    condition.observed_generation = generation;
}

/// Removes a condition. kstatus reads an absent `Reconciling` or `Stalled` as False.
pub fn clear(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// Returns the condition of this type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Returns whether the condition is present and `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == "True")
}

/// Truncates a text to at most `limit` bytes at a character boundary, and marks the cut with an ellipsis.
#[must_use]
pub fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let (t0, t1) = (Timestamp::from_second(10).unwrap(), Timestamp::from_second(20).unwrap());
        let mut conditions = Vec::new();
        set(&mut conditions, READY, State::Unknown, "Waiting", "a", Some(1), t0);
        set(&mut conditions, READY, State::Unknown, "Waiting", "b", Some(2), t1);
        assert_eq!((conditions[0].last_transition_time.0, conditions[0].message.as_str()), (t0, "b"));
        set(&mut conditions, READY, State::True, "Done", "", Some(2), t1);
        assert_eq!(conditions[0].last_transition_time.0, t1);
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn shortening_never_splits_a_character() {
        assert_eq!(shorten("ünï", 4), "…");
        assert!(shorten(&"ü".repeat(600), 100).len() <= 100);
    }
}
