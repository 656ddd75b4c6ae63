//! Result of a pass of the Quarantine controller, from which the status is made.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::controls::network;
use super::egress_exceptions::EgressException;
use super::other_policies::OtherPolicies;
use super::target::{ControlsInPlace, NextAction, Target, loosens, next_action};
use super::verify::admission::ProbeReport;
use super::verify::network::NetworkVerdict;
use crate::api::Isolation;
use crate::api::QuarantineReason;
use crate::api::conditions::shorten;
use crate::api::quarantine::{Capture, Contents, ControlName, Deliverer, LostTokenSecrets};

/// Maximum length of a control's message.
pub const MESSAGE: usize = 512;

/// Why a pass of the Quarantine controller could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassFailure {
    /// Reason of the condition.
    pub reason: QuarantineReason,
    /// What is wrong, with the culprit's name.
    pub message: String,
    /// Whether it stays so until a person acts.
    pub stalled: bool,
}

/// How long a control may fail before it counts as stalled.
pub const STALLED_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Why a control could not be enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFailure {
    /// Reason of the condition.
    pub reason: QuarantineReason,
    /// The culprit, who clears it, the command, and what was tried.
    pub message: String,
    /// Whether it has failed for [`STALLED_AFTER`].
    pub stalled: bool,
}

impl ControlFailure {
    /// Appends another failure of the same control. Both messages begin with their culprit, and both culprits fit the control's message.
    pub fn add(&mut self, other: &Self) {
        if !self.message.contains(&other.message) {
            let (first, second) =
                (shorten(&self.message, MESSAGE / 2 - 2), shorten(&other.message, MESSAGE / 2 - 2));
            self.message = format!("{first}; {second}");
        }
    }
}

/// State of the admission policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceState {
    /// How the policies differ from what this operator writes. `None`: they do not.
    pub drift: Option<String>,
    /// Whether a newer version wrote some of them. They are left unchanged.
    pub newer: bool,
    /// Incremented whenever a policy was restored: earlier probes of the fence no longer count.
    pub epoch: u64,
}

/// Observed state of the whole cluster.
#[derive(Clone, Debug)]
pub struct ClusterState {
    /// The admission policies.
    pub fence: FenceState,
    /// The network. `None`: it is being probed.
    pub network: Option<NetworkVerdict>,
}

/// Result of a pass.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Level to enforce.
    pub target: Target,
    /// Controls in place.
    pub in_place: ControlsInPlace,
    /// Last probe of lock, fence and guard at the target level. `None`: not probed yet.
    pub probed: Option<ProbeReport>,
    /// When the probe found them denying.
    pub tried: Option<Timestamp>,
    /// Why the namespace that should be open does not accept writes.
    pub closed: Option<String>,
    /// Evidence captured in this pass.
    pub capture: Option<Capture>,
    /// Egress exceptions of the clean room.
    pub egress_exceptions: Vec<EgressException>,
    /// Network policies of other APIs that concern the namespace.
    pub other_policies: OtherPolicies,
    /// Pods on the host network.
    pub host_network_pods: Vec<String>,
    /// Number of workloads.
    pub workloads: usize,
    /// Pods that are still alive.
    pub alive: Vec<String>,
    /// GitOps objects that deploy into the namespace, if they were listed.
    pub deliverers: Option<Vec<Deliverer>>,
    /// Why the pass could not go on, if it could not.
    pub failure: Option<PassFailure>,
    /// Failed controls.
    pub failures: BTreeMap<ControlName, ControlFailure>,
    /// Pods without a controller, as they were found before they were deleted.
    pub unmanaged: Vec<String>,
    /// Token Secrets of the ServiceAccounts that this pass recreates. `None`: it recreates none.
    pub lost_token_secrets: Option<LostTokenSecrets>,
    /// What the namespace contains, if it was read.
    pub contents: Option<Contents>,
    /// Network policies as read back.
    pub network: Option<network::PolicyObservation>,
    /// Whether the label or a list denies writes, as read back.
    pub fenced_off: bool,
}

impl Pass {
    /// Returns a pass with no control in place.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            in_place: ControlsInPlace::default(),
            probed: None,
            tried: None,
            closed: None,
            capture: None,
            egress_exceptions: Vec::new(),
            other_policies: OtherPolicies::default(),
            host_network_pods: Vec::new(),
            workloads: 0,
            alive: Vec::new(),
            deliverers: None,
            failure: None,
            failures: BTreeMap::new(),
            unmanaged: Vec::new(),
            lost_token_secrets: None,
            contents: None,
            network: None,
            fenced_off: false,
        }
    }

    /// Returns the next action towards the target.
    #[must_use]
    pub fn next_action(&self) -> NextAction {
        next_action(self.target.level, self.in_place)
    }

    /// Returns whether the namespace is between two levels: the old level is lifted, and the new, looser one is not verified yet. The
    /// status is not written at this point. A status that reports the old level as not ready would make the next pass revert the
    /// loosening, again and again on a busy API server.
    #[must_use]
    pub fn is_between(&self, before: Option<Isolation>) -> bool {
        loosens(before, self.target.level)
            && self.in_place.labelled
            && !self.in_place.fenced
            && self.failure.is_none()
    }

    /// Returns the level that is enforced after this pass. A level counts as enforced only once it was verified.
    #[must_use]
    pub fn enforced(&self, before: Option<Isolation>) -> Option<Isolation> {
        let ControlsInPlace { labelled, fenced, network, captured, .. } = self.in_place;
        let level = self.target.level;
        // To tighten, the label or a list suffices to deny writes; to loosen, both must agree.
        let fenced_off = if level < Isolation::CleanRoom { self.fenced_off } else { labelled };
        match level {
            _ if !(fenced_off && fenced && network) => before,
            Isolation::CleanRoom | Isolation::Open => Some(level),
            Isolation::Contained | Isolation::Sealed if captured => Some(level),
            // Writes and traffic are denied although evidence is not captured yet: that is containment.
            Isolation::Contained | Isolation::Sealed => match before {
                None | Some(Isolation::CleanRoom | Isolation::Open) => Some(Isolation::Contained),
                Some(before) => Some(before),
            },
        }
    }
}
