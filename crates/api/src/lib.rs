//! The kinds of `resurgam.dev/v1alpha1`, one file each. `crds/` is generated from here.

use std::borrow::Cow;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub mod conditions;
pub mod decision;
pub mod duration;
pub mod gate;
pub mod gate_reason;
pub mod gate_types;
pub mod incident;
pub mod quarantine;
pub mod quarantine_reason;
pub mod reason;
pub mod recovery_plan;
mod service_key;
pub mod service_recovery;
pub mod step;

pub use decision::{Action, Decision, DecisionSpec};
pub use duration::Duration;
pub use gate::{GateSpec, Health, Phase, Verdict};
pub use gate_reason::GateReason;
pub use gate_types::{Class, GATE_TYPES, GateType};
pub use incident::{Incident, IncidentSpec};
pub use quarantine::{Claim, Quarantine, QuarantineLevel, QuarantineSpec, QuarantineStatus};
pub use quarantine_reason::QuarantineReason;
pub use reason::Reason;
pub use recovery_plan::{ClusterService, RecoveryPlan, RecoveryPlanSpec, RecoveryPlanStatus, ServiceSpec};
pub use service_key::ServiceKey;
pub use service_recovery::{PodSecurity, ServiceRecovery, ServiceRecoverySpec, ServiceRecoveryStatus, Stage};
pub use step::{StepAction, StepPhase, StepSpec};

/// API group of all kinds.
pub const GROUP: &str = "resurgam.dev";

/// Label on an isolated namespace: [`Isolation::label`]. The admission policies go by it.
pub const ISOLATION_LABEL: &str = "resurgam.dev/isolation";
/// Annotation on an isolated namespace: why, for the fence's message.
pub const REASON_ANNOTATION: &str = "resurgam.dev/reason";
/// Annotation on an isolated namespace: the incident, for the fence's message.
pub const INCIDENT_ANNOTATION: &str = "resurgam.dev/incident";
/// Annotation on a stopped workload: how many replicas it had (for a CronJob or Job: whether it was suspended; for a
/// DaemonSet: its node selector, as JSON).
pub const RECORDED_ANNOTATION: &str = "resurgam.dev/replicas";
/// Annotation on a stopped StatefulSet: `whenScaled` of its volume claims' retention policy, where that was not `Retain`.
pub const WHEN_SCALED_ANNOTATION: &str = "resurgam.dev/when-scaled";
/// Annotation on a stopped workload: UID of the Quarantine that stopped it. One of another seal is ignored.
pub const SEAL_ANNOTATION: &str = "resurgam.dev/seal";
/// Annotation on what delivers into an isolated namespace and was suspended: digest of the evidence that was taken before. One of an
/// earlier sealing is ignored.
pub const EVIDENCE_ANNOTATION: &str = "resurgam.dev/evidence";
/// Label on a ServiceAccount that was recreated: which sealing did it. One of an earlier sealing is ignored.
pub const SEALED_LABEL: &str = "resurgam.dev/sealed-as";
/// Label on whatever we make in an isolated namespace.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The one registry of field managers: one for each concern, so that no two of ours share a field by accident.
pub mod field_manager {
    /// Plan status, ServiceRecovery spec and status.
    pub const PLAN: &str = "resurgam-plan";
    /// `Quarantine.status.claimedBy`.
    pub const CLAIM: &str = "resurgam-claim";
    /// The rest of a Quarantine's status, namespace labels, network policies, stopped workloads.
    pub const ISOLATION: &str = "resurgam-isolation";
    /// The admission policies.
    pub const FENCE: &str = "resurgam-fence";
    /// What a step writes, as the plan's account.
    pub const STEP: &str = "resurgam-step";
}

/// How isolated a namespace is, from the tightest to the loosest: a later one is a loosening.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isolation {
    /// Talks to nobody, nobody writes, nothing runs.
    Sealed,
    /// Talks to nobody, nobody writes; processes are left alive.
    Contained,
    /// Runs what the plan put there, talks only to recovered dependencies.
    CleanRoom,
    /// Not isolated.
    Open,
}

impl Isolation {
    /// Value of [`ISOLATION_LABEL`]; `None` when open, as then there is no label.
    #[must_use]
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Self::Sealed => Some("sealed"),
            Self::Contained => Some("contained"),
            Self::CleanRoom => Some("clean-room"),
            Self::Open => None,
        }
    }

    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "Sealed",
            Self::Contained => "Contained",
            Self::CleanRoom => "CleanRoom",
            Self::Open => "Open",
        }
    }
}

/// The CustomResourceDefinitions of all kinds, in the order in which people meet them.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Incident::crd(), RecoveryPlan::crd(), ServiceRecovery::crd(), Quarantine::crd(), Decision::crd()]
}

/// A reference by name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Account of the operator. Written into the admission policies, which know no parameters.
pub const OPERATOR_NAMESPACE: &str = "resurgam-system";

/// The operator's ServiceAccount, in its namespace.
pub const OPERATOR_ACCOUNT: &str = "resurgam";

/// Where records of what was in isolated namespaces are kept: no tenant writes there.
pub const RECORDS_NAMESPACE: &str = "resurgam-records";

/// Where the operator's pods try the cluster's network: denied nothing, and denied everything.
pub const PROBE_NAMESPACES: [&str; 2] = ["resurgam-probe", "resurgam-probe-denied"];

/// Why a namespace is never isolated nor recovered, if it is one of those.
#[must_use]
pub fn protected_namespace(namespace: &str) -> Option<&'static str> {
    match namespace {
        _ if namespace.starts_with("kube-") => Some("the cluster itself runs there"),
        "default" => Some("the API server's own Service is kept there"),
        OPERATOR_NAMESPACE => Some("the operator runs there"),
        RECORDS_NAMESPACE => Some("records of what was in isolated namespaces are kept there"),
        _ if PROBE_NAMESPACES.contains(&namespace) => Some("the operator tries the cluster's network there"),
        _ => None,
    }
}

/// Name of a service's ServiceRecovery: `<plan>.<service>`. Service names carry no dot, so this is unambiguous.
#[must_use]
pub fn service_recovery_name(plan: &str, service: &str) -> String {
    format!("{plan}.{service}")
}

/// `observedGeneration` defaults to -1: kstatus takes an absent one for current.
fn observed_generation_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "default": -1})
}

/// A quantity that the schema leaves unsigned; `usize` carries a format that the API server does not know.
fn count_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 0})
}

/// Names of namespaces and service accounts, bounded for CEL's cost.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(transparent)]
pub struct DnsLabel(pub String);

impl JsonSchema for DnsLabel {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "DnsLabel".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"})
    }
}
