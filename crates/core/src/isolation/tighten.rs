//! Change to a Quarantine when a person requests isolation: it is created or tightened, never eased.

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::quarantine::FurtherIncident;
use crate::api::{Isolation, Quarantine, QuarantineLevel, QuarantineSpec};

/// Change to an existing Quarantine.
#[derive(Clone, Debug, PartialEq)]
pub enum Tightening {
    /// None: it requests as much already.
    None,
    /// A merge patch with a resourceVersion precondition, and what it does, as a message.
    Tighten(Value, String),
    /// It is being deleted.
    Terminating,
}

/// Returns the change that makes a Quarantine request at least the wished level.
#[must_use]
pub fn change(quarantine: &Quarantine, wished: &QuarantineSpec) -> Tightening {
    if quarantine.metadata.deletion_timestamp.is_some() {
        return Tightening::Terminating;
    }
    let (mut spec, mut said) = (json!({}), Vec::new());
    let level = wished.isolation;
    if rank(Some(level)) > rank(Some(quarantine.spec.isolation)) {
        spec["isolation"] = json!(level);
        said.push(format!("tightened to {}", Isolation::from(level).as_str()));
    }
    // A recovery has loosened isolation already: only a hold overrules its claim.
    let enforced = quarantine.status.as_ref().and_then(|status| status.isolation);
    let let_in = matches!(enforced, Some(Isolation::CleanRoom | Isolation::Open));
    let held = quarantine.spec.hold.is_some();
    if (let_in || held) && rank(Some(level)) > rank(quarantine.spec.hold) {
        spec["hold"] = json!(level);
        said.push(format!("held at {} whatever its recovery asks for", Isolation::from(level).as_str()));
    }
    if let Some(further) = further_incident(&quarantine.spec, wished) {
        let all: Vec<_> = quarantine.spec.further_incidents.iter().chain([&further]).collect();
        spec["furtherIncidents"] = json!(all);
        said.push(format!("Incident {} recorded", further.name));
    }
    if said.is_empty() {
        return Tightening::None;
    }
    let metadata = json!({"resourceVersion": quarantine.resource_version(), "uid": quarantine.uid()});
    Tightening::Tighten(json!({"metadata": metadata, "spec": spec}), said.join(", "))
}

/// Returns the entry for the wished incident, if the Quarantine does not name it yet and has room for it.
fn further_incident(spec: &QuarantineSpec, wished: &QuarantineSpec) -> Option<FurtherIncident> {
    let name = &wished.incident_ref.as_ref()?.name;
    let has_room = spec.further_incidents.len() < QuarantineSpec::FURTHER_INCIDENTS;
    let is_new = !spec.incidents().contains(name);
    (is_new && has_room).then(|| FurtherIncident { name: name.clone(), reason: wished.reason.clone() })
}

/// Returns what of the wished incident and reason a Quarantine does not record, as a message.
#[must_use]
pub fn unrecorded(spec: &QuarantineSpec, wished: &QuarantineSpec) -> Option<String> {
    let name = &wished.incident_ref.as_ref()?.name;
    let first = spec.incident_ref.as_ref().filter(|first| first.name == *name).map(|_| &spec.reason);
    let further = spec.further_incidents.iter().find(|further| further.name == *name).map(|of| &of.reason);
    match first.or(further) {
        Some(reason) if *reason == wished.reason => None,
        Some(reason) => Some(format!(
            "the reason \"{}\" is not recorded: Incident {name} is recorded with the reason \"{reason}\"",
            wished.reason
        )),
        None => Some(format!(
            "Incident {name} and its reason are not recorded: the Quarantine names {} further incidents already",
            spec.further_incidents.len()
        )),
    }
}

/// Returns the recovery that will open the Quarantine later, if there is one.
#[must_use]
pub fn recovery_under_way(quarantine: &Quarantine) -> Option<&str> {
    let status = quarantine.status.as_ref()?;
    let claim = status.claimed_by.as_ref().filter(|_| quarantine.spec.hold.is_none())?;
    Some(if claim.display.is_empty() { &claim.service } else { &claim.display })
}

