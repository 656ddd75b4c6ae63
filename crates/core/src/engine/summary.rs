//! The plan's own status: counts, top blockers, conditions.

use std::cmp::Reverse;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::conditions::{
    HEALTHY, READY, RECONCILING, RECOVERED, STALLED, State, clear, find, is_true, set, shorten,
};
use crate::api::recovery_plan::Blocker;
use crate::api::{RecoveryPlanStatus, Stage};
use crate::plan::Plan;

use super::next::Next;
use super::slots::UnitView;
use super::{Presence, Seen, blocks};

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
        set(&mut status.conditions, type_, state, "Unreadable", &message, generation, now);
    }
    status
}

/// Status of a plan that names no incident: checked, never acting.
pub(super) fn dormant(plan: &Plan, seen: &Seen) -> RecoveryPlanStatus {
    let mut status = RecoveryPlanStatus {
        observed_generation: plan.generation,
        total: count(plan.services.len()),
        progress: Some(format!("0/{}", plan.services.len())),
        ..RecoveryPlanStatus::default()
    };
    let mut put = |type_: &str, state: State, reason: &str, message: &str| {
        set(&mut status.conditions, type_, state, reason, message, plan.generation, seen.now);
    };
    match problems(plan) {
        None => put(READY, State::True, "Dormant", "checked, and acting only once it names an incident"),
        Some((reason, message)) => {
            put(READY, State::False, &reason, &message);
            put(STALLED, State::True, &reason, &message);
        }
    }
    put(RECOVERED, State::False, "Dormant", "");
    status
}

/// Status of an armed plan. Conditions carry no times of their own here: the shell keeps the transition times of those
/// that did not change.
pub(super) fn plan_status(plan: &Plan, seen: &Seen, next: &[Next], units: &[UnitView]) -> RecoveryPlanStatus {
    let total = next.len();
    // Good news once it is in the record, whose write may yet fail; bad news at once.
    let holds = |(id, n): (usize, &Next), type_: &str| {
        is_true(&seen.services[id].status.conditions, type_) && is_true(&n.status.conditions, type_)
    };
    let is_recovered = |of: &(usize, &Next)| holds(*of, RECOVERED);
    let recovered = next.iter().enumerate().filter(is_recovered).count();
    let healthy = next.iter().enumerate().filter(is_recovered).filter(|of| holds(*of, HEALTHY)).count();
    let human = next.iter().filter(|n| n.status.decision.is_some()).count();
    let running = next
        .iter()
        .enumerate()
        .filter(|(id, n)| {
            n.status.stage != Stage::Recovered
                && n.status.stage != Stage::Isolated
                && n.status.decision.is_none()
                && units[plan.services[*id].unit].unmet.is_empty()
        })
        .count();
    let open_and_human =
        next.iter().enumerate().filter(is_recovered).filter(|(_, n)| n.status.decision.is_some()).count();
    let waiting = total.saturating_sub(recovered + running + human - open_and_human);
    let mut status = RecoveryPlanStatus {
        observed_generation: plan.generation,
        progress: Some(format!("{recovered}/{total}")),
        total: count(total),
        recovered: count(recovered),
        running: count(running),
        waiting: count(waiting),
        needs_decision: count(human),
        blocked_by: blockers(plan, seen, next),
        started_at: next.iter().filter_map(first_claim).min_by_key(|t| t.0),
        recovered_at: None,
        conditions: Vec::new(),
    };
    let all = recovered == total;
    if all {
        status.recovered_at = next.iter().filter_map(|n| n.status.recovered_at.clone()).max_by_key(|t| t.0);
    }
    let exceptions = next.iter().filter(|n| !n.status.exceptions.is_empty()).count();
    let progress = format!(
        "{recovered}/{total} services recovered, {running} running, {waiting} waiting, {human} need a decision"
    );
    let conditions = &mut status.conditions;
    let mut put = |type_: &str, state: State, reason: &str, message: &str| {
        set(conditions, type_, state, reason, message, plan.generation, seen.now);
    };
    let done = if exceptions > 0 { "WithExceptions" } else { "Recovered" };
    put(RECOVERED, all.into(), if all { done } else { "Progressing" }, &progress);

    let incident = plan.incident.as_deref().unwrap_or_default();
    let trouble = match (&seen.incident, &seen.account) {
        (Presence::Missing, _) => {
            Some(("IncidentMissing".to_owned(), format!("there is no Incident named {incident}")))
        }
        (Presence::Unknown(why), _) => Some(("IncidentUnknown".to_owned(), why.clone())),
        (_, Presence::Missing) => Some((
            "ServiceAccountMissing".to_owned(),
            format!("there is no ServiceAccount {} in namespace {}", plan.account, plan.namespace),
        )),
        (_, Presence::Unknown(why)) => Some(("ServiceAccountUnknown".to_owned(), why.clone())),
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
            put(READY, State::False, &reason, &message);
            put(STALLED, State::True, &reason, &message);
        }
        None if all && healthy == total => put(READY, State::True, done, &progress),
        None => {
            if human > 0 {
                put(READY, State::False, "NeedsDecision", &human_reason());
            } else if all {
                put(READY, State::Unknown, "Unhealthy", "recovered, but continuous gates do not all pass");
            } else {
                put(READY, State::Unknown, "Progressing", &progress);
            }
            if human > 0 && running == 0 {
                put(STALLED, State::True, "NeedsDecision", &human_reason());
            } else {
                put(RECONCILING, State::True, "Progressing", &progress);
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
fn problems(plan: &Plan) -> Option<(String, String)> {
    let first = plan.problems.first()?;
    let mut messages: Vec<&str> = plan.problems.iter().map(|p| p.message.as_str()).collect();
    messages.dedup();
    Some((first.reason.to_owned(), shorten(&messages.join("; "), 1024)))
}

/// Whom people have to look at, the one that holds most first.
fn blockers(plan: &Plan, seen: &Seen, next: &[Next]) -> Vec<Blocker> {
    let mut found: Vec<Blocker> = next
        .iter()
        .enumerate()
        .filter(|(id, n)| blocks::is_stuck(seen, n, *id))
        .map(|(id, n)| {
            let unit = plan.services[id].unit;
            let held = plan.dependants_of(unit);
            let holds = held
                .iter()
                .flat_map(|&u| &plan.units[u].members)
                .filter(|&&m| next[m].status.stage != Stage::Recovered)
                .count();
            let cause = blocks::cause(n);
            Blocker {
                name: plan.services[id].name.clone(),
                reason: cause.map_or_else(String::new, |b| b.reason.clone()),
                message: cause.map_or_else(String::new, |b| b.message.clone()),
                holds: count(holds),
                owner: plan.services[id].owner.clone(),
                since: n.status.decision.as_ref().map(|d| d.since.clone()),
            }
        })
        .collect();
    found.sort_by_key(|b| Reverse(b.holds));
    found.truncate(BLOCKERS_LIMIT);
    found
}

fn first_claim(next: &Next) -> Option<Time> {
    let past = next.status.history.iter().filter_map(|h| h.claimed_at.clone());
    past.chain(next.status.claimed_at.clone()).min_by_key(|t| t.0)
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
