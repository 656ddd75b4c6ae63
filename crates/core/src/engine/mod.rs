//! The decision engine. Input: a plan, an observation and the time. Output: each service's next status, the effects, and the next
//! wake-up.
//!
//! Pure: no client, no clock, no I/O. The operator, the simulator and the property tests run the same code, and nothing is decided
//! anywhere else. [`decide`] decides about a whole plan at once, so that slots and groups need no locks. [`Engine`] gives the same
//! results at the cost of what has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::api::quarantine::ControlName;
use crate::api::recovery_plan::EgressBlock;
use crate::api::service_recovery::ResumeStatus;
use crate::api::{
    Action, ClusterService, Health, Isolation, Phase, PodSecurity, Reason, RecoveryPlanStatus, ServiceKey,
    ServiceRecoveryStatus,
};
use crate::plan::ServiceId;
use crate::plan::ratchet::{Requirements, Scope};

mod approvals;
mod attempts;
mod blocks;
mod conditions;
mod context;
mod deadlines;
mod decide;
mod decisions;
mod gate_state;
mod inspection;
mod integrity;
mod interruptions;
mod isolating;
mod memory;
mod next;
mod phase_gates;
mod quarantines;
mod ratchet;
mod resumes;
mod room;
mod services;
mod slots;
mod stages;
mod steps;
mod summary;
mod superseded;
mod verdict;
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::plan::GateKey;
pub use decide::{Engine, decide};
pub use gate_state::{Answer, GateState, Tracker};
pub use inspection::{Inspection, Rollout};
pub use room::pod_security;
pub use services::Services;
pub use summary::{is_news, keep_times, unreadable};
pub use verdict::{DecisionVerdict, judge_decision, without_plan};

/// Everything observed about a plan at one moment.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Time of the observation.
    pub now: Timestamp,
    /// The incident that the plan names, if any.
    pub incident: Presence,
    /// `compromisedSince` of that incident.
    pub compromised_since: Option<Timestamp>,
    /// The plan's ServiceAccount.
    pub account: Presence,
    /// One observation per service, in the plan's order.
    pub services: Services,
}

/// Whether an object exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It exists.
    Present,
    /// It does not exist.
    Missing,
    /// It could not be determined, with the reason.
    Unknown(String),
}

/// Everything observed about one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceObservation {
    /// Whether its ServiceRecovery exists.
    pub exists: bool,
    /// UID of the plan that its ServiceRecovery was last written for, if that is not this plan.
    pub other_plan: Option<String>,
    /// `metadata.generation` of its ServiceRecovery.
    pub generation: Option<i64>,
    /// Its status, as last written or read by this process, whichever is newer.
    pub status: ServiceRecoveryStatus,
    /// The isolation that it requests, and in which attempt.
    pub asked: Option<Asked>,
    /// What its clean room may connect to, as last requested.
    pub room: Room,
    /// The Quarantine of each of its namespaces, in their order.
    pub quarantines: Vec<QuarantineObservation>,
    /// The Quarantine of each namespace of the original that it is rebuilt beside, in their order.
    pub originals: Vec<QuarantineObservation>,
    /// State of the gates that have been evaluated in this attempt.
    pub gates: BTreeMap<GateKey, GateState>,
    /// Progress of the steps that this process has started in this attempt.
    pub steps: BTreeMap<StepRun, StepProgress>,
    /// Suspended CronJobs and Jobs in its namespaces, as this process read them in this attempt. `None`: not read, or the plan has
    /// changed since.
    pub resumes: Option<Vec<ResumeObservation>>,
    /// Requirements last accepted, for each of its scopes ([`crate::plan::Plan::scopes`]), in their order. Missing entries count as not
    /// accepted.
    pub accepted: Vec<AcceptedState>,
    /// Its workloads, as this process read them in this attempt. `None`: not read, or the plan has changed since.
    pub inspection: Option<Inspection>,
    /// Why the last effect was denied, if it was.
    pub refused: Option<Refusal>,
    /// Decisions for this service, whether or not they answer the current question.
    pub decisions: Vec<DecisionObservation>,
    /// Whether an effect or a write is in progress. Nothing new is decided until it has ended.
    pub busy: bool,
    /// When this process last wrote its status.
    pub written_at: Option<Timestamp>,
}

impl ServiceObservation {
    /// Returns the progress of the latest start of a step. `None`: this process has not started it.
    #[must_use]
    pub fn step_progress(&self, index: usize) -> Option<&StepProgress> {
        self.steps.get(&StepRun::latest(&self.status, index))
    }
}

/// An isolation requested in `ServiceRecovery.spec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Requested level.
    pub isolation: Isolation,
    /// Attempt that requested it.
    pub attempt: i64,
}

