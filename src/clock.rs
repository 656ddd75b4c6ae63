//! The time by which everything in a process is decided: the wall's when it began, and steady from there. A wall clock that is set
//! back or forth makes no gate pass longer, or wait, than it did; and the process ends, as [`jumped`] tells, to begin with the new one.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// What a wall clock may differ by. Clocks that are kept are drawn to the right time slowly, and this one with them.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

static BEGAN: LazyLock<(Timestamp, Instant)> = LazyLock::new(|| (Timestamp::now(), Instant::now()));

/// Now, never before an earlier now.
#[must_use]
pub fn now() -> Timestamp {
    let (wall, steady) = *BEGAN;
    let since = SignedDuration::try_from(steady.elapsed()).unwrap_or(SignedDuration::MAX);
    wall.checked_add(since).unwrap_or(Timestamp::MAX)
}

/// Resolves, with how, once the wall clock was set: by somebody, by whoever keeps it, or because the machine was asleep.
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
    fn a_clock_that_is_set_is_found_out_and_one_that_is_kept_is_not() {
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
