//! The plan's own status: counts, top blockers, conditions.

use std::cmp::Reverse;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::conditions::{
    HEALTHY, READY, RECONCILING, RECOVERED, STALLED, State, clear, find, is_true, set, shorten,
};
use crate::api::recovery_plan::{Blocker, GateOverride, Impact};
use crate::api::{Reason, RecoveryPlanStatus, ServiceRecoveryStatus, Stage};
use crate::plan::{Plan, ServiceId};

use super::memory::{ServiceMemory, Stuck};
use super::{Observation, Presence};

/// As many blockers as a plan's status holds.
const BLOCKERS_LIMIT: usize = 10;

/// Status of a plan that this version cannot read: nothing of it starts.
#[must_use]
pub fn unreadable(
    generation: Option<i64>,
    error: &str,
    now: k8s_openapi::jiff::Timestamp,
) -> RecoveryPlanStatus {
    let mut status = RecoveryPlanStatus { observed_generation: generation, ..RecoveryPlanStatus::default() };
    let message =
        format!("this version of the operator cannot read the plan, so nothing of it starts: {error}");
    for (type_, state) in [(READY, State::False), (STALLED, State::True), (RECOVERED, State::False)] {
        set(&mut status.conditions, type_, state, Reason::Unreadable.as_str(), &message, generation, now);
    }
    status
}

/// Status of a plan that names no incident: checked, never acting.
pub(super) fn dormant(plan: &Plan, seen: &Observation) -> RecoveryPlanStatus {
    let mut status = RecoveryPlanStatus {
        observed_generation: plan.generation,
        total: count(plan.services.len()),
        progress: Some(format!("0/{}", plan.services.len())),
        ..RecoveryPlanStatus::default()
    };
    let mut put = |type_: &str, state: State, reason: Reason, message: &str| {
        set(&mut status.conditions, type_, state, reason.as_str(), message, plan.generation, seen.now);
    };
    match problems(plan) {
        None => {
            put(READY, State::True, Reason::Dormant, "checked, and acting only once it names an incident")
        }
        Some((reason, message)) => {
            put(READY, State::False, reason, &message);
            put(STALLED, State::True, reason, &message);
        }
    }
    put(RECOVERED, State::False, Reason::Dormant, "it names no incident");
    status
}

/// What the plan's status counts of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    is_recovered: bool,
    is_healthy: bool,
    needs_decision: bool,
    /// Begun, not ended, waiting for no dependency, and nobody is asked.
    is_running: bool,
    has_exceptions: bool,
    first_claim: Option<Time>,
    recovered_at: Option<Time>,
    /// The plan is not recovered without it.
    is_essential: bool,
}

impl Tally {
    /// Good news counts once it is in the record, whose write may yet fail; bad news at once.
    pub(super) fn new(
        before: &ServiceRecoveryStatus,
        status: &ServiceRecoveryStatus,
        waits_for_none: bool,
        impact: Impact,
    ) -> Self {
        let holds = |type_: &str| is_true(&before.conditions, type_) && is_true(&status.conditions, type_);
        let needs_decision = status.decision.is_some();
        let is_under_way = !matches!(status.stage, Stage::Isolated | Stage::Recovered);
        let is_recovered = holds(RECOVERED);
        Self {
            is_recovered,
            is_healthy: is_recovered && holds(HEALTHY),
            needs_decision,
            is_running: is_under_way && !needs_decision && waits_for_none,
            has_exceptions: !status.exceptions.is_empty(),
            first_claim: first_claim(status),
            recovered_at: status.recovered_at.clone(),
            is_essential: impact == Impact::Essential,
        }
    }
}

/// How many services there are of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    recovered: usize,
    healthy: usize,
    need_decision: usize,
    recovered_and_need_decision: usize,
    running: usize,
    with_exceptions: usize,
    essential_and_missing: usize,
}