/// Permissions of a clean room: what its pods may connect to, and their host access.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Namespaces, sorted.
    pub reachable: Vec<String>,
    /// Cluster services, sorted.
    pub allow_egress: Vec<ClusterService>,
    /// Addresses outside the cluster, sorted.
    pub allow_egress_to: Vec<EgressBlock>,
    /// Pod Security Standard of its pods.
    pub pod_security: PodSecurity,
}

/// State of the record of the requirements last accepted for a namespace or an external system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AcceptedState {
    /// No record.
    #[default]
    Missing,
    /// A record that no longer counts, as its Incident is deleted. It is overwritten.
    Outdated {
        /// The record's resourceVersion.
        revision: String,
    },
    /// A valid record.
    Record {
        /// The record's resourceVersion.
        revision: String,
        /// Content of the record.
        record: AcceptedRecord,
    },
    /// A record that cannot be decoded.
    Unreadable {
        /// The record's resourceVersion.
        revision: String,
        /// Why it cannot be decoded.
        why: String,
    },
}

/// Accepted requirements, and who accepted them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedRecord {
    /// The requirements.
    pub requirements: Arc<Requirements>,
    /// Who accepted them, as a message.
    pub by: String,
    /// Loosenings that people have accepted, as messages.
    pub exceptions: Vec<String>,
}

/// A record of accepted requirements to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequirementsWrite {
    /// Scope of the record.
    pub scope: Scope,
    /// resourceVersion of the record to overwrite. `None`: the record must not exist.
    pub over: Option<String>,
    /// Content of the record.
    pub record: AcceptedRecord,
}

/// A CronJob or Job that isolation suspended, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeObservation {
    /// Its entry in the status.
    pub status: ResumeStatus,
    /// When that entry becomes outdated.
    pub changes_at: Option<Timestamp>,
}

/// The Quarantine of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineObservation {
    /// The namespace.
    pub namespace: String,
    /// Whether an object of that name exists, even if it is being deleted or cannot be decoded.
    pub exists: bool,
    /// Its state. `None`: there is no Quarantine that could be claimed.
    pub found: Option<QuarantineState>,
}

/// State of an existing Quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineState {
    /// Level that it enforces now.
    pub isolation: Option<Isolation>,
    /// Whether everything that the requested level needs is in place and tested.
    pub ready: bool,
    /// Why it is not ready.
    pub message: String,
    /// Since when it has not been ready, if it is not.
    pub unready_since: Option<Timestamp>,
    /// The control that was tested and does not hold, if that is the only reason why it is not ready.
    pub lacking: Option<ControlName>,
    /// Its claim.
    pub claim: ClaimState,
    /// Level at which a person holds it, whatever a recovery requests.
    pub hold: Option<Isolation>,
    /// Whether a hold has overruled the claim: this attempt gets nothing looser, even after the hold is removed.
    pub overruled: bool,
    /// Whether its namespace does not exist. It is on the isolation lists already.
    pub is_namespace_missing: bool,
    /// Pods that were stopped and that no workload recreates.
    pub unmanaged_pods: Vec<String>,
}

/// Claim of a Quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// No claim, or the claim of a plan that no longer exists.
    Free,
    /// This service, in this attempt.
    Mine {
        /// The attempt.
        attempt: i64,
    },
    /// Another plan or service.
    Other {
        /// `namespace/plan/service`.
        holder: String,
    },
}

/// One start of a step within an attempt. What an earlier one came to says nothing of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepRun {
    /// Index of the step in its service.
    pub index: usize,
    /// How often it had been started again before.
    pub retries: i32,
}

impl StepRun {
    /// Returns the latest start of a step, as its status records it.
    #[must_use]
    pub fn latest(status: &ServiceRecoveryStatus, index: usize) -> Self {
        Self { index, retries: status.steps.get(index).map_or(0, |step| step.retries) }
    }
}

/// Progress of a step that this process has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepProgress {
    /// Running, with its message.
    Running(String),
    /// Completed.
    Succeeded,
    /// Completed, with what it did: the status keeps that.
    SucceededWith(String),
    /// Denied, or cannot succeed: a decision is needed.
    Failed(String),
    /// Running, as far as is known: it cannot be observed.
    Unobserved {
        /// Why it cannot be observed.
        message: String,
        /// Since when.
        since: Timestamp,
    },
    /// Failed, and may succeed when it is started again.
    Retry {
        /// What went wrong.
        message: String,
        /// Earliest time of the next start.
        at: Timestamp,
        /// Since when it has failed.
        since: Timestamp,
        /// Whether the plan's account lacks a right: a person is asked at once.
        denied: bool,
    },
}

/// An effect that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the blocker.
    pub reason: Reason,
    /// Message, with the culprit's name.
    pub message: String,
    /// Earliest time of the next try.
    pub again_at: Timestamp,
    /// Since when it has failed. `None`: it is not an effect that failed.
    pub since: Option<Timestamp>,
}