fn rank(level: Option<QuarantineLevel>) -> u8 {
    match level {
        None => 0,
        Some(QuarantineLevel::Contained) => 1,
        Some(QuarantineLevel::Sealed) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::QuarantineStatus;

    #[test]
    fn a_quarantine_is_tightened_and_never_eased() {
        use Isolation::{CleanRoom, Open};
        use QuarantineLevel::{Contained, Sealed};
        let contained = Isolation::Contained;
        // (isolation, hold, enforced), wished: what changes.
        for (spec, hold, enforced, wished, expected) in [
            (Contained, None, None, Contained, json!(null)),
            (Contained, None, Some(contained), Sealed, json!({"isolation": "Sealed"})),
            (Sealed, None, Some(contained), Contained, json!(null)),
            (Contained, None, Some(Open), Contained, json!({"hold": "Contained"})),
            (Sealed, None, Some(Open), Contained, json!({"hold": "Contained"})),
            (Contained, None, Some(CleanRoom), Sealed, json!({"isolation": "Sealed", "hold": "Sealed"})),
            (Sealed, Some(Sealed), Some(Open), Contained, json!(null)),
            (Sealed, Some(Sealed), Some(Open), Sealed, json!(null)),
            (Sealed, Some(Contained), Some(Open), Sealed, json!({"hold": "Sealed"})),
            (
                Contained,
                Some(Contained),
                Some(contained),
                Sealed,
                json!({"isolation": "Sealed", "hold": "Sealed"}),
            ),
        ] {
            let of = |isolation, hold| QuarantineSpec { isolation, hold, ..QuarantineSpec::default() };
            let mut quarantine = Quarantine::new("a", of(spec, hold));
            quarantine.status = Some(QuarantineStatus { isolation: enforced, ..QuarantineStatus::default() });
            let found = match change(&quarantine, &of(wished, None)) {
                Tightening::Tighten(patch, _) => patch["spec"].clone(),
                Tightening::None => json!(null),
                Tightening::Terminating => panic!("it is not on its way out"),
            };
            assert_eq!(found, expected, "{spec:?} {hold:?} {enforced:?} {wished:?}");
        }
    }

    #[test]
    fn a_second_incident_is_recorded_once_and_the_first_one_stays() {
        let wished = |incident: &str, reason: &str| -> QuarantineSpec {
            serde_json::from_value(json!({"reason": reason, "incidentRef": {"name": incident}})).unwrap()
        };
        let second = json!([{"name": "second", "reason": "b"}]);
        let many: Vec<_> = (0..16).map(|n| json!({"name": format!("i{n}"), "reason": "r"})).collect();
        // Recorded further incidents, wished incident and reason: what is written, and what is not recorded after that.
        for (further, incident, reason, written, left) in [
            (json!([]), "first", "a", json!(null), None),
            (json!([]), "first", "other", json!(null), Some("the reason \"other\" is not recorded")),
            (json!([]), "second", "b", second.clone(), None),
            (second.clone(), "second", "b", json!(null), None),
            (
                second,
                "third",
                "c",
                json!([{"name": "second", "reason": "b"}, {"name": "third", "reason": "c"}]),
                None,
            ),
            (
                json!(many),
                "second",
                "b",
                json!(null),
                Some("Incident second and its reason are not recorded"),
            ),
        ] {
            let mut spec = serde_json::to_value(wished("first", "a")).unwrap();
            spec["furtherIncidents"] = further;
            let mut quarantine = Quarantine::new("a", serde_json::from_value(spec).unwrap());
            let wished = wished(incident, reason);
            let found = match change(&quarantine, &wished) {
                Tightening::Tighten(patch, _) => patch["spec"].clone(),
                Tightening::None => json!({}),
                Tightening::Terminating => panic!("it is not on its way out"),
            };
            assert_eq!(found["furtherIncidents"], written, "{incident}");
            if !written.is_null() {
                quarantine.spec.further_incidents = serde_json::from_value(written).unwrap();
            }
            assert_eq!(quarantine.spec.incident_ref.as_ref().unwrap().name, "first");
            let said = unrecorded(&quarantine.spec, &wished);
            assert_eq!(said.is_some(), left.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().starts_with(left.unwrap_or_default()));
        }
    }

    #[test]
    fn running_recovery_is_reported_unless_a_hold_overrules_it() {
        use crate::api::Claim;
        let claim = |display: &str| {
            let claim = json!({
                "planNamespace": "r", "plan": "p", "planUid": "u", "service": "web", "attempt": 1, "display": display,
            });
            serde_json::from_value::<Claim>(claim).unwrap()
        };
        for (claimed, hold, told) in [
            (None, None, None),
            (Some(claim("r/p/web, attempt 1")), None, Some("r/p/web, attempt 1")),
            (Some(claim("")), None, Some("web")),
            (Some(claim("")), Some(QuarantineLevel::Contained), None),
        ] {
            let mut quarantine = Quarantine::new("a", QuarantineSpec { hold, ..QuarantineSpec::default() });
            assert_eq!(recovery_under_way(&quarantine), None);
            quarantine.status = Some(QuarantineStatus { claimed_by: claimed, ..QuarantineStatus::default() });
            assert_eq!(recovery_under_way(&quarantine), told);
        }
    }

    #[test]
    fn a_quarantine_that_is_being_released_is_not_relied_on() {
        let mut quarantine = Quarantine::new("a", QuarantineSpec::default());
        let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        quarantine.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        assert_eq!(change(&quarantine, &QuarantineSpec::default()), Tightening::Terminating);
    }
}
