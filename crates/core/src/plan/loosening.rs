//! Decides whether a service's dependencies permit a loosening (I1). The engine calls it with cached state, the effect with live reads,
//! and the Quarantine controller again just before it loosens anything.

use crate::api::conditions::{HEALTHY, RECOVERED, is_true};
use crate::api::{Health, ServiceRecoveryStatus, Stage};

/// Observed state of a dependency.
#[derive(Clone, Copy, Debug)]
pub struct Dependency<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Status of its ServiceRecovery. `None`: this plan has none, or its status does not count.
    pub record: Option<&'a ServiceRecoveryStatus>,
    /// Health of its continuous gates as this process observed it. The recorded status alone may be that of a former leader.
    pub health: Health,
}

/// Whether a loosening is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowance<'a> {
    /// Every dependency is recovered, and its continuous gates pass now.
    Allowed,
    /// This process does not know yet whether this dependency is healthy.
    Unknown(&'a str),
    /// This dependency is not recovered and healthy.
    Refused(&'a str),
}

/// Returns whether these dependencies permit a loosening.
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
            // Its verdict has not been observed or written yet.
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
    fn healthy_dependency_needs_record_and_observed_health() {
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
