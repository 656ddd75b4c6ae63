//! Steps: one file each, which reads and writes as the plan's account. The core's file of the same name decides.
//!
//! A step is started and then observed until it ends. Starting a step again changes nothing, since the names of what it creates are
//! derived from plan, service, attempt and step.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use kube::Client;
use kube::core::ApiResource;
pub use resurgam_core::steps::{StepContext, StepProblem};

use crate::access::Right;
use crate::api::step::{
    ApplySpec, JobStepSpec, ManualSpec, PinImagesSpec, RestoreBackupSpec, ResumeStepSpec, ScaleSpec, WaitSpec,
};
use crate::api::{Reason, StepAction, StepSpec};
use crate::calls::IoError;
use crate::engine::StepProgress;
use crate::gates::Interest;
use crate::isolation::evidence::Evidence;
use crate::registries::Registries;
use crate::reviews::{RecoverRights, recover_rights};

mod apply;
mod job;
mod manual;
mod pin_images;
mod restore_backup;
mod resume;
mod scale;
mod wait;

/// Interval at which a step is observed whose objects are watched. It covers a change that a watch missed.
const RESYNC: Duration = Duration::from_secs(60);
/// Interval at which a step is observed whose objects are not watched.
const POLL: Duration = Duration::from_secs(5);

/// Why a step failed, with the object.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The API server refused, or could not be reached: the account's rights, the fence, a conflict.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The step can never succeed.
    #[error(transparent)]
    Problem(#[from] StepProblem),
    /// Something else has to end before the step can start: it is tried again.
    #[error("{0}")]
    Waiting(String),
    /// An account that writes for the step, and is not the plan's, lacks a right. The step is not started.
    #[error("{message}")]
    NotGranted {
        /// Reason of the blocker.
        reason: Reason,
        /// Message, with the account's name.
        message: String,
    },
    /// The step has no action that this version knows.
    #[error("step {0} names no action that this version knows")]
    Unknown(String),
}

impl StepError {
    /// Returns whether the step is to be started again: `Some(true)` if the account lacks a right, which a person grants.
    pub(crate) fn is_tried_again(&self) -> Option<bool> {
        match self {
            Self::Io(error) if error.is_denied() => Some(true),
            Self::Io(error) if error.is_transient() => Some(false),
            Self::Waiting(_) => Some(false),
            Self::Io(_) | Self::Problem(_) | Self::NotGranted { .. } | Self::Unknown(_) => None,
        }
    }
}

/// Returns the error of a read. A kind that is not served is named, with what is missing.
fn not_served(error: IoError, title: &str, resource: &ApiResource) -> StepError {
    if !error.is_not_served() {
        return error.into();
    }
    let ApiResource { plural, api_version, .. } = resource;
    StepProblem::Unusable(format!(
        "{title}: the API server does not serve {plural} in {api_version}: install its CRD"
    ))
    .into()
}

/// An account that writes for a step into a clean room, and is not the plan's. The fence lets it in by `recover` on the Quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub account: String,
    /// Namespace that it writes into.
    pub into: String,
}

impl Writer {
    /// Returns the right that it needs.
    #[must_use]
    pub fn right(&self) -> Right {
        Right::on_quarantine("recover", Some(&self.into))
    }

    /// Returns what it holds, as the operator reviews it.
    ///
    /// # Errors
    /// A review failed.
    pub(crate) async fn review(&self, operator: &Client) -> Result<RecoverRights, IoError> {
        recover_rights(operator, (&self.namespace, &self.account), &self.into).await
    }
}

/// What steps use besides the API server, as the operator is configured. The same for all plans.
#[derive(Clone, Debug, Default)]
pub struct StepServices {
    /// Where logs are kept. `None`: nowhere.
    pub evidence: Option<Arc<Evidence>>,
    /// The registries that artifacts may come from. `None`: from nowhere.
    pub registries: Option<Arc<Registries>>,
}

/// What one step reads and writes with.
#[derive(Clone)]
pub struct StepClients {
    /// Client that impersonates the plan's account.
    pub client: Client,
    /// What the operator is configured with.
    pub services: StepServices,
}

impl StepClients {
    /// Returns the clients of a step without a store and without registries.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, services: StepServices::default() }
    }
}

