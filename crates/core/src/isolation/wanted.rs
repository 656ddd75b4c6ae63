//! What has to be read before the target of a Quarantine is known. Plan and dependencies are read only if they would loosen anything.

use kube::core::ObjectMeta;

use super::target::{PlanState, Target, loosens, target};
use crate::api::{Claim, Isolation, Quarantine, ServiceRecovery};
use crate::plan::loosening::Allowance;

/// Target, or what it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The target is known.
    Settled(Target),
    /// The target depends on the state of the plan.
    DependsOnPlan {
        /// Level if the plan permits it.
        granted: Isolation,
        /// Whether the namespace's label has that level already. The transition has then taken effect, even if the status does not say
        /// so, and a dependency that fails afterwards no longer reverts it.
        is_granted: bool,
    },
}

/// Decides the target as far as the claimant determines it. `label`: value of our label on the namespace.
#[must_use]
pub fn wanted(quarantine: &Quarantine, recovery: Option<&ServiceRecovery>, label: Option<&str>) -> Wanted {
    let granted = target(quarantine, recovery, PlanState::Allows);
    let careful = target(quarantine, recovery, PlanState::Gone);
    // A Quarantine that is being deleted is not loosened any more.
    if granted == careful || quarantine.metadata.deletion_timestamp.is_some() {
        return Wanted::Settled(careful);
    }
    Wanted::DependsOnPlan { granted: granted.level, is_granted: granted.level.label() == label }
}

/// Decides the target with the state of the plan. Returns that state if the decision had to wait for it: where nothing would be loosened,
/// unknown health delays nothing.
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

/// Returns whether this is the metadata of the plan that the claim names, and the plan is not being deleted.
#[must_use]
pub fn is_plan_of(plan: &ObjectMeta, claim: &Claim) -> bool {
    plan.uid.as_deref() == Some(&claim.plan_uid) && plan.deletion_timestamp.is_none()
}

impl From<Allowance<'_>> for PlanState {
    /// Returns the state of an existing plan, from the claimant's dependencies.
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

    /// Returns a sealed and ready Quarantine, claimed by a service that requests a clean room.
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
