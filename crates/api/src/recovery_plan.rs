//! `RecoveryPlan`: services, their dependencies, and the gates they must pass.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::GatesSpec;
use super::{DnsLabel, Duration, ObjectName, Phase, Reason, StepSpec};

/// Services in the order of their dependencies. Each is opened only after its gates pass. Without `incidentRef` the plan is Dormant: it
/// is validated and does nothing. Apply it server-side: a large plan exceeds the limits of client-side apply.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "resurgam.dev",
    version = "v1alpha1",
    kind = "RecoveryPlan",
    plural = "recoveryplans",
    shortname = "rplan",
    category = "recovery",
    namespaced,
    status = "RecoveryPlanStatus",
    derive = "PartialEq",
    doc = "Services in the order of their dependencies. Each is opened only after its gates pass.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Recovered", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running"),
    printcolumn(name = "Needs decision", type_ = "integer", json_path = ".status.needsDecision"),
    printcolumn(name = "Blocked by", type_ = "string", json_path = ".status.blockedBy[0].name"),
    printcolumn(name = "Prepared", type_ = "string", json_path = ".status.conditions[?(@.type==\"Prepared\")].status", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("a plan's name is a DNS label of at most 63 characters")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new("!has(oldSelf.incidentRef) || (has(self.incidentRef) && self.incidentRef.name == oldSelf.incidentRef.name)")
        .message("incidentRef is set once: a plan that was armed stays armed")
)]
pub struct RecoveryPlanSpec {
    /// The incident that this plan recovers from. Absent: the plan is Dormant. Setting it arms the plan; it can be set only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_ref: Option<ObjectName>,

    /// ServiceAccount in the plan's namespace with which every step writes and every gate reads.
    pub service_account_name: DnsLabel,

    /// Ordering of services in addition to `dependsOn`.
    #[serde(default)]
    pub order: Order,

    /// What happens if a namespace has no Quarantine.
    #[serde(default)]
    pub quarantine_policy: QuarantinePolicy,

    /// Starts nothing new while true. Isolation and continuous gates stay in force.
    #[serde(default)]
    pub suspend: bool,

    /// Maximum number of services (or `together` groups) that are recovered at the same time. One that waits for a person gives its slot
    /// back.
    #[serde(default = "default_max_parallel")]
    #[schemars(range(min = 1, max = 500))]
    pub max_parallel: i32,

    /// Defaults for all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,

    /// Recovery objectives. They are reported against, and never loosen anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<Objectives>,

    /// The services.
    #[schemars(
        length(min = 1, max = 500),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub services: Vec<ServiceSpec>,
}

/// Default of `maxParallel`.
fn default_max_parallel() -> i32 {
    6
}

/// Ordering of services in addition to `dependsOn`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// None. Tiers only decide who gets a slot first.
    #[default]
    Dependencies,
    /// Every service also waits for all services of the nearest lower tier. For estates whose dependencies are not known.
    Tiers,
}

/// What happens if a namespace has no Quarantine.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuarantinePolicy {
    /// The service waits, and its status names the missing Quarantine.
    #[default]
    Require,
    /// An armed plan creates a Quarantine at `Contained` with the plan's account, once per attempt. If that is deleted later, it counts
    /// as released and is not created again.
    Create,
}

/// Defaults for all services.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Defaults {
    /// Gates of every service, in addition to its own. A service's gate of the same name and phase replaces the default one.
    #[serde(default)]
    pub gates: GatesSpec,
    /// `stepDeadline` of every service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_deadline: Option<Duration>,
}

/// Recovery objectives of a plan.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Objectives {
    /// Recovery time objective (RTO) of the whole plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_time: Option<Duration>,
}

/// One service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Name, unique in the plan.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 120))]
    pub title: Option<String>,

    /// Person or team that can clear the service's blockers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub owner: Option<String>,

    /// The service's place in the organisation's default order. 0 comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 99))]
    pub tier: Option<i32>,

    /// Name of a group. The services of a group are restored and opened together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<DnsLabel>,

    /// Namespaces of the service. Default: the namespace with the service's name. An empty list: an external system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub namespaces: Option<Vec<DnsLabel>>,

    /// Namespaces of the original, which stays isolated as it is: the service is rebuilt beside it, in `namespaces`. Those of them that do
    /// not exist are created as the plan's account, each isolated by its Quarantine before it exists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub replaces: Vec<DnsLabel>,

    /// Services that must be recovered and healthy before this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub depends_on: Vec<DnsLabel>,

    /// Services that this one waits for, but goes on without if they are held up: they, or what they wait for, need a person. It then ends
    /// as `WithExceptions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub optional_dependencies: Vec<DnsLabel>,

    /// Whether the plan counts as recovered without this service.
    #[serde(default)]
    pub impact: Impact,

    /// Gates of this service, in addition to the plan's defaults. A gate with the name of a default gate of the same phase replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<GatesSpec>,

    /// Names of default gates that do not apply to this service, in whatever phase. The plan's status lists them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub omit_default_gates: Vec<String>,

    /// Steps that restore the service. Default: every workload is scaled to its recorded number of replicas. An empty list: nothing is
    /// started, as for a service that a custom resource's operator starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub restore: Option<Vec<StepSpec>>,

    /// How long a step, or another action for this service, may fail before a person is asked. The service then gives its slot back, is
    /// tried again, and goes on by itself. Default: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_deadline: Option<Duration>,

    /// What the clean room may connect to, in addition to the service itself, its group and its recovered dependencies. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_room: Option<CleanRoomSpec>,

    /// CronJobs and Jobs that are resumed once the service is recovered. All others stay suspended until a person resumes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub resume: Vec<ResumeSpec>,

    /// States explicitly that a phase has no gate, or that the service has no integrity gate. The service ends as `WithExceptions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ungated: Option<Ungated>,

    /// What happens when a continuous gate of the recovered service fails.
    #[serde(default)]
    pub on_regression: OnRegression,
}

