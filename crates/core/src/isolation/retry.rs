//! When a failed pass of the Quarantine controller, or a failed control, is retried.

use std::time::Duration;

/// Consecutive conflicts that do not count as a failure: other clients write to the Quarantine too.
const CONFLICTS: u32 = 10;
/// Pause after a conflict.
const AFTER_CONFLICT: Duration = Duration::from_millis(20);
/// Longest pause before a failed control is retried, so that it recovers within a minute after its cause is gone.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Kind of failure that ended a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Another client changed the object in the meantime.
    Conflict,
    /// A retry may succeed without anybody's action.
    Transient,
    /// A person has to change something first.
    Refused,
}

/// Returns whether the object only has to be read again, so that nothing is reported. `failures`: consecutive failed passes.
#[must_use]
pub fn is_conflict(cause: Cause, failures: u32) -> bool {
    failures < CONFLICTS && cause == Cause::Conflict
}

/// Returns the pause before a failed pass is retried, given the number of consecutive failures.
#[must_use]
pub fn pass_again_after(cause: Cause, failures: u32) -> Duration {
    if is_conflict(cause, failures) {
        return AFTER_CONFLICT;
    }
    // A pass makes many calls: if a few per cent of them fail, many consecutive passes fail, and isolating a namespace must not wait a
    // minute each time. A failure that a person has to clear may wait longer.
    let most = if cause == Cause::Refused { 8 } else { 5 };
    Duration::from_millis(250 * 2_u64.pow(failures.min(most)))
}

/// Returns the pause before failed controls are retried, given the number of consecutive passes with a failed control.
#[must_use]
pub fn control_again_after(failures: u32) -> Duration {
    Duration::from_millis(250 * 2_u64.pow(failures.min(7))).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_pass_is_retried_in_seconds_and_refused_in_a_minute() {
        for (cause, failures, milliseconds) in [
            (Cause::Transient, 1, 500),
            (Cause::Transient, 100, 8_000),
            (Cause::Refused, 1, 500),
            (Cause::Refused, 100, 64_000),
            (Cause::Conflict, 9, 20),
            (Cause::Conflict, 10, 8_000),
        ] {
            let after = pass_again_after(cause, failures);
            assert_eq!(after, Duration::from_millis(milliseconds), "{cause:?}, {failures} times");
        }
        assert!(is_conflict(Cause::Conflict, 9) && !is_conflict(Cause::Conflict, 10));
        assert!(!is_conflict(Cause::Transient, 1));
    }

    #[test]
    fn failed_control_is_retried_within_twenty_seconds() {
        assert_eq!(control_again_after(1), Duration::from_millis(500));
        assert_eq!(control_again_after(6), Duration::from_secs(16));
        assert_eq!(control_again_after(100), LONGEST_PAUSE);
    }
}
