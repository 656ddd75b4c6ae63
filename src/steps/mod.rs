//! Steps: one file each, which reads and writes as the plan's account. What is decided is decided in the core's file of that name.
//!
//! A step starts, and is then observed until it ends; nothing waits for it in between. Starting one again that was started before
//! changes nothing, as all that it creates has names derived from plan, service, attempt and step.

use futures::future::BoxFuture;
use kube::Client;
pub use resurgam_core::steps::{StepContext, StepProblem};

use crate::access::Right;
use crate::api::step::{JobStepSpec, ScaleSpec};
use crate::api::{StepAction, StepSpec};
use crate::calls::IoError;
use crate::engine::StepProgress;
use crate::gates::Interest;

mod job;
mod scale;

/// Why a step did not get on. Each says which object, and why.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The API server refused, or could not be reached: the account's rights, the fence, a conflict.
    #[error(transparent)]
    Io(#[from] IoError),
    /// It cannot work.
    #[error(transparent)]
    Problem(#[from] StepProblem),
    /// The step names no action that this version knows.
    #[error("step {0} names no action that this version knows")]
    Unknown(String),
}

/// What each step's part of a plan can do.
trait Step: Sync {
    /// Which rights of the plan's account it takes: each request that `start` and `observe` make.
    fn rights(&self, context: &StepContext) -> Vec<Right>;
    /// What a change of wakes who observes it.
    fn interests(&self, context: &StepContext) -> Vec<Interest>;
    /// Starts it, unless it was started before in this attempt, and says how far it is.
    fn start<'a>(
        &'a self,
        client: &'a Client,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>>;
    /// Says how far it is, and changes nothing.
    fn observe<'a>(
        &'a self,
        client: &'a Client,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>>;
}

/// The registry: one line for each step.
fn step(spec: &StepSpec) -> Option<&dyn Step> {
    spec.action().map(|action| match action {
        StepAction::Scale(spec) => spec as &dyn Step,
        StepAction::Job(spec) => spec,
    })
}

/// Which rights of the plan's account it takes to carry a step out.
#[must_use]
pub fn rights(spec: &StepSpec, context: &StepContext) -> Vec<Right> {
    step(spec).map_or_else(Vec::new, |step| step.rights(context))
}

/// What a change of wakes who observes a step.
#[must_use]
pub fn interests(spec: &StepSpec, context: &StepContext) -> Vec<Interest> {
    step(spec).map_or_else(Vec::new, |step| step.interests(context))
}

/// Starts a step. `client` acts as the plan's account.
///
/// # Errors
/// [`StepError`], with the culprit's name.
pub async fn start(
    client: &Client,
    spec: &StepSpec,
    context: &StepContext,
) -> Result<StepProgress, StepError> {
    let step = step(spec).ok_or_else(|| StepError::Unknown(spec.name.clone()))?;
    step.start(client, context).await
}

/// Says how far a step is that was started. `client` acts as the plan's account.
///
/// # Errors
/// [`StepError`], with the culprit's name.
pub async fn observe(
    client: &Client,
    spec: &StepSpec,
    context: &StepContext,
) -> Result<StepProgress, StepError> {
    let step = step(spec).ok_or_else(|| StepError::Unknown(spec.name.clone()))?;
    step.observe(client, context).await
}

#[cfg(test)]
mod tests;
