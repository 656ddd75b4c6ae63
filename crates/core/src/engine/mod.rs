//! Decides. (plan, what is observed, now) → (each service's next status, what to do, when to look again).
//!
//! Pure: no client, no clock, no I/O. The operator, the simulator and the property tests run this same code, and nothing
//! decides anywhere else. [`decide`] looks at a whole plan at once, so that slots and groups need no locks. [`Engine`] does the same
//! at the cost of what has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::api::quarantine::ControlName;
use crate::api::service_recovery::ResumeStatus;
use crate::api::{
    Action, ClusterService, Health, Isolation, Phase, PodSecurity, Reason, RecoveryPlanStatus, ServiceKey,
    ServiceRecoveryStatus,
};
use crate::plan::ServiceId;
use crate::plan::ratchet::{Requirements, Scope};

mod attempts;
mod blocks;
mod conditions;
mod context;
mod decide;
mod decisions;
mod gate_state;
mod host_access;
mod interruptions;
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
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub use crate::plan::GateKey;
pub use decide::{Engine, decide};
pub use gate_state::{Answer, GateState, Tracker};
pub use room::pod_security;
pub use services::Services;
pub use summary::{is_news, keep_times, unreadable};

/// All that is known of a plan's world at one moment.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The moment.
    pub now: Timestamp,
    /// The incident that the plan names, if it names one.
    pub incident: Presence,
    /// The service account as which the plan acts.
    pub account: Presence,
    /// One for each service, in the plan's order.
    pub services: Services,
}

/// Is a thing there?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// It is not.
    Missing,
    /// Nobody can say, and why.
    Unknown(String),
}

/// What is known of one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceObservation {
    /// Is there a ServiceRecovery?
    pub exists: bool,
    /// UID of the plan that it was last written for, where that is another than this plan.
    pub other_plan: Option<String>,
    /// `metadata.generation` of its ServiceRecovery.
    pub generation: Option<i64>,
    /// Its status as this process last wrote or saw it, whichever is newer.
    pub status: ServiceRecoveryStatus,
    /// The isolation it asks for, and in which attempt.
    pub asked: Option<Asked>,
    /// What its clean room may talk to, as it was last asked for.
    pub room: Room,
    /// The Quarantine of each of its namespaces, in their order.
    pub quarantines: Vec<QuarantineObservation>,
    /// What the gates of this attempt say, as far as they have been asked.
    pub gates: BTreeMap<GateKey, GateState>,
    /// How far the steps are that this process has started in this attempt.
    pub steps: BTreeMap<usize, StepProgress>,
    /// What is suspended in its namespaces, as this process looked at it in this attempt. `None`: it did not, or the plan has
    /// changed since.
    pub resumes: Option<Vec<ResumeObservation>>,
    /// The requirements last accepted, for each of its scopes ([`crate::plan::Plan::scopes`]), in their order. One that is not
    /// here has none.
    pub accepted: Vec<AcceptedState>,
    /// What its workloads ask for that Pod Security `baseline` forbids, as this process looked at them in this attempt. `None`: it
    /// did not, or the plan has changed since.
    pub host_access: Option<Vec<String>>,
    /// Why the last effect was refused, if it was.
    pub refused: Option<Refusal>,
    /// Decisions that name it, whether or not they fit what is asked.
    pub decisions: Vec<DecisionObservation>,
    /// An effect or a write for it is under way: nothing new is decided until it has ended.
    pub busy: bool,
    /// When its status was last written by this process.
    pub written_at: Option<Timestamp>,
}

/// An isolation, as asked in `ServiceRecovery.spec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub isolation: Isolation,
    /// In which attempt.
    pub attempt: i64,
}

/// What a clean room may do: whom its pods may talk to, and what they may ask of their node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Namespaces, sorted.
    pub reachable: Vec<String>,
    /// Services of the cluster itself, sorted.
    pub allow_egress: Vec<ClusterService>,
    /// What its pods may ask of their node.
    pub pod_security: PodSecurity,
}

/// What is on record of the requirements last accepted for a namespace or an external system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AcceptedState {
    /// Nothing.
    #[default]
    Missing,
    /// Nothing that counts: its Incident is gone. It is written over.
    Outdated {
        /// The record's resourceVersion.
        revision: String,
    },
    /// These.
    Record {
        /// The record's resourceVersion.
        revision: String,
        /// What it says.
        record: AcceptedRecord,
    },
    /// Nobody can say what was accepted.
    Unreadable {
        /// The record's resourceVersion.
        revision: String,
        /// Why.
        why: String,
    },
}

/// Requirements that were accepted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedRecord {
    /// What was accepted.
    pub requirements: Arc<Requirements>,
    /// By whom, in words.
    pub by: String,
    /// The loosenings that people have accepted, in words.
    pub exceptions: Vec<String>,
}

/// A record of accepted requirements that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepting {
    /// For what.
    pub scope: Scope,
    /// Only over the record of this resourceVersion. `None`: only where there is none.
    pub over: Option<String>,
    /// What it is to say.
    pub record: AcceptedRecord,
}

/// A CronJob or Job that isolating suspended, as it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeObservation {
    /// What to say of it.
    pub status: ResumeStatus,
    /// From then on that is true no more.
    pub changes_at: Option<Timestamp>,
}

/// One namespace's Quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineObservation {
    /// The namespace.
    pub namespace: String,
    /// An object of that name is there, even if it is being deleted or cannot be read.
    pub exists: bool,
    /// `None`: there is no Quarantine that could be claimed.
    pub found: Option<QuarantineState>,
}

