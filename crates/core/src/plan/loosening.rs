//! Whether a loosening is allowed, as far as it goes by what a service depends on (I1). One function decides it: the engine calls it
//! with what is cached, the act with live reads, and the Quarantine controller once more, right before it lets anything in or out.

use crate::api::conditions::{HEALTHY, RECOVERED, is_true};
use crate::api::{Health, ServiceRecoveryStatus, Stage};

/// What is known of one service that others depend on.
#[derive(Clone, Copy, Debug)]
pub struct Dependency<'a> {
    /// Its name.
    pub service: &'a str,
    /// What its ServiceRecovery says. `None`: there is none of this plan, or what it says does not count.
    pub record: Option<&'a ServiceRecoveryStatus>,
    /// What this process knows of its continuous gates. A record alone may be what a leader wrote that is long gone.
    pub health: Health,
}

/// Whether a loosening is allowed, from what speaks for it to what speaks against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowance<'a> {
    /// Every dependency is recovered, and its continuous gates pass now.
    Allowed,
    /// This process does not know yet whether this dependency is healthy.
    Unknown(&'a str),
    /// This dependency is not recovered and healthy.
    Refused(&'a str),
}

/// Decides whether anything may be loosened for who depends on these.
#[must_use]
pub fn allowance<'a>(dependencies: impl IntoIterator<Item = Dependency<'a>>) -> Allowance<'a> {
    let each = dependencies.into_iter().map(|dependency| {
        let Dependency { service, record, health } = dependency;
        let is_open = |record: &ServiceRecoveryStatus| {
            record.stage == Stage::Recovered && is_true(&record.conditions, RECOVERED)
        };
        match (health, record) {
            (_, None) | (Health::Unhealthy, Some(_)) => Allowance::Refused(service),
            (_, Some(record)) if !is_open(record) => Allowance::Refused(service),
            (Health::Healthy, Some(record)) if is_true(&record.conditions, HEALTHY) => Allowance::Allowed,
            // It has yet to be heard, or to be written.
            (Health::Healthy | Health::Unknown, Some(_)) => Allowance::Unknown(service),
        }
    });
    each.max().unwrap_or(Allowance::Allowed)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::api::conditions::{State, set};

    fn record(stage: Stage, recovered: State, healthy: State) -> ServiceRecoveryStatus {
        let mut status = ServiceRecoveryStatus { stage, ..ServiceRecoveryStatus::default() };
        for (type_, state) in [(RECOVERED, recovered), (HEALTHY, healthy)] {
            set(&mut status.conditions, type_, state, "Test", "", None, Timestamp::UNIX_EPOCH);
        }
        status
    }

    #[test]
    fn record_and_this_process_both_have_to_say_that_a_dependency_is_healthy() {
        use Health::{Healthy, Unhealthy, Unknown};
        use State::{False, True};
        let (allowed, unknown, refused) =
            (Allowance::Allowed, Allowance::Unknown("db"), Allowance::Refused("db"));
        let recovered = Stage::Recovered;
        for (health, of, expected) in [
            (Healthy, Some(record(recovered, True, True)), allowed),
            (Healthy, Some(record(recovered, True, False)), unknown),
            (Healthy, Some(record(recovered, True, State::Unknown)), unknown),
            (Healthy, Some(record(recovered, False, True)), refused),
            (Healthy, Some(record(Stage::Reconnecting, True, True)), refused),
            (Healthy, None, refused),
            (Unknown, Some(record(recovered, True, True)), unknown),
            (Unknown, Some(record(Stage::PostChecks, True, True)), refused),
            (Unknown, None, refused),
            (Unhealthy, Some(record(recovered, True, True)), refused),
        ] {
            let of_db = Dependency { service: "db", record: of.as_ref(), health };
            assert_eq!(allowance([of_db]), expected, "{health:?} {of:?}");
            let sound = record(recovered, True, True);
            let other = Dependency { service: "dns", record: Some(&sound), health: Healthy };
            assert_eq!(allowance([other, of_db, other]), expected, "whatever the others say");
        }
        assert_eq!(allowance([]), Allowance::Allowed, "it depends on nobody");
    }
}
