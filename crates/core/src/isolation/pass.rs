//! What a pass of the Quarantine controller found and did, as the status is made of it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::controls::network;
use super::egress_exceptions::EgressException;
use super::other_policies::OtherPolicies;
use super::target::{ControlsInPlace, Next, Target, loosens, next};
use super::verify::admission::Probed;
use super::verify::network::Verdict;
use crate::api::Isolation;
use crate::api::QuarantineReason;
use crate::api::conditions::shorten;
use crate::api::quarantine::{Capture, ControlName, Deliverer};

/// Longest message of a control.
pub const MESSAGE: usize = 512;

/// Why a pass of the Quarantine controller could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassFailure {
    /// One word.
    pub reason: QuarantineReason,
    /// What is the matter, with the culprit's name.
    pub message: String,
    /// Nothing will change until somebody does something.
    pub stalled: bool,
}

/// A control that has failed for so long since its turn came does not come right by itself.
pub const STALLED_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Why a control could not be enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFailure {
    /// One word.
    pub reason: QuarantineReason,
    /// The culprit, who clears it, the command, and what was tried.
    pub message: String,
    /// It has failed for [`STALLED_AFTER`].
    pub stalled: bool,
}

impl ControlFailure {
    /// Adds another failure of the same control. Each begins with its culprit: both are named in what a control has room for.
    pub fn add(&mut self, other: &Self) {
        if !self.message.contains(&other.message) {
            let (first, second) =
                (shorten(&self.message, MESSAGE / 2 - 2), shorten(&other.message, MESSAGE / 2 - 2));
            self.message = format!("{first}; {second}");
        }
    }
}

/// What is known of the policies now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceState {
    /// How they differ from what we wrote. `None`: not at all.
    pub drift: Option<String>,
    /// Some of them were written by a newer version, and are left as they are.
    pub newer: bool,
    /// Goes up whenever they were put back: what was seen of the fence before has to be seen again.
    pub epoch: u64,
}

/// What was observed of the whole cluster.
#[derive(Clone, Debug)]
pub struct ClusterState {
    /// Of the admission policies.
    pub fence: FenceState,
    /// Of the network. `None`: it is being tried.
    pub network: Option<Verdict>,
}

/// What a pass found and did.
#[derive(Clone, Debug)]
pub struct Pass {
    /// What is to be enforced.
    pub target: Target,
    /// What is in place.
    pub in_place: ControlsInPlace,
    /// What was last seen of lock, fence and guard, for the level that is wanted. `None`: they are yet to be tried.
    pub probed: Option<Probed>,
    /// When they were seen to refuse.
    pub tried: Option<Timestamp>,
    /// Why the namespace that is to be open was not seen to be.
    pub closed: Option<String>,
    /// Taken in this pass.
    pub capture: Option<Capture>,
    /// What a clean room may connect out through, as the plan opts into.
    pub egress_exceptions: Vec<EgressException>,
    /// Network policies of other APIs that concern the namespace.
    pub other_policies: OtherPolicies,
    /// Pods that use the network of their node.
    pub host_network_pods: Vec<String>,
    /// How many workloads there are.
    pub workloads: usize,
    /// Pods that still live.
    pub alive: Vec<String>,
    /// What delivers into the namespace, if that was looked at.
    pub deliverers: Option<Vec<Deliverer>>,
    /// Why the pass could not go on, if it could not.
    pub failure: Option<PassFailure>,
    /// Controls that failed, each by itself.
    pub failures: BTreeMap<ControlName, ControlFailure>,
    /// Pods that no workload will bring back, as they were found before they went.
    pub unmanaged: Vec<String>,
    /// What was read back of the network policies.
    pub network: Option<network::Observed>,
    /// Label or list refuses writes, by what was read back.
    pub fenced_off: bool,
}

impl Pass {
    /// Returns a pass that has found nothing in place yet.
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
            network: None,
            fenced_off: false,
        }
    }

    /// Returns what comes next on the way to the target.
    #[must_use]
    pub fn next(&self) -> Next {
        next(self.target.level, self.in_place)
    }

    /// Is the namespace between two levels: let out of the one that stood, and the looser one not seen to hold yet? Of this
    /// moment nothing is told. Said to be not ready, the old level would be no ground to loosen from, and the next pass
    /// would take back what this one granted, again and again on a busy API server.
    #[must_use]
    pub fn is_between(&self, before: Option<Isolation>) -> bool {
        loosens(before, self.target.level)
            && self.in_place.labelled
            && !self.in_place.fenced
            && self.failure.is_none()
    }

    /// Returns what is enforced after this pass. A level is only said to be enforced once it was seen to be.
    #[must_use]
    pub fn enforced(&self, before: Option<Isolation>) -> Option<Isolation> {
        let ControlsInPlace { labelled, fenced, network, captured, .. } = self.in_place;
        let level = self.target.level;
        // Where it tightens, label or list is enough to refuse; where it loosens, both have to agree.
        let fenced_off = if level < Isolation::CleanRoom { self.fenced_off } else { labelled };
        match level {
            _ if !(fenced_off && fenced && network) => before,
            Isolation::CleanRoom | Isolation::Open => Some(level),
            Isolation::Contained | Isolation::Sealed if captured => Some(level),
            // Nobody writes and nobody talks, though it was not captured yet: that much is true.
            Isolation::Contained | Isolation::Sealed => match before {
                None | Some(Isolation::CleanRoom | Isolation::Open) => Some(Isolation::Contained),
                Some(before) => Some(before),
            },
        }
    }
}
