//! Conditions of a ServiceRecovery, derived from its next status. By kstatus: never both Reconciling and Stalled; waiting is
//! `Ready=Unknown`; `Ready=False` means a failed gate or a decision that is needed.

use crate::api::conditions::{
    HEALTHY, NEEDS_DECISION, ORPHANED, READY, RECONCILING, RECOVERED, STALLED, State, clear, find, set,
};
use crate::api::{Health, Phase, Reason, ServiceRecoveryStatus, Stage, Verdict};
use crate::plan::{Plan, ServiceId};

use super::Observation;

use super::integrity;
use super::next::Next;
use super::phase_gates::is_accepted_failure;
use super::ratchet::is_loosened;
use super::superseded::is_superseded;

/// Sets all conditions.
pub(super) fn set_all(plan: &Plan, observed: &Observation, id: ServiceId, next: &mut Next) {
    let of = &observed.services[id];
    let Healthy { state: healthy, health, reason: healthy_reason, message: healthy_message } =
        health(plan, observed, id, &next.status);
    next.health = health;
    let status = &mut next.status;
    status.integrity = integrity::shown(&plan.services[id], status);
    status.observed_generation = of.generation.or(Some(-1));
    // Every service that is decided about is in the plan.
    clear(&mut status.conditions, ORPHANED);
    let generation = of.generation;
    let conditions = &mut status.conditions;
    let mut put = |type_: &str, state: State, reason: &str, message: &str| {
        set(conditions, type_, state, reason, message, generation, observed.now);
    };

    let closed = status.decision.as_ref().map(|d| d.reason);
    let closed = closed.filter(|reason| [Reason::Held, Reason::IsolatedAgain].contains(reason));
    let closed = status.isolating.as_ref().map(|isolating| isolating.reason).or(closed);
    let open = status.stage == Stage::Recovered && closed.is_none();
    let recovered_reason = match (open, status.exceptions.is_empty()) {
        (true, true) => Reason::Recovered.as_str(),
        (true, false) => Reason::WithExceptions.as_str(),
        (false, _) => status.stage.as_str(),
    };
    let exceptions = status.exceptions.join("; ");
    put(RECOVERED, open.into(), closed.map_or(recovered_reason, Reason::as_str), &exceptions);
    put(HEALTHY, healthy, &healthy_reason, &healthy_message);

    let waiting = status.waiting_for.clone().unwrap_or_default();
    let first = status.blocked_by.first();
    match &status.decision {
        Some(decision) => {
            let what = status.blocked_by.iter().find(|b| b.reason == decision.reason).map_or_else(
                String::new,
                |b| match b.message.starts_with(&b.name) {
                    true => b.message.clone(),
                    false => format!("{}: {}", b.name, b.message),
                },
            );
            let owner = plan.services[id].owner.as_deref();
            let owner = owner.map_or_else(String::new, |owner| format!("; the service's owner is {owner}"));
            let message = if decision.actions.is_empty() {
                what.clone()
            } else {
                let actions: Vec<&str> = decision.actions.iter().map(|action| action.as_str()).collect();
                let who = match decision.reason {
                    Reason::ApprovalNeeded => "They decide by a Decision",
                    _ => "A recovery lead can clear it with a Decision",
                };
                format!("{what}. {who}: {}{owner}", actions.join(" or "))
            };
            put(NEEDS_DECISION, State::True, decision.reason.as_str(), &message);
            put(READY, State::False, decision.reason.as_str(), &what);
        }
        None => {
            put(NEEDS_DECISION, State::False, Reason::NotNeeded.as_str(), "");
            if open && healthy == State::True {
                put(READY, State::True, recovered_reason, &exceptions);
            } else if open {
                put(READY, healthy, &healthy_reason, &healthy_message);
            } else {
                let reason = first.map_or(status.stage.as_str(), |b| {
                    let waits = b.reason == Reason::Dependency;
                    if waits { Reason::WaitingForDependencies.as_str() } else { b.reason.as_str() }
                });
                put(READY, State::Unknown, reason, &waiting);
            }
        }
    }

    let stuck = !plan.services[id].problems.is_empty() && !open;
    let (ready_reason, ready_message) = status
        .conditions
        .iter()
        .find(|c| c.type_ == READY)
        .map_or_else(Default::default, |c| (c.reason.clone(), c.message.clone()));
    if status.decision.is_some() || stuck {
        clear(&mut status.conditions, RECONCILING);
        set(
            &mut status.conditions,
            STALLED,
            State::True,
            &ready_reason,
            &ready_message,
            generation,
            observed.now,
        );
    } else if open && healthy == State::True {
        clear(&mut status.conditions, RECONCILING);
        clear(&mut status.conditions, STALLED);
    } else {
        clear(&mut status.conditions, STALLED);
        set(
            &mut status.conditions,
            RECONCILING,
            State::True,
            &ready_reason,
            &ready_message,
            generation,
            observed.now,
        );
    }
}

