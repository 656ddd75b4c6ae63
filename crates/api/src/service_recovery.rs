//! `ServiceRecovery`: one service's way back, as the operator sees it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quarantine::ControlName;
use super::{Action, ClusterService, DnsLabel, Isolation, Phase, Reason, Verdict, conditions};

/// Written by the operator only, named `<plan>.<service>`. It outlives its plan, as history; only people delete it.
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
    doc = "One service's way back. Written by the operator only; it outlives its plan, as history.",
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
    /// The plan it belongs to.
    pub plan_ref: PlanRef,
    /// The service.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// The service's tier, copied for the eye.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<i32>,
    /// Its namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub namespaces: Vec<DnsLabel>,
    /// Which attempt asks for `isolation`.
    #[serde(default = "first_attempt")]
    #[schemars(range(min = 1))]
    pub attempt: i64,
    /// The isolation that is asked of its Quarantines. Absent: as each Quarantine's own spec says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Namespaces that the clean room may talk to: recovered dependencies, and its own group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub reachable: Vec<DnsLabel>,
    /// Services of the cluster itself that the clean room may talk to: holes that the plan opts into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_egress: Vec<ClusterService>,
    /// The Pod Security Standard for its clean room. `Privileged` only where the plan lists `hostAccess`, and a person accepted it.
    #[serde(default)]
    pub pod_security: PodSecurity,
    /// Controls that do not hold, and were accepted in this attempt by a Decision. Nothing else is let pass for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub accepted: Vec<AcceptedControl>,
}

/// A Pod Security Standard: what pods may ask of their node. A later one is a loosening.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum PodSecurity {
    /// Nothing by which a pod gets at its host.
    #[default]
    Baseline,
    /// Everything.
    Privileged,
}

/// A control of one namespace that does not hold, and with which a person decided to go on.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptedControl {
    /// The namespace.
    pub namespace: DnsLabel,
    /// Its control.
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

/// Where a service is on its way back.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum Stage {
    /// Waits for its dependencies, a slot, its Quarantines.
    #[default]
    Isolated,
    /// Claimed; the gates before restore are asked.
    PreChecks,
    /// Sealed, then the clean room; steps run.
    Restoring,
    /// The gates before release are asked, in the clean room.
    PostChecks,
    /// Isolation is being lifted.
    Reconnecting,
    /// Open; the continuous gates are asked.
    Recovered,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [
        Self::Isolated,
        Self::PreChecks,
        Self::Restoring,
        Self::PostChecks,
        Self::Reconnecting,
        Self::Recovered,
    ];

    /// As the API writes it.
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
    /// May others build on it: is it recovered, and do its continuous gates pass?
    #[must_use]
    pub fn stands(&self) -> bool {
        let holds = |s: &ServiceRecoveryStatus| conditions::is_true(&s.conditions, conditions::HEALTHY);
        self.is_open() && self.status.as_ref().is_some_and(holds)
    }

    /// Is it recovered, whatever its continuous gates say?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status.as_ref().is_some_and(|s| {
            s.stage == Stage::Recovered && conditions::is_true(&s.conditions, conditions::RECOVERED)
        })
    }
}

