//! State and message of each control.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::super::pass::{ClusterState, ControlFailure, MESSAGE, Pass};
use super::super::verify::network::NetworkVerdict;
use super::still_alive;
use crate::api::conditions::shorten;
use crate::api::quarantine::{Control, ControlName, ControlState};
use crate::api::{Isolation, QuarantineStatus};

/// Maximum number of pod names in a message.
const LISTED: usize = 3;

const HOST_NETWORK: &str = "policies are written, and do not reach pods that use the network of their node: ";

/// Returns the message about pods that no network policy isolates.
fn host_network_message(pods: &[String]) -> String {
    let listed: Vec<_> = pods.iter().take(LISTED).map(String::as_str).collect();
    let more = if pods.len() > LISTED { format!(" and {} more", pods.len() - LISTED) } else { String::new() };
    format!(
        "{HOST_NETWORK}{}{more}. Sealing stops them; at any level, who may repair this Quarantine can delete them",
        listed.join(", ")
    )
}

/// Returns state and message of the network where the policies are written. After a restart of the operator the previous state stays
/// until the network has been probed again.
fn of_network(verdict: Option<&NetworkVerdict>, old: &[Control]) -> (ControlState, String) {
    use ControlState::{Enforced, NotEnforced, Tested, Unverifiable};
    if let Some(verdict) = verdict {
        return (verdict.state, verdict.message.clone());
    }
    let network = old.iter().find(|control| control.name == ControlName::Network && control.tried.is_some());
    // A message about pods alone ends with the pods.
    let said = network.filter(|control| !control.message.starts_with(HOST_NETWORK));
    match said {
        Some(Control { state: state @ (Tested | NotEnforced | Unverifiable), message, .. }) => {
            (*state, message.clone())
        }
        Some(_) | None => (Enforced, "policies are written, and being tried".to_owned()),
    }
}

/// Returns the state of every control after a pass.
pub(super) fn controls(
    name: &str,
    pass: &Pass,
    cluster: &ClusterState,
    before: &QuarantineStatus,
    now: Timestamp,
) -> Vec<Control> {
    let others = pass.other_policies.message(name).filter(|_| pass.target.level != Isolation::Open);
    let states = [
        (ControlName::Lock, admission(ControlName::Lock, pass)),
        (ControlName::Fence, admission(ControlName::Fence, pass)),
        (ControlName::Guard, admission(ControlName::Guard, pass)),
        (ControlName::Network, network(pass, cluster, before, others.as_deref())),
        (ControlName::Workloads, workloads(pass)),
        (ControlName::Identity, identity(pass)),
    ];
    let all = states.into_iter().map(|(name, (state, message))| {
        let (state, message) = match pass.failures.get(&name) {
            Some(failure) => (ControlState::NotEnforced, failed(name, failure, others.as_deref())),
            None => (state, message),
        };
        control(name, state, &message, (pass, cluster), &before.controls, now)
    });
    all.collect()
}

/// Returns one control, with since when it has been in this state and when it was last tested.
fn control(
    name: ControlName,
    state: ControlState,
    message: &str,
    (pass, cluster): (&Pass, &ClusterState),
    old: &[Control],
    now: Timestamp,
) -> Control {
    let before = old.iter().find(|control| control.name == name);
    let since = before.filter(|control| control.state == state).and_then(|control| control.since.clone());
    let tried = match name {
        _ if state == ControlState::NotRequired => None,
        ControlName::Lock | ControlName::Fence | ControlName::Guard => pass.tried,
        ControlName::Network => cluster.network.as_ref().and_then(|verdict| verdict.tried),
        ControlName::Workloads | ControlName::Identity => None,
    };
    let earlier = before.and_then(|control| control.tried.clone());
    Control {
        name,
        state,
        message: shorten(message, MESSAGE),
        since: Some(since.unwrap_or(Time(now))),
        tried: tried.map(Time).or(earlier),
    }
}

/// Returns the message of a failed control. `others`: what policies of other APIs allow.
fn failed(name: ControlName, failure: &ControlFailure, others: Option<&str>) -> String {
    let mut failure = failure.clone();
    // Policies of other APIs are reported even if our own cannot be written.
    if let Some(message) = others.filter(|_| name == ControlName::Network) {
        failure.add(&ControlFailure { message: message.to_owned(), ..failure.clone() });
    }
    failure.message
}