impl Totals {
    /// Counts a service otherwise than before.
    pub(super) fn replace(&mut self, before: &Tally, now: &Tally) {
        let change = |total: &mut usize, counts: fn(&Tally) -> bool| {
            *total = (*total + usize::from(counts(now))).saturating_sub(usize::from(counts(before)));
        };
        change(&mut self.recovered, |of| of.is_recovered);
        change(&mut self.healthy, |of| of.is_healthy);
        change(&mut self.need_decision, |of| of.needs_decision);
        change(&mut self.recovered_and_need_decision, |of| of.is_recovered && of.needs_decision);
        change(&mut self.running, |of| of.is_running);
        change(&mut self.with_exceptions, |of| of.has_exceptions);
        change(&mut self.essential_and_missing, |of| of.is_essential && !of.is_recovered);
    }
}

/// Status of an armed plan. Conditions carry no times of their own here: the shell keeps the transition times of those
/// that did not change.
pub(super) fn plan_status(
    plan: &Plan,
    seen: &Observation,
    totals: &Totals,
    tallies: &[Tally],
    services: &[ServiceMemory],
) -> RecoveryPlanStatus {
    let total = plan.services.len();
    let &Totals {
        recovered,
        healthy,
        need_decision: human,
        recovered_and_need_decision: open_and_human,
        running,
        with_exceptions: exceptions,
        essential_and_missing,
    } = totals;
    let started_at = tallies.iter().filter_map(|of| of.first_claim.as_ref()).min_by_key(|at| at.0);
    let recovered_at = tallies.iter().filter_map(|of| of.recovered_at.as_ref()).max_by_key(|at| at.0);
    let waiting = total.saturating_sub(recovered + running + human - open_and_human);
    let mut status = RecoveryPlanStatus {
        observed_generation: plan.generation,
        progress: Some(format!("{recovered}/{total}")),
        total: count(total),
        recovered: count(recovered),
        running: count(running),
        waiting: count(waiting),
        needs_decision: count(human),
        blocked_by: blockers(plan, services),
        gate_overrides: gate_overrides(plan),
        started_at: started_at.cloned(),
        recovered_at: recovered_at.filter(|_| essential_and_missing == 0).cloned(),
        conditions: Vec::new(),
    };
    // Without an essential service nothing is recovered; a plan of optional ones is once any of them is.
    let all = recovered == total || (essential_and_missing == 0 && recovered > 0);
    let qualified = if exceptions > 0 { format!(" ({exceptions} with exceptions)") } else { String::new() };
    let progress = format!(
        "{recovered}/{total} services recovered{qualified}, {running} running, {waiting} waiting, {human} need a decision"
    );
    let conditions = &mut status.conditions;
    let mut put = |type_: &str, state: State, reason: Reason, message: &str| {
        set(conditions, type_, state, reason.as_str(), message, plan.generation, seen.now);
    };
    let done = if exceptions > 0 || recovered < total { Reason::WithExceptions } else { Reason::Recovered };
    put(RECOVERED, all.into(), if all { done } else { Reason::Progressing }, &progress);

    let incident = plan.incident.as_deref().unwrap_or_default();
    let trouble = match (&seen.incident, &seen.account) {
        (Presence::Missing, _) => {
            Some((Reason::IncidentMissing, format!("there is no Incident named {incident}")))
        }
        (Presence::Unknown(why), _) => Some((Reason::IncidentUnknown, why.clone())),
        (_, Presence::Missing) => Some((
            Reason::ServiceAccountMissing,
            format!("there is no ServiceAccount {} in namespace {}", plan.account, plan.namespace),
        )),
        (_, Presence::Unknown(why)) => Some((Reason::ServiceAccountUnknown, why.clone())),
        (Presence::Present, Presence::Present) => problems(plan),
    };
    let human_reason = || {
        let first = status.blocked_by.first();
        let what = first.map_or_else(String::new, |b| format!(": {} ({})", b.name, b.message));
        let need = if human == 1 { "service needs" } else { "services need" };
        format!("{human} {need} a decision{what}")
    };
    match trouble {
        Some((reason, message)) => {
            put(READY, State::False, reason, &message);
            put(STALLED, State::True, reason, &message);
        }
        None if recovered == total && healthy == total => put(READY, State::True, done, &progress),
        None => {
            if human > 0 {
                put(READY, State::False, Reason::NeedsDecision, &human_reason());
            } else if recovered == total {
                put(
                    READY,
                    State::Unknown,
                    Reason::Unhealthy,
                    "recovered, but continuous gates do not all pass",
                );
            } else {
                put(READY, State::Unknown, Reason::Progressing, &progress);
            }
            if human > 0 && running == 0 {
                put(STALLED, State::True, Reason::NeedsDecision, &human_reason());
            } else {
                put(RECONCILING, State::True, Reason::Progressing, &progress);
            }
        }
    }
    if is_true(&status.conditions, STALLED) {
        clear(&mut status.conditions, RECONCILING);
    }
    status
}