/// A Quarantine that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineState {
    /// What it enforces now.
    pub isolation: Option<Isolation>,
    /// Is all that this level needs in place and tried, for what is asked of it now?
    pub ready: bool,
    /// Why it is not.
    pub message: String,
    /// The only thing that keeps it from being ready is a control that was tried and does not hold: which.
    pub lacking: Option<ControlName>,
    /// Who has claimed it.
    pub claim: ClaimState,
    /// Somebody holds it at this level, whatever a recovery asks for.
    pub hold: Option<Isolation>,
    /// The claim was held: this attempt gets nothing looser any more, though nobody holds it now.
    pub overruled: bool,
    /// Pods that were stopped, and that no workload brings back.
    pub unmanaged_pods: Vec<String>,
}

/// Who has claimed a Quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Nobody, or a plan that is gone.
    Free,
    /// This service, in this attempt.
    Mine {
        /// Which.
        attempt: i64,
    },
    /// Another plan or service.
    Other {
        /// `namespace/plan/service`.
        holder: String,
    },
}

/// How far a step is that this process has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepProgress {
    /// It runs, and what it says of itself.
    Running(String),
    /// It has done what it was to do.
    Succeeded,
    /// It was refused, or cannot work: a person is asked.
    Failed(String),
    /// It may work when it is started again.
    Retry {
        /// What went wrong.
        message: String,
        /// Not before.
        at: Timestamp,
    },
}

/// An effect that did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word for it.
    pub reason: Reason,
    /// Why, with the culprit's name.
    pub message: String,
    /// Not to be tried again before this.
    pub again_at: Timestamp,
}

/// A Decision object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionObservation {
    /// Its name.
    pub name: String,
    /// Who decided.
    pub by: String,
    /// What was decided.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// The digest of what was decided on.
    pub decided_on: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// In the plan's order: one for each service, or only for those that had to be decided again ([`Engine::decide`]).
    pub services: Vec<ServiceDecided>,
    /// The plan's own status.
    pub plan: RecoveryPlanStatus,
    /// Look again at this moment, even if nothing changes. `None`: only on change.
    pub wake_at: Option<Timestamp>,
}

/// What is to be done about one service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceDecided {
    /// Which.
    pub service: ServiceId,
    /// Its status from now on, where that is to be written now: before `effect` is begun.
    pub write: Option<Box<ServiceRecoveryStatus>>,
    /// What to do once the status is written.
    pub effect: Option<Effect>,
    /// The phases whose gates are to be asked.
    pub ask: Vec<Phase>,
    /// The step that runs and is to be observed.
    pub observe_step: Option<usize>,
    /// What this process has heard of its continuous gates.
    pub health: Health,
}

impl ServiceDecided {
    /// Its status from now on.
    #[must_use]
    pub fn status<'a>(&'a self, seen: &'a Observation) -> &'a ServiceRecoveryStatus {
        self.write.as_deref().unwrap_or(&seen.services[self.service].status)
    }
}

/// Something to do in the world. Each may be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Create the ServiceRecovery, or take over one that an earlier plan of this name left.
    Adopt,
    /// Record the requirements that are accepted.
    Accept {
        /// One record for each namespace, or the one of an external system.
        records: Vec<Accepting>,
    },
    /// Look at what its workloads ask of their node. Changes nothing.
    LookAtHostAccess {
        /// In this attempt.
        attempt: i64,
    },
    /// Make the Quarantines of these namespaces, as the plan's account, and remember that they were made.
    Quarantine {
        /// Those that have none, in their order.
        namespaces: Vec<String>,
    },
    /// Claim the Quarantines of all namespaces, in their order.
    Claim {
        /// For this attempt.
        attempt: i64,
    },
    /// Ask for an isolation. For a loosening, only after a live read of every dependency.
    Ask {
        /// Which.
        isolation: Isolation,
        /// In this attempt.
        attempt: i64,
        /// Namespaces that the clean room may talk to.
        reachable: Vec<String>,
        /// Must be recovered and healthy by a live read.
        dependencies: Vec<ServiceKey>,
    },
    /// Ask for another clean room than the one that there is: its dependencies changed, or the plan did.
    Follow {
        /// What it is to talk to from now on.
        room: Room,
        /// Those that come in anew: must be recovered and healthy by a live read. Taking away needs no proof.
        dependencies: Vec<ServiceKey>,
    },
    /// Look at what isolating suspended. Changes nothing.
    LookAtSuspended {
        /// In this attempt.
        attempt: i64,
    },
    /// Resume what the plan names, as it is when it is read then, after a live read of every dependency.
    Resume {
        /// In this attempt.
        attempt: i64,
        /// Must be recovered and healthy by a live read.
        dependencies: Vec<ServiceKey>,
    },
    /// Start a step, after a live read of every dependency. Starting one that was started before changes nothing.
    Step {
        /// Which.
        index: usize,
        /// In this attempt.
        attempt: i64,
        /// Must be recovered and healthy by a live read.
        dependencies: Vec<ServiceKey>,
    },
}

impl Effect {
    /// One word for it, for people and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Adopt => "Adopt",
            Self::Accept { .. } => "Accept",
            Self::LookAtHostAccess { .. } => "LookAtHostAccess",
            Self::Quarantine { .. } => "Quarantine",
            Self::Claim { .. } => "Claim",
            Self::Ask { .. } => "Ask",
            Self::Follow { .. } => "Follow",
            Self::LookAtSuspended { .. } => "LookAtSuspended",
            Self::Resume { .. } => "Resume",
            Self::Step { .. } => "Step",
        }
    }
}
