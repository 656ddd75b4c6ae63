//! Gates: one file per type, which judges an inventory by checks in a fixed order. [`crate::api::GATE_TYPES`] lists the types; the
//! operator reads the inventory.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::api::step::ScaleSpec;
use crate::api::{GateReason, GateSpec, Phase, Verdict};
use crate::isolation::Seal;

pub mod addresses;
pub mod approval;
pub mod backup_before;
pub mod baseline;
pub mod condition;
pub mod credentials_rotated;
pub(crate) mod evidence;
mod finding;
pub mod http;
pub mod image_digests;
pub mod images;
pub mod inventory;
pub mod job_result;
pub(crate) mod kstatus;
mod pods;
pub mod workloads;

/// Input of a gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Namespace of the plan.
    pub plan_namespace: String,
    /// Name of the plan.
    pub plan: String,
    /// Name of the service.
    pub service: String,
    /// Number of the service's current attempt. Names of what a gate creates contain it.
    pub attempt: i64,
    /// The earliest time at which the attacker may have been inside, as the plan's Incident says. `None`: not known.
    pub compromised_since: Option<Timestamp>,
    /// Namespaces of the service. Empty: an external system.
    pub namespaces: Vec<String>,
    /// Phase in which the gate is evaluated.
    pub phase: Phase,
    /// The gate in the plan.
    pub spec: GateSpec,
    /// Sealing of each namespace. Records of other sealings are ignored.
    pub seals: BTreeMap<String, Seal>,
    /// Scaling steps of the clean room: what they start has to run before the release.
    pub started: Vec<ScaleSpec>,
    /// Workloads that come back in another revision than the one that served, as a person has accepted.
    pub accepted_rollouts: Vec<String>,
}

impl Question {
    /// Returns a question about namespaces of which nothing is recorded.
    #[must_use]
    pub fn new(plan_namespace: &str, namespaces: Vec<String>, phase: Phase, spec: GateSpec) -> Self {
        Self {
            plan_namespace: plan_namespace.to_owned(),
            plan: String::new(),
            service: String::new(),
            attempt: 1,
            compromised_since: None,
            namespaces,
            phase,
            spec,
            seals: BTreeMap::new(),
            started: Vec::new(),
            accepted_rollouts: Vec::new(),
        }
    }
}

/// Answer of a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Verdict.
    pub verdict: Verdict,
    /// Reason.
    pub reason: GateReason,
    /// Message, with the culprit's name.
    pub message: String,
    /// Digest of what was evaluated: UIDs, the fields read, and the requirements.
    pub evidence: Option<String>,
    /// Digest of what of the service was judged, without what it was judged against. Gates have it whose approved state is kept outside the
    /// plan, where it may change while the service does not.
    pub subject: Option<String>,
    /// What passes although it is not proved in full. Each ends in the service's exceptions once the phase is passed. Few, and short.
    pub exceptions: Vec<String>,
}

impl Answer {
    /// Returns a Pass, with the evidence.
    pub fn pass(reason: GateReason, message: impl Into<String>, evidence: String) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            message: message.into(),
            evidence: Some(evidence),
            subject: None,
            exceptions: Vec::new(),
        }
    }

    /// Returns a Fail, with the evidence.
    pub fn fail(reason: GateReason, message: impl Into<String>, evidence: String) -> Self {
        Self {
            verdict: Verdict::Fail,
            reason,
            message: message.into(),
            evidence: Some(evidence),
            subject: None,
            exceptions: Vec::new(),
        }
    }

    /// Returns an Unknown.
    pub fn unknown(reason: GateReason, message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Unknown,
            reason,
            message: message.into(),
            evidence: None,
            subject: None,
            exceptions: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
