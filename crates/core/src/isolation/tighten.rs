//! Change to a Quarantine when a person requests isolation: it is created or tightened, never eased.

use kube::ResourceExt;
use serde_json::{Value, json};

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
    if said.is_empty() {
        return Tightening::None;
    }
    let metadata = json!({"resourceVersion": quarantine.resource_version(), "uid": quarantine.uid()});
    Tightening::Tighten(json!({"metadata": metadata, "spec": spec}), said.join(", "))
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
