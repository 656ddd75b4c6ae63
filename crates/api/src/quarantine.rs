//! `Quarantine`: isolates the namespace of its own name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Isolation, ObjectName, ServiceKey};

/// Isolates the namespace of its own name, for as long as it exists. Easy to make; deleting it is a release and needs
/// the right to `release` it.
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
    doc = "Isolates the namespace of its own name, for as long as it exists. Deleting it is a release.",
    printcolumn(name = "Isolation", type_ = "string", json_path = ".status.isolation"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Tested", type_ = "string", json_path = ".status.tested"),
    printcolumn(name = "Incident", type_ = "string", json_path = ".spec.incidentRef.name"),
    printcolumn(name = "Claimed by", type_ = "string", json_path = ".status.claimedBy.display"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("!self.metadata.name.startsWith('kube-')")
        .message("kube-* namespaces are never quarantined: the cluster itself runs there")
)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineSpec {
    /// How tightly: `Contained` leaves processes alive, `Sealed` stops them once they are captured.
    #[serde(default)]
    pub isolation: QuarantineLevel,

    /// Why, for whoever is refused by it.
    #[schemars(length(min = 1, max = 512))]
    pub reason: String,

    /// The incident it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_ref: Option<ObjectName>,

    /// Isolates the namespace at this level whatever a recovery that claimed it asks for, a recovered one included. Setting or
    /// tightening it is free; easing it or taking it away needs the right to `release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<QuarantineLevel>,

    /// Whether evidence that could not be kept stops the sealing. It never stops containing.
    #[serde(default)]
    pub capture: CaptureMode,
}

/// Whether evidence that could not be kept stops the sealing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// Nothing is stopped before all that was asked for is kept.
    #[default]
    Required,
    /// What could not be kept is listed as missing, and what runs is stopped all the same.
    BestEffort,
}

/// How tightly a Quarantine isolates when no recovery has claimed it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuarantineLevel {
    /// Talks to nobody, nobody writes; processes stay alive, as memory is evidence.
    #[default]
    Contained,
    /// Nothing runs either.
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

/// What is enforced, control by control, and who has claimed it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineStatus {
    /// The generation of the spec that this status answers to. -1: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::observed_generation_schema")]
    pub observed_generation: Option<i64>,

    /// What is enforced now. Absent: nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,

    /// `2/4`: controls tried and found to hold, of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub tested: Option<String>,

    /// The one recovery that may ask for another level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<Claim>,

    /// The claim that a hold took its level from, or kept it from. While it is the same claim still, nothing is loosened for
    /// it: a next attempt begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<Claim>,

    /// Each control, and what is known of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub controls: Vec<Control>,

    /// What was kept as evidence before anything was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Capture>,

    /// GitOps objects elsewhere that deliver into this namespace, and what was done about each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub deliverers: Vec<Deliverer>,

    /// Pods that were captured and deleted, and that no workload will bring back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub unmanaged_pods: Vec<String>,

    /// `Ready`, `Reconciling`, `Stalled`, `FenceIntact`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One recovery's hold on a Quarantine. Taken with a resourceVersion precondition; a second one is refused.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// UID of the plan. A claim moves only when that plan is gone.
    #[schemars(length(min = 1, max = 64))]
    pub plan_uid: String,
    /// Namespace of the plan.
    #[schemars(length(min = 1, max = 63))]
    pub plan_namespace: String,
    /// Name of the plan.
    #[schemars(length(min = 1, max = 63))]
    pub plan: String,
    /// The service that the namespace belongs to.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// Which attempt at it.
    #[schemars(range(min = 1))]
    pub attempt: i64,
    /// `namespace/plan/service`, for people.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub display: String,
}

impl Claim {
    /// The claimant for people: its `display`, or the names that it is made of.
    #[must_use]
    pub fn display_name(&self) -> String {
        if self.display.is_empty() { self.key().to_string() } else { self.display.clone() }
    }
}

impl Claim {
    /// The service that holds this claim.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            namespace: self.plan_namespace.clone(),
            plan: self.plan.clone(),
            service: self.service.clone(),
        }
    }

    /// The name of the ServiceRecovery that holds this claim, in `plan_namespace`.
    #[must_use]
    pub fn service_recovery(&self) -> String {
        super::service_recovery_name(&self.plan, &self.service)
    }
}

/// One control and what is known of it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// Which one.
    pub name: ControlName,
    /// What is known of it.
    pub state: ControlState,
    /// How that is known, or why it is not.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub message: String,
    /// Since when this state holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Time>,
}

/// The controls of a Quarantine.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlName {
    /// The namespace's labels and annotations cannot be changed, nor the namespace deleted.
    Lock,
    /// The API server refuses writes and connections in the namespace.
    Fence,
    /// The accounts of the namespace write nowhere, nobody binds them to new rights, and its volumes are not given away.
    Guard,
    /// NetworkPolicies deny traffic both ways.
    Network,
    /// Workloads are at zero, CronJobs and Jobs suspended.
    Workloads,
    /// Tokens that were issued to the namespace's service accounts are void.
    Identity,
}

impl ControlName {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Lock, Self::Fence, Self::Guard, Self::Network, Self::Workloads, Self::Identity];

    /// As the API writes it.
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

/// What is known of a control.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlState {
    /// Written, and not tried yet.
    Enforced,
    /// Tried, and it held.
    Tested,
    /// It does not hold, or is not in place.
    NotEnforced,
    /// Written, and there is no way to try it here.
    Unverifiable,
    /// Not asked for at this level.
    NotRequired,
}

impl ControlState {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Enforced, Self::Tested, Self::NotEnforced, Self::Unverifiable, Self::NotRequired];

    /// As the API writes it.
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

/// Evidence kept before anything was stopped, in the evidence store, under its own digest.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// Digest of the captured manifests and events; the object in the store is named by it.
    #[schemars(length(equal = 71))]
    pub digest: String,
    /// When.
    pub at: Time,
    /// How many objects it holds.
    #[schemars(range(min = 0))]
    pub objects: i64,
    /// How many containers' logs it holds, encrypted. Absent: none were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub logs: Option<i64>,
    /// VolumeSnapshots that were cut, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub snapshots: Vec<String>,
    /// What could not be kept, and why. Empty: everything was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    pub missing: Vec<String>,
}

/// A GitOps object that delivers into an isolated namespace. What it writes there is refused in any case.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Deliverer {
    /// `Kustomization`, `HelmRelease` or `Application`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Where it is.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// What was done about it.
    pub state: DelivererState,
    /// Why it was not suspended: whom else that would harm.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub message: String,
}

/// What was done about a GitOps object that delivers into an isolated namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DelivererState {
    /// Suspended by us, as nothing else hangs on it.
    Suspended,
    /// Left running: it carries others too. It fails on this namespace until that is let out.
    Denied,
}