/// Returns the health of a service whose status is being written, as this process observed it.
pub(super) fn health_of(plan: &Plan, observed: &Observation, id: ServiceId) -> Health {
    health(plan, observed, id, &observed.services[id].status).health
}

/// Returns the condition `Healthy`: whether the continuous gates pass now.
fn health(plan: &Plan, observed: &Observation, id: ServiceId, status: &ServiceRecoveryStatus) -> Healthy {
    let told = |state, health, reason: &str, message: String| Healthy {
        state,
        health,
        reason: reason.to_owned(),
        message,
    };
    if status.stage != Stage::Recovered {
        return told(State::Unknown, Health::Unhealthy, Reason::NotRecovered.as_str(), String::new());
    }
    if is_loosened(plan, observed, id) {
        let why = "the plan requires less of it than was last accepted, so its gates prove less";
        return told(State::Unknown, Health::Unhealthy, Reason::Loosened.as_str(), why.to_owned());
    }
    if is_superseded(observed, &observed.services[id]) {
        let why = "compromisedSince is earlier now than what its gates were evaluated for";
        return told(State::Unknown, Health::Unhealthy, Reason::Superseded.as_str(), why.to_owned());
    }
    if status.isolating.is_some() {
        let why = "it is being isolated again".to_owned();
        return told(State::Unknown, Health::Unhealthy, Reason::NotRecovered.as_str(), why);
    }
    // A verdict takes precedence over a missing one.
    let (mut unhealthy, mut unknown) = (None, None);
    for gate in plan.services[id].gates_of(Phase::Continuous) {
        let name = &gate.spec.name;
        let Some(state) = observed.services[id].gates.get(&gate.key) else {
            let why =
                format!("{name}: not asked yet since this operator leads, or since what is asked changed");
            unknown.get_or_insert(told(State::Unknown, Health::Unknown, Reason::NotAsked.as_str(), why));
            continue;
        };
        let message = format!("{name}: {}", state.message);
        match (state.verdict, state.unsettled) {
            (Verdict::Pass, _) => {}
            (Verdict::Fail, _) if is_accepted_failure(&observed.services[id], gate) => {}
            (Verdict::Fail, _) if state.failed => {
                return told(State::False, Health::Unhealthy, Reason::GateFailed.as_str(), message);
            }
            (Verdict::Unknown, Some(reason @ (Reason::NotAsked | Reason::Stabilising))) => {
                unknown.get_or_insert(told(State::Unknown, Health::Unknown, reason.as_str(), message));
            }
            (Verdict::Fail, _) => {
                unhealthy.get_or_insert(told(
                    State::Unknown,
                    Health::Unhealthy,
                    Reason::GateFailing.as_str(),
                    message,
                ));
            }
            (Verdict::Unknown, _) => {
                unhealthy.get_or_insert(told(
                    State::Unknown,
                    Health::Unhealthy,
                    Reason::GateUnknown.as_str(),
                    message,
                ));
            }
        }
    }
    // The last known failure stays until the gate is evaluated.
    if unhealthy.is_none()
        && unknown.as_ref().is_some_and(|told| told.reason == Reason::NotAsked.as_str())
        && let Some(failed) = find(&status.conditions, HEALTHY).filter(|c| c.status == "False")
    {
        return told(State::False, Health::Unhealthy, &failed.reason, failed.message.clone());
    }
    unhealthy
        .or(unknown)
        .unwrap_or_else(|| told(State::True, Health::Healthy, Reason::GatesPass.as_str(), String::new()))
}

/// The condition `Healthy`, and the health that it expresses.
struct Healthy {
    state: State,
    health: Health,
    reason: String,
    message: String,
}
