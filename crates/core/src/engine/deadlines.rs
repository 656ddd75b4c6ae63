//! Deadlines: whatever has failed for `stepDeadline` asks a person. It gives its slot back, is tried again, and goes on by itself.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::service_recovery::StepState;
use crate::api::{Reason, Stage};

use super::context::ServiceContext;
use super::next::{Next, time};
use super::slots::is_armed;
use super::{ServiceObservation, StepProgress};

/// A failure that is over sooner is not recorded, which saves writes.
const BRIEF: SignedDuration = SignedDuration::from_secs(30);

/// Something that fails.
struct Failure<'a> {
    /// Name of the step, or of the service.
    culprit: &'a str,
    message: &'a str,
    since: Timestamp,
    /// A person is asked at once.
    is_denied: bool,
}

/// Returns what fails of a service.
fn failure<'a>(of: &'a ServiceObservation, service: &'a str) -> Option<Failure<'a>> {
    let running = of.status.steps.iter().enumerate().filter(|(_, step)| step.state == StepState::Running);
    let mut failing = running.filter_map(|(index, step)| {
        let (message, since, is_denied) = match of.step_progress(index)? {
            StepProgress::Retry { message, since, denied, .. } => (message, since, *denied),
            StepProgress::Unobserved { message, since } => (message, since, false),
            StepProgress::Running(_)
            | StepProgress::Succeeded
            | StepProgress::SucceededWith(_)
            | StepProgress::Failed(_) => return None,
        };
        Some(Failure { culprit: &step.name, message, since: *since, is_denied })
    });
    if let Some(failure) = failing.next() {
        return Some(failure);
    }
    let refused = of.refused.as_ref()?;
    Some(Failure { culprit: service, message: &refused.message, since: refused.since?, is_denied: false })
}

/// Returns whether a service that asks about a failure may try again now. One that waits for its Quarantine, or whose step cannot be
/// observed, has nothing to try.
pub(super) fn tries_again(of: &ServiceObservation, now: Timestamp) -> bool {
    let Some(decision) = of.status.decision.as_ref().filter(|decision| is_tried(decision.reason)) else {
        return false;
    };
    let running = of.status.steps.iter().enumerate().filter(|(_, step)| step.state == StepState::Running);
    for progress in running.filter_map(|(index, _)| of.step_progress(index)) {
        match progress {
            StepProgress::Retry { at, .. } => return *at <= now,
            StepProgress::Unobserved { .. } => return false,
            StepProgress::Running(_)
            | StepProgress::Succeeded
            | StepProgress::SucceededWith(_)
            | StepProgress::Failed(_) => {}
        }
    }
    match &of.refused {
        Some(refused) => refused.again_at <= now,
        // After a restart of the operator.
        None => decision.reason == Reason::StepDenied || of.status.failing_since.is_some(),
    }
}

/// Returns whether a question with this reason is asked while what failed is still tried.
fn is_tried(reason: Reason) -> bool {
    matches!(reason, Reason::DeadlineExceeded | Reason::StepDenied)
}

impl ServiceContext<'_> {
    /// Records since when something has failed, and asks a person once that is too long.
    pub(super) fn follow_deadline(&self, next: &mut Next) {
        let now = self.observed.now;
        let known = self.of.status.failing_since.as_ref().map(|since| since.0);
        let Some(failure) = failure(self.of, &self.service().name).filter(|_| self.is_its_turn()) else {
            // After a restart it is not known to fail until it was tried again.
            let is_tried = next.effect.is_some() && known.is_some();
            if !is_tried {
                next.status.failing_since = None;
            }
            self.ask_about_isolation(next);
            return;
        };
        let since = known.map_or(failure.since, |known| known.min(failure.since));
        let reason = if failure.is_denied { Reason::StepDenied } else { Reason::DeadlineExceeded };
        let overdue_at = if failure.is_denied { now } else { self.overdue_at(since) };
        let recorded_at = since.checked_add(BRIEF).unwrap_or(Timestamp::MAX).min(overdue_at);
        if recorded_at <= now {
            next.status.failing_since = Some(time(since));
        }
        if overdue_at > now {
            next.wake.extend([recorded_at, overdue_at]);
            return;
        }
        let message =
            format!("{}. It has failed since {}, and is tried again", failure.message, time(since).0);
        self.ask_while_trying(next, reason, failure.culprit, &message);
    }

    /// Asks about a Quarantine that does not become ready.
    fn ask_about_isolation(&self, next: &mut Next) {
        let waits = |namespace: &str| {
            next.blocks.iter().any(|block| block.reason == Reason::Isolation && block.name == namespace)
        };
        let late = self.of.quarantines.iter().filter(|q| waits(&q.namespace)).find_map(|q| {
            let found = q.found.as_ref()?;
            Some((q, found, self.overdue_at(found.unready_since?)))
        });
        let Some((quarantine, found, overdue_at)) = late else { return };
        if overdue_at > self.observed.now {
            next.wake.push(overdue_at);
            return;
        }
        let message = format!("its Quarantine is not ready: {}", found.message);
        self.ask_while_trying(next, Reason::DeadlineExceeded, &quarantine.namespace, &message);
    }

    /// Returns whether the service would go on if nothing failed.
    fn is_its_turn(&self) -> bool {
        if self.of.status.isolating.is_some() {
            return true;
        }
        let may_begin = !self.plan.suspend || self.of.status.stage > Stage::Isolated;
        self.unit.unmet.is_empty() && may_begin && is_armed(self.plan, self.observed)
    }

    fn overdue_at(&self, since: Timestamp) -> Timestamp {
        let deadline = SignedDuration::try_from(self.service().step_deadline).unwrap_or(SignedDuration::MAX);
        since.checked_add(deadline).unwrap_or(Timestamp::MAX)
    }

    /// Asks a person, and still tries.
    fn ask_while_trying(&self, next: &mut Next, reason: Reason, culprit: &str, message: &str) {
        let is_left_alone = next.status.stage == Stage::Recovered && next.status.isolating.is_none();
        if next.status.decision.is_some() || is_left_alone {
            return;
        }
        let effect = next.effect.take();
        let others = std::mem::take(&mut next.blocks);
        self.need(next, reason, culprit, message, None);
        next.blocks.extend(others.into_iter().filter(|block| block.name != culprit));
        next.effect = effect;
    }
}
