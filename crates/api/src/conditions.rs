//! Conditions by the conventions of kstatus: `Ready`, `Reconciling` and `Stalled` mean to any tool what they mean to us.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// A service is open again, and that was tested. On a plan: every service is.
pub const RECOVERED: &str = "Recovered";
/// The continuous gates pass now.
pub const HEALTHY: &str = "Healthy";
/// Nothing moves until a person decides. The reason says why, the message what would clear it.
pub const NEEDS_DECISION: &str = "NeedsDecision";
/// kstatus: in the state that was asked for.
pub const READY: &str = "Ready";
/// kstatus: on the way to it.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: on no way to it without a change by somebody.
pub const STALLED: &str = "Stalled";
/// The plan no longer names this service; the object is kept as history.
pub const ORPHANED: &str = "Orphaned";
/// The fence and lock are as we wrote them.
pub const FENCE_INTACT: &str = "FenceIntact";

/// Why a Quarantine is not `Ready` where only its network does not isolate: everything else that the level needs is in place.
pub const NETWORK_NOT_ENFORCED: &str = "NetworkNotEnforced";

/// Why a contained Quarantine is not `Ready` where only pods on the network of their nodes are not cut off: sealing stops them.
pub const HOST_NETWORK_PODS: &str = "HostNetworkPods";

/// The three states of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody can say.
    Unknown,
}

impl State {
    /// As the API writes it.
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

/// Longest message we write; the API server's own limit is 32 KiB, a person's is lower.
const MESSAGE_LIMIT: usize = 1024;

/// Sets one condition. `lastTransitionTime` moves only when the status does, so that "since when" stays true.
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

/// Takes a condition away. kstatus reads an absent `Reconciling` or `Stalled` as False.
pub fn clear(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// Finds a condition by its type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Is this condition there and `True`?
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == "True")
}

/// Cuts a text to at most `limit` bytes, on a character's edge, showing that it was cut.
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
