//! Reasons of a Decision's condition `Applied`.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

/// Reason of a Decision's condition `Applied`. docs/conditions.md says what to do about each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
pub enum DecisionReason {
    // It had an effect. These stay.
    /// The service went on, was isolated, was held, or was let go, as the action says.
    TookEffect,
    /// It counts as an approval or a rejection.
    Counted,

    // It has no effect.
    /// There is no RecoveryPlan of that name in its namespace.
    UnknownPlan,
    /// The plan has no service of that name.
    UnknownService,
    /// The plan is Dormant: nothing is decided about its services.
    PlanNotActive,
    /// Another Decision on the same state took effect first.
    AnsweredByAnother,
    /// Nothing is asked about the service, so there is nothing to answer.
    NotAsked,
    /// The service's state is not the one that was decided on.
    StateChanged,
    /// The action does not answer what is asked, or repeats the digest of something else.
    ActionNotAllowed,
    /// An approval for a group that no party names, or by a person who counts already.
    CountsForNoParty,
    /// Approvals of this attempt were rejected too often to be followed.
    RejectedTooOften,
    /// The service has as many accepted failures as its status can hold.
    LimitReached,
}

impl DecisionReason {
    /// Returns the name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns whether the Decision had an effect.
    #[must_use]
    pub const fn is_effect(self) -> bool {
        matches!(self, Self::TookEffect | Self::Counted)
    }
}

impl fmt::Display for DecisionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_a_decision_has_its_place_in_the_docs() {
        let page = include_str!("../../../docs/conditions.md");
        let (_, section) = page.split_once("## What became of a Decision").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let missing: Vec<_> = DecisionReason::VARIANTS
            .iter()
            .filter(|reason| !section.contains(&format!("`{reason}`")))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/conditions.md, 'What became of a Decision', does not tell of {missing:?}"
        );
    }
}
