//! `RecoveryPlan`: services, what they depend on, and what must be proved of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::GatesSpec;
use super::{DnsLabel, Duration, ObjectName, Reason, StepSpec};

/// Services in the order of their dependencies, each let out only after its gates pass. Without `incidentRef` it is
/// Dormant: checked, and never acting. Apply it server-side: a large plan does not fit client-side apply.
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
    doc = "Services in the order of their dependencies, each let out only after its gates pass.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Recovered", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running"),
    printcolumn(name = "Needs decision", type_ = "integer", json_path = ".status.needsDecision"),
    printcolumn(name = "Blocked by", type_ = "string", json_path = ".status.blockedBy[0].name"),
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
    /// The incident that this plan recovers from. Absent: the plan is Dormant. Setting it, once, arms the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_ref: Option<ObjectName>,

    /// The service account, in the plan's namespace, as which every step writes and every gate reads.
    pub service_account_name: DnsLabel,

    /// What else makes services wait for each other.
    #[serde(default)]
    pub order: Order,

    /// What to do about a namespace that has no Quarantine.
    #[serde(default)]
    pub quarantine_policy: QuarantinePolicy,

    /// Start nothing new. Isolation and continuous gates go on.
    #[serde(default)]
    pub suspend: bool,

    /// So many services (or `together` groups) at once. Whoever waits for a person gives the slot back.
    #[serde(default = "default_max_parallel")]
    #[schemars(range(min = 1, max = 500))]
    pub max_parallel: i32,

    /// What every service has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,

    /// What was promised. Reported against; never a reason to loosen anything.
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

/// What else makes services wait for each other, beside `dependsOn`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Nothing else. Tiers only break ties for slots.
    #[default]
    Dependencies,
    /// Every service also waits for all services of the nearest lower tier. For estates whose edges nobody knows.
    Tiers,
}

/// What to do about a namespace that has no Quarantine.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuarantinePolicy {
    /// Its service waits, saying so.
    #[default]
    Require,
    /// An armed plan makes it, at `Contained`, as the plan's account: once in each attempt. One that is deleted after that is a
    /// release, and stays one.
    Create,
}

/// What every service has.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Defaults {
    /// Gates that every service has; its own are added.
    #[serde(default)]
    pub gates: GatesSpec,
}

/// What was promised.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Objectives {
    /// Recovery time objective of the whole plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_time: Option<Duration>,
}

/// One service: what people miss when it is gone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name, unique in the plan.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 120))]
    pub title: Option<String>,

    /// Who can clear what blocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub owner: Option<String>,

    /// Its place in the default order of an organisation's services, 0 first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 99))]
    pub tier: Option<i32>,

    /// Services of the same group need each other, and go as one: in together, out together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<DnsLabel>,

    /// Its namespaces. Default: the one of its own name. An empty list: an external system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub namespaces: Option<Vec<DnsLabel>>,

    /// The services that must be recovered, and healthy, first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub depends_on: Vec<DnsLabel>,

    /// Its own gates, added to the plan's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<GatesSpec>,

    /// How it is restored. Default: every workload is scaled to what was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub restore: Option<Vec<StepSpec>>,

    /// What its clean room may talk to, beside itself, its group and its recovered dependencies. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_room: Option<CleanRoomSpec>,

    /// CronJobs and Jobs that are resumed once the service is recovered. All others stay suspended, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub resume: Vec<ResumeSpec>,

    /// Says out loud that a phase has no gate, or that there is no integrity gate. Ends as `WithExceptions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ungated: Option<Ungated>,

    /// What happens when a recovered service's continuous gate fails.
    #[serde(default)]
    pub on_regression: OnRegression,
}

/// A CronJob or Job that isolating suspended, and that is resumed once its service is recovered.
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
    /// Its namespace. May be left out where the service has one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
    /// What to do about a CronJob that would at once start the run that it missed.
    #[serde(default)]
    pub missed_run: MissedRun,
}

/// What to do about a CronJob that would at once start the run that it missed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedRun {
    /// It stays suspended until a person resumes it, knowing what fires.
    #[default]
    Hold,
    /// It is resumed, and the run starts.
    Fire,
}

/// What a service's clean room may talk to, beside itself, its group and its recovered dependencies.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CleanRoomSpec {
    /// Services of the cluster itself that its pods may connect to. Each is a hole, and is reported as one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_egress: Vec<ClusterService>,

    /// Says out loud that its pods need what Pod Security `baseline` forbids, such as the host's network or files. It takes effect
    /// once a person has accepted it by a Decision `AcceptLoosening`. Default: such pods are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_access: Option<HostAccess>,
}

/// Why the pods of a service need what Pod Security `baseline` forbids.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostAccess {
    /// The reason, for those who must accept it, and answer for it.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,
}

/// A service of the cluster itself: through each of them an intruder can send data out, or orders in.
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
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::ApiServer => "APIServer",
        }
    }
}

/// Why a service goes without gates.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ungated {
    /// The reason, for those who must answer for it.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,
}

/// What happens when a recovered service's continuous gate fails.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRegression {
    /// It stays open, its dependents are held, and a person is asked.
    #[default]
    Hold,
}

/// Where a plan stands: counts and the top blockers. Each service has a ServiceRecovery with the whole story.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryPlanStatus {
    /// The generation of the spec that this status answers to. -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::observed_generation_schema")]
    pub observed_generation: Option<i64>,

    /// `12/31`: services recovered, of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub progress: Option<String>,

    /// Services in all.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub total: i32,
    /// Services recovered.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub recovered: i32,
    /// Services being recovered now.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub running: i32,
    /// Services that wait for another service, a slot or a Quarantine.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub waiting: i32,
    /// Services that wait for a person.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub needs_decision: i32,

    /// The root blockers, the one that holds most services first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub blocked_by: Vec<Blocker>,

    /// When the first service was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last service was recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_at: Option<Time>,

    /// `Ready`, `Recovered`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What holds services back, and who can clear it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// The service at the root.
    #[schemars(length(max = 63))]
    pub name: String,
    /// One word for it, such as `GateFailed` or `QuarantineMissing`.
    #[schemars(length(max = 64))]
    pub reason: Reason,
    /// The culprit, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
    /// How many services wait for it, directly or not.
    #[serde(default)]
    #[schemars(schema_with = "super::count_schema")]
    pub holds: i32,
    /// Who can clear it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub owner: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
