//! What has to be read before a Quarantine's target is known: its plan and dependencies only where they would loosen anything.

use kube::core::ObjectMeta;

use super::target::{PlanState, Target, loosens, target};
use crate::api::{Claim, Isolation, Quarantine, ServiceRecovery};
use crate::plan::loosening::Allowance;

/// What the target depends on beside the Quarantine and its claimant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: this is the target.
    Settled(Target),
    /// The state of the plan.
    DependsOnPlan {
        /// The level, should the plan allow it.
        granted: Isolation,
        /// The namespace's label says that level already. It is let in, or out, whether or not somebody lived to tell: a dependency
        /// that falls then takes that back no more.
        is_granted: bool,
    },
}

/// Decides what a Quarantine is to enforce, as far as its claimant says so. `label`: what the namespace bears as ours.
#[must_use]
pub fn wanted(quarantine: &Quarantine, recovery: Option<&ServiceRecovery>, label: Option<&str>) -> Wanted {
    let granted = target(quarantine, recovery, PlanState::Allows);
    let careful = target(quarantine, recovery, PlanState::Gone);
    // Nothing is loosened any more for what is being deleted.
    if granted == careful || quarantine.metadata.deletion_timestamp.is_some() {
        return Wanted::Settled(careful);
    }
    Wanted::DependsOnPlan { granted: granted.level, is_granted: granted.level.label() == label }
}

/// Decides what a Quarantine is to enforce, now that the state of its plan is known. Returns that state too, as far as anything has to
/// be waited for: where nothing would be loosened, unknown health delays nothing.
#[must_use]
pub fn wanted_with_plan(
    quarantine: &Quarantine,
    recovery: Option<&ServiceRecovery>,
    granted: Isolation,
    plan: PlanState,
) -> (Target, PlanState) {
    let enforced = quarantine.status.as_ref().and_then(|status| status.isolation);
    let plan = match plan {
        PlanState::Unknown if !loosens(enforced, granted) => PlanState::Refuses,
        plan => plan,
    };
    (target(quarantine, recovery, plan), plan)
}

/// Is this the metadata of the plan that the claim names, and is that plan not being deleted?
#[must_use]
pub fn is_plan_of(plan: &ObjectMeta, claim: &Claim) -> bool {
    plan.uid.as_deref() == Some(&claim.plan_uid) && plan.deletion_timestamp.is_none()
}

impl From<Allowance<'_>> for PlanState {
    /// The state of a plan that is there, by what the claimant depends on.
    fn from(dependencies: Allowance<'_>) -> Self {
        match dependencies {
            Allowance::Allowed => Self::Allows,
            Allowance::Unknown(_) => Self::Unknown,
            Allowance::Refused(_) => Self::Refuses,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::api::QuarantineLevel;

    /// Sealed and ready, claimed by a service that asks for a clean room.
    fn claimed() -> (Quarantine, ServiceRecovery) {
        let claim = json!({
            "planNamespace": "recovery", "plan": "town", "planUid": "u", "service": "library", "attempt": 1,
            "display": "recovery/town/library, attempt 1",
        });
        let mut quarantine = Quarantine::new("library", Default::default());
        quarantine.spec.isolation = QuarantineLevel::Sealed;
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "Sealed", "message": "", "lastTransitionTime": "2025-11-24T00:00:00Z",
        });
        let status = json!({"isolation": "Sealed", "claimedBy": claim, "conditions": [ready]});
        quarantine.status = Some(serde_json::from_value(status).unwrap());
        let recovery = json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "ServiceRecovery",
            "metadata": {"name": "town.library", "namespace": "recovery"},
            "spec": {
                "planRef": {"name": "town", "uid": "u"}, "service": "library", "attempt": 1, "namespaces": ["library"],
                "isolation": "CleanRoom",
            },
        });
        (quarantine, serde_json::from_value(recovery).unwrap())
    }

    #[test]
    fn plan_is_read_only_where_it_would_loosen_anything() {
        let (mut quarantine, mut recovery) = claimed();
        let granted = Isolation::CleanRoom;
        let asked = |label| wanted(&claimed().0, Some(&claimed().1), label);
        assert_eq!(asked(Some("sealed")), Wanted::DependsOnPlan { granted, is_granted: false });
        assert_eq!(asked(Some("clean-room")), Wanted::DependsOnPlan { granted, is_granted: true });
        recovery.spec.isolation = Some(Isolation::Sealed);
        assert!(
            matches!(wanted(&quarantine, Some(&recovery), None), Wanted::Settled(t) if t.level == Isolation::Sealed)
        );
        quarantine.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(
            matches!(wanted(&quarantine, Some(&claimed().1), None), Wanted::Settled(t) if t.level == Isolation::Sealed)
        );
    }

    #[test]
    fn unknown_health_is_waited_for_only_where_it_loosens() {
        let (quarantine, recovery) = claimed();
        for (plan, granted, expected, level) in [
            (PlanState::Allows, Isolation::CleanRoom, PlanState::Allows, Isolation::CleanRoom),
            (PlanState::Unknown, Isolation::CleanRoom, PlanState::Unknown, Isolation::Sealed),
            (PlanState::Unknown, Isolation::Sealed, PlanState::Refuses, Isolation::Sealed),
            (PlanState::Refuses, Isolation::CleanRoom, PlanState::Refuses, Isolation::Sealed),
            (PlanState::Gone, Isolation::CleanRoom, PlanState::Gone, Isolation::Sealed),
        ] {
            let (target, state) = wanted_with_plan(&quarantine, Some(&recovery), granted, plan);
            assert_eq!((state, target.level), (expected, level), "{plan:?} {granted:?}");
        }
    }

    #[test]
    fn a_plan_is_the_claims_by_its_uid_and_until_it_is_deleted() {
        let (quarantine, _) = claimed();
        let claim = quarantine.status.unwrap().claimed_by.unwrap();
        let mut plan = ObjectMeta { uid: Some("u".into()), ..ObjectMeta::default() };
        assert!(is_plan_of(&plan, &claim));
        assert!(!is_plan_of(&ObjectMeta::default(), &claim));
        assert!(!is_plan_of(&ObjectMeta { uid: Some("another".into()), ..ObjectMeta::default() }, &claim));
        plan.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(!is_plan_of(&plan, &claim));
    }
}
