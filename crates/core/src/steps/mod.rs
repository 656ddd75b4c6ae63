//! Decisions of steps: whether they can work on a service, what they write, and their progress. The shell starts and observes them.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::api::{StepAction, StepSpec};
use crate::isolation::Seal;
use crate::isolation::controls::workloads::NotRecorded;

pub mod inspect;
pub mod job;
pub mod manual;
pub mod scale;

/// Input of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepContext {
    /// UID of the plan.
    pub plan_uid: String,
    /// Name of the service.
    pub service: String,
    /// Name of the step.
    pub step: String,
    /// Number of the attempt.
    pub attempt: i64,
    /// How often the step has been started again in this attempt after it failed.
    pub retries: i32,
    /// When this attempt claimed the service's namespaces. Part of the names of what the step creates.
    pub claimed_at: Option<Timestamp>,
    /// Namespaces of the service.
    pub namespaces: Vec<String>,
    /// Sealing of each namespace. Records of other sealings are ignored.
    pub seals: BTreeMap<String, Seal>,
}

/// Why a step cannot work.
#[derive(Debug, thiserror::Error)]
pub enum StepProblem {
    /// The replicas of these workloads were not recorded.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NotRecorded(Vec<NotRecorded>),
    /// There is no object to act on, or it is unsuitable for the step.
    #[error("{0}")]
    Unusable(String),
}

/// Returns why a step can never work on a service with these namespaces. `None`: the plan shows no reason.
#[must_use]
pub fn problem(step: &StepSpec, namespaces: &[String]) -> Option<String> {
    match step.action() {
        None => Some("does not do exactly one thing that this version knows".to_owned()),
        Some(StepAction::Scale(_)) => None,
        Some(StepAction::Job(job)) => job::problem(job, namespaces),
        Some(StepAction::Manual(manual)) => manual::problem(manual),
    }
}
