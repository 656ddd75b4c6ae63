//! When a pass of the Quarantine controller that failed, or a control in it, is tried again.

use std::time::Duration;

/// As many conflicts in a row are no failure: others write to the Quarantine too, but not for ever.
const CONFLICTS: u32 = 10;
/// Pause after a conflict.
const AFTER_CONFLICT: Duration = Duration::from_millis(20);
/// Longest pause before a control that failed is tried again: within a minute of what stood in its way.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// What kind of failure ended a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody wrote in between.
    Conflict,
    /// It may work in a moment, without anybody doing anything.
    Transient,
    /// Somebody has to change something first.
    Refused,
}

/// Is the object only to be read afresh, so that nobody has to be told? `failures`: passes that failed in a row.
#[must_use]
pub fn is_conflict(cause: Cause, failures: u32) -> bool {
    failures < CONFLICTS && cause == Cause::Conflict
}

/// Returns when a pass is tried again, of which so many in a row have failed.
#[must_use]
pub fn pass_again_after(cause: Cause, failures: u32) -> Duration {
    if is_conflict(cause, failures) {
        return AFTER_CONFLICT;
    }
    // A pass makes many calls: where a few in a hundred fail, many passes in a row do, and a namespace must not wait a minute each
    // time to be isolated. What somebody has to change first can.
    let most = if cause == Cause::Refused { 8 } else { 5 };
    Duration::from_millis(250 * 2_u64.pow(failures.min(most)))
}

/// Returns when a control is tried again, in a pass that came to its end, after so many passes in which one failed.
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
