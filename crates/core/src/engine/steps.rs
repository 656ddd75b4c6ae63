//! Steps: in order, one at a time, each with its intent written before it starts. A running step is observed; it takes as long as it
//! needs, and only its dependents wait for it.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::shorten;
use crate::api::service_recovery::{StepState, StepStatus};
use crate::api::step::ManualSpec;
use crate::api::{Reason, ServiceRecoveryStatus, StepPhase, StepSpec};
use crate::plan::ServiceId;
use crate::time::after;

use super::approvals;
use super::context::ServiceContext;
use super::next::{Next, time};
use super::{Effect, StepProgress, StepRun};

/// Default pause before a failed step is started again by itself.
const BACKOFF: Duration = Duration::from_secs(30);

/// Message of a step that undoes another one which has not begun before.
const NOTHING_TO_UNDO: &str = "there is nothing to undo";

/// Maximum number of steps in `begunBefore`.
const BEGUN_LIMIT: usize = 32;

/// Maximum length of a step's message, in characters.
const MESSAGE_LIMIT: usize = 512;

/// Progress of the steps of one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PhaseSteps {
    /// All steps have succeeded.
    Succeeded,
    /// A step has not succeeded yet, or a decision is needed.
    Unfinished,
}

impl ServiceContext<'_> {
    /// Runs the steps of one phase as far as one pass allows.
    pub(super) fn run_steps(&self, next: &mut Next, phase: StepPhase) -> PhaseSteps {
        let steps = &self.service().steps;
        if phase == StepPhase::AfterRelease && steps.iter().all(|step| step.phase != phase) {
            return PhaseSteps::Succeeded;
        }
        if !steps.iter().map(|step| &step.name).eq(next.status.steps.iter().map(|step| &step.name)) {
            let message =
                "the plan's steps changed while they were being carried out: retry carries out those of now";
            self.need(next, Reason::StepsChanged, &self.service().name, message, None);
            return PhaseSteps::Unfinished;
        }
        for (index, spec) in steps.iter().enumerate() {
            let step = &mut next.status.steps[index];
            if step.state == StepState::Running
                && let Some(progress) = self.of.steps.get(&StepRun { index, retries: step.retries })
            {
                follow(step, progress);
                let is_retried = retry(step, spec, self.observed.now);
                let retries = step.retries;
                if let Some(undo) = undo_of(steps, index).filter(|_| is_retried) {
                    let name = next.status.steps[undo].name.clone();
                    next.status.steps[undo] = StepStatus { retries, ..new_status(name) };
                }
            }
        }
        let is_left =
            |(step, status): (&StepSpec, &StepStatus)| step.phase == phase && !status.state.is_over();
        let Some(index) = steps.iter().zip(&next.status.steps).position(is_left) else {
            return PhaseSteps::Succeeded;
        };
        self.run_step(next, index);
        PhaseSteps::Unfinished
    }

    fn run_step(&self, next: &mut Next, index: usize) {
        if let Some(manual) = &self.service().steps[index].manual {
            self.run_manual(next, index, manual);
            return;
        }
        let step = next.status.steps[index].clone();
        let start = Effect::Step {
            index,
            attempt: self.of.status.attempt,
            dependencies: self.plan.dependency_keys(self.id),
        };
        match (step.state, self.of.steps.get(&StepRun { index, retries: step.retries })) {
            (StepState::Failed, _) => self.need(next, Reason::StepFailed, &step.name, &step.message, None),
            // A step that this process has started continues, whatever becomes of its plan, and is only observed.
            (StepState::Running, Some(StepProgress::Running(_) | StepProgress::Unobserved { .. })) => {
                next.observe_step = Some(index);
                let message = if step.message.is_empty() { "it runs" } else { &step.message };
                if !self.overruns(next, index, message) {
                    next.block(Reason::StepRunning, &step.name, message);
                }
            }
            (StepState::Running, Some(StepProgress::Retry { message, at, .. })) => {
                next.block(Reason::StepPending, &step.name, message.clone());
                next.wake.push(*at);
                if *at <= self.observed.now && self.unit.go {
                    self.effect(next, start);
                }
            }
            // Recorded as running but not started by this process: start it again, which is idempotent.
            (StepState::Running, _) if self.unit.go => self.effect(next, start),
            (StepState::Pending, _) if step.retry_at.as_ref().is_some_and(|at| at.0 > self.observed.now) => {
                next.block(Reason::StepPending, &step.name, step.message.clone());
                next.wake.extend(step.retry_at.map(|at| at.0));
            }
            (StepState::Pending, _) if self.unit.go => {
                let starting = &mut next.status.steps[index];
                starting.state = StepState::Running;
                starting.started_at = Some(time(self.observed.now));
                starting.retry_at = None;
                self.effect(next, start);
            }
            (StepState::Pending | StepState::Running | StepState::Done | StepState::Skipped, _) => {}
        }
    }

    /// Asks a person about a step that runs for too long. It is still followed, and goes on by itself once it ends.
    fn overruns(&self, next: &mut Next, index: usize, message: &str) -> bool {
        let timeout = self.service().steps[index].timeout;
        let started_at = next.status.steps[index].started_at.as_ref().map(|at| at.0);
        let (Some(timeout), Some(started_at)) = (timeout, started_at) else { return false };
        let due = after(started_at, timeout.0);
        if due > self.observed.now {
            next.wake.push(due);
            return false;
        }
        let name = next.status.steps[index].name.clone();
        let message = format!(
            "it runs since {started_at}, longer than its timeout of {timeout}, and is not started again: {message}. Skip goes on without it; \
             Abort isolates the service, which ends what runs"
        );
        self.need(next, Reason::StepOverrunning, &name, &message, None);
        true
    }

    /// Waits for people to do something, and to approve that it is done.
    fn run_manual(&self, next: &mut Next, index: usize, manual: &ManualSpec) {
        let name = self.service().steps[index].name.clone();
        let asked = approvals::of_step(&name, manual);
        let approvals = approvals::judge(self.plan, self.id, self.of, asked);
        self.count(next, &approvals);
        let step = &mut next.status.steps[index];
        if step.state == StepState::Pending {
            step.started_at = Some(time(self.observed.now));
        }
        let is_approved = approvals.missing.is_empty();
        step.state = if is_approved { StepState::Done } else { StepState::Running };
        step.message = shorten(&approvals.to_string(), MESSAGE_LIMIT);
        if !is_approved {
            let message = format!("{}: {approvals}", manual.instructions);
            self.publish(next, Reason::ApprovalNeeded, &name, &message, approvals.digest);
        }
    }

    /// Returns whether all clean room steps of another service have succeeded.
    pub(super) fn has_restored(&self, other: ServiceId) -> bool {
        let (steps, statuses) =
            (&self.plan.services[other].steps, &self.observed.services[other].status.steps);
        let mut in_clean_room =
            steps.iter().zip(statuses).filter(|(step, _)| step.phase == StepPhase::CleanRoom);
        statuses.len() == steps.len() && in_clean_room.all(|(_, status)| status.state.is_over())
    }
}