/// A suspended CronJob or Job that is resumed once its service is recovered.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = kube::core::Rule::new("has(self.cronJob) != has(self.job)").message("name exactly one of cronJob, job"))]
pub struct ResumeSpec {
    /// Name of a CronJob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub cron_job: Option<String>,
    /// Name of a Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub job: Option<String>,
    /// Namespace of the object. Optional if the service has one namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
    /// What happens to a CronJob that would start a missed run as soon as it is resumed.
    #[serde(default)]
    pub missed_run: MissedRun,
}

/// What happens to a CronJob that would start a missed run as soon as it is resumed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedRun {
    /// It stays suspended until a person resumes it.
    #[default]
    Hold,
    /// It is resumed, and the missed run starts.
    Fire,
}

/// What a service's clean room may connect to, in addition to the service itself, its group and its recovered dependencies.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CleanRoomSpec {
    /// Cluster services that the pods may connect to. Each is an egress exception, and is reported in the status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_egress: Vec<ClusterService>,

    /// Addresses outside the cluster that the pods may connect to, such as the store that a dump is loaded from. Each is an egress
    /// exception, by which an intruder can send data out, and is reported in the Quarantine's status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_egress_to: Vec<EgressBlock>,

    /// States explicitly that the pods need what Pod Security `baseline` forbids, such as the host's network or files. It takes effect
    /// after a person has accepted it by a Decision `AcceptLoosening`. Default: such pods are denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_access: Option<HostAccess>,
}

/// Addresses and TCP ports that a clean room may connect to.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new("isCIDR(self.cidr) && cidr(self.cidr).masked() == cidr(self.cidr)")
        .message("cidr is a network in CIDR notation, such as 192.0.2.7/32"),
    validation = kube::core::Rule::new("!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() >= 8")
        .message("cidr is no larger than a /8: anything more is the whole Internet")
)]
pub struct EgressBlock {
    /// The network, such as `192.0.2.7/32`.
    #[schemars(length(min = 3, max = 49))]
    pub cidr: String,
    /// The TCP ports.
    #[schemars(
        length(min = 1, max = 8),
        inner(range(min = 1, max = 65535)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub ports: Vec<i32>,
}

impl std::fmt::Display for EgressBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        write!(f, "port {} of {}", ports.join(", "), self.cidr)
    }
}

/// Why the service's pods need what Pod Security `baseline` forbids.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostAccess {
    /// The reason, for the person who decides on it.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,
}

/// A service of the cluster itself. An intruder can send data out, or receive commands, through each of them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterService {
    /// The cluster's DNS in `kube-system`, port 53.
    #[serde(rename = "DNS")]
    Dns,
    /// The API server, at the addresses of the Service `default/kubernetes`.
    #[serde(rename = "APIServer")]
    ApiServer,
}

impl ClusterService {
    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::ApiServer => "APIServer",
        }
    }
}

/// Why a service has no gates.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ungated {
    /// The reason, for those who are accountable for it.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,
}

/// Whether the plan counts as recovered without a service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Impact {
    /// The plan is recovered only with it.
    #[default]
    Essential,
    /// The plan is recovered without it, `WithExceptions`.
    Optional,
}

/// What happens when a continuous gate of a recovered service fails.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRegression {
    /// The service stays open, its dependents wait, and a person decides.
    #[default]
    Hold,
    /// The service is isolated again at `Contained`, and starts its next attempt: at most once an hour, and only if a gate that passed in
    /// this attempt, asking the same, fails. Otherwise as `Hold`.
    Contain,
}

/// Progress of the plan: counts and the main blockers. The ServiceRecovery of each service has the details.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryPlanStatus {
    /// Generation of the spec that this status reflects. -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::observed_generation_schema")]
    pub observed_generation: Option<i64>,

    /// Number of recovered services of all services, such as `12/31`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub progress: Option<String>,

    /// Number of services.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub total: i32,
    /// Number of services that are recovered.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub recovered: i32,
    /// Number of services that are being recovered.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub running: i32,
    /// Number of services that wait for another service, a slot or a Quarantine.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub waiting: i32,
    /// Number of services that wait for a person.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub needs_decision: i32,

    /// Root blockers, the one that holds up most services first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub blocked_by: Vec<Blocker>,

    /// Services whose gates differ from the plan's defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub gate_overrides: Vec<GateOverride>,

    /// When the first service was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last service was recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<Time>,

    /// `Ready`, `Recovered`, `Reconciling`, `Stalled`, and `Prepared`: whether everything exists that the plan will need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A default gate that does not apply to a service as it is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct GateOverride {
    /// Name of the service.
    #[schemars(length(max = 63))]
    pub service: String,
    /// Phase of the gate.
    pub phase: Phase,
    /// Name of the gate.
    #[schemars(length(max = 63))]
    pub gate: String,
    /// What the service does with it.
    pub change: GateChange,
}

/// What a service does with a default gate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateChange {
    /// It leaves the gate out.
    Omitted,
    /// It has a gate of its own in its place.
    Replaced,
}

/// A root blocker.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// The service at the root of the chain of waiting services.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Reason, such as `GateFailed` or `QuarantineMissing`.
    #[schemars(length(max = 64))]
    pub reason: Reason,
    /// What blocks the service, and who can clear it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
    /// Number of services that wait for it, directly or indirectly.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub holds: i32,
    /// Person or team that can clear it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub owner: Option<String>,
    /// Since when it has blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
