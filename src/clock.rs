//! The process clock: the wall clock at startup, and monotonic from there. Setting the wall clock neither shortens nor prolongs a wait;
//! the process exits instead, as [`jumped`] detects, and starts with the new time.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Tolerated difference to the wall clock. A synchronised clock is adjusted slowly, and the monotonic clock with it.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);
/// Interval of the comparison.
const LOOK: Duration = Duration::from_secs(1);

static BEGAN: LazyLock<(Timestamp, Instant)> = LazyLock::new(|| (Timestamp::now(), Instant::now()));

/// Returns the current time, which never goes backwards.
#[must_use]
pub fn now() -> Timestamp {
    let (wall, steady) = *BEGAN;
    let since = SignedDuration::try_from(steady.elapsed()).unwrap_or(SignedDuration::MAX);
    wall.checked_add(since).unwrap_or(Timestamp::MAX)
}

/// Waits until the wall clock was set, by a person, by time synchronisation, or by a suspended machine. Returns a description.
pub async fn jumped() -> String {
    loop {
        if let Some(how) = differs(Timestamp::now(), now()) {
            return how;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn differs(wall: Timestamp, steady: Timestamp) -> Option<String> {
    let by = wall.duration_since(steady);
    let way = if by.is_negative() { "back" } else { "forward" };
    (by.abs() > TOLERANCE).then(|| format!("the clock was set {way} by {} s", by.abs().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_clock_is_detected_and_adjusted_clock_is_not() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let steady = at("2026-11-24T03:00:00Z");
        assert_eq!(differs(at("2026-11-24T03:00:01.9Z"), steady), None);
        assert_eq!(differs(at("2026-11-24T02:59:58.1Z"), steady), None);
        let said = |wall| differs(at(wall), steady).unwrap();
        assert_eq!(said("2026-11-24T04:00:00Z"), "the clock was set forward by 3600 s");
        assert_eq!(said("2026-11-24T02:00:00Z"), "the clock was set back by 3600 s");
    }

    #[test]
    fn time_goes_on() {
        let before = now();
        assert!(now() >= before);
        assert!(differs(Timestamp::now(), now()).is_none());
    }
}
