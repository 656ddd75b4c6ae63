//! Findings of checks, and the answer that follows from them.

use std::fmt::Display;

use super::Answer;
use crate::api::{GateReason, Verdict};

/// A check's finding about one object.
pub struct Finding {
    disproved: bool,
    reason: GateReason,
    message: String,
}

impl Finding {
    /// Returns a finding with the verdict Fail.
    pub fn fail(reason: GateReason, message: impl Into<String>) -> Option<Self> {
        Some(Self { disproved: true, reason, message: message.into() })
    }

    /// Returns a finding with the verdict Unknown.
    pub fn unknown(reason: GateReason, message: impl Into<String>) -> Option<Self> {
        Some(Self { disproved: false, reason, message: message.into() })
    }
}

/// Returns the answer for all findings, by culprit. `None`: there are no findings.
///
/// Fail takes precedence over Unknown. The message names the first culprit of the verdict, and the number of others.
pub fn worst<C: Display>(findings: &[(C, Finding)], evidence: impl FnOnce() -> String) -> Option<Answer> {
    let (culprit, finding) = findings.iter().find(|(_, finding)| finding.disproved).or(findings.first())?;
    let others = match findings.len() - 1 {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    Some(Answer {
        verdict: if finding.disproved { Verdict::Fail } else { Verdict::Unknown },
        reason: finding.reason,
        message: format!("{culprit}{others}: {}", finding.message),
        evidence: finding.disproved.then(evidence),
        exceptions: Vec::new(),
    })
}
