//! Report of the judge.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Figures;

/// Judgement, and the figures.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the plan.
    pub plan: String,
    /// Number of events in the log.
    pub events: usize,
    /// Number of successful writes that the rules or figures use.
    pub writes: usize,
    /// Number of loosenings of the plan's namespaces that took effect.
    pub loosenings: usize,
    /// The same per namespace.
    pub loosened: BTreeMap<String, usize>,
    /// Number of times the operator requested a looser isolation of a service.
    pub asks: usize,
    /// Number of writes of the plan's account to workloads.
    pub steps: usize,
    /// Number of pods created in isolated namespaces, including clean rooms.
    pub pods: usize,
    /// Pods created before the API server observed the label that isolated their namespace.
    pub slipped: Vec<RacedPod>,
    /// Writes without an answer, and their outcome.
    pub unanswered: Vec<Unanswered>,
    /// Requests in the quiet window. `None`: no window was given, and I8 was not judged.
    pub quiet: Option<QuietWindow>,
    /// Violations, in order of time.
    pub violations: Vec<Violation>,
    /// Figures measured from the log.
    pub figures: Figures,
}

/// A rule of the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// I1: nothing is loosened, and no step starts, before its dependencies are Recovered and Healthy.
    Order,
    /// I2: nothing is loosened before its gates have passed, in this attempt.
    Gates,
    /// I4: nothing is loosened but by the operator, as it was asked to, or by a person.
    Opener,
    /// I4: nothing isolated gets a pod.
    Pods,
    /// I5: intent is written first; nothing is done twice, and nothing lost.
    Once,
    /// I8: an idle operator writes nothing, and reads no more than it declares.
    Quiet,
}

/// Outcome of a write without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WriteOutcome {
    /// It took effect, and is judged like any other write.
    Happened,
    /// It did not take effect.
    DidNot,
    /// The log does not show it.
    Unknown,
}

/// A write without an answer: its client was killed, or the store timed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unanswered {
    /// When the API server gave up.
    pub time: String,
    /// User who wrote.
    pub user: String,
    /// Object that would have been written.
    pub object: String,
    /// Outcome of the write.
    pub came: WriteOutcome,
    /// Revision that shows that it took effect.
    pub revision: Option<u64>,
    /// Whether the outcome is unknown and the write would have changed a namespace of the plan. The run is then not clean.
    pub matters: bool,
    /// Line in the log, counted from 1.
    pub line: usize,
}

/// Requests in the quiet window.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuietWindow {
    /// Length of the window in seconds.
    pub seconds: f64,
    /// Number of requests of the operator, including its watches and its lease.
    pub requests: usize,
}

/// Findings of the rules.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub loosenings: usize,
    pub loosened: BTreeMap<String, usize>,
    pub asks: usize,
    pub steps: usize,
    pub pods: usize,
    pub slipped: Vec<RacedPod>,
    pub quiet: Option<QuietWindow>,
    pub violations: Vec<Violation>,
}

/// A write that violates a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// When the API server answered.
    pub time: String,
    /// User who wrote.
    pub user: String,
    /// Object that was written.
    pub object: String,
    /// Violated rule.
    pub rule: Rule,
    /// What happened.
    pub message: String,
    /// Line in the log, counted from 1.
    pub line: usize,
}

/// A pod that was created before the API server observed that its namespace was isolated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RacedPod {
    /// When the API server received the request.
    pub time: String,
    /// User who created it.
    pub user: String,
    /// The pod.
    pub object: String,
    /// Milliseconds after the label was written. Negative: before the answer to that write.
    pub after_ms: i64,
}

impl Report {
    /// Returns whether no rule was violated, and the log shows enough to tell.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && !self.unanswered.iter().any(|write| write.matters)
    }
}
