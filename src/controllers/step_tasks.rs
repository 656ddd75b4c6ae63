//! Tasks that observe a running step, whenever an object that it depends on changes, and wake the plan when its progress changes.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::Instrument;

use super::context::Context;
use super::observe;
use super::running::Running;
use crate::api::{ServiceRecoveryStatus, StepSpec};
use crate::clock;
use crate::engine::{StepProgress, StepRun};
use crate::plan::{Plan, ServiceId};
use crate::steps::{self, StepClients, StepContext};

/// Pause before a failed observation is retried.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Task that observes one step. Dropping it ends the task, but not the step.
pub(crate) struct StepTask {
    step: StepSpec,
    of: StepContext,
    index: usize,
    handle: AbortHandle,
    /// Keeps the wake-up alive, which the index holds weakly.
    _wake: Arc<Notify>,
}

impl Drop for StepTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Starts and stops tasks so that exactly the `wanted` step is observed.
pub(super) fn update(
    context: &Context,
    running: &Arc<Running>,
    plan: &Plan,
    id: ServiceId,
    wanted: Option<usize>,
    status: &ServiceRecoveryStatus,
) {
    let service = &plan.services[id];
    let mut state = running.state();
    let account = context.account_client(plan, &mut state);
    let held = state.services.entry(service.name.clone()).or_default();
    let wanted = wanted.and_then(|index| {
        let step = service.steps.get(index)?;
        Some((index, step, observe::step_context(&context.stores, plan, service, step, status)))
    });
    let (Some((index, step, of)), Some(client)) = (wanted, account) else {
        held.step_task = None;
        return;
    };
    let is_same = |task: &StepTask| task.index == index && task.step == *step && task.of == of;
    if held.step_task.as_ref().is_some_and(|task| is_same(task) && !task.handle.is_finished()) {
        return;
    }
    let wake = Arc::new(Notify::new());
    context.wakeups.register(steps::interests(step, &of), &wake);
    let span = tracing::error_span!(
        parent: None,
        "step",
        plan = %running.key,
        service = service.name,
        attempt = of.attempt,
        step = step.name
    );
    let clients = context.step_clients(client);
    let observing = StepLoop { running: running.clone(), clients, step: step.clone(), of: of.clone(), index };
    let task = tokio::spawn(observing.run(wake.clone()).instrument(span));
    held.step_task =
        Some(StepTask { step: step.clone(), of, index, handle: task.abort_handle(), _wake: wake });
}

struct StepLoop {
    running: Arc<Running>,
    clients: StepClients,
    step: StepSpec,
    of: StepContext,
    index: usize,
}

impl StepLoop {
    async fn run(self, wake: Arc<Notify>) {
        let mut unobserved_since = None;
        let mut changes = steps::changes(&self.clients.client, &self.step, &self.of);
        loop {
            let (progress, pause) = match steps::observe(&self.clients, &self.step, &self.of).await {
                Ok(progress) => {
                    unobserved_since = None;
                    (progress, steps::interval(&self.step))
                }
                // The step's progress is unknown. It is neither started again nor given up.
                Err(error) => {
                    let since = *unobserved_since.get_or_insert_with(clock::now);
                    (
                        StepProgress::Unobserved { message: format!("cannot be observed: {error}"), since },
                        AGAIN_AFTER,
                    )
                }
            };
            let has_ended = !matches!(progress, StepProgress::Running(_) | StepProgress::Unobserved { .. });
            self.record(progress);
            if has_ended {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wake.notified() => {}
                Some(()) = changes.next() => {}
            }
        }
    }

    fn record(&self, progress: StepProgress) {
        let mut state = self.running.state();
        let held = state.services.entry(self.of.service.clone()).or_default();
        let run = StepRun { index: self.index, retries: self.of.retries };
        if held.steps_of != self.of.attempt || held.steps.get(&run) == Some(&progress) {
            return;
        }
        tracing::info!(?progress, "step progress changed");
        held.steps.insert(run, progress);
        drop(state);
        self.running.wake_for(&self.of.service);
    }
}
