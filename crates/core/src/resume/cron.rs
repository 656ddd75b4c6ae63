//! Forecast of what a CronJob's controller does when the CronJob is resumed. Kubernetes uses the schedules of robfig/cron: five fields,
//! names, `?`, `@daily` and the like, `@every`.

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use k8s_openapi::api::batch::v1::CronJob;

use crate::api::Duration;

/// Forecast for a CronJob that is resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forecast {
    /// It starts a Job at once, for the last missed run.
    Missed {
        /// When that run was due.
        run: Zoned,
    },
    /// Its next run.
    Next(Zoned),
    /// It never runs again.
    Never,
}

/// Returns the forecast for a CronJob that is resumed now.
///
/// The controller counts runs from the last one that it started, or from the CronJob's creation, but no further back than
/// `startingDeadlineSeconds`. Of the missed runs it starts the last. It ignores that the CronJob was suspended.
///
/// # Errors
/// A message, if the schedule or the time zone cannot be parsed.
pub fn forecast(object: &CronJob, now: Timestamp) -> Result<Forecast, String> {
    let spec = object.spec.as_ref().ok_or("it has no spec")?;
    let named = spec.time_zone.as_deref();
    let zone = TimeZone::get(named.unwrap_or("UTC"))
        .map_err(|_| format!("its time zone '{}' is not known here", named.unwrap_or("UTC")))?;
    let schedule = Schedule::read(&spec.schedule)?;
    let last = object.status.as_ref().and_then(|s| s.last_schedule_time.as_ref()).map(|t| t.0);
    let made = object.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let mut since = last.or(made).ok_or("it has no creationTimestamp")?;
    // Without a time zone the controller manager's clock applies, which cannot be read. The last run shows its offset.
    if let (None, Some(last)) = (named, last)
        && !schedule.names(&last.to_zoned(zone.clone()))
    {
        return Err(format!(
            "it last ran at {last}, which its schedule does not name in UTC: whose clock it goes by is unknown. Give it a spec.timeZone"
        ));
    }
    if let Some(seconds) = spec.starting_deadline_seconds {
        let deadline = now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
        since = since.max(deadline);
    }
    let at = now.to_zoned(zone);
    if let Some(run) = schedule.last(&at, since)? {
        return Ok(Forecast::Missed { run });
    }
    Ok(schedule.next(&at, since)?.map_or(Forecast::Never, Forecast::Next))
}

/// A parsed schedule.
enum Schedule {
    Fields(Box<Cron>),
    Every(SignedDuration),
}

impl Schedule {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("its schedule '{text}' cannot be read: {why}");
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let every: Duration = every.trim().parse().map_err(|e| wrong(&e))?;
            // In whole seconds, and one at the least.
            let seconds = i64::try_from(every.0.as_secs()).map_err(|e| wrong(&e))?;
            return Ok(Self::Every(SignedDuration::from_secs(seconds.max(1))));
        }
        let text = if text == "@midnight" { "@daily" } else { text };
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .sloppy_ranges(true)
            .build();
        parser.parse(text).map(|cron| Self::Fields(Box::new(cron))).map_err(|e| wrong(&e))
    }

    /// Returns whether the time matches the schedule. An interval matches any.
    fn names(&self, at: &Zoned) -> bool {
        match self {
            Self::Fields(cron) => cron.is_time_matching(at).unwrap_or(false),
            Self::Every(_) => true,
        }
    }

    /// Returns the last run after `since` and not after `now`.
    fn last(&self, now: &Zoned, since: Timestamp) -> Result<Option<Zoned>, String> {
        match self {
            Self::Fields(cron) => {
                let run = some(cron.find_previous_occurrence(now, true))?;
                Ok(run.filter(|run| run.timestamp() > since))
            }
            Self::Every(every) => {
                let runs = now.timestamp().duration_since(since).as_secs() / every.as_secs();
                Ok(if runs > 0 { after(since, *every, runs, now) } else { None })
            }
        }
    }

    /// Returns the first run after `now`.
    fn next(&self, now: &Zoned, since: Timestamp) -> Result<Option<Zoned>, String> {
        match self {
            Self::Fields(cron) => some(cron.find_next_occurrence(now, false)),
            Self::Every(every) => Ok(after(since, *every, 1, now)),
        }
    }
}

fn after(since: Timestamp, every: SignedDuration, times: i64, of: &Zoned) -> Option<Zoned> {
    let at = every.as_secs().checked_mul(times).map(SignedDuration::from_secs);
    Some(since.checked_add(at?).ok()?.to_zoned(of.time_zone().clone()))
}

