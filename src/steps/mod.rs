//! Steps: one file each. A step acts as the plan's account, is idempotent, and says what stopped it.

use std::collections::BTreeMap;

use kube::Client;

use crate::access::Right;
use crate::api::StepSpec;
use crate::calls::IoError;
use crate::isolation::workloads::NotRecorded;

mod scale;

/// What a step may know of the service it restores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepContext {
    /// The service's namespaces.
    pub namespaces: Vec<String>,
    /// UID of the Quarantine of each namespace: records of another seal are ignored.
    pub seals: BTreeMap<String, String>,
}

/// Why a step did not get done. Each says which object, and why.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The API server refused, or could not be reached: the account's rights, the fence, a conflict.
    #[error(transparent)]
    Io(#[from] IoError),
    /// It is not known what starting these means.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NotRecorded(Vec<NotRecorded>),
    /// There is nothing to act on.
    #[error("{0}")]
    Nothing(String),
    /// The step names no action that this version knows.
    #[error("step {0} names no action that this version knows")]
    Unknown(String),
}

/// Which rights of the plan's account it takes to carry a step out.
#[must_use]
pub fn rights(step: &StepSpec, context: &StepContext) -> Vec<Right> {
    // Each action by name: one that is added does not compile before it says what it takes.
    let StepSpec { name: _, scale } = step;
    scale.iter().flat_map(|_| scale::rights(context)).collect()
}

/// Carries a step out. `client` acts as the plan's account. Doing it again changes nothing.
///
/// # Errors
/// [`StepError`], with the culprit's name.
pub async fn run(client: &Client, step: &StepSpec, context: &StepContext) -> Result<(), StepError> {
    match &step.scale {
        Some(scale) => scale::run(client, scale, context).await,
        None => Err(StepError::Unknown(step.name.clone())),
    }
}
