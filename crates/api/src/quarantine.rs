//! `Quarantine`: isolates the namespace with the same name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Isolation, ObjectName, ServiceKey};

/// Isolates the namespace with the same name for as long as the Quarantine exists. Deleting it releases the namespace, and needs the verb
/// `release` on it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "resurgam.dev",
    version = "v1alpha1",
    kind = "Quarantine",
    plural = "quarantines",
    shortname = "quar",
    category = "recovery",
    status = "QuarantineStatus",
    derive = "PartialEq",
    doc = "Isolates the namespace with the same name for as long as it exists. Deleting it releases the namespace.",
    printcolumn(name = "Isolation", type_ = "string", json_path = ".status.isolation"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Tested", type_ = "string", json_path = ".status.tested"),
    printcolumn(name = "Incident", type_ = "string", json_path = ".spec.incidentRef.name"),
    printcolumn(name = "Claimed by", type_ = "string", json_path = ".status.claimedBy.display"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("!self.metadata.name.startsWith('kube-')")
        .message("kube-* namespaces are never quarantined: the cluster itself runs there"),
    validation = kube::core::Rule::new("(has(self.spec.purpose) ? self.spec.purpose : 'Isolation') == (has(oldSelf.spec.purpose) ? oldSelf.spec.purpose : 'Isolation')")
        .message("a namespace becomes one for inspections when its Quarantine is created, and stays one")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("!has(self.purpose) || self.purpose != 'Inspection' || self.isolation == 'Sealed'")
        .message("an inspection namespace is sealed first: isolation: Sealed")
)]
pub struct QuarantineSpec {
    /// Isolation level: `Contained` leaves processes running, `Sealed` captures evidence and then stops them.
    #[serde(default)]
    pub isolation: QuarantineLevel,

    /// Why the namespace is isolated. The write fence shows it to everyone whose request it denies.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,

    /// The incident that the Quarantine belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_ref: Option<ObjectName>,

    /// Incidents for which the namespace was isolated again while it was isolated already, in that order. Adding one needs no further
    /// right; changing or removing one needs the verb `release`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub further_incidents: Vec<FurtherIncident>,

    /// Isolates the namespace at this level, regardless of what a recovery requests, even a completed one. Setting or
    /// tightening it needs no further right; easing or removing it needs the verb `release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<QuarantineLevel>,

    /// Whether missing evidence blocks sealing. It never blocks containment.
    #[serde(default)]
    pub capture: CaptureMode,

    /// What the namespace is isolated for. Fixed when the Quarantine is created. Default: `Isolation`.
    #[serde(default, skip_serializing_if = "Purpose::is_isolation")]
    pub purpose: Purpose,
}

/// What a namespace is isolated for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// It belongs to a service that may be compromised.
    #[default]
    Isolation,
    /// Gates run programs in it that look at evidence. Nothing ran in it when it was isolated; once it is sealed and Ready it becomes a
    /// clean room that reaches no other namespace. No plan recovers it.
    Inspection,
}

impl Purpose {
    fn is_isolation(&self) -> bool {
        *self == Self::Isolation
    }
}

/// A further incident that a Quarantine belongs to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FurtherIncident {
    /// Name of the Incident.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Why the namespace is isolated for it, too.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,
}

impl QuarantineSpec {
    /// Maximum number of further incidents.
    pub const FURTHER_INCIDENTS: usize = 16;

    /// Returns the names of all incidents, the first one first.
    #[must_use]
    pub fn incidents(&self) -> Vec<String> {
        let first = self.incident_ref.iter().map(|incident| &incident.name);
        first.chain(self.further_incidents.iter().map(|further| &further.name)).cloned().collect()
    }
}

/// Whether missing evidence blocks sealing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// Nothing is stopped before all requested evidence is stored.
    #[default]
    Required,
    /// Evidence that cannot be stored is listed as missing, and workloads are stopped regardless.
    BestEffort,
}

