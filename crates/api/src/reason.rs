//! Reasons of plans and services: in conditions, blockers, needed decisions and Events.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use strum::{EnumString, IntoStaticStr, VariantArray};

/// Reason of the state of a service or a plan. docs/conditions.md says who clears each.
/// || The reasons of gate verdicts are separate ([`GateReason`](crate::GateReason)); no control flow depends on them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumString, IntoStaticStr, VariantArray,
)]
pub enum Reason {
    // Reasons to wait that clear without a person.
    /// A dependency is not recovered, or its continuous gates do not pass.
    Dependency,
    /// As the reason of a condition: [`Reason::Dependency`].
    WaitingForDependencies,
    /// All `maxParallel` slots are taken.
    Slot,
    /// Another member of the service's group is behind or blocked.
    WaitingForGroup,
    /// The Quarantine has not reached the requested level yet.
    Isolation,
    /// A gate fails, fewer than `failureLimit` times in a row.
    GateFailing,
    /// A gate's verdict is Unknown. After its `unknownDeadline` a person is needed.
    GateUnknown,
    /// The steps of another member of the group come first.
    WaitingForSteps,
    /// A step is running.
    StepRunning,
    /// A step will be started again.
    StepPending,
    /// The API server did not answer, or was overloaded.
    ApiServer,
    /// Another client changed the object in the meantime.
    Conflict,
    /// The plan changed while an effect was being carried out.
    PlanChanged,
    /// A live read of the last accepted requirements differed from the cache.
    NotAccepted,
    /// A live read of a dependency differed from the cache.
    DependencyNotRecovered,
    /// The ServiceRecovery was deleted in the meantime.
    ServiceRecoveryMissing,
    /// The step was removed from the plan in the meantime.
    StepMissing,
    /// The plan's ServiceAccount is not in the cache yet.
    AccountUnknown,

    // Blockers that a person has to clear.
    /// This version cannot decode the object, and leaves it unchanged.
    Unreadable,
    /// The plan's ServiceAccount may not create the Quarantine.
    QuarantineNotGranted,
    /// The plan's Quarantine was deleted in this attempt, and is not created again.
    QuarantineReleased,
    /// The namespace has no Quarantine.
    QuarantineMissing,
    /// The Quarantine is not Ready.
    QuarantineNotReady,
    /// The original that the service is rebuilt beside is not isolated.
    OriginalNotIsolated,
    /// The plan's ServiceAccount may not create the namespace.
    NamespaceNotGranted,
    /// Another plan or service has claimed the namespace.
    ClaimedByAnother,
    /// The plan's ServiceAccount lacks the verb `recover` on the Quarantine.
    RecoverNotGranted,
    /// Velero's ServiceAccount lacks the verb `recover` on the Quarantine that a step restores into.
    VeleroNotGranted,
    /// An account that is to write into a clean room holds its rights by a wildcard, which the fence refuses.
    WildcardHolder,
    /// The API server denied a request of the operator.
    Refused,
    /// The Incident does not exist.
    IncidentMissing,
    /// The Incident could not be read.
    IncidentUnknown,
    /// The plan's ServiceAccount does not exist.
    ServiceAccountMissing,
    /// The operator cannot determine whether the plan's ServiceAccount exists.
    ServiceAccountUnknown,
    /// The plan is suspended.
    Suspended,
    /// The operator panicked: a bug.
    Panicked,

    // Reasons to ask for a Decision.
    /// A gate failed `failureLimit` times in a row.
    GateFailed,
    /// A step was denied, or cannot succeed.
    StepFailed,
    /// A continuous gate of an open service fails.
    Regressed,
    /// A hold keeps one of the service's namespaces isolated.
    Held,
    /// A service that was in the clean room or open has been isolated again.
    IsolatedAgain,
    /// The namespace is open, and this plan did not open it.
    AlreadyOpen,
    /// This attempt no longer holds the claim on a namespace.
    ClaimLost,
    /// A control of the Quarantine was tested and does not hold.
    ControlNotEnforced,
    /// The plan requires less than what was last accepted.
    Loosened,
    /// A workload needs host access that Pod Security `baseline` forbids.
    HostAccess,
    /// The plan's steps changed while they were running.
    StepsChanged,
    /// The rollout of a workload was not complete: Kubernetes starts another revision than the one that served.
    RolloutNotRestorable,
    /// Something has failed for `stepDeadline`. It is still tried.
    DeadlineExceeded,
    /// The plan's account lacks a right that a step requires. The step is still tried.
    StepDenied,
    /// A step runs for longer than its `timeout`. It is still followed, and never started a second time.
    StepOverrunning,
    /// A gate or a manual step needs approvals.
    ApprovalNeeded,
    /// A Decision keeps the service where it is.
    OnHold,
    /// The Incident's `compromisedSince` is earlier than the one that the service was proved for.
    Superseded,

