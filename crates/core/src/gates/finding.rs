//! What checks find wrong, and the answer that follows.

use std::fmt::Display;

use super::Answer;
use crate::api::{GateReason, Verdict};

/// What one check finds wrong with one thing.
pub struct Finding {
    disproved: bool,
    reason: GateReason,
    message: String,
}

impl Finding {
    /// It is not as it should be.
    pub fn fail(reason: GateReason, message: impl Into<String>) -> Option<Self> {
        Some(Self { disproved: true, reason, message: message.into() })
    }

    /// Nobody can say whether it is.
    pub fn unknown(reason: GateReason, message: impl Into<String>) -> Option<Self> {
        Some(Self { disproved: false, reason, message: message.into() })
    }
}

/// The answer for all that was found wrong, by culprit. None: nothing was.
///
/// What is disproved speaks before what is not proved, the first of its kind for the others.
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
    })
}
