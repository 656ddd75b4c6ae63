//! Steps: in order, one at a time, each with its intent written before it starts. A running step is observed; it takes as long as it
//! needs, and only its dependents wait for it.

use crate::api::conditions::shorten;
use crate::api::service_recovery::{StepState, StepStatus};
use crate::api::{Reason, StepPhase, StepSpec};
use crate::plan::ServiceId;

use super::context::ServiceContext;
use super::next::Next;
use super::{Effect, StepProgress};

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
        for (index, step) in next.status.steps.iter_mut().enumerate() {
            if step.state == StepState::Running
                && let Some(progress) = self.of.steps.get(&index)
            {
                follow(step, progress);
            }
        }
        let is_left =
            |(step, status): (&StepSpec, &StepStatus)| step.phase == phase && status.state != StepState::Done;
        let Some(index) = steps.iter().zip(&next.status.steps).position(is_left) else {
            return PhaseSteps::Succeeded;
        };
        self.run_step(next, index);
        PhaseSteps::Unfinished
    }

    fn run_step(&self, next: &mut Next, index: usize) {
        let step = next.status.steps[index].clone();
        let start = Effect::Step {
            index,
            attempt: self.of.status.attempt,
            dependencies: self.plan.dependency_keys(self.id),
        };
        match (step.state, self.of.steps.get(&index)) {
            (StepState::Failed, _) => self.need(next, Reason::StepFailed, &step.name, &step.message, None),
            // A step that this process has started continues, whatever becomes of its plan, and is only observed.
            (StepState::Running, Some(StepProgress::Running(_) | StepProgress::Unobserved { .. })) => {
                next.observe_step = Some(index);
                let message = if step.message.is_empty() { "it runs" } else { &step.message };
                next.block(Reason::StepRunning, &step.name, message);
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
            (StepState::Pending, _) if self.unit.go => {
                next.status.steps[index].state = StepState::Running;
                self.effect(next, start);
            }
            (StepState::Pending | StepState::Running | StepState::Done, _) => {}
        }
    }

    /// Returns whether all clean room steps of another service have succeeded.
    pub(super) fn has_restored(&self, other: ServiceId) -> bool {
        let (steps, statuses) =
            (&self.plan.services[other].steps, &self.observed.services[other].status.steps);
        let mut in_clean_room =
            steps.iter().zip(statuses).filter(|(step, _)| step.phase == StepPhase::CleanRoom);
        statuses.len() == steps.len() && in_clean_room.all(|(_, status)| status.state == StepState::Done)
    }
}

/// Updates the status of a running step.
fn follow(step: &mut StepStatus, progress: &StepProgress) {
    let (state, message) = match progress {
        StepProgress::Succeeded => (StepState::Done, ""),
        StepProgress::Failed(message) => (StepState::Failed, message.as_str()),
        StepProgress::Running(message)
        | StepProgress::Unobserved { message, .. }
        | StepProgress::Retry { message, .. } => (StepState::Running, message.as_str()),
    };
    step.state = state;
    step.message = shorten(message, MESSAGE_LIMIT);
}

/// Returns the initial status of a service's steps. The intent of the first is written with it if it runs before the release, which saves
/// a write.
pub(super) fn pending(steps: &[StepSpec]) -> Vec<StepStatus> {
    let pending = |step: &StepSpec| StepStatus {
        name: step.name.clone(),
        state: StepState::Pending,
        message: String::new(),
    };
    let mut pending: Vec<StepStatus> = steps.iter().map(pending).collect();
    let first = steps.iter().position(|step| step.phase == StepPhase::CleanRoom);
    if let Some(first) = first {
        pending[first].state = StepState::Running;
    }
    pending
}
