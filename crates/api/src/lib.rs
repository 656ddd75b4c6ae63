//! The kinds of `resurgam.dev/v1alpha1`, one file each. `crds/` is generated from here.

use std::borrow::Cow;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub mod aspect;
pub mod conditions;
pub mod decision;
pub mod decision_reason;
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

pub use aspect::{Aspect, AspectState, AspectStatus};
pub use decision::{Action, Decision, DecisionSpec, DecisionStatus};
pub use decision_reason::DecisionReason;
pub use duration::Duration;
pub use gate::{GateSpec, Health, Phase, Proof, Verdict};
pub use gate_reason::GateReason;
pub use gate_types::{Class, GATE_TYPES, GateType, USUAL_PACE};
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

/// Label on an isolated namespace with its level ([`Isolation::label`]). The admission policies select by it.
pub const ISOLATION_LABEL: &str = "resurgam.dev/isolation";
/// Annotation on an isolated namespace: the reason, for the write fence's message.
pub const REASON_ANNOTATION: &str = "resurgam.dev/reason";
/// Annotation on an isolated namespace: the incident, for the write fence's message.
pub const INCIDENT_ANNOTATION: &str = "resurgam.dev/incident";
/// Annotation on a stopped workload with its state before: the number of replicas; for a CronJob or Job whether it was suspended; for a
/// DaemonSet its node selector as JSON.
pub const RECORDED_ANNOTATION: &str = "resurgam.dev/replicas";
/// Annotation on a stopped StatefulSet: `whenScaled` of its volume claim retention policy, if that was not `Retain`.
pub const WHEN_SCALED_ANNOTATION: &str = "resurgam.dev/when-scaled";
/// Annotation on a stopped workload whose rollout was not complete: the revision that served, and the one that Kubernetes starts.
pub const ROLLOUT_ANNOTATION: &str = "resurgam.dev/rollout";
/// Annotation on a stopped workload: UID of the Quarantine that stopped it. Records of another Quarantine are ignored.
pub const SEAL_ANNOTATION: &str = "resurgam.dev/seal";
/// Annotation on a workload that is still stopped in a released namespace: people start it. If it runs, its record no longer counts.
pub const RELEASED_ANNOTATION: &str = "resurgam.dev/released";
/// Annotation on a Quarantine that is about to be deleted: why its namespace is released.
pub const RELEASE_REASON_ANNOTATION: &str = "resurgam.dev/release-reason";
/// Annotation on a Quarantine that is about to be deleted: who releases its namespace, by their own account.
pub const RELEASED_BY_ANNOTATION: &str = "resurgam.dev/released-by";
/// Annotation on a GitOps object that was suspended: digest of the evidence captured before. Annotations of an earlier sealing are
/// ignored.
pub const EVIDENCE_ANNOTATION: &str = "resurgam.dev/evidence";
/// Label on a recreated ServiceAccount: the sealing that recreated it. Labels of an earlier sealing are ignored.
pub const SEALED_LABEL: &str = "resurgam.dev/sealed-as";
/// Label on every object that the operator creates in an isolated namespace.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Field managers for server-side apply, one per concern, so that no two of them own the same field by accident.
pub mod field_manager {
    /// Status of RecoveryPlans; spec and status of ServiceRecoveries.
    pub const PLAN: &str = "resurgam-plan";
    /// Status of Decisions.
    pub const DECISION: &str = "resurgam-decision";
    /// `Quarantine.status.claimedBy`.
    pub const CLAIM: &str = "resurgam-claim";
    /// The rest of a Quarantine's status, namespace labels, NetworkPolicies, stopped workloads.
    pub const ISOLATION: &str = "resurgam-isolation";
    /// The admission policies.
    pub const FENCE: &str = "resurgam-fence";
    /// Objects that a step writes with the plan's account.
    pub const STEP: &str = "resurgam-step";
    /// Begins the field manager of a step `apply`. Each such step has one of its own, so that it gives up what it applies no more.
    pub const APPLY_PREFIX: &str = "resurgam-apply";
    /// All of them, but those of steps `apply`.
    pub const ALL: [&str; 6] = [PLAN, DECISION, CLAIM, ISOLATION, FENCE, STEP];
}

/// Isolation level of a namespace, from the tightest to the loosest. A later variant is looser.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isolation {
    /// No network traffic, no writes, and nothing runs.
    Sealed,
    /// No network traffic and no writes; processes keep running.
    Contained,
    /// Runs what the plan restored, and connects only to recovered dependencies.
    CleanRoom,
    /// Not isolated.
    Open,
}

impl Isolation {
    /// Returns the value of [`ISOLATION_LABEL`], or `None` for `Open`: an open namespace has no label.
    #[must_use]
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Self::Sealed => Some("sealed"),
            Self::Contained => Some("contained"),
            Self::CleanRoom => Some("clean-room"),
            Self::Open => None,
        }
    }

    /// Returns the name in the API.
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

/// Returns the CustomResourceDefinitions of all kinds, in the order in which users meet them.
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

/// Namespace of the operator. The admission policies contain it, as they have no parameters.
pub const OPERATOR_NAMESPACE: &str = "resurgam-system";

/// ServiceAccount of the operator, in [`OPERATOR_NAMESPACE`].
pub const OPERATOR_ACCOUNT: &str = "resurgam";

/// Namespace of the records of what isolated namespaces contained. Tenants cannot write there.
pub const RECORDS_NAMESPACE: &str = "resurgam-records";

/// Namespaces in which the operator's pods probe the cluster's network: one with no policy, one with default-deny.
pub const PROBE_NAMESPACES: [&str; 2] = ["resurgam-probe", "resurgam-probe-denied"];

/// Returns why the namespace is never isolated or recovered. `None`: it is not protected.
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

/// Returns the name of a service's ServiceRecovery, `<plan>.<service>`. It is unambiguous, as service names contain no dot.
#[must_use]
pub fn service_recovery_name(plan: &str, service: &str) -> String {
    format!("{plan}.{service}")
}

/// Schema of `observedGeneration`, with the default -1: kstatus reads an absent value as current.
fn observed_generation_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "default": -1})
}

/// Schema of a count without a `format`: the API server does not know the format that schemars writes for `usize`.
fn count_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 0})
}

/// Name of a namespace or ServiceAccount. Its length is bounded to keep CEL's cost estimate within the API server's budget.
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
