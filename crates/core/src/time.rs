//! Arithmetic with times that stays within what can be represented.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Returns `at` plus a duration, or the latest representable time.
#[must_use]
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration).ok().and_then(|d| at.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}
