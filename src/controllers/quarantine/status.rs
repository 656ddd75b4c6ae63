//! From what a pass found to the status it writes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{self, NETWORK_NOT_ENFORCED, State, shorten};
use crate::api::quarantine::{Capture, Control, ControlName, ControlState, Deliverer, DelivererState};
use crate::api::{Isolation, Quarantine, QuarantineStatus};
use crate::controllers::fence::FenceState;
use crate::isolation::egress_exceptions::EgressException;
use crate::isolation::network;
use crate::isolation::other_policies::OtherPolicies;
use crate::isolation::probe::Probed;
use crate::isolation::probe::network::Verdict;
use crate::isolation::target::{Found, Next, Target, loosens, next};
use kube::ResourceExt;

/// Longest message of a control.
const MESSAGE: usize = 512;
/// Names of pods that a message lists.
const LISTED: usize = 3;
/// Pods that nothing will bring back, as many as the status names.
const UNMANAGED: usize = 64;

/// Why a pass could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// One word.
    pub reason: &'static str,
    /// What is the matter, with the culprit's name.
    pub message: String,
    /// Nothing will change until somebody does something.
    pub stalled: bool,
}

/// A control that has failed for so long since its turn came does not come right by itself.
pub(super) const STALLED_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// Why a control could not be enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// One word.
    pub reason: &'static str,
    /// The culprit, who clears it, the command, and what was tried.
    pub message: String,
    /// It has failed for [`STALLED_AFTER`].
    pub stalled: bool,
}

impl Failure {
    /// Adds another failure of the same control. Each begins with its culprit: both are named in what a control has room for.
    pub(super) fn add(&mut self, other: &Self) {
        if !self.message.contains(&other.message) {
            let (first, second) =
                (shorten(&self.message, MESSAGE / 2 - 2), shorten(&other.message, MESSAGE / 2 - 2));
            self.message = format!("{first}; {second}");
        }
    }
}

/// What is known of the whole cluster.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Of the admission policies.
    pub fence: FenceState,
    /// Of the network. `None`: it is being tried.
    pub network: Option<Verdict>,
}

impl Known {
    pub(super) fn of(options: &super::QuarantineOptions) -> Self {
        Self { fence: options.fence.state(), network: options.network.verdict() }
    }
}

/// A moment as the API server keeps it: what is read back equals what was written.
pub(super) fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// What a pass found and did.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub target: Target,
    pub found: Found,
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
    pub on_node_network: Vec<String>,
    /// How many workloads there are; what still lives.
    pub workloads: usize,
    pub alive: Vec<String>,
    /// What delivers into the namespace, if that was looked at.
    pub deliverers: Option<Vec<Deliverer>>,
    pub trouble: Option<Trouble>,
    /// Controls that failed, each by itself.
    pub failures: BTreeMap<ControlName, Failure>,
    /// Pods that no workload will bring back, as they were found before they went.
    pub unmanaged: Vec<String>,
    /// What was read back of the network policies.
    pub network: Option<network::Observed>,
    /// Label or list refuses writes, by what was read back.
    pub fenced_off: bool,
}

