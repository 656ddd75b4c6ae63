//! What each step decides: which plans it can serve, what it writes, how far it is. Starting and observing one is the shell's.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::api::{StepAction, StepSpec};
use crate::isolation::controls::workloads::NotRecorded;

pub mod job;
pub mod scale;

/// What a step may know of the service that it restores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepContext {
    /// UID of the plan.
    pub plan_uid: String,
    /// The service.
    pub service: String,
    /// The step.
    pub step: String,
    /// The attempt.
    pub attempt: i64,
    /// When this attempt claimed the service's namespaces. Nothing that was there before is the step's.
    pub claimed_at: Option<Timestamp>,
    /// The service's namespaces.
    pub namespaces: Vec<String>,
    /// UID of the Quarantine of each namespace: records of another seal are ignored.
    pub seals: BTreeMap<String, String>,
}

/// Why a step cannot work, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum StepProblem {
    /// It is not known what starting these means.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NotRecorded(Vec<NotRecorded>),
    /// There is nothing to act on, or it is not what the step is for.
    #[error("{0}")]
    Unusable(String),
}

/// What keeps a step from ever working on a service that lives in these namespaces. `None`: nothing that can be told from the plan.
#[must_use]
pub fn problem(step: &StepSpec, namespaces: &[String]) -> Option<String> {
    match step.action() {
        None => Some("does not do exactly one thing that this version knows".to_owned()),
        Some(StepAction::Scale(_)) => None,
        Some(StepAction::Job(job)) => job::problem(job, namespaces),
    }
}
