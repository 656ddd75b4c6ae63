//! Decisions of steps: whether they can work on a service, what they write, and their progress. The shell starts and observes them.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::api::{DnsLabel, StepAction, StepSpec};
use crate::isolation::Seal;
use crate::isolation::controls::workloads::NotRecorded;

pub mod apply;
pub mod inspect;
pub mod job;
pub mod manual;
pub mod pin_images;
pub mod restore_backup;
pub mod resume;
pub mod scale;
pub mod wait;

/// Input of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepContext {
    /// Namespace of the plan, and of the objects that a step reads as its input.
    pub plan_namespace: String,
    /// Name of the plan.
    pub plan: String,
    /// Name of the plan's ServiceAccount, in the plan's namespace.
    pub account: String,
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

impl StepContext {
    /// Returns the digest of what this start of the step is for: hexadecimal digits, the same each time within one attempt but for retries
    /// of a failed step. Nobody knows the time of the claim before it, so that what an earlier claim created is told apart.
    #[must_use]
    pub fn digest(&self) -> String {
        let Self { plan_uid, service, step, attempt, retries, claimed_at, .. } = self;
        let claimed_at = claimed_at.map(Timestamp::as_second);
        // The first start has the name that earlier versions gave it.
        let again = if *retries > 0 { format!("/{retries}") } else { String::new() };
        let digest = Sha256::digest(format!("{plan_uid}/{service}/{step}/{attempt}/{claimed_at:?}{again}"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns the namespace of a step's object. `what`: the object, for the message.
///
/// # Errors
/// The service does not have it, or the step names none and the service has several.
fn namespace_of<'a>(
    named: Option<&'a DnsLabel>,
    namespaces: &'a [String],
    what: &str,
) -> Result<&'a str, StepProblem> {
    match (named, namespaces) {
        (Some(named), _) if namespaces.contains(&named.0) => Ok(&named.0),
        (Some(named), _) => {
            Err(StepProblem::Unusable(format!("names namespace {}, which is none of the service's", named.0)))
        }
        (None, [only]) => Ok(only),
        (None, _) => {
            let all = namespaces.join(", ");
            Err(StepProblem::Unusable(format!("must name the namespace of its {what}: one of {all}")))
        }
    }
}

/// Returns the first `limit` of some names for a message, and how many more there are.
fn listed(names: &[String], limit: usize) -> String {
    let shown = names.iter().take(limit).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(limit) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
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
        None => Some(
            "does nothing that this version knows, or more than one thing: it needs exactly one action, such as scale or job"
                .to_owned(),
        ),
        Some(StepAction::Scale(_)) => None,
        Some(StepAction::Job(job)) => job::problem(job, namespaces),
        Some(StepAction::Manual(manual)) => manual::problem(manual),
        Some(StepAction::Apply(apply)) => apply::problem(apply, namespaces),
        Some(StepAction::Wait(wait)) => wait::problem(wait, namespaces),
        Some(StepAction::PinImages(pin)) => pin_images::problem(pin, namespaces),
        Some(StepAction::Resume(resume)) => resume::problem(resume, step.phase),
        Some(StepAction::RestoreBackup(restore)) => restore_backup::problem(restore, step.phase, namespaces),
    }
}