/// Conditions that did not change keep the time of their last transition.
pub fn keep_times(status: &mut RecoveryPlanStatus, before: &RecoveryPlanStatus) {
    for condition in &mut status.conditions {
        if let Some(old) =
            find(&before.conditions, &condition.type_).filter(|old| old.status == condition.status)
        {
            condition.last_transition_time = old.last_transition_time.clone();
        }
    }
}

/// Is this more than new counts?
#[must_use]
pub fn is_news(before: &RecoveryPlanStatus, now: &RecoveryPlanStatus) -> bool {
    let bare = |status: &RecoveryPlanStatus| -> Vec<(String, String, String)> {
        status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect()
    };
    bare(before) != bare(now) || before.observed_generation != now.observed_generation
}

/// What is wrong with the plan itself, in one condition.
fn problems(plan: &Plan) -> Option<(Reason, String)> {
    let first = plan.problems.first()?;
    let mut messages: Vec<&str> = plan.problems.iter().map(|p| p.message.as_str()).collect();
    messages.dedup();
    Some((first.reason, shorten(&messages.join("; "), 1024)))
}

/// Whom people have to look at, the one that holds most first.
fn blockers(plan: &Plan, services: &[ServiceMemory]) -> Vec<Blocker> {
    let holds = |id: ServiceId| {
        let held = plan.dependents_of(plan.services[id].unit);
        let members = held.iter().flat_map(|&unit| &plan.units[unit].members);
        members.filter(|&&member| !services[member].is_recovered).count()
    };
    let stuck = services.iter().enumerate().filter_map(|(id, of)| Some((id, of.stuck.as_ref()?)));
    let mut found: Vec<(usize, ServiceId, &Stuck)> =
        stuck.map(|(id, stuck)| (holds(id), id, stuck)).collect();
    found.sort_by_key(|&(holds, ..)| Reverse(holds));
    found.truncate(BLOCKERS_LIMIT);
    let blocker = |(holds, id, stuck): (usize, ServiceId, &Stuck)| Blocker {
        name: plan.services[id].name.clone(),
        reason: stuck.cause.as_ref().map_or(Reason::Other, |cause| cause.reason),
        message: stuck.cause.as_ref().map_or_else(String::new, |cause| cause.message.clone()),
        holds: count(holds),
        owner: plan.services[id].owner.clone(),
        since: stuck.since.clone(),
    };
    found.into_iter().map(blocker).collect()
}

fn first_claim(status: &ServiceRecoveryStatus) -> Option<Time> {
    let past = status.history.iter().filter_map(|h| h.claimed_at.as_ref());
    past.chain(status.claimed_at.as_ref()).min_by_key(|t| t.0).cloned()
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
/// Maximum number of gate overrides in a status.
const OVERRIDES_LIMIT: usize = 64;

/// Returns the default gates that services leave out or replace.
fn gate_overrides(plan: &Plan) -> Vec<GateOverride> {
    plan.services
        .iter()
        .flat_map(|service| service.gate_overrides.iter().cloned())
        .take(OVERRIDES_LIMIT)
        .collect()
}
