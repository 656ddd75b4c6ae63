//! `Decision`: a named person's decision about the recovery of one service.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// A named person's decision about the recovery of one service. Immutable. An admission policy guarantees that `by` is the creator and
/// that the creator holds the action's RBAC verb on the plan.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "resurgam.dev",
    version = "v1alpha1",
    kind = "Decision",
    plural = "decisions",
    shortname = "dec",
    category = "recovery",
    namespaced,
    status = "DecisionStatus",
    derive = "PartialEq",
    doc = "A named person's decision about the recovery of one service. Immutable.",
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.plan"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(
        name = "Applied",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Applied\")].status"
    ),
    printcolumn(
        name = "Outcome",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Applied\")].reason"
    ),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("self.spec == oldSelf.spec").message("a Decision is never changed: make a new one")
)]
#[serde(rename_all = "camelCase")]
pub struct DecisionSpec {
    /// The creator's user name, as the API server authenticates it.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,

    /// The action.
    pub action: Action,

    /// Name of the plan, in this namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub plan: String,

    /// Name of the service.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,

    /// Why the person decided so, for those who are accountable for it.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,

    /// Digest of the state that the person decided on: `status.decision.digest` of the ServiceRecovery, or `status.standingOrders.digest` for
    /// `Hold` and `Abort`, which answer no question. Once the state has changed, the Decision has no effect.
    #[schemars(length(equal = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub decided_on: String,

    /// Group of the creator in whose name an `Approve` is given. An admission policy guarantees that the creator is in it. It counts for
    /// the parties that name this group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub group: Option<String>,
}

/// What became of a Decision. Nothing is decided by it: it is for people and programs to read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DecisionStatus {
    /// `metadata.generation` that this status is based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::observed_generation_schema")]
    pub observed_generation: Option<i64>,
    /// `Applied`. Once it is True, it stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Action of a Decision. Each is a separate RBAC verb on `recoveryplans`.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    IntoStaticStr,
    VariantArray,
)]
pub enum Action {
    /// Starts the next attempt: all gates are evaluated again. Loosens nothing.
    Retry,
    /// Proceeds although a control does not hold: exactly the control and the namespaces shown. The service ends as `WithExceptions`.
    Override,
    /// Accepts that the plan requires less than was last accepted: exactly what was shown. The service ends as `WithExceptions`.
    AcceptLoosening,
    /// Accepts that a gate fails, or that what was proved is superseded: exactly what was shown. The service ends as `WithExceptions`.
    AcceptException,
    /// Goes on without a step that failed or overruns. The service ends as `WithExceptions`.
    Skip,
    /// Gives an approval that a gate or a manual step asks for.
    Approve,
    /// Refuses an approval: what was approved so far is void, and the service keeps waiting.
    Reject,
    /// Keeps the service where it is: nothing of it is started or loosened until `Unhold`. Answers no question.
    Hold,
    /// Ends a `Hold`.
    Unhold,
    /// Isolates the service again, ends its attempt, and holds it. Answers no question.
    Abort,
}

impl Action {
    /// Returns all actions.
    #[must_use]
    pub const fn all() -> &'static [Self] {
        Self::VARIANTS
    }

    /// Returns the name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the RBAC verb that permits the action.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Override => "override",
            Self::AcceptLoosening => "acceptloosening",
            Self::AcceptException => "acceptexception",
            Self::Skip => "skip",
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Hold => "hold",
            Self::Unhold => "unhold",
            Self::Abort => "abort",
        }
    }

    /// Returns whether the action answers no question: it is possible at any time.
    #[must_use]
    pub const fn is_standing_order(self) -> bool {
        matches!(self, Self::Hold | Self::Abort)
    }
}
