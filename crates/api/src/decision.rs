//! `Decision`: what a named person decided about one service's recovery.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// Made once, never changed. The API server vouches for `by`: an admission policy refuses any other name than the creator's,
/// and anyone without the verb of the action on that plan.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "resurgam.dev",
    version = "v1alpha1",
    kind = "Decision",
    plural = "decisions",
    shortname = "dec",
    category = "recovery",
    namespaced,
    derive = "PartialEq",
    doc = "What a named person decided about one service's recovery. Made once, never changed.",
    printcolumn(name = "By", type_ = "string", json_path = ".spec.by"),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.plan"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("self.spec == oldSelf.spec").message("a Decision is never changed: make a new one")
)]
#[serde(rename_all = "camelCase")]
pub struct DecisionSpec {
    /// Who decided: the user name by which the API server knows the creator.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,

    /// What was decided.
    pub action: Action,

    /// The plan concerned, in this namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub plan: String,

    /// The service concerned.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub service: String,

    /// Why. Those who must answer for it will read this.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,

    /// What was decided on: `status.decision.digest` of the ServiceRecovery. If the matter has moved on since, the
    /// Decision has no effect.
    #[schemars(length(equal = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub decided_on: String,
}

/// What can be decided. Each is an RBAC verb of its own on `recoveryplans`.
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
    /// Begin the next attempt: all gates are asked afresh. Loosens nothing.
    Retry,
    /// Go on although a control does not hold: the very one, in the very namespaces, that were shown. Ends with exceptions.
    Override,
    /// Accept that the plan requires less of a service than was last accepted: just what was shown. Ends with exceptions.
    AcceptLoosening,
}

impl Action {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The RBAC verb that permits it.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Override => "override",
            Self::AcceptLoosening => "acceptloosening",
        }
    }
}