/// Returns the state of lock, fence or guard: whether it is in force at every API server.
fn admission(name: ControlName, pass: &Pass) -> (ControlState, String) {
    let (found, level) = (pass.in_place, pass.target.level);
    match &pass.probed {
        _ if level == Isolation::Open => (ControlState::NotRequired, "not isolated".to_owned()),
        _ if !found.labelled && (name == ControlName::Lock || !pass.fenced_off) => {
            (ControlState::NotEnforced, "the namespace's label is not written".to_owned())
        }
        _ if !found.listed && name == ControlName::Guard && level < Isolation::CleanRoom => {
            (ControlState::NotEnforced, "the isolation lists are not written".to_owned())
        }
        Some(probed) => probed.of(name),
        None => (ControlState::Enforced, "written, not tried yet".to_owned()),
    }
}

/// Returns the state of the network: our own policies, those of other APIs (`others`), and the egress exceptions.
fn network(
    pass: &Pass,
    cluster: &ClusterState,
    before: &QuarantineStatus,
    others: Option<&str>,
) -> (ControlState, String) {
    let open = pass.target.level == Isolation::Open;
    let (mut state, mut message) = own_policies(pass, cluster, before);
    if let Some(others) = others {
        message = match state {
            ControlState::NotEnforced => format!("{message}. {others}"),
            _ => others.to_owned(),
        };
        state = ControlState::NotEnforced;
    }
    if let Some(exceptions) = pass.other_policies.exceptions().filter(|_| !open) {
        message = format!("{message}, {exceptions}");
    }
    for exception in &pass.egress_exceptions {
        message = format!("{message}. {exception}");
    }
    (state, message)
}

fn own_policies(pass: &Pass, cluster: &ClusterState, before: &QuarantineStatus) -> (ControlState, String) {
    let stood = before.isolation.is_some_and(|level| level != Isolation::Open);
    match (pass.target.level == Isolation::Open, pass.in_place.network) {
        (true, _) => (ControlState::NotRequired, "not isolated".to_owned()),
        (false, true) if !pass.in_place.empty && !pass.host_network_pods.is_empty() => {
            (ControlState::NotEnforced, host_network_message(&pass.host_network_pods))
        }
        (false, true) => of_network(cluster.network.as_ref(), &before.controls),
        (false, false) => match &pass.network {
            Some(observed) => (ControlState::NotEnforced, observed.message()),
            None if stood => (
                ControlState::Enforced,
                "policies were written before, and are not read again yet".to_owned(),
            ),
            None => (ControlState::NotEnforced, "policies are not written".to_owned()),
        },
    }
}

fn workloads(pass: &Pass) -> (ControlState, String) {
    match pass.target.level {
        Isolation::Sealed if pass.in_place.stopped && pass.in_place.empty => {
            (ControlState::Tested, format!("workloads at zero: {}; no pod lives", pass.workloads))
        }
        Isolation::Sealed if pass.in_place.stopped => (ControlState::Enforced, still_alive(&pass.alive)),
        Isolation::Sealed => (ControlState::NotEnforced, "workloads are not at zero".to_owned()),
        Isolation::Contained | Isolation::CleanRoom | Isolation::Open => {
            (ControlState::NotRequired, "processes may live at this level".to_owned())
        }
    }
}

fn identity(pass: &Pass) -> (ControlState, String) {
    match pass.target.level {
        Isolation::Sealed if pass.in_place.renewed => (
            ControlState::Enforced,
            "ServiceAccounts are recreated: tokens issued before are void, within the 10 s for which an API server may \
             remember one; not tried, as that would take a right to their tokens"
                .to_owned(),
        ),
        Isolation::Sealed => (ControlState::NotEnforced, "ServiceAccounts are not recreated yet".to_owned()),
        Isolation::Contained | Isolation::CleanRoom | Isolation::Open => {
            (ControlState::NotRequired, "tokens of what may live are left to it".to_owned())
        }
    }
}