/// Updates the status of a running step.
fn follow(step: &mut StepStatus, progress: &StepProgress) {
    let (state, message) = match progress {
        StepProgress::Succeeded => (StepState::Done, ""),
        StepProgress::SucceededWith(message) => (StepState::Done, message.as_str()),
        StepProgress::Failed(message) => (StepState::Failed, message.as_str()),
        StepProgress::Running(message)
        | StepProgress::Unobserved { message, .. }
        | StepProgress::Retry { message, .. } => (StepState::Running, message.as_str()),
    };
    step.state = state;
    step.message = shorten(message, MESSAGE_LIMIT);
}

/// Starts a failed step again by itself, after a pause that doubles each time, if the plan says so. Returns whether it does.
fn retry(step: &mut StepStatus, spec: &StepSpec, now: Timestamp) -> bool {
    if step.state != StepState::Failed || step.retries >= spec.retries.unwrap_or(0) {
        return false;
    }
    let pause = spec.backoff.map_or(BACKOFF, |backoff| backoff.0);
    let pause = pause.saturating_mul(2u32.saturating_pow(u32::try_from(step.retries).unwrap_or(0)));
    step.state = StepState::Pending;
    step.retries += 1;
    let at = after(now, pause);
    step.retry_at = Some(time(at));
    step.message = shorten(&format!("failed, and starts again at {at}: {}", step.message), MESSAGE_LIMIT);
    true
}

/// Returns the initial status of a service's steps. A step that undoes another one runs only if that one began in an earlier attempt. The
/// intent of the first is written with it if it runs before the release, which saves a write.
pub(super) fn pending(steps: &[StepSpec], begun_before: &[String], now: Timestamp) -> Vec<StepStatus> {
    let mut pending: Vec<StepStatus> = steps.iter().map(|step| new_status(step.name.clone())).collect();
    for (index, step) in steps.iter().enumerate() {
        if let Some(undo) = undo_of(steps, index)
            && !begun_before.contains(&step.name)
        {
            pending[undo].state = StepState::Done;
            pending[undo].message = NOTHING_TO_UNDO.to_owned();
        }
    }
    let is_first = |(step, status): (&StepSpec, &StepStatus)| {
        step.phase == StepPhase::CleanRoom && status.state == StepState::Pending
    };
    if let Some(first) = steps.iter().zip(&pending).position(is_first) {
        pending[first].state = StepState::Running;
        pending[first].started_at = Some(time(now));
    }
    pending
}

/// Returns the index of the step that undoes a step: the one before it, as plans are compiled.
fn undo_of(steps: &[StepSpec], index: usize) -> Option<usize> {
    index.checked_sub(1).filter(|_| steps[index].undo.is_some())
}

fn new_status(name: String) -> StepStatus {
    StepStatus {
        name,
        state: StepState::Pending,
        message: String::new(),
        retries: 0,
        started_at: None,
        retry_at: None,
    }
}

/// Returns the steps that began in this attempt or before, and were not undone since.
pub(super) fn begun(status: &ServiceRecoveryStatus) -> Vec<String> {
    let is_undone = |name: &String| {
        let undo = StepSpec::undo_name(name);
        status.steps.iter().any(|step| step.name == undo && step.started_at.is_some() && step.state.is_over())
    };
    let now = status.steps.iter().filter(|step| step.started_at.is_some()).map(|step| &step.name);
    let before = status.begun_before.iter().filter(|name| !is_undone(name));
    let all: BTreeSet<&String> = now.chain(before).collect();
    all.into_iter().take(BEGUN_LIMIT).cloned().collect()
}
