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

impl Finding {
    /// Appends the cause.
    pub fn explain(&mut self, cause: &str) {
        self.message = format!("{}: {cause}", self.message);
    }
}

/// Maximum length of the list of culprits, in characters: a status holds 512 in all.
const LIMIT: usize = 380;

/// Returns the answer for all findings, by culprit. `None`: there are no findings.
///
/// Fail takes precedence over Unknown. The message names every culprit of the verdict, those with the same finding together, as far as
/// there is room, and the number of others.
pub fn worst<C: Display>(findings: &[(C, Finding)], evidence: impl FnOnce() -> String) -> Option<Answer> {
    let (_, first) = findings.iter().find(|(_, finding)| finding.disproved).or(findings.first())?;
    let of_verdict = || findings.iter().filter(|(_, finding)| finding.disproved == first.disproved);
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for (culprit, finding) in of_verdict() {
        match groups.iter_mut().find(|(message, _)| *message == finding.message) {
            Some((_, culprits)) => culprits.push(culprit.to_string()),
            None => groups.push((&finding.message, vec![culprit.to_string()])),
        }
    }
    let (mut message, mut left) = (String::new(), of_verdict().count());
    for (what, culprits) in &groups {
        if !message.is_empty() && message.len() + what.len() > LIMIT {
            break;
        }
        let mut names = String::new();
        for culprit in culprits {
            if !names.is_empty() && message.len() + names.len() + culprit.len() + what.len() > LIMIT {
                break;
            }
            names += if names.is_empty() { "" } else { ", " };
            names += culprit;
            left -= 1;
        }
        message += if message.is_empty() { "" } else { "; " };
        message += &format!("{names}: {what}");
    }
    if left > 0 {
        message += &format!("; and {left} more");
    }
    Some(Answer {
        verdict: if first.disproved { Verdict::Fail } else { Verdict::Unknown },
        reason: first.reason,
        message,
        evidence: first.disproved.then(evidence),
        subject: None,
        exceptions: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(findings: &[(&str, Option<Finding>)]) -> String {
        let findings: Vec<_> = findings
            .iter()
            .map(|(culprit, finding)| {
                let finding = finding.as_ref().unwrap();
                let Finding { disproved, reason, message } = finding;
                (*culprit, Finding { disproved: *disproved, reason: *reason, message: message.clone() })
            })
            .collect();
        worst(&findings, String::new).unwrap().message
    }

    #[test]
    fn every_culprit_of_the_verdict_is_named_with_its_finding() {
        let fail = |message: &str| Finding::fail(GateReason::NotApproved, message);
        let unknown = |message: &str| Finding::unknown(GateReason::InProgress, message);
        assert_eq!(message(&[("a", fail("x")), ("b", fail("y")), ("c", fail("x"))]), "a, c: x; b: y");
        assert_eq!(message(&[("a", unknown("slow")), ("b", fail("y"))]), "b: y", "Fail takes precedence");
    }

    #[test]
    fn list_of_culprits_is_bounded_and_says_how_many_more() {
        let names: Vec<String> = (0..200).map(|n| format!("Deployment shop/workload-{n}")).collect();
        let all: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), Finding::fail(GateReason::NotReady, "0 of 1 ready")))
            .collect();
        let text = message(&all);
        assert!(text.starts_with("Deployment shop/workload-0, Deployment shop/workload-1, "), "{text}");
        let named = text.matches("workload-").count();
        assert!(text.ends_with(&format!(": 0 of 1 ready; and {} more", 200 - named)), "{text}");
        assert!((200..512).contains(&text.len()), "{}", text.len());
    }
}
