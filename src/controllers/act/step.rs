//! Starts a step.

use k8s_openapi::jiff::SignedDuration;

use super::super::observe;
use super::{AGAIN_AFTER, Act, ActError, refused};
use crate::api::{Reason, ServiceKey};
use crate::clock;
use crate::engine::{StepProgress, StepRun};
use crate::steps::{self, StepError};

/// Pause before a step is tried again whose account lacks a right: no watch reports a grant.
const DENIED_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(15);

impl Act {
    /// Starts a step as the plan's account. The intent was written before.
    pub(super) async fn step(
        &mut self,
        index: usize,
        attempt: i64,
        dependencies: &[ServiceKey],
    ) -> Result<(), ActError> {
        futures::try_join!(
            self.plan_is_current(),
            self.requirements_are_accepted(),
            self.dependencies_stand(dependencies)
        )?;
        let service = self.service();
        let client = self.running.state().account.as_ref().map(|(_, client)| client.clone());
        let (Some(step), Some(client)) = (service.steps.get(index), client) else {
            return Err(refused(
                Reason::StepMissing,
                format!("step {index} of {} is no longer in the plan", service.name),
            ));
        };
        let status = self.record.as_ref().and_then(|record| record.status.as_ref());
        let Some(status) = status.filter(|status| status.attempt == attempt && status.claimed_at.is_some())
        else {
            let message = format!("ServiceRecovery {} has no claim of attempt {attempt}", self.name());
            return Err(refused(Reason::Conflict, message));
        };
        let run = StepRun::latest(status, index);
        let of = observe::step_context(&self.context.stores, &self.plan, service, step, status);
        let started = match steps::check(&self.context.client, &client, step, &of).await {
            Ok(()) => steps::start(&self.context.step_clients(client), step, &of).await,
            // Nothing was started, and nothing is until somebody grants it.
            Err(StepError::NotGranted { reason, message }) => return Err(refused(reason, message)),
            Err(error) => Err(error),
        };
        let mut state = self.running.state();
        let held = state.services.entry(service.name.clone()).or_default();
        if held.steps_of != attempt {
            held.steps.clear();
            held.steps_of = attempt;
        }
        let progress = match started {
            Ok(progress) => progress,
            Err(error) => match error.is_tried_again() {
                Some(denied) => {
                    let now = clock::now();
                    let at =
                        now.checked_add(if denied { DENIED_AGAIN_AFTER } else { AGAIN_AFTER }).unwrap_or(now);
                    let since = match held.steps.get(&run) {
                        Some(StepProgress::Retry { since, .. }) => *since,
                        _ => now,
                    };
                    StepProgress::Retry { message: error.to_string(), at, since, denied }
                }
                None => StepProgress::Failed(error.to_string()),
            },
        };
        held.steps.insert(run, progress);
        Ok(())
    }
}