/// Maps the error that there is no such time to `None`.
fn some(found: Result<Zoned, CronError>) -> Result<Option<Zoned>, String> {
    match found {
        Ok(at) => Ok(Some(at)),
        Err(CronError::TimeSearchLimitExceeded) => Ok(None),
        Err(error) => Err(format!("its schedule cannot be followed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2025-11-24T10:30:00Z";

    fn told(spec: Value, last: Option<&str>) -> String {
        let mut spec = spec;
        spec["jobTemplate"] = json!({});
        let object: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "payroll", "creationTimestamp": "2025-01-01T00:00:00Z"},
            "spec": spec, "status": {"lastScheduleTime": last},
        }))
        .unwrap();
        match forecast(&object, NOW.parse().unwrap()) {
            Ok(Forecast::Missed { run }) => format!("missed {}", run.strftime("%F %H:%M %Z")),
            Ok(Forecast::Next(run)) => format!("next {}", run.strftime("%F %H:%M %Z")),
            Ok(Forecast::Never) => "never".to_owned(),
            Err(why) => format!("error {why}"),
        }
    }

    #[test]
    fn resuming_starts_the_last_missed_run_or_waits_for_the_next() {
        for (schedule, last, expected) in [
            ("0 2 * * *", "2025-11-20T02:00:00Z", "missed 2025-11-24 02:00 UTC"),
            ("0 2 * * *", "2025-11-24T02:00:00Z", "next 2025-11-25 02:00 UTC"),
            ("@daily", "2025-11-24T00:00:00Z", "next 2025-11-25 00:00 UTC"),
            ("@midnight", "2025-11-23T00:00:00Z", "missed 2025-11-24 00:00 UTC"),
            ("@hourly", "2025-11-24T09:00:00Z", "missed 2025-11-24 10:00 UTC"),
            ("@weekly", "2025-11-23T00:00:00Z", "next 2025-11-30 00:00 UTC"),
            ("@monthly", "2025-11-01T00:00:00Z", "next 2025-12-01 00:00 UTC"),
            ("@yearly", "2025-01-01T00:00:00Z", "next 2026-01-01 00:00 UTC"),
            ("@every 1h", "2025-11-24T09:45:00Z", "next 2025-11-24 10:45 UTC"),
            ("@every 1h", "2025-11-24T07:45:00Z", "missed 2025-11-24 09:45 UTC"),
            ("*/15 * * * *", "2025-11-24T10:15:00Z", "missed 2025-11-24 10:30 UTC"),
            ("5/20 * * * *", "2025-11-24T10:25:00Z", "next 2025-11-24 10:45 UTC"),
            ("0 9 * * MON-FRI", "2025-11-24T09:00:00Z", "next 2025-11-25 09:00 UTC"),
            ("0 9 ? DEC sat", "2025-01-01T00:00:00Z", "error "),
            ("30 6 28 * ?", "2025-10-28T06:30:00Z", "next 2025-11-28 06:30 UTC"),
            // If both day fields are set, either may match.
            ("0 9 13 * 2", "2025-11-18T09:00:00Z", "next 2025-11-25 09:00 UTC"),
            ("0 0 31 2 *", "2025-11-24T02:00:00Z", "error "),
        ] {
            let told = told(json!({"schedule": schedule}), Some(last));
            assert!(told.starts_with(expected), "{schedule} since {last}: {told}");
        }
        assert_eq!(told(json!({"schedule": "0 0 31 2 *"}), None), "never");
        assert_eq!(
            told(json!({"schedule": "0 2 * * *"}), None),
            "missed 2025-11-24 02:00 UTC",
            "since it was made"
        );
    }

    #[test]
    fn a_deadline_lets_old_runs_go() {
        let with = |seconds: i64| {
            told(
                json!({"schedule": "0 10 * * *", "startingDeadlineSeconds": seconds}),
                Some("2025-11-20T10:00:00Z"),
            )
        };
        assert_eq!(with(1799), "next 2025-11-25 10:00 UTC");
        assert_eq!(with(1801), "missed 2025-11-24 10:00 UTC");
    }

    #[test]
    fn a_time_zone_is_followed_through_changes_of_the_clock() {
        let nightly = json!({"schedule": "0 2 * * *", "timeZone": "America/New_York"});
        assert_eq!(told(nightly.clone(), Some("2025-11-23T07:00:00Z")), "missed 2025-11-24 02:00 EST");
        assert_eq!(told(nightly, Some("2025-11-24T07:00:00Z")), "next 2025-11-25 02:00 EST");
        let summer = json!({"schedule": "30 12 1 7 *", "timeZone": "Europe/London"});
        assert_eq!(told(summer, Some("2025-07-01T11:30:00Z")), "next 2026-07-01 12:30 BST");
    }

    #[test]
    fn unparsable_schedules_and_zones_are_reported() {
        for (spec, last, words) in [
            (json!({"schedule": "every night"}), None, "its schedule 'every night' cannot be read"),
            (json!({"schedule": "TZ=UTC 0 2 * * *"}), None, "cannot be read"),
            (json!({"schedule": "0 2 * *"}), None, "cannot be read"),
            (json!({"schedule": "@every now"}), None, "'now' is not a duration"),
            (json!({"schedule": "@reboot"}), None, "cannot be read"),
            (json!({"schedule": "0 2 * * *", "timeZone": "Mars/Olympus"}), None, "time zone 'Mars/Olympus'"),
            // The controller manager's clock is not on UTC, so the next run is unknown.
            (
                json!({"schedule": "0 2 * * *"}),
                Some("2025-11-24T07:00:00Z"),
                "whose clock it goes by is unknown",
            ),
        ] {
            let told = told(spec, last);
            assert!(told.starts_with("error") && told.contains(words), "{told}");
        }
    }
}
