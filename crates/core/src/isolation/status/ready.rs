//! The condition `Ready` of a Quarantine.

use super::super::pass::Pass;
use super::super::target::NextAction;
use super::super::verify::admission::ProbeReport;
use super::still_alive;
use crate::api::conditions::State;
use crate::api::quarantine::{Control, ControlName, ControlState};
use crate::api::{Isolation, QuarantineReason};

/// Returns status, reason and message of the condition `Ready`.
pub(super) fn ready(pass: &Pass, controls: &[Control]) -> (State, QuarantineReason, String) {
    let level = pass.target.level;
    if let Some(failed) = failed(pass) {
        return failed;
    }
    let known = controls.iter().find(|control| control.name == ControlName::Network);
    let host_network = level == Isolation::Contained
        && pass.in_place.network
        && !pass.host_network_pods.is_empty()
        && pass.other_policies.is_cut();
    if host_network && pass.next_action() == NextAction::Done {
        let message = known.map(|network| network.message.clone()).unwrap_or_default();
        return (State::False, QuarantineReason::HostNetworkPods, message);
    }
    let waiting = |reason, message: String| (State::Unknown, reason, message);
    let network = controls.iter().find(|control| control.name == ControlName::Network);
    match pass.next_action() {
        NextAction::Done if network.is_some_and(|n| n.state == ControlState::NotEnforced) => {
            let message = network.map(|n| n.message.clone()).unwrap_or_default();
            (State::False, QuarantineReason::NetworkNotEnforced, message)
        }
        NextAction::Done if network.is_some_and(|n| n.state == ControlState::Enforced) => waiting(
            QuarantineReason::TryingNetwork,
            "whether the cluster's network enforces the policies is being tried".into(),
        ),
        NextAction::Done => {
            let mut message = match level {
                Isolation::Sealed => "sealed: no writes, no network traffic, nothing runs",
                Isolation::Contained => "contained: no writes, no network traffic; processes keep running",
                Isolation::CleanRoom => {
                    "clean room: runs what the plan puts there, talks to recovered dependencies"
                }
                Isolation::Open => "open: not isolated",
            }
            .to_owned();
            if let Some(held) = &pass.target.held {
                message = format!("{message}. {held}");
            }
            (State::True, level.into(), message)
        }
        NextAction::List => {
            waiting(QuarantineReason::WritingLists, "the isolation lists are not written yet".into())
        }
        NextAction::Label => {
            waiting(QuarantineReason::Labelling, "the namespace's label is not written yet".into())
        }
        NextAction::Probe => waiting(QuarantineReason::TryingFence, unverified_fence(pass)),
        NextAction::Network => {
            waiting(QuarantineReason::WritingPolicies, "network policies are not written yet".into())
        }
        NextAction::Capture => waiting(QuarantineReason::Capturing, "evidence is not kept yet".into()),
        NextAction::Stop => waiting(QuarantineReason::Stopping, "workloads are not at zero yet".into()),
        NextAction::AwaitPods => waiting(QuarantineReason::AwaitingPods, still_alive(&pass.alive)),
        NextAction::Identity => {
            waiting(QuarantineReason::RenewingIdentities, "ServiceAccounts are not recreated yet".into())
        }
    }
}

/// Returns the failures of a pass, stalled if any of them is.
fn failed(pass: &Pass) -> Option<(State, QuarantineReason, String)> {
    let failures = pass.failures.iter().map(|(control, failure)| {
        (failure.stalled, failure.reason, format!("{control:?}: {}", failure.message))
    });
    let failure =
        pass.failure.iter().map(|failure| (failure.stalled, failure.reason, failure.message.clone()));
    let mut all: Vec<_> = failures.chain(failure).collect();
    // Stalled failures come first.
    all.sort_by_key(|(stalled, ..)| !stalled);
    let (stalled, reason, _) = all.first()?.clone();
    let state = if stalled { State::False } else { State::Unknown };
    let message = all.into_iter().map(|(.., message)| message).collect::<Vec<_>>().join("; and ");
    Some((state, reason, message))
}

/// Returns why the fence was not verified, as a message.
#[must_use]
pub fn unverified_fence(pass: &Pass) -> String {
    let closed = pass.closed.iter().map(|why| format!("the fence was not seen to let go: {why}"));
    let obstacles = pass.probed.iter().flat_map(ProbeReport::obstacles);
    let unseen: Vec<_> = closed.chain(obstacles).collect();
    if unseen.is_empty() { "the fence is being tried".to_owned() } else { unseen.join("; ") }
}
