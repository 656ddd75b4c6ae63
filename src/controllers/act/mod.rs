//! Carries out what was decided for one service: writes its status first, as intent, and then performs the effect.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use k8s_openapi::jiff::SignedDuration;
use kube::Api;

use super::context::Context;
use super::metrics::Controller;
use super::running::Running;
use crate::api::{GROUP, Reason, ServiceRecovery, service_recovery_name};
use crate::calls::IoError;
use crate::clock;
use crate::engine::{Effect, Refusal, ServiceDecided};
use crate::plan::{Plan, Service, ServiceId};

mod inspect;
mod loosening;
mod quarantines;
mod records;
mod resume;
mod step;

pub(crate) use records::mark_orphaned;

/// Retry delay after a conflict. The watch delivers the other write at about the same time.
const CONFLICT_AGAIN_AFTER: SignedDuration = SignedDuration::from_millis(20);
/// Retry delay after a transient failure.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// Retry delay if a person has to change something, such as a grant, that no watch reports.
const REFUSED_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// One service with a running effect.
pub(crate) struct Act {
    pub(crate) context: Arc<Context>,
    pub(crate) running: Arc<Running>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) id: ServiceId,
    /// The ServiceRecovery that the decision is based on.
    pub(crate) record: Option<ServiceRecovery>,
    /// The status was written.
    pub(crate) wrote: bool,
}

/// Why an effect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{message}")]
    Refused { reason: Reason, message: String },
}

impl Act {
    pub(super) fn service(&self) -> &Service {
        &self.plan.services[self.id]
    }

    fn records(&self) -> Api<ServiceRecovery> {
        Api::namespaced(self.context.client.clone(), &self.plan.namespace)
    }

    fn name(&self) -> String {
        service_recovery_name(&self.plan.name, &self.service().name)
    }

    /// Writes the status, performs the effect, and marks the service as no longer busy.
    pub(crate) async fn carry_out(mut self, decided: ServiceDecided) {
        let began = Instant::now();
        // Without this, a panic would leave the service busy forever, with no reason in its status.
        let result = AssertUnwindSafe(self.try_carry_out(&decided)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| {
            let message = "bug: the operator panicked; see its log".to_owned();
            Err(refused(Reason::Panicked, message))
        });
        if let Some(effect) = &decided.effect {
            let (name, took) = (effect.name(), began.elapsed());
            self.context.process.metrics.carried_out(name, took);
            if result.is_ok() {
                tracing::info!(effect = name, seconds = took.as_secs_f64(), "effect carried out");
            }
        }
        let refused = result.err().map(|error| self.refusal(&error, decided.effect.as_ref()));
        // Without the status write, no effect was started, so the engine may write it again at once.
        let unwritten =
            refused.as_ref().filter(|_| decided.write.is_some() && !self.wrote).map(|r| r.again_at);
        {
            let mut state = self.running.state();
            let held = state.services.entry(self.service().name.clone()).or_default();
            held.busy = false;
            held.keep_refusal(refused, decided.effect.is_some());
            held.not_before = unwritten;
        }
        self.running.wake_for(&self.service().name);
    }

    fn refusal(&self, error: &ActError, effect: Option<&Effect>) -> Refusal {
        let (reason, again) = match error {
            ActError::Io(io) if io.is_conflict() => (Reason::Conflict, CONFLICT_AGAIN_AFTER),
            ActError::Refused { reason: Reason::Conflict, .. } => (Reason::Conflict, AGAIN_AFTER),
            ActError::Io(io) if io.is_transient() => (Reason::ApiServer, AGAIN_AFTER),
            ActError::Io(_) => (Reason::Refused, REFUSED_AGAIN_AFTER),
            ActError::Refused {
                reason: reason @ (Reason::DependencyNotRecovered | Reason::PlanChanged | Reason::NotAccepted),
                ..
            } => (*reason, AGAIN_AFTER),
            ActError::Refused { reason, .. } => (*reason, REFUSED_AGAIN_AFTER),
        };
        self.context.process.metrics.failed(Controller::Plan, reason.as_str());
        if reason != Reason::Conflict {
            let effect = effect.map_or("write status", Effect::name);
            tracing::warn!(effect, %reason, %error, "effect failed; will retry");
        }
        let now = clock::now();
        let again_at = now.checked_add(again).unwrap_or(now);
        Refusal { reason, message: error.to_string(), again_at, since: Some(now) }
    }

    async fn try_carry_out(&mut self, decided: &ServiceDecided) -> Result<(), ActError> {
        if let Some(status) = &decided.write {
            self.write_status(status).await?;
            self.wrote = true;
        }
        match &decided.effect {
            None => Ok(()),
            Some(Effect::Adopt) => self.adopt().await,
            Some(Effect::Accept { records }) => self.accept(records).await,
            Some(Effect::Inspect { attempt }) => self.inspect(*attempt).await,
            Some(Effect::Quarantine { namespaces }) => self.quarantine(namespaces).await,
            Some(Effect::CreateNamespaces { namespaces }) => self.create_namespaces(namespaces).await,
            Some(Effect::Claim { attempt }) => self.claim(*attempt).await,
            Some(Effect::Ask { isolation, attempt, reachable, dependencies }) => {
                self.request_isolation(*isolation, *attempt, reachable, dependencies).await
            }
            Some(Effect::Follow { room, dependencies }) => self.request_room(room, dependencies).await,
            Some(Effect::LookAtSuspended { attempt }) => self.read_suspended(*attempt).await,
            Some(Effect::Resume { attempt, dependencies }) => self.resume(*attempt, dependencies).await,
            Some(Effect::Step { index, attempt, dependencies }) => {
                self.step(*index, *attempt, dependencies).await
            }
        }
    }

    /// Keeps the API server's answer as the latest version.
    fn keep(&mut self, record: ServiceRecovery) {
        let mut state = self.running.state();
        let held = state.services.entry(self.service().name.clone()).or_default();
        held.own = Some(record.clone());
        held.own_since = Some(Instant::now());
        self.record = Some(record);
    }
}

pub(super) fn refused(reason: Reason, message: String) -> ActError {
    ActError::Refused { reason, message }
}

fn api_version() -> String {
    format!("{GROUP}/v1alpha1")
}
