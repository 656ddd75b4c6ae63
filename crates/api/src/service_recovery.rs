//! `ServiceRecovery`: the recovery of one service.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quarantine::ControlName;
use super::recovery_plan::EgressBlock;
use super::{
    Action, AspectStatus, ClusterService, DnsLabel, Isolation, Phase, Proof, Reason, Verdict, conditions,
};

/// Recovery of one service. Only the operator writes it; its name is `<plan>.<service>`. It is kept as history after its plan is deleted.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "resurgam.dev",
    version = "v1alpha1",
    kind = "ServiceRecovery",
    plural = "servicerecoveries",
    shortname = "srec",
    category = "recovery",
    namespaced,
    status = "ServiceRecoveryStatus",
    derive = "PartialEq",
    doc = "Recovery of one service. Only the operator writes it; it is kept as history after its plan is deleted.",
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.planRef.name"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Tier", type_ = "integer", json_path = ".spec.tier"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".status.stage"),
    printcolumn(name = "Isolation", type_ = "string", json_path = ".status.isolation"),
    printcolumn(name = "Waiting for", type_ = "string", json_path = ".status.waitingFor"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRecoverySpec {
    /// The plan that the service belongs to.
    pub plan_ref: PlanRef,
    /// Name of the service.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// The service's tier, copied from the plan for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<i32>,
    /// Namespaces of the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub namespaces: Vec<DnsLabel>,
    /// The attempt that requests `isolation`.
    #[serde(default = "first_attempt")]
    #[schemars(range(min = 1))]
    pub attempt: i64,
    /// Isolation level requested of the service's Quarantines. Absent: each Quarantine enforces the level of its own spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Namespaces that the clean room may connect to: those of recovered dependencies and of the service's group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub reachable: Vec<DnsLabel>,
    /// Cluster services that the clean room may connect to, as the plan allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_egress: Vec<ClusterService>,
    /// Addresses outside the cluster that the clean room may connect to, as the plan allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_egress_to: Vec<EgressBlock>,
    /// Pod Security Standard of the clean room. `Privileged` only if the plan sets `hostAccess` and a person has accepted it.
    #[serde(default)]
    pub pod_security: PodSecurity,
    /// Controls that do not hold, and that a Decision accepted in this attempt. No other failing control is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub accepted: Vec<AcceptedControl>,
}

/// Pod Security Standard of a namespace. A later variant is looser.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum PodSecurity {
    /// `baseline`: pods get no access to their host.
    #[default]
    Baseline,
    /// `privileged`: no restrictions.
    Privileged,
}

/// A control of one namespace that does not hold, and that a person accepted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptedControl {
    /// Namespace of the control.
    pub namespace: DnsLabel,
    /// Name of the control.
    pub control: ControlName,
}

/// Default of `attempt`.
fn first_attempt() -> i64 {
    1
}

/// The plan that a ServiceRecovery belongs to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct PlanRef {
    /// Name of the plan, in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// UID of the plan. A re-created plan continues with the next attempt.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// Stage of a service's recovery.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum Stage {
    /// Isolated, and waiting for dependencies, a slot or Quarantines.
    #[default]
    Isolated,
    /// Claimed; the gates before restore are evaluated.
    PreChecks,
    /// Sealed, then in the clean room; the steps run.
    Restoring,
    /// In the clean room; the gates before release are evaluated.
    PostChecks,
    /// Isolation is being lifted.
    Reconnecting,
    /// Open; the continuous gates are evaluated.
    Recovered,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 6] = [
        Self::Isolated,
        Self::PreChecks,
        Self::Restoring,
        Self::PostChecks,
        Self::Reconnecting,
        Self::Recovered,
    ];

    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "Isolated",
            Self::PreChecks => "PreChecks",
            Self::Restoring => "Restoring",
            Self::PostChecks => "PostChecks",
            Self::Reconnecting => "Reconnecting",
            Self::Recovered => "Recovered",
        }
    }
}

impl ServiceRecovery {
    /// Returns whether dependents may proceed: the service is recovered, and its continuous gates pass.
    #[must_use]
    pub fn satisfies_dependents(&self) -> bool {
        let holds = |s: &ServiceRecoveryStatus| conditions::is_true(&s.conditions, conditions::HEALTHY);
        self.is_open() && self.status.as_ref().is_some_and(holds)
    }

    /// Returns whether the service is recovered, whatever its continuous gates report.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status.as_ref().is_some_and(|s| {
            s.stage == Stage::Recovered && conditions::is_true(&s.conditions, conditions::RECOVERED)
        })
    }
}

