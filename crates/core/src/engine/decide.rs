//! [`decide`]: one look at a whole plan.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::service_recovery::PastAttempt;
use crate::api::{Action, ServiceRecoveryStatus, Stage};
use crate::plan::Plan;

use super::next::{Next, time};
use super::stages::advance;
use super::{
    Decided, DecisionSeen, Effect, Seen, ServiceDecided, ServiceSeen, blocks, conditions, quarantines,
    resumes, room, slots, summary,
};

/// Texts that only tell what is waited for are rewritten at most this often, so that a long chain does not write each of
/// its services once for every link.
const RETELL_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// Attempts kept in a ServiceRecovery's history.
const HISTORY_LIMIT: usize = 20;

/// Decides for a whole plan. `seen.services` follows `plan.services`; if it does not, nothing is decided.
#[must_use]
pub fn decide(plan: &Plan, seen: &Seen) -> Decided {
    if seen.services.len() != plan.services.len() || plan.incident.is_none() {
        return Decided { services: Vec::new(), plan: summary::dormant(plan, seen), wake_at: None };
    }
    let units = slots::views(plan, seen);
    let mut next: Vec<Next> = (0..plan.services.len())
        .map(|id| {
            let of = &seen.services[id];
            if of.busy {
                Next::unchanged(of)
            } else if let Some(adopted) = adopt(of, seen.now) {
                adopted
            } else if let Some(begun) = retry(of, seen.now) {
                begun
            } else {
                let mut next = advance(plan, seen, &units, id);
                room::follow(plan, seen, id, &mut next);
                quarantines::make(plan, seen, id, &mut next);
                resumes::resume(plan, seen, &units, id, &mut next);
                next
            }
        })
        .collect();
    blocks::tell(plan, seen, &units, &mut next);
    for (id, of) in next.iter_mut().enumerate() {
        conditions::set_all(plan, seen, id, of);
    }
    let mut wake_at: Option<Timestamp> = None;
    let mut wake = |at: Timestamp| wake_at = Some(wake_at.map_or(at, |before| before.min(at)));
    let services: Vec<ServiceDecided> = next
        .iter()
        .zip(&seen.services)
        .map(|(next, before)| {
            next.wake.iter().copied().filter(|&at| at > seen.now).for_each(&mut wake);
            let write = must_write(before, next, seen.now, &mut wake) && !before.busy;
            let status = if write { next.status.clone() } else { before.status.clone() };
            ServiceDecided {
                status,
                write,
                effect: next.effect.clone(),
                ask: next.ask.clone(),
                health: next.health,
            }
        })
        .collect();
    let status = summary::plan_status(plan, seen, &next, &units);
    Decided { services, plan: status, wake_at }
}

/// A service without a ServiceRecovery gets one; one that an earlier plan of this name left is continued with the next
/// attempt, at the stage where it stood if it is recovered, as a re-applied plan must not stop what runs.
fn adopt(of: &ServiceSeen, now: Timestamp) -> Option<Next> {
    if of.exists && of.other_plan.is_none() {
        return None;
    }
    let mut next = Next::begun(of.status.clone());
    if of.exists && of.status.stage != Stage::Recovered && !replaced_already(&of.status) {
        next.status = next_attempt(&of.status, now, "PlanReplaced", "the plan was made anew");
    }
    if of.refused.as_ref().is_some_and(|r| r.again_at > now) {
        next.wake.extend(of.refused.as_ref().map(|r| r.again_at));
    } else {
        next.effect = Some(Effect::Adopt);
    }
    Some(next)
}

/// Has the attempt been begun for a new plan before, and nothing since? Then adopting it again (it was refused, or the
/// operator ended in between) begins no other.
fn replaced_already(status: &ServiceRecoveryStatus) -> bool {
    status.stage == Stage::Isolated
        && status.history.first().is_some_and(|past| past.reason == "PlanReplaced")
}

/// A fitting Decision begins the next attempt. Whoever makes it wants the service isolated: a Quarantine that is missing may be
/// made once more.
fn retry(of: &ServiceSeen, now: Timestamp) -> Option<Next> {
    let wanted = of.status.decision.as_ref()?;
    let fits = |d: &&DecisionSeen| d.action == Action::Retry && d.decided_on == wanted.digest;
    let decision = of.decisions.iter().find(fits).filter(|_| wanted.actions.contains(&Action::Retry))?;
    let message = format!("retry by {} (Decision {}): {}", decision.by, decision.name, decision.reason);
    let mut next = next_attempt(&of.status, now, &wanted.reason, &message);
    next.quarantined.clear();
    Some(Next::begun(next))
}

/// The next attempt: everything is proved afresh. Isolation stays as it is.
fn next_attempt(
    status: &ServiceRecoveryStatus,
    now: Timestamp,
    reason: &str,
    message: &str,
) -> ServiceRecoveryStatus {
    let mut next = status.clone();
    next.history.insert(
        0,
        PastAttempt {
            attempt: status.attempt,
            claimed_at: status.claimed_at.clone(),
            ended_at: time(now),
            stage: status.stage,
            reason: reason.to_owned(),
            message: crate::api::conditions::shorten(message, 600),
        },
    );
    next.history.truncate(HISTORY_LIMIT);
    next.attempt += 1;
    next.stage = Stage::Isolated;
    next.gates.clear();
    next.steps.clear();
    next.resumes.clear();
    next.blocked_by.clear();
    next.decision = None;
    next.accepted.clear();
    next.exceptions.clear();
    next.claimed_at = None;
    next.recovered_at = None;
    next
}

/// Is the difference worth a write now? What only tells what is waited for can wait a little.
fn must_write(
    before: &ServiceSeen,
    decided: &Next,
    now: Timestamp,
    wake: &mut impl FnMut(Timestamp),
) -> bool {
    let next = &decided.status;
    if !before.exists || before.status == *next {
        return false;
    }
    if substance(&before.status) != substance(next) {
        return true;
    }
    // What waits no more says so with its next stage.
    if matches!(decided.effect, Some(Effect::Claim { .. })) {
        return false;
    }
    let due = before.written_at.and_then(|at| at.checked_add(RETELL_AFTER).ok());
    match due {
        Some(due) if due > now => {
            wake(due);
            false
        }
        _ => true,
    }
}

/// A status without what merely tells: of others, of what its Quarantines say themselves, of why it waits.
fn substance(status: &ServiceRecoveryStatus) -> ServiceRecoveryStatus {
    let mut bare = status.clone();
    bare.waiting_for = None;
    bare.isolation = None;
    bare.observed_generation = None;
    if bare.decision.is_none() {
        bare.blocked_by.clear();
    }
    for condition in &mut bare.conditions {
        condition.reason.clear();
        condition.message.clear();
        condition.observed_generation = None;
    }
    bare
}