/// Isolation level of a Quarantine that no recovery has claimed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuarantineLevel {
    /// No network traffic and no writes. Processes keep running, as their memory is evidence.
    #[default]
    Contained,
    /// As `Contained`, and nothing runs.
    Sealed,
}

impl From<QuarantineLevel> for Isolation {
    fn from(level: QuarantineLevel) -> Self {
        match level {
            QuarantineLevel::Contained => Self::Contained,
            QuarantineLevel::Sealed => Self::Sealed,
        }
    }
}

/// What is enforced, control by control, and the recovery that has claimed the Quarantine.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineStatus {
    /// Generation of the spec that this status reflects. -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::observed_generation_schema")]
    pub observed_generation: Option<i64>,

    /// Isolation level that is enforced now. Absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,

    /// Incidents that the Quarantine belongs to, as enforced: the write fence names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 17), inner(length(max = 253)))]
    pub incidents: Vec<String>,

    /// Number of controls that were tested and hold, of all controls, such as `2/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub tested: Option<String>,

    /// The recovery that may request another level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<Claim>,

    /// A claim that a hold has overruled. Nothing is loosened for this claim, even after the hold is removed; the next attempt starts
    /// with a new claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<Claim>,

    /// State of each control.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub controls: Vec<Control>,

    /// Evidence that was stored before anything was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,

    /// GitOps objects in other namespaces that deploy into this namespace, and what was done about each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub deliverers: Vec<Deliverer>,

    /// What the namespace contained when it was isolated. Absent: not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,

    /// Pods without a controller that were captured and deleted. No workload recreates them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub unmanaged_pods: Vec<String>,

    /// Token Secrets of recreated ServiceAccounts, which the cluster deletes with the accounts. Absent: no account was recreated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_token_secrets: Option<LostTokenSecrets>,

    /// `Ready`, `Reconciling`, `Stalled`, `FenceIntact`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Secrets of type `kubernetes.io/service-account-token` that were lost when their ServiceAccounts were recreated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LostTokenSecrets {
    /// Names of the Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub names: Vec<String>,
    /// Why not all names are known. Empty: all are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub unknown: String,
}

impl LostTokenSecrets {
    /// Maximum number of names.
    const LIMIT: usize = 64;

    /// Adds what was lost later.
    #[must_use]
    pub fn and(mut self, later: &Self) -> Self {
        self.names.extend(later.names.iter().cloned());
        self.names.sort();
        self.names.dedup();
        if self.names.len() > Self::LIMIT {
            self.names.truncate(Self::LIMIT);
            "there are more than 64".clone_into(&mut self.unknown);
        } else if self.unknown.is_empty() {
            self.unknown.clone_from(&later.unknown);
        }
        self
    }
}

/// What a namespace contained when it was isolated. Each number is the highest since the Quarantine was created.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Number of workloads that start pods, CronJobs and unfinished Jobs included.
    #[schemars(range(min = 0), extend("format" = "int32"))]
    pub workloads: i32,
    /// Number of live pods that no workload recreates.
    #[schemars(range(min = 0), extend("format" = "int32"))]
    pub unmanaged_pods: i32,
}

impl Contents {
    /// Returns the higher of each number.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            workloads: self.workloads.max(other.workloads),
            unmanaged_pods: self.unmanaged_pods.max(other.unmanaged_pods),
        }
    }
}

/// The claim of one recovery on a Quarantine. It is written with a resourceVersion precondition, so that two recoveries cannot both hold
/// one.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// UID of the plan. Another plan can take over the claim only after this plan is deleted.
    #[schemars(length(min = 1, max = 64))]
    pub plan_uid: String,
    /// Namespace of the plan.
    #[schemars(length(min = 1, max = 63))]
    pub plan_namespace: String,
    /// Name of the plan.
    #[schemars(length(min = 1, max = 63))]
    pub plan: String,
    /// The service that owns the namespace.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// The attempt at recovering the service.
    #[schemars(range(min = 1))]
    pub attempt: i64,
    /// `namespace/plan/service`, for display.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub display: String,
}