/// The whole story of one service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRecoveryStatus {
    /// The generation of the spec that this status answers to. -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::observed_generation_schema")]
    pub observed_generation: Option<i64>,

    /// Where it is.
    #[serde(default)]
    pub stage: Stage,

    /// Which attempt this is.
    #[serde(default = "first_attempt")]
    #[schemars(range(min = 1))]
    pub attempt: i64,

    /// The loosest isolation that its Quarantines enforce. Absent: no Quarantine enforces anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,

    /// In a few words, what it waits for: the root blocker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub waiting_for: Option<String>,

    /// What keeps it from the next stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub blocked_by: Vec<Block>,

    /// What a person is asked, while `NeedsDecision` is True.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionNeeded>,

    /// What the gates of this attempt said when last it mattered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub gates: Vec<GateStatus>,

    /// How far the steps of this attempt have come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<StepStatus>,

    /// CronJobs and Jobs that isolating suspended, where the plan names any to resume: what would fire, and what becomes of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub resumes: Vec<ResumeStatus>,

    /// Holes in its clean room: services of the cluster itself that it may talk to, as the plan opts into.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub holes: Vec<ClusterService>,

    /// Under `quarantinePolicy: Create`, namespaces whose Quarantine was seen, or made, in this attempt: none of them is made
    /// again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub quarantined: Vec<DnsLabel>,

    /// What was let pass, and why. Ends as `WithExceptions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 600)))]
    pub exceptions: Vec<String>,

    /// Controls that do not hold, and were accepted in this attempt by a Decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub accepted: Vec<AcceptedControl>,

    /// When this attempt was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    /// When this attempt recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<Time>,

    /// Earlier attempts, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<PastAttempt>,

    /// `Ready`, `Recovered`, `Healthy`, `NeedsDecision`, `Reconciling`, `Stalled`, `Orphaned`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl Default for ServiceRecoveryStatus {
    /// Nothing has happened yet; attempts count from 1.
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
            steps: Vec::new(),
            resumes: Vec::new(),
            holes: Vec::new(),
            quarantined: Vec::new(),
            exceptions: Vec::new(),
            accepted: Vec::new(),
            claimed_at: None,
            recovered_at: None,
            history: Vec::new(),
            conditions: Vec::new(),
        }
    }
}

/// One thing that keeps a service from its next stage.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// One word for it, such as `Dependency`, `Slot`, `QuarantineMissing`, `GateUnknown`.
    #[schemars(length(max = 64))]
    pub reason: Reason,
    /// The culprit: a service, a namespace, a gate, a step.
    #[schemars(length(max = 128))]
    pub name: String,
    /// What is the matter with it, and who can clear it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// What a person is asked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DecisionNeeded {
    /// Why, such as `GateFailed` or `StepFailed`.
    #[schemars(length(max = 64))]
    pub reason: Reason,
    /// What is decided on; a Decision repeats it in `decidedOn`, so that it cannot hit a matter that has moved on.
    #[schemars(length(equal = 71))]
    pub digest: String,
    /// The Decisions that would clear it.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub actions: Vec<Action>,
    /// Since when a person is waited for.
    pub since: Time,
}

/// What a gate said.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// In which phase.
    pub phase: Phase,
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// What it said.
    pub verdict: Verdict,
    /// One word for why.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, with the culprit's name.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub message: String,
    /// Digest of what was judged: UIDs, the fields looked at, what was required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub evidence: Option<String>,
    /// Since when it says so.
    pub since: Time,
}

/// How far a step has come.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// How far it has come.
    pub state: StepState,
    /// What it is doing, or what went wrong, with the culprit's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// How far a step has come. `Running` is written before the step acts: of the first step, when its service begins to be
/// restored.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Not begun.
    Pending,
    /// About to start, or running: starting it again changes nothing.
    Running,
    /// It has done what it was to do.
    Done,
    /// Refused or failed.
    Failed,
}

/// A CronJob or Job that isolating suspended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ResumeStatus {
    /// Which kind.
    pub kind: ResumeKind,
    /// Its namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// What becomes of it.
    pub state: ResumeState,
    /// What starts when it is resumed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub fires: String,
    /// Why it is not resumed, and how a person does it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// What can be suspended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResumeKind {
    /// Starts Jobs by a schedule.
    CronJob,
    /// Runs once.
    Job,
}

impl ResumeKind {
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CronJob => "CronJob",
            Self::Job => "Job",
        }
    }
}

/// What becomes of a suspended CronJob or Job. `Resuming` is written before it is resumed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeState {
    /// The plan does not name it: it stays suspended.
    Suspended,
    /// It is resumed once the service is recovered.
    Due,
    /// About to be resumed, or perhaps resumed: doing it again changes nothing.
    Resuming,
    /// It is not suspended.
    Resumed,
    /// The plan names it, and it stays suspended all the same.
    Held,
}

impl ResumeState {
    /// As the API writes it.
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

/// An attempt that ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PastAttempt {
    /// Which one.
    pub attempt: i64,
    /// When it was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Time>,
    /// When it ended.
    pub ended_at: Time,
    /// Where it stood then.
    pub stage: Stage,
    /// One word for why it ended.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, and by whose Decision the next began.
    #[serde(default)]
    #[schemars(length(max = 600))]
    pub message: String,
}
