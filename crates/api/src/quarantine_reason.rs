//! One word for why a Quarantine is as it is.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

use crate::Isolation;

/// The reason of a Quarantine's conditions. docs/conditions.md says who clears each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
pub enum QuarantineReason {
    // On its way, by what comes next.
    /// The isolation lists are written.
    WritingLists,
    /// The namespace's label is written.
    Labelling,
    /// Lock, fence and guard are tried at every API server.
    TryingFence,
    /// Network policies are written.
    WritingPolicies,
    /// Evidence is captured.
    Capturing,
    /// Workloads are scaled to zero.
    Stopping,
    /// Pods have yet to end.
    AwaitingPods,
    /// ServiceAccounts are recreated.
    RenewingIdentities,
    /// Whether the cluster's network enforces the policies is tried.
    TryingNetwork,

    // What failed.
    /// The fence was tried, and not seen to refuse everywhere.
    FenceNotVerified,
    /// The Quarantine's own finalizer could not be written.
    FinalizerFailed,
    /// Evidence could not be kept as it is asked for.
    CaptureFailed,
    /// The isolation lists could not be written.
    ListFailed,
    /// The namespace's label could not be written.
    LabelFailed,
    /// Network policies could not be written, or removed.
    NetworkFailed,
    /// Workloads could not be scaled to zero.
    StopFailed,
    /// Pods could not be listed or deleted.
    PodsFailed,
    /// ServiceAccounts could not be recreated.
    IdentityFailed,
    /// The API server refused another call, or did not answer.
    CallFailed,

    // What somebody has to clear.
    /// Contained, and only pods on the network of their nodes are not cut off: sealing stops them.
    HostNetworkPods,
    /// Only the network does not isolate: everything else that the level needs is in place.
    NetworkNotEnforced,
    /// Pods that only their node can stop.
    StaticPods,
    /// The namespace is not there.
    NamespaceMissing,
    /// The namespace is never isolated.
    Protected,

    // In place: the level.
    /// Contained, as it is asked for.
    Contained,
    /// Sealed, as it is asked for.
    Sealed,
    /// A clean room, as it is asked for.
    CleanRoom,
    /// Open, as it is asked for.
    Open,

    // Of the condition `FenceIntact`.
    /// The admission policies are as this operator wrote them.
    AsWritten,
    /// The admission policies are of a newer version, and left as they are.
    Newer,
    /// An admission policy is missing, or differs.
    Missing,
}

impl QuarantineReason {
    /// As the API has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<Isolation> for QuarantineReason {
    /// The reason of `Ready` where the level is in place.
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
