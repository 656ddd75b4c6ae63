//! A step that runs: a task observes it whenever something changes that it looks at, and tells the plan where it says something else.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::Instrument;

use super::context::Context;
use super::observe;
use super::running::Running;
use crate::api::{ServiceRecoveryStatus, StepSpec};
use crate::engine::StepProgress;
use crate::plan::{Plan, ServiceId};
use crate::steps::{self, StepContext};

/// A step is observed this often even if nothing tells of a change: a watch may have died without a word.
const RESYNC: Duration = Duration::from_secs(60);
/// What could not be observed is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// One step being observed. Dropping it ends that, and nothing of the step itself.
pub(crate) struct StepTask {
    step: StepSpec,
    of: StepContext,
    index: usize,
    handle: AbortHandle,
    /// Kept alive here, as the index of wake-ups holds it weakly.
    _wake: Arc<Notify>,
}

impl Drop for StepTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Begins and ends observing, so that the step that is `wanted` is observed and no other.
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
    let observing = Observing { running: running.clone(), client, step: step.clone(), of: of.clone(), index };
    let task = tokio::spawn(observing.run(wake.clone()).instrument(span));
    held.step_task =
        Some(StepTask { step: step.clone(), of, index, handle: task.abort_handle(), _wake: wake });
}

struct Observing {
    running: Arc<Running>,
    client: Client,
    step: StepSpec,
    of: StepContext,
    index: usize,
}

impl Observing {
    async fn run(self, wake: Arc<Notify>) {
        loop {
            let (progress, pause) = match steps::observe(&self.client, &self.step, &self.of).await {
                Ok(progress) => (progress, RESYNC),
                // Whether it runs is not known. It is not started again for that, and not given up.
                Err(error) => (StepProgress::Running(format!("cannot be observed: {error}")), AGAIN_AFTER),
            };
            let has_ended = !matches!(progress, StepProgress::Running(_));
            self.record(progress);
            if has_ended {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wake.notified() => {}
            }
        }
    }

    fn record(&self, progress: StepProgress) {
        let mut state = self.running.state();
        let held = state.services.entry(self.of.service.clone()).or_default();
        if held.steps_of != self.of.attempt || held.steps.get(&self.index) == Some(&progress) {
            return;
        }
        tracing::info!(?progress, "the step says something else");
        held.steps.insert(self.index, progress);
        drop(state);
        self.running.wake_for(&self.of.service);
    }
}