/// The implementation of a step, on its part of the spec.
trait Step: Sync {
    /// Returns the rights of the plan's account that `start` and `observe` require.
    fn rights(&self, context: &StepContext) -> Vec<Right>;
    /// Returns the objects whose changes wake its observer.
    fn interests(&self, context: &StepContext) -> Vec<Interest>;
    /// Returns the kinds that the step uses and that a cluster may lack.
    fn kinds(&self) -> Vec<ApiResource> {
        Vec::new()
    }
    /// Returns the longest time between two observations.
    fn interval(&self) -> Duration {
        RESYNC
    }
    /// Returns the accounts that write for the step and are not the plan's.
    fn writers(&self, _context: &StepContext) -> Vec<Writer> {
        Vec::new()
    }
    /// Checks, as the operator, what the plan's account cannot know, such as the rights of another account that writes for the step.
    /// `operator`: its client; `client` impersonates the plan's account.
    fn check<'a>(
        &'a self,
        _operator: &'a Client,
        _client: &'a Client,
        _context: &'a StepContext,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        std::future::ready(Ok(())).boxed()
    }
    /// Reads, as the plan's account and before the day, what the step is configured with, and returns the rights that follow from it
    /// beside [`Step::rights`].
    fn prepare<'a>(
        &'a self,
        _clients: &'a StepClients,
        _context: &'a StepContext,
    ) -> BoxFuture<'a, Result<Vec<Right>, StepError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
    /// Returns a stream that yields whenever what it follows may have changed. A step that only follows its `interests` has none.
    fn changes(&self, _client: &Client, _context: &StepContext) -> BoxStream<'static, ()> {
        stream::pending().boxed()
    }
    /// Starts the step unless it was started in this attempt. Returns its progress.
    fn start<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>>;
    /// Returns the step's progress without changing anything.
    fn observe<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>>;
}

/// Returns the implementation of a step: one line per type.
fn step(spec: &StepSpec) -> Option<&dyn Step> {
    spec.action().map(|action| match action {
        StepAction::Scale(spec) => spec as &dyn Step,
        StepAction::Job(spec) => spec,
        StepAction::Manual(spec) => spec,
        StepAction::Apply(spec) => spec,
        StepAction::Wait(spec) => spec,
        StepAction::PinImages(spec) => spec,
        StepAction::Resume(spec) => spec,
        StepAction::RestoreBackup(spec) => spec,
    })
}

/// Returns the rights of the plan's account that a step requires.
#[must_use]
pub fn rights(spec: &StepSpec, context: &StepContext) -> Vec<Right> {
    step(spec).map_or_else(Vec::new, |step| step.rights(context))
}

/// Returns the kinds that a step uses and that a cluster may lack.
#[must_use]
pub fn kinds(spec: &StepSpec) -> Vec<ApiResource> {
    step(spec).map_or_else(Vec::new, Step::kinds)
}

/// Returns the accounts that write for a step and are not the plan's.
#[must_use]
pub fn writers(spec: &StepSpec, context: &StepContext) -> Vec<Writer> {
    step(spec).map_or_else(Vec::new, |step| step.writers(context))
}

/// Returns the objects whose changes wake a step's observer.
#[must_use]
pub fn interests(spec: &StepSpec, context: &StepContext) -> Vec<Interest> {
    step(spec).map_or_else(Vec::new, |step| step.interests(context))
}

/// Returns the longest time between two observations of a step.
#[must_use]
pub fn interval(spec: &StepSpec) -> Duration {
    step(spec).map_or(RESYNC, Step::interval)
}

/// Returns a stream that yields whenever a step's observer has to look again, beside its [`interests`]. It never ends.
pub fn changes(client: &Client, spec: &StepSpec, context: &StepContext) -> BoxStream<'static, ()> {
    step(spec).map_or_else(|| stream::pending().boxed(), |step| step.changes(client, context))
}

/// Reads what a step is configured with, and returns the rights that follow from it beside [`rights`]. `clients` are of the plan's account.
///
/// # Errors
/// [`StepError`]: it cannot be read, or not be used.
pub async fn prepare(
    clients: &StepClients,
    spec: &StepSpec,
    context: &StepContext,
) -> Result<Vec<Right>, StepError> {
    let step = step(spec).ok_or_else(|| StepError::Unknown(spec.name.clone()))?;
    step.prepare(clients, context).await
}

/// Checks what has to hold before a step is started, as the operator. `client` impersonates the plan's account.
///
/// # Errors
/// [`StepError`], with the culprit's name.
pub async fn check(
    operator: &Client,
    client: &Client,
    spec: &StepSpec,
    context: &StepContext,
) -> Result<(), StepError> {
    let step = step(spec).ok_or_else(|| StepError::Unknown(spec.name.clone()))?;
    step.check(operator, client, context).await
}

/// Starts a step. `clients` are of the plan's account.
///
/// # Errors
/// [`StepError`], with the culprit's name.
pub async fn start(
    clients: &StepClients,
    spec: &StepSpec,
    context: &StepContext,
) -> Result<StepProgress, StepError> {
    let step = step(spec).ok_or_else(|| StepError::Unknown(spec.name.clone()))?;
    step.start(clients, context).await
}

/// Returns the progress of a started step. `clients` are of the plan's account.
///
/// # Errors
/// [`StepError`], with the culprit's name.
pub async fn observe(
    clients: &StepClients,
    spec: &StepSpec,
    context: &StepContext,
) -> Result<StepProgress, StepError> {
    let step = step(spec).ok_or_else(|| StepError::Unknown(spec.name.clone()))?;
    step.observe(clients, context).await
}

#[cfg(test)]
mod tests;
