//! One word for why something is as it is: in conditions, in what blocks a service, in what a person is asked, in Events.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use strum::{EnumString, IntoStaticStr, VariantArray};

/// Why a service or a plan is as it is. docs/conditions.md says who clears each.
///
/// A gate's own reasons are words of that gate, and no control flow depends on them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumString, IntoStaticStr, VariantArray,
)]
pub enum Reason {
    // What a service waits for. It goes on by itself.
    /// A dependency is not recovered, or its continuous gates do not pass.
    Dependency,
    /// As the reason of a condition: [`Reason::Dependency`].
    WaitingForDependencies,
    /// As many units are under way as `maxParallel` allows.
    Slot,
    /// A member of its group is behind, or held up.
    WaitingForGroup,
    /// Its Quarantine is on its way to the level that was asked for.
    Isolation,
    /// A gate fails, and not often enough to count.
    GateFailing,
    /// A gate cannot say; for too long, a person is asked.
    GateUnknown,
    /// The steps of another member of its group come first.
    WaitingForSteps,
    /// A step runs.
    StepRunning,
    /// A step is started again later.
    StepPending,
    /// The API server did not answer, or was busy.
    ApiServer,
    /// Somebody else wrote in between.
    Conflict,
    /// The plan changed while something was being done.
    PlanChanged,
    /// A live read of what was last accepted differed from the cache.
    NotAccepted,
    /// A live read of a dependency differed from the cache.
    DependencyNotRecovered,
    /// The ServiceRecovery was deleted in between.
    ServiceRecoveryMissing,
    /// The plan has lost the step in between.
    StepMissing,
    /// The plan's account is not known yet.
    AccountUnknown,

    // What somebody has to clear.
    /// This version cannot read the object, and leaves it as it is.
    Unreadable,
    /// The plan's account may not create the Quarantine.
    QuarantineNotGranted,
    /// The plan's Quarantine was deleted in this attempt, and is not created again.
    QuarantineReleased,
    /// The namespace has no Quarantine.
    QuarantineMissing,
    /// The Quarantine is not Ready.
    QuarantineNotReady,
    /// Another plan or service has claimed the namespace.
    ClaimedByAnother,
    /// The plan's account lacks `recover` on the Quarantine by name.
    RecoverNotGranted,
    /// The API server refused the operator.
    Refused,
    /// The Incident is not there.
    IncidentMissing,
    /// The Incident cannot be read.
    IncidentUnknown,
    /// The plan's account is not there.
    ServiceAccountMissing,
    /// Whether the plan's account is there cannot be told.
    ServiceAccountUnknown,
    /// The plan is suspended.
    Suspended,
    /// The operator panicked.
    Panicked,

    // What a person is asked.
    /// A gate failed `failureLimit` times in a row.
    GateFailed,
    /// A step was refused, or cannot work.
    StepFailed,
    /// A continuous gate of an open service fails.
    Regressed,
    /// Somebody on call holds a namespace of it.
    Held,
    /// A service that was let in or out has been isolated again.
    IsolatedAgain,
    /// Its namespace is open, and this plan did not open it.
    AlreadyOpen,
    /// A namespace is not claimed for this attempt any more.
    ClaimLost,
    /// A control of its Quarantine was tried and does not hold.
    ControlNotEnforced,
    /// The plan requires less than was last accepted.
    Loosened,
    /// A workload asks of its node what Pod Security `baseline` forbids.
    HostAccess,
    /// The plan's steps changed while they were carried out.
    StepsChanged,

    // What is wrong with a plan.
    /// A dependency that the plan does not have.
    UnknownService,
    /// Services depend on each other.
    Cycle,
    /// `order: Tiers`, and no tier.
    TierMissing,
    /// Members of a group are of different tiers.
    GroupTiersDiffer,
    /// One namespace, two services.
    NamespaceShared,
    /// A namespace that is never isolated.
    ProtectedNamespace,
    /// Two services of one name.
    DuplicateService,
    /// Two gates of one name in one phase.
    DuplicateGate,
    /// Two steps of one name.
    DuplicateStep,
    /// Two entries of one name under `resume`.
    DuplicateResume,
    /// An entry under `resume` is in no namespace of the service.
    ResumeElsewhere,
    /// A gate that asks not exactly one question.
    MalformedGate,
    /// A step that does not exactly one thing.
    MalformedStep,
    /// An entry under `resume` that names not exactly one thing.
    MalformedResume,
    /// No gate in a phase, or no integrity gate.
    Ungated,
    /// An empty list of steps.
    NoSteps,
    /// Steps, and no namespace.
    NothingToRestore,

    // Where services and plans stand.
    /// The plan names no Incident.
    Dormant,
    /// Not all services are recovered.
    Progressing,
    /// A service needs a Decision.
    NeedsDecision,
    /// No Decision is needed.
    NotNeeded,
    /// Recovered, and continuous gates do not all pass.
    Unhealthy,
    /// Everything is recovered.
    Recovered,
    /// Recovered, though something was let pass.
    WithExceptions,
    /// Not recovered, so its health does not count.
    NotRecovered,
    /// All continuous gates pass.
    GatesPass,
    /// A gate has not answered since it is asked.
    NotAsked,
    /// A gate has passed, and not for `stableFor` yet.
    Stabilising,
    /// A gate's last answer is too old to count.
    Stale,
    /// The plan names the service no more.
    NotInPlan,
    /// An attempt ended because its plan was replaced by another of its name.
    PlanReplaced,
    /// A word of another version.
    Other,
}

impl Reason {
    /// As the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns whether only a Decision clears it. Others clear when what they tell of does.
    #[must_use]
    pub const fn is_latched(self) -> bool {
        matches!(self, Self::GateFailed | Self::StepFailed)
    }

    /// Returns whether a service merely waits for its turn.
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

    /// Returns whether what it tells of clears without anybody doing anything: it is the service's turn that is waited for, or the next
    /// look, as something else was written in between.
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
    /// Reads any word: an object of a newer version must not be unreadable for its reasons.
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