impl Claim {
    /// Returns the claimant for messages: `display`, or the names that it consists of.
    #[must_use]
    pub fn display_name(&self) -> String {
        if self.display.is_empty() { self.key().to_string() } else { self.display.clone() }
    }
}

impl Claim {
    /// Returns the service that holds this claim.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            namespace: self.plan_namespace.clone(),
            plan: self.plan.clone(),
            service: self.service.clone(),
        }
    }

    /// Returns the name of the ServiceRecovery that holds this claim, in `plan_namespace`.
    #[must_use]
    pub fn service_recovery(&self) -> String {
        super::service_recovery_name(&self.plan, &self.service)
    }
}

/// State of one control.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// Name of the control.
    pub name: ControlName,
    /// State of the control.
    pub state: ControlState,
    /// How the state was determined, or why it is unknown.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub message: String,
    /// Since when the control has been in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When the control was last tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Time>,
}

/// The controls of a Quarantine.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlName {
    /// The namespace's label and annotations cannot be changed, and the namespace cannot be deleted.
    Lock,
    /// The API server denies writes and connections to pods in the namespace.
    Fence,
    /// The namespace's ServiceAccounts cannot write anywhere or gain rights, and its volumes cannot be given to another namespace.
    Guard,
    /// NetworkPolicies deny all traffic in both directions.
    Network,
    /// Workloads are scaled to zero; CronJobs and Jobs are suspended.
    Workloads,
    /// Tokens issued to the namespace's ServiceAccounts before are revoked.
    Identity,
}

impl ControlName {
    /// All controls.
    pub const ALL: [Self; 6] =
        [Self::Lock, Self::Fence, Self::Guard, Self::Network, Self::Workloads, Self::Identity];

    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "Lock",
            Self::Fence => "Fence",
            Self::Guard => "Guard",
            Self::Network => "Network",
            Self::Workloads => "Workloads",
            Self::Identity => "Identity",
        }
    }
}

/// State of a control.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlState {
    /// In place, and not tested yet.
    Enforced,
    /// Tested, and it holds.
    Tested,
    /// Not in place, or tested and found not to hold.
    NotEnforced,
    /// In place, and this cluster offers no way to test it.
    Unverifiable,
    /// Not part of this isolation level.
    NotRequired,
}

impl ControlState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Enforced, Self::Tested, Self::NotEnforced, Self::Unverifiable, Self::NotRequired];

    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "Enforced",
            Self::Tested => "Tested",
            Self::NotEnforced => "NotEnforced",
            Self::Unverifiable => "Unverifiable",
            Self::NotRequired => "NotRequired",
        }
    }
}

/// Evidence captured before anything was stopped. The evidence store keeps it under its digest.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// Digest of the captured manifests and events. The object in the store is named after it.
    #[schemars(length(equal = 71))]
    pub digest: String,
    /// When it was captured.
    pub at: Time,
    /// Number of objects in it.
    #[schemars(range(min = 0))]
    pub objects: i64,
    /// Number of containers whose logs are in it, encrypted. Absent: no logs were requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub logs: Option<i64>,
    /// Names of the VolumeSnapshots that were created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub snapshots: Vec<String>,
    /// Evidence that could not be stored, and why. Empty: everything was stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    pub missing: Vec<String>,
}

/// A GitOps object that deploys into an isolated namespace. The write fence denies its writes in any case.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Deliverer {
    /// `Kustomization`, `HelmRelease` or `Application`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Namespace of the object.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// What was done about it.
    pub state: DelivererState,
    /// Why it was not suspended: what else it deploys.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// What was done about a GitOps object that deploys into an isolated namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DelivererState {
    /// Suspended by the operator: it deploys into isolated namespaces only.
    Suspended,
    /// Left running, as it deploys elsewhere too. Its writes to this namespace fail until the namespace is released.
    Denied,
}