impl Pass {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            found: Found::default(),
            probed: None,
            tried: None,
            closed: None,
            capture: None,
            egress_exceptions: Vec::new(),
            other_policies: OtherPolicies::default(),
            on_node_network: Vec::new(),
            workloads: 0,
            alive: Vec::new(),
            deliverers: None,
            trouble: None,
            failures: BTreeMap::new(),
            unmanaged: Vec::new(),
            network: None,
            fenced_off: false,
        }
    }

    pub(super) fn next(&self) -> Next {
        next(self.target.level, self.found)
    }

    /// Is the namespace between two levels: let out of the one that stood, and the looser one not seen to hold yet? Of this
    /// moment nothing is told. Said to be not ready, the old level would be no ground to loosen from, and the next pass
    /// would take back what this one granted, again and again on a busy API server.
    pub(super) fn is_between(&self, before: Option<Isolation>) -> bool {
        loosens(before, self.target.level)
            && self.found.labelled
            && !self.found.fenced
            && self.trouble.is_none()
    }

    /// What is enforced after this pass. A level is only said to be enforced once it was seen to be.
    fn enforced(&self, before: Option<Isolation>) -> Option<Isolation> {
        let Found { labelled, fenced, network, captured, .. } = self.found;
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

/// The status that follows, with the claim as it is.
pub(super) fn after(quarantine: &Quarantine, pass: &Pass, known: &Known, now: Timestamp) -> QuarantineStatus {
    let old = quarantine.status.clone().unwrap_or_default();
    let generation = quarantine.metadata.generation;
    let isolation = pass.enforced(old.isolation);
    let controls = controls(&quarantine.name_any(), pass, known, &old, now);
    // Evidence of an earlier sealing is no evidence of this one.
    let stale = isolation == Some(Isolation::Contained)
        && !pass.found.captured
        && matches!(old.isolation, None | Some(Isolation::CleanRoom | Isolation::Open));
    let capture = pass.capture.clone().or(if stale { None } else { old.capture });
    let required = controls.iter().filter(|c| c.state != ControlState::NotRequired).count();
    let tested = controls.iter().filter(|c| c.state == ControlState::Tested).count();
    let mut deliverers = pass.deliverers.clone().unwrap_or(old.deliverers);
    if isolation == Some(Isolation::Open) {
        // What people have to resume: nothing else is refused any more.
        deliverers.retain(|deliverer| deliverer.state == DelivererState::Suspended);
    }
    // Of this sealing: what was let in again has other pods.
    let mut unmanaged_pods = if stale { Vec::new() } else { old.unmanaged_pods };
    unmanaged_pods.extend(pass.unmanaged.iter().cloned());
    unmanaged_pods.sort();
    unmanaged_pods.dedup();
    unmanaged_pods.truncate(UNMANAGED);
    let overruled = if pass.target.overrules { old.claimed_by.clone() } else { old.overruled };
    let mut conditions = old.conditions;
    let mut set = |type_, state, reason: &str, message: &str| {
        conditions::set(&mut conditions, type_, state, reason, message, generation, now);
    };
    match &known.fence.amiss {
        None if known.fence.newer => set(
            conditions::FENCE_INTACT,
            State::True,
            "Newer",
            "admission policies of a newer version are in place: this operator leaves them as they are",
        ),
        None => set(
            conditions::FENCE_INTACT,
            State::True,
            "AsWritten",
            "the admission policies are as we wrote them",
        ),
        Some(why) => set(conditions::FENCE_INTACT, State::False, "Missing", why),
    }
    let (state, reason, message) = ready(pass, &controls);
    set(conditions::READY, state, reason, &message);
    match () {
        () if state == State::False => {
            set(conditions::STALLED, State::True, reason, &message);
            conditions::clear(&mut conditions, conditions::RECONCILING);
        }
        () if state == State::True => {
            conditions::clear(&mut conditions, conditions::STALLED);
            conditions::clear(&mut conditions, conditions::RECONCILING);
        }
        () => {
            set(conditions::RECONCILING, State::True, reason, &message);
            conditions::clear(&mut conditions, conditions::STALLED);
        }
    }
    QuarantineStatus {
        observed_generation: generation,
        isolation,
        tested: Some(format!("{tested}/{required}")),
        overruled: overruled.filter(|claim| old.claimed_by.as_ref() == Some(claim)),
        claimed_by: old.claimed_by,
        controls,
        capture,
        deliverers,
        unmanaged_pods,
        conditions,
    }
}

/// The status of a Quarantine that cannot be carried out at all.
pub(super) fn impossible(quarantine: &Quarantine, trouble: &Trouble, now: Timestamp) -> QuarantineStatus {
    let mut status = quarantine.status.clone().unwrap_or_default();
    let generation = quarantine.metadata.generation;
    status.observed_generation = generation;
    let conditions = &mut status.conditions;
    for (type_, state) in [(conditions::READY, State::False), (conditions::STALLED, State::True)] {
        conditions::set(conditions, type_, state, trouble.reason, &trouble.message, generation, now);
    }
    conditions::clear(conditions, conditions::RECONCILING);
    status
}

fn ready(pass: &Pass, controls: &[Control]) -> (State, &'static str, String) {
    let level = pass.target.level;
    if let Some(failed) = failed(pass) {
        return failed;
    }
    let known = controls.iter().find(|control| control.name == ControlName::Network);
    let host_network = level == Isolation::Contained
        && pass.found.network
        && !pass.on_node_network.is_empty()
        && pass.other_policies.is_cut();
    if host_network && pass.next() == Next::Done {
        let message = known.map(|network| network.message.clone()).unwrap_or_default();
        return (State::False, conditions::HOST_NETWORK_PODS, message);
    }
    let waiting = |reason, message: String| (State::Unknown, reason, message);
    let network = controls.iter().find(|control| control.name == ControlName::Network);
    match pass.next() {
        Next::Done if network.is_some_and(|n| n.state == ControlState::NotEnforced) => {
            let message = network.map(|n| n.message.clone()).unwrap_or_default();
            (State::False, NETWORK_NOT_ENFORCED, message)
        }
        Next::Done if network.is_some_and(|n| n.state == ControlState::Enforced) => waiting(
            "TryingNetwork",
            "whether the cluster's network enforces the policies is being tried".into(),
        ),
        Next::Done => {
            let mut message = match level {
                Isolation::Sealed => "sealed: nobody writes, nobody talks, nothing runs",
                Isolation::Contained => "contained: nobody writes, nobody talks; processes live",
                Isolation::CleanRoom => {
                    "clean room: runs what the plan puts there, talks to recovered dependencies"
                }
                Isolation::Open => "open: not isolated",
            }
            .to_owned();
            if let Some(held) = &pass.target.held {
                message = format!("{message}. {held}");
            }
            (State::True, level.as_str(), message)
        }
        Next::List => waiting("WritingLists", "the isolation lists are not written yet".into()),
        Next::Label => waiting("Labelling", "the namespace's label is not written yet".into()),
        Next::Probe => waiting("TryingFence", unseen(pass)),
        Next::Network => waiting("WritingPolicies", "network policies are not written yet".into()),
        Next::Capture => waiting("Capturing", "evidence is not kept yet".into()),
        Next::Stop => waiting("Stopping", "workloads are not at zero yet".into()),
        Next::AwaitPods => waiting("AwaitingPods", still_alive(&pass.alive)),
        Next::Identity => waiting("RenewingIdentities", "ServiceAccounts are not recreated yet".into()),
    }
}

/// What went wrong: all of it, and stalled if any of it has.
fn failed(pass: &Pass) -> Option<(State, &'static str, String)> {
    let failures = pass.failures.iter().map(|(control, failure)| {
        (failure.stalled, failure.reason, format!("{control:?}: {}", failure.message))
    });
    let troubles =
        pass.trouble.iter().map(|trouble| (trouble.stalled, trouble.reason, trouble.message.clone()));
    let mut all: Vec<_> = failures.chain(troubles).collect();
    // What has stalled is said first.
    all.sort_by_key(|(stalled, ..)| !stalled);
    let (stalled, reason, _) = all.first()?.clone();
    let state = if stalled { State::False } else { State::Unknown };
    let message = all.into_iter().map(|(.., message)| message).collect::<Vec<_>>().join("; and ");
    Some((state, reason, message))
}

pub(super) fn unseen(pass: &Pass) -> String {
    let closed = pass.closed.iter().map(|why| format!("the fence was not seen to let go: {why}"));
    let amiss = pass.probed.iter().flat_map(Probed::amiss);
    let unseen: Vec<_> = closed.chain(amiss).collect();
    if unseen.is_empty() { "the fence is being tried".to_owned() } else { unseen.join("; ") }
}

/// One of them is enough, and does not change with every other pod that ends: each change would be a write.
fn still_alive(pods: &[String]) -> String {
    pods.iter()
        .min()
        .map_or_else(|| "pods have yet to end".to_owned(), |pod| format!("pods have yet to end: {pod}"))
}

const UNCUT: &str = "policies are written, and do not reach pods that use the network of their node: ";

/// What is said of pods that no network policy cuts off.
fn uncut(pods: &[String]) -> String {
    let listed: Vec<_> = pods.iter().take(LISTED).map(String::as_str).collect();
    let more = if pods.len() > LISTED { format!(" and {} more", pods.len() - LISTED) } else { String::new() };
    format!(
        "{UNCUT}{}{more}. Sealing stops them; at any level, who may repair this Quarantine can delete them",
        listed.join(", ")
    )
}

/// What is said of the network where policies are written. After a start of the operator, what was said before stands until it
/// has been tried again.
fn of_network(verdict: Option<&Verdict>, old: &[Control]) -> (ControlState, String) {
    use ControlState::{Enforced, NotEnforced, Tested, Unverifiable};
    if let Some(verdict) = verdict {
        return (verdict.state, verdict.message.clone());
    }
    let network = old.iter().find(|control| control.name == ControlName::Network && control.tried.is_some());
    // What was said of pods alone ends with them.
    let said = network.filter(|control| !control.message.starts_with(UNCUT));
    match said {
        Some(Control { state: state @ (Tested | NotEnforced | Unverifiable), message, .. }) => {
            (*state, message.clone())
        }
        Some(_) | None => (Enforced, "policies are written, and being tried".to_owned()),
    }
}

fn controls(
    name: &str,
    pass: &Pass,
    known: &Known,
    before: &QuarantineStatus,
    now: Timestamp,
) -> Vec<Control> {
    let (found, level, old) = (pass.found, pass.target.level, &before.controls);
    let open = level == Isolation::Open;
    let tried = |name| match &pass.probed {
        _ if open => (ControlState::NotRequired, "not isolated".to_owned()),
        _ if !found.labelled && (name == ControlName::Lock || !pass.fenced_off) => {
            (ControlState::NotEnforced, "the namespace's label is not written".to_owned())
        }
        _ if !found.listed && name == ControlName::Guard && level < Isolation::CleanRoom => {
            (ControlState::NotEnforced, "the isolation lists are not written".to_owned())
        }
        Some(probed) => probed.of(name),
        None => (ControlState::Enforced, "written, not tried yet".to_owned()),
    };
    let stood = before.isolation.is_some_and(|level| level != Isolation::Open);
    let network = match (open, found.network) {
        (true, _) => (ControlState::NotRequired, "not isolated".to_owned()),
        (false, true) if !found.empty && !pass.on_node_network.is_empty() => {
            (ControlState::NotEnforced, uncut(&pass.on_node_network))
        }
        (false, true) => of_network(known.network.as_ref(), old),
        (false, false) => match &pass.network {
            Some(observed) => (ControlState::NotEnforced, observed.message()),
            None if stood => (
                ControlState::Enforced,
                "policies were written before, and are not read again yet".to_owned(),
            ),
            None => (ControlState::NotEnforced, "policies are not written".to_owned()),
        },
    };
    let others = pass.other_policies.message(name).filter(|_| !open);
    let network = match others.clone() {
        Some(message) if network.0 == ControlState::NotEnforced => {
            (ControlState::NotEnforced, format!("{}. {message}", network.1))
        }
        Some(message) => (ControlState::NotEnforced, message),
        None => network,
    };
    let exceptions = pass.other_policies.exceptions().filter(|_| !open);
    let network = match exceptions {
        Some(exceptions) => (network.0, format!("{}, {exceptions}", network.1)),
        None => network,
    };
    let network = (
        network.0,
        pass.egress_exceptions.iter().fold(network.1, |message, exception| format!("{message}. {exception}")),
    );
    let workloads = match level {
        Isolation::Sealed if found.stopped && found.empty => {
            (ControlState::Tested, format!("workloads at zero: {}; no pod lives", pass.workloads))
        }
        Isolation::Sealed if found.stopped => (ControlState::Enforced, still_alive(&pass.alive)),
        Isolation::Sealed => (ControlState::NotEnforced, "workloads are not at zero".to_owned()),
        Isolation::Contained | Isolation::CleanRoom | Isolation::Open => {
            (ControlState::NotRequired, "processes may live at this level".to_owned())
        }
    };
    let identity = match level {
        Isolation::Sealed if found.renewed => (
            ControlState::Enforced,
            "ServiceAccounts are recreated: tokens issued before are void, within the 10 s for which an API server may \
             remember one; not tried, as that would take a right to their tokens"
                .to_owned(),
        ),
        Isolation::Sealed => (ControlState::NotEnforced, "ServiceAccounts are not recreated yet".to_owned()),
        Isolation::Contained | Isolation::CleanRoom | Isolation::Open => {
            (ControlState::NotRequired, "tokens of what may live are left to it".to_owned())
        }
    };
    [
        (ControlName::Lock, tried(ControlName::Lock)),
        (ControlName::Fence, tried(ControlName::Fence)),
        (ControlName::Guard, tried(ControlName::Guard)),
        (ControlName::Network, network),
        (ControlName::Workloads, workloads),
        (ControlName::Identity, identity),
    ]
    .into_iter()
    .map(|(name, (state, message))| match pass.failures.get(&name) {
        Some(failure) => {
            let mut failure = failure.clone();
            // What others let through is told even where our own policies cannot be written.
            if let Some(message) = others.as_ref().filter(|_| name == ControlName::Network) {
                failure.add(&Failure { message: message.clone(), ..failure.clone() });
            }
            (name, (ControlState::NotEnforced, failure.message))
        }
        None => (name, (state, message)),
    })
    .map(|(name, (state, message))| {
        let before = old.iter().find(|control| control.name == name && control.state == state);
        let since = before.and_then(|control| control.since.clone()).unwrap_or(Time(now));
        let now = match name {
            _ if state == ControlState::NotRequired => None,
            ControlName::Lock | ControlName::Fence | ControlName::Guard => pass.tried,
            ControlName::Network => known.network.as_ref().and_then(|verdict| verdict.tried),
            ControlName::Workloads | ControlName::Identity => None,
        };
        let earlier =
            old.iter().find(|control| control.name == name).and_then(|control| control.tried.clone());
        let tried = now.map(Time).or(earlier);
        Control { name, state, message: shorten(&message, MESSAGE), since: Some(since), tried }
    })
    .collect()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
