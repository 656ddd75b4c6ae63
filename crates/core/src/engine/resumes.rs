//! When CronJobs and Jobs are resumed: they are listed before the service opens, and resumed once it is recovered and satisfies its
//! dependents. [`crate::resume`] judges each of them.

use super::next::Next;
use super::ratchet::is_accepted;
use super::slots::{UnitView, is_armed, satisfies_dependents};
use super::{Effect, Observation, ResumeObservation};
use crate::api::service_recovery::{ResumeState, ResumeStatus};
use crate::api::{Isolation, Stage};
use crate::plan::{Plan, ServiceId};

/// Requests a read of the suspended objects, lists them in the status, and resumes them.
pub(super) fn resume(
    plan: &Plan,
    observed: &Observation,
    units: &[UnitView],
    id: ServiceId,
    next: &mut Next,
) {
    let (of, service) = (&observed.services[id], &plan.services[id]);
    if service.resume.is_empty() {
        next.status.resumes.clear();
        return;
    }
    if next.status.stage < Stage::PostChecks || next.status.decision.is_some() {
        return;
    }
    let opens = matches!(next.effect, Some(Effect::Ask { isolation: Isolation::Open, .. }));
    if next.effect.is_some() && !opens {
        return;
    }
    let passed = |found: &ResumeObservation| found.changes_at.is_some_and(|at| at <= observed.now);
    let found = of.resumes.as_ref().filter(|found| !found.iter().any(passed));
    let Some(found) = found else {
        // The forecast must be known before the service opens.
        next.effect = None;
        begin(observed, id, next, Effect::LookAtSuspended { attempt: of.status.attempt });
        return;
    };
    next.wake.extend(found.iter().filter_map(|found| found.changes_at));
    next.status.resumes = found.iter().map(|found| shown(found, &of.status.resumes)).collect();
    let may = next.status.stage == Stage::Recovered
        && !plan.suspend
        && is_armed(plan, observed)
        && is_accepted(plan, observed, id)
        && units[service.unit].unmet.is_empty()
        && satisfies_dependents(plan, observed, id);
    if !may {
        return;
    }
    for entry in next.status.resumes.iter_mut().filter(|entry| entry.state == ResumeState::Due) {
        entry.state = ResumeState::Resuming;
    }
    if next.status.resumes.iter().any(|entry| entry.state == ResumeState::Resuming) {
        let dependencies = plan.dependency_keys(id);
        begin(observed, id, next, Effect::Resume { attempt: of.status.attempt, dependencies });
    }
}

/// Returns the status entry of an object. `Resuming` stays until the effect has been carried out.
fn shown(found: &ResumeObservation, before: &[ResumeStatus]) -> ResumeStatus {
    let status = &found.status;
    let same =
        |b: &&ResumeStatus| (b.kind, &b.namespace, &b.name) == (status.kind, &status.namespace, &status.name);
    let intended = before.iter().find(same).is_some_and(|b| b.state == ResumeState::Resuming);
    let mut shown = status.clone();
    if intended && status.state == ResumeState::Due {
        shown.state = ResumeState::Resuming;
    }
    shown
}

fn begin(observed: &Observation, id: ServiceId, next: &mut Next, effect: Effect) {
    if let Some(refused) = &observed.services[id].refused {
        next.block(refused.reason, "resume", refused.message.clone());
        next.wake.push(refused.again_at);
        if refused.again_at > observed.now {
            return;
        }
    }
    next.effect = Some(effect);
}
