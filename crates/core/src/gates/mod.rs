//! Gates: one file for each type, which judges what was gathered by checks in a fixed order. What they are to a plan is told by
//! [`crate::api::GATE_TYPES`]; the operator gathers.

use std::collections::BTreeMap;

use crate::api::{GateReason, GateSpec, Phase, Verdict};

pub mod addresses;
mod evidence;
mod finding;
pub mod http;
pub mod image_digests;
mod images;
pub mod inventory;
mod kstatus;
pub mod workloads;

/// All that a gate may know of what it is asked about.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Namespace of the plan.
    pub plan_namespace: String,
    /// Namespaces of the service. Empty: it is an external system.
    pub namespaces: Vec<String>,
    /// When it is asked.
    pub phase: Phase,
    /// What is asked.
    pub spec: GateSpec,
    /// By namespace, the UID of its Quarantine: only what that one recorded counts.
    pub seals: BTreeMap<String, String>,
}

/// One answer of a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it said.
    pub verdict: Verdict,
    /// One word for why.
    pub reason: GateReason,
    /// Why, with the culprit's name.
    pub message: String,
    /// Digest of what was judged: UIDs, the fields looked at, what was required.
    pub evidence: Option<String>,
}

impl Answer {
    /// The gate passes, judged by `evidence`.
    pub fn pass(reason: GateReason, message: impl Into<String>, evidence: String) -> Self {
        Self { verdict: Verdict::Pass, reason, message: message.into(), evidence: Some(evidence) }
    }

    /// The gate fails, judged by `evidence`.
    pub fn fail(reason: GateReason, message: impl Into<String>, evidence: String) -> Self {
        Self { verdict: Verdict::Fail, reason, message: message.into(), evidence: Some(evidence) }
    }

    /// The gate cannot be judged.
    pub fn unknown(reason: GateReason, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, reason, message: message.into(), evidence: None }
    }
}

#[cfg(test)]
mod tests;
