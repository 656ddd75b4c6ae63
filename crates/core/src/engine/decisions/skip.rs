//! `Skip`: goes on without a step that failed or overruns. It is recorded as an exception.

use crate::api::conditions::shorten;
use crate::api::service_recovery::StepState;
use crate::api::{Action, Reason};

use super::super::context::{ServiceContext, except};
use super::super::next::Next;
use super::{DecisionObservation, Row, Takes};

pub(super) const ROW: Row = Row {
    action: Action::Skip,
    answers: |reason| matches!(reason, Reason::StepFailed | Reason::StepDenied | Reason::StepOverrunning),
    outcome: "goes on without the step, as an exception",
    takes: Takes::OnTheQuestion(skip),
};

fn skip(_: &ServiceContext<'_>, next: &mut Next, decision: &DecisionObservation) {
    let Some(question) = next.status.decision.take() else { return };
    let asks = |reason: Reason| reason == question.reason;
    let culprit = next.blocks.iter().find(|block| asks(block.reason)).map(|block| block.name.clone());
    next.blocks.retain(|block| !asks(block.reason));
    let is_it = |name: &str| culprit.as_deref().is_none_or(|culprit| culprit == name);
    let Some(step) = next.status.steps.iter_mut().find(|step| !step.state.is_over() && is_it(&step.name))
    else {
        return;
    };
    let still_runs = if question.reason == Reason::StepOverrunning { " while it still ran," } else { "" };
    let by = format!("{} (Decision {}): {}", decision.by, decision.name, decision.reason);
    let exception = format!("step '{}' was skipped{still_runs} by {by}", step.name);
    step.state = StepState::Skipped;
    step.message = shorten(&format!("skipped{still_runs} by {by}"), 512);
    step.retry_at = None;
    next.observe_step = None;
    next.effect = None;
    except(next, &shorten(&exception, 600));
}