    // Problems of a plan.
    /// A service depends on one that is not in the plan.
    UnknownService,
    /// Services depend on each other.
    Cycle,
    /// The plan has `order: Tiers`, and the service has no tier.
    TierMissing,
    /// The members of a group have different tiers.
    GroupTiersDiffer,
    /// Two services have the same namespace.
    NamespaceShared,
    /// A service is to be rebuilt beside a namespace that a service of the plan recovers.
    ReplacesRecovered,
    /// The namespace is protected: it is never isolated.
    ProtectedNamespace,
    /// Two services have the same name.
    DuplicateService,
    /// Two gates of one phase have the same name.
    DuplicateGate,
    /// A service leaves out a default gate that the plan does not have.
    UnknownGate,
    /// Two steps have the same name.
    DuplicateStep,
    /// Two entries under `resume` have the same name.
    DuplicateResume,
    /// An entry under `resume` names a namespace that the service does not have.
    ResumeElsewhere,
    /// A gate does not set exactly one type.
    MalformedGate,
    /// A step does not set exactly one action.
    MalformedStep,
    /// An entry under `resume` does not name exactly one object.
    MalformedResume,
    /// A phase has no gate, or the service has no integrity gate.
    Ungated,
    /// A gate lets images pass by tag before restore, and no `imageDigests` gate proves them before release.
    TagsNotProved,
    /// The service has steps and no namespace.
    NothingToRestore,

    // States of services and plans.
    /// The plan names no Incident.
    Dormant,
    /// Everything that the plan will need exists.
    Prepared,
    /// Something that the plan will need is missing.
    NotPrepared,
    /// The operator cannot determine whether everything exists that the plan will need.
    PreparationUnknown,
    /// Not all services are recovered yet.
    Progressing,
    /// A service needs a Decision.
    NeedsDecision,
    /// No Decision is needed.
    NotNeeded,
    /// Recovered, but not all continuous gates pass.
    Unhealthy,
    /// Everything is recovered.
    Recovered,
    /// Recovered, with accepted exceptions.
    WithExceptions,
    /// Not recovered, so that its health does not count.
    NotRecovered,
    /// All continuous gates pass.
    GatesPass,
    /// A gate has not been evaluated yet.
    NotAsked,
    /// A gate passes, but not for `stableFor` yet.
    Stabilising,
    /// A gate's last verdict is too old to count.
    Stale,
    /// The plan no longer contains the service.
    NotInPlan,
    /// The attempt ended because another plan of the same name replaced its plan.
    PlanReplaced,
    /// A Decision isolates the service again.
    Aborted,
    /// A continuous gate failed, and the plan says `onRegression: Contain`: the service is isolated again.
    Contained,
    /// A reason that this version does not know.
    Other,
}

impl Reason {
    /// Returns the name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns whether only a Decision clears this reason. Other reasons clear with their cause.
    #[must_use]
    pub const fn is_latched(self) -> bool {
        matches!(self, Self::GateFailed | Self::StepFailed)
    }

    /// Returns whether the service merely waits for its turn.
    #[must_use]
    pub const fn is_in_turn(self) -> bool {
        matches!(
            self,
            Self::Dependency
                | Self::Slot
                | Self::Isolation
                | Self::GateUnknown
                | Self::GateFailing
                | Self::WaitingForGroup
                | Self::WaitingForSteps
                | Self::StepRunning
                | Self::StepPending
        )
    }

    /// Returns whether the reason clears without anybody's action: with the service's turn, or at the next pass after a concurrent write.
    #[must_use]
    pub const fn clears_by_itself(self) -> bool {
        self.is_in_turn()
            || matches!(
                self,
                Self::ApiServer
                    | Self::Conflict
                    | Self::PlanChanged
                    | Self::NotAccepted
                    | Self::DependencyNotRecovered
                    | Self::ServiceRecoveryMissing
                    | Self::StepMissing
            )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    /// Accepts any text: an object of a newer version must be readable in spite of its reasons.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(word.parse().unwrap_or(Self::Other))
    }
}

impl JsonSchema for Reason {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Reason".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_read_as_it_is_written_and_unknown_words_are_no_error() {
        for &reason in Reason::VARIANTS {
            let written = serde_json::to_value(reason).unwrap();
            assert_eq!(written, reason.as_str());
            assert_eq!(serde_json::from_value::<Reason>(written).unwrap(), reason);
        }
        assert_eq!(serde_json::from_str::<Reason>(r#""OfANewerVersion""#).unwrap(), Reason::Other);
    }

    #[test]
    fn every_reason_has_its_row_in_the_docs() {
        let page = include_str!("../../../docs/conditions.md");
        let missing: Vec<_> = Reason::VARIANTS
            .iter()
            .filter(|reason| **reason != Reason::Other && !page.contains(&format!("`{reason}`")))
            .collect();
        assert!(missing.is_empty(), "docs/conditions.md does not tell of {missing:?}");
    }
}