/// A Decision object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionObservation {
    /// Name of the Decision.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// When it was created. `None`: not known.
    pub created_at: Option<Timestamp>,
    /// Whether its own status says that it took effect.
    pub is_applied: bool,
    /// Who made it.
    pub by: String,
    /// Its action.
    pub action: Action,
    /// Reason given for it.
    pub reason: String,
    /// Digest of the state that was decided on.
    pub decided_on: String,
    /// Group of its author in whose name it was made.
    pub group: Option<String>,
}

/// Result of a decision about a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// One result per service in the plan's order, or only those that had to be decided again ([`Engine::decide`]).
    pub services: Vec<ServiceDecided>,
    /// Status of the plan.
    pub plan: RecoveryPlanStatus,
    /// When to decide again even if nothing changes. `None`: only on a change.
    pub wake_at: Option<Timestamp>,
}

/// Result of a decision about one service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceDecided {
    /// The service.
    pub service: ServiceId,
    /// Its next status, if it is to be written now, before `effect` begins.
    pub write: Option<Box<ServiceRecoveryStatus>>,
    /// Effect to carry out once the status is written.
    pub effect: Option<Effect>,
    /// Phases whose gates are to be evaluated.
    pub ask: Vec<Phase>,
    /// Index of the step that is running and is to be observed.
    pub observe_step: Option<usize>,
    /// Health of its continuous gates, as this process observed it.
    pub health: Health,
}

impl ServiceDecided {
    /// Returns its next status.
    #[must_use]
    pub fn status<'a>(&'a self, seen: &'a Observation) -> &'a ServiceRecoveryStatus {
        self.write.as_deref().unwrap_or(&seen.services[self.service].status)
    }
}

/// An action on the cluster. Each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Create the ServiceRecovery, or take over one that an earlier plan of this name left.
    Adopt,
    /// Record accepted requirements.
    Accept {
        /// One record per namespace, or the one of an external system.
        records: Vec<RequirementsWrite>,
    },
    /// Read what its workloads need and how they come back. Changes nothing.
    Inspect {
        /// The attempt.
        attempt: i64,
    },
    /// Create the Quarantines of these namespaces with the plan's account, and record that they were created.
    Quarantine {
        /// Namespaces without a Quarantine, in their order.
        namespaces: Vec<String>,
    },
    /// Create these namespaces with the plan's account. Each has a Quarantine, and is on the isolation lists.
    CreateNamespaces {
        /// Namespaces that do not exist, in their order.
        namespaces: Vec<String>,
    },
    /// Claim the Quarantines of all namespaces, in their order.
    Claim {
        /// The attempt.
        attempt: i64,
    },
    /// Request an isolation. A loosening needs a live read of every dependency.
    Ask {
        /// Requested level.
        isolation: Isolation,
        /// The attempt.
        attempt: i64,
        /// Namespaces that the clean room may connect to.
        reachable: Vec<String>,
        /// Dependencies that must be recovered and healthy by a live read.
        dependencies: Vec<ServiceKey>,
    },
    /// Change the permissions of the clean room, as its dependencies or the plan changed.
    Follow {
        /// New permissions.
        room: Room,
        /// Dependencies that are added: they must be recovered and healthy by a live read. Removing one needs no proof.
        dependencies: Vec<ServiceKey>,
    },
    /// Read the suspended CronJobs and Jobs. Changes nothing.
    LookAtSuspended {
        /// The attempt.
        attempt: i64,
    },
    /// Resume what the plan names, as it is read then, after a live read of every dependency.
    Resume {
        /// The attempt.
        attempt: i64,
        /// Dependencies that must be recovered and healthy by a live read.
        dependencies: Vec<ServiceKey>,
    },
    /// Start a step after a live read of every dependency. Starting it again is idempotent.
    Step {
        /// Index of the step.
        index: usize,
        /// The attempt.
        attempt: i64,
        /// Dependencies that must be recovered and healthy by a live read.
        dependencies: Vec<ServiceKey>,
    },
}

impl Effect {
    /// Returns the name of the effect, for messages and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Adopt => "Adopt",
            Self::Accept { .. } => "Accept",
            Self::Inspect { .. } => "Inspect",
            Self::Quarantine { .. } => "Quarantine",
            Self::CreateNamespaces { .. } => "CreateNamespaces",
            Self::Claim { .. } => "Claim",
            Self::Ask { .. } => "Ask",
            Self::Follow { .. } => "Follow",
            Self::LookAtSuspended { .. } => "LookAtSuspended",
            Self::Resume { .. } => "Resume",
            Self::Step { .. } => "Step",
        }
    }
}
