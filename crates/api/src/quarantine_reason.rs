//! Reasons of a Quarantine's conditions.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

use crate::Isolation;

/// Reason of a Quarantine's conditions. docs/conditions.md says who clears each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
pub enum QuarantineReason {
    // In progress: the next action.
    /// The isolation lists are being written.
    WritingLists,
    /// The namespace's label is being written.
    Labelling,
    /// Lock, fence and guard are being tested on every API server.
    TryingFence,
    /// NetworkPolicies are being written.
    WritingPolicies,
    /// Evidence is being captured.
    Capturing,
    /// Workloads are being scaled to zero.
    Stopping,
    /// Pods have not ended yet.
    AwaitingPods,
    /// ServiceAccounts are being recreated.
    RenewingIdentities,
    /// Pods are testing whether the cluster's network enforces NetworkPolicies.
    TryingNetwork,

    // Failures.
    /// The fence was tested, and did not deny writes on every API server.
    FenceNotVerified,
    /// The Quarantine's own finalizer could not be written.
    FinalizerFailed,
    /// Evidence could not be stored as requested.
    CaptureFailed,
    /// The isolation lists could not be written.
    ListFailed,
    /// The namespace's label could not be written.
    LabelFailed,
    /// NetworkPolicies could not be written or removed.
    NetworkFailed,
    /// Workloads could not be scaled to zero.
    StopFailed,
    /// Pods could not be listed or deleted.
    PodsFailed,
    /// ServiceAccounts could not be recreated.
    IdentityFailed,
    /// The API server denied another call, or did not answer.
    CallFailed,

    // States that a person has to clear.
    /// Contained, except pods on the host network, which no NetworkPolicy isolates. Sealing stops them.
    HostNetworkPods,
    /// The cluster's network does not enforce NetworkPolicies. Everything else that the level needs is in place.
    NetworkNotEnforced,
    /// Static pods run in the namespace. Only their node can stop them.
    StaticPods,
    /// The namespace does not exist.
    NamespaceMissing,
    /// The namespace is protected: it is never isolated.
    Protected,

    // The level is in place.
    /// Contained, as requested.
    Contained,
    /// Sealed, as requested.
    Sealed,
    /// In the clean room, as requested.
    CleanRoom,
    /// Open, as requested.
    Open,

    // Reasons of the condition `FenceIntact`.
    /// The admission policies are as this operator wrote them.
    AsWritten,
    /// A newer version wrote the admission policies. This operator does not change them.
    Newer,
    /// An admission policy is missing or has been changed.
    Missing,
}

impl QuarantineReason {
    /// Returns the name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<Isolation> for QuarantineReason {
    /// Returns the reason of `Ready` if the level is in place.
    fn from(level: Isolation) -> Self {
        match level {
            Isolation::Contained => Self::Contained,
            Isolation::Sealed => Self::Sealed,
            Isolation::CleanRoom => Self::CleanRoom,
            Isolation::Open => Self::Open,
        }
    }
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions;

    #[test]
    fn every_reason_of_a_quarantine_has_its_place_in_the_docs() {
        let page = include_str!("../../../docs/conditions.md");
        let (_, section) = page.split_once("## A Quarantine is not Ready").unwrap();
        let missing: Vec<_> = QuarantineReason::VARIANTS
            .iter()
            .filter(|reason| !section.contains(&format!("`{reason}`")))
            .collect();
        assert!(
            missing.is_empty(),
            "docs/conditions.md, 'A Quarantine is not Ready', does not tell of {missing:?}"
        );
    }

    #[test]
    fn reasons_are_the_names_that_others_compare_with() {
        for level in [Isolation::Contained, Isolation::Sealed, Isolation::CleanRoom, Isolation::Open] {
            assert_eq!(QuarantineReason::from(level).as_str(), level.as_str());
        }
        assert_eq!(QuarantineReason::NetworkNotEnforced.as_str(), conditions::NETWORK_NOT_ENFORCED);
        assert_eq!(QuarantineReason::HostNetworkPods.as_str(), conditions::HOST_NETWORK_PODS);
    }
}