/// Observed state of one service's recovery.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRecoveryStatus {
    /// Generation of the spec that this status reflects. -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::observed_generation_schema")]
    pub observed_generation: Option<i64>,

    /// Current stage.
    #[serde(default)]
    pub stage: Stage,

    /// Number of the current attempt.
    #[serde(default = "first_attempt")]
    #[schemars(range(min = 1))]
    pub attempt: i64,

    /// The loosest isolation level that its Quarantines enforce. Absent: no Quarantine enforces anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,

    /// Short form of the root blocker that the service waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub waiting_for: Option<String>,

    /// What keeps the service from its next stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub blocked_by: Vec<Block>,

    /// The decision that is needed, while `NeedsDecision` is True.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionNeeded>,

    /// Last verdicts of the gates of this attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub gates: Vec<GateStatus>,

    /// What the integrity gates of this attempt have shown, and what none of them looks at. Absent before the attempt begins, and for an
    /// external system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["aspect"]))]
    pub integrity: Vec<AspectStatus>,

    /// Progress of the steps of this attempt, those that undo others included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<StepStatus>,

    /// Steps that began in an earlier attempt, and were not undone since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub begun_before: Vec<String>,

    /// CronJobs and Jobs that isolation suspended, if the plan resumes any: what each would start, and its state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub resumes: Vec<ResumeStatus>,

    /// Egress exceptions of the clean room: cluster services that it may connect to, as the plan allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub holes: Vec<ClusterService>,

    /// With `quarantinePolicy: Create`, namespaces whose Quarantine existed or was created in this attempt. None of them is created
    /// again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub quarantined: Vec<DnsLabel>,

    /// Exceptions that were accepted, and why. With any, the service ends as `WithExceptions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 600)))]
    pub exceptions: Vec<String>,

    /// Controls that do not hold, and that a Decision accepted in this attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub accepted: Vec<AcceptedControl>,

    /// Workloads whose rollout was not complete when they were stopped, such as `Deployment shop/api`, and that a Decision accepted in this
    /// attempt: they come back in another revision than the one that served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 600)))]
    pub accepted_rollouts: Vec<String>,

    /// Failed gates that a Decision accepted in this attempt. Each is accepted only as long as it fails for the same finding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub accepted_gates: Vec<AcceptedGate>,

    /// What a Decision that answers no question (`Hold`, `Abort`) refers to, and the hold in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing_orders: Option<StandingOrders>,

    /// Decisions that took effect. Their own condition `Applied` follows from it, whatever happens in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_decisions: Option<AppliedDecisions>,

    /// The service is being isolated again, before anything else. Absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolating: Option<Isolating>,

    /// When `onRegression: Contain` last isolated the service by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_at: Option<Time>,

    /// `compromisedSince` of the Incident that this attempt's gates were evaluated for. If the Incident's is earlier now, what they proved is
    /// superseded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_since: Option<Time>,

    /// Name of the service at the root of its wait, which is its own if it needs a person itself. Absent: nothing but turns is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub held_up_by: Option<String>,

    /// Since when what the service tries has failed. Absent: nothing fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Time>,

    /// When this attempt claimed its Quarantines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    /// When this attempt recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<Time>,

    /// Earlier attempts, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<PastAttempt>,

    /// `Ready`, `Recovered`, `Healthy`, `NeedsDecision`, `Reconciling`, `Stalled`, `Orphaned`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl Default for ServiceRecoveryStatus {
    /// Returns the status of a service whose recovery has not begun. Attempts count from 1.
    fn default() -> Self {
        Self {
            observed_generation: None,
            stage: Stage::default(),
            attempt: first_attempt(),
            isolation: None,
            waiting_for: None,
            blocked_by: Vec::new(),
            decision: None,
            gates: Vec::new(),
            integrity: Vec::new(),
            steps: Vec::new(),
            resumes: Vec::new(),
            holes: Vec::new(),
            quarantined: Vec::new(),
            exceptions: Vec::new(),
            accepted: Vec::new(),
            accepted_rollouts: Vec::new(),
            accepted_gates: Vec::new(),
            begun_before: Vec::new(),
            standing_orders: None,
            applied_decisions: None,
            isolating: None,
            contained_at: None,
            compromised_since: None,
            held_up_by: None,
            failing_since: None,
            claimed_at: None,
            recovered_at: None,
            history: Vec::new(),
            conditions: Vec::new(),
        }
    }
}

/// A blocker: something that keeps a service from its next stage.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// Reason, such as `Dependency`, `Slot`, `QuarantineMissing` or `GateUnknown`.
    #[schemars(length(max = 64))]
    pub reason: Reason,
    /// Name of the service, namespace, gate or step that blocks.
    #[schemars(length(max = 128))]
    pub name: String,
    /// What is wrong with it, and who can clear it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// A decision that a person has to make.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DecisionNeeded {
    /// Why, such as `GateFailed` or `StepFailed`.
    #[schemars(length(max = 64))]
    pub reason: Reason,
    /// Digest of the state to decide on. A Decision repeats it in `decidedOn`, so that it has no effect once the state has changed.
    #[schemars(length(equal = 71))]
    pub digest: String,
    /// Actions that would clear it.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub actions: Vec<Action>,
    /// Since when a decision has been needed.
    pub since: Time,
}

/// A failed gate that a person accepted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedGate {
    /// Name of the gate.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Digest of what it found. With another finding the gate fails again.
    #[schemars(length(max = 71))]
    pub finding: String,
}

/// What Decisions that answer no question refer to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StandingOrders {
    /// Digest that a `Hold` or an `Abort` repeats in `decidedOn`. It changes with each that took effect, so that none takes effect twice.
    #[schemars(length(equal = 71))]
    pub digest: String,
    /// Number of such Decisions that took effect.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub number: i64,
    /// The hold in force. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldStatus>,
}

/// Decisions that took effect on a service, and since when all of them are recorded.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct AppliedDecisions {
    /// Decisions from before may have taken effect without being listed.
    pub since: Time,
    /// The latest ones, newest first. One whose own status says so is removed when the next one takes effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub latest: Vec<AppliedDecision>,
}

/// A Decision that took effect.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct AppliedDecision {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// When it took effect.
    pub at: Time,
    /// The attempt that it began, or in which it took effect.
    #[schemars(range(min = 1))]
    pub attempt: i64,
}

/// A person's order to keep a service where it is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HoldStatus {
    /// Who ordered it.
    #[schemars(length(max = 253))]
    pub by: String,
    /// Name of the Decision.
    #[schemars(length(max = 253))]
    pub decision: String,
    /// Why.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Since when.
    pub since: Time,
}

/// Isolation that is requested before anything else.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Isolating {
    /// Requested level.
    pub level: Isolation,
    /// `Aborted` or `Contained`.
    #[schemars(length(max = 64))]
    pub reason: Reason,
    /// Why, and on whose Decision.
    #[schemars(length(max = 600))]
    pub message: String,
    /// Since when.
    pub since: Time,
}

/// Last verdict of a gate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// Phase of the gate.
    pub phase: Phase,
    /// Name of the gate.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Reason of the verdict.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, with the name of the object concerned.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub message: String,
    /// How much a Pass proves. Default: `Full`.
    #[serde(default, skip_serializing_if = "Proof::is_full")]
    pub proof: Proof,
    /// Digest of what was evaluated: UIDs, the fields read, and the requirements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub evidence: Option<String>,
    /// Since when the gate has had this verdict.
    pub since: Time,
}

/// Progress of a step.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Name of the step.
    #[schemars(length(max = 63))]
    pub name: String,
    /// State of the step.
    pub state: StepState,
    /// What the step is doing, or what went wrong, with the name of the object concerned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
    /// How often it has been started again after it failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: i32,
    /// When it was last started. Written before it acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Earliest time at which it is started again, after it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// State of a step. `Running` is written before the step acts; for the first step, when the restore of its service begins.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Not started.
    Pending,
    /// About to start, or running. Starting it again is idempotent.
    Running,
    /// Completed.
    Done,
    /// Denied or failed.
    Failed,
    /// A person decided to go on without it.
    Skipped,
}

impl StepState {
    /// Returns whether the next step may start.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }
}

/// A CronJob or Job that isolation suspended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ResumeStatus {
    /// Kind of the object.
    pub kind: ResumeKind,
    /// Namespace of the object.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the object.
    #[schemars(length(max = 253))]
    pub name: String,
    /// State of the object.
    pub state: ResumeState,
    /// What starts when the object is resumed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub fires: String,
    /// Why the object is not resumed, and how a person resumes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// Kind of an object that isolation suspends.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResumeKind {
    /// Starts Jobs on a schedule.
    CronJob,
    /// Runs once.
    Job,
}

impl ResumeKind {
    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CronJob => "CronJob",
            Self::Job => "Job",
        }
    }
}

/// State of a suspended CronJob or Job. `Resuming` is written before the object is resumed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeState {
    /// The plan does not name the object: it stays suspended.
    Suspended,
    /// The object is resumed once the service is recovered.
    Due,
    /// About to be resumed, or resumed. Resuming it again is idempotent.
    Resuming,
    /// The object is not suspended.
    Resumed,
    /// The plan names the object, and it stays suspended: `message` says why.
    Held,
}

impl ResumeState {
    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspended => "Suspended",
            Self::Due => "Due",
            Self::Resuming => "Resuming",
            Self::Resumed => "Resumed",
            Self::Held => "Held",
        }
    }
}

/// An attempt that has ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PastAttempt {
    /// Number of the attempt.
    pub attempt: i64,
    /// When it claimed its Quarantines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    /// When it ended.
    pub ended_at: Time,
    /// Stage at which it ended.
    pub stage: Stage,
    /// Reason why it ended.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why it ended, and whose Decision started the next one.
    #[serde(default)]
    #[schemars(length(max = 600))]
    pub message: String,
}
