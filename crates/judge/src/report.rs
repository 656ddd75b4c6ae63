//! What the judge has to say.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Figures;

/// The judgement and what it rests on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The plan judged.
    pub plan: String,
    /// Events in the log.
    pub events: usize,
    /// Successful writes among them that matter to the rules or the figures.
    pub writes: usize,
    /// How often a namespace of the plan was loosened, by writes that took effect.
    pub loosenings: usize,
    /// The same, of each namespace.
    pub loosened: BTreeMap<String, usize>,
    /// How often the operator asked for a looser isolation of a service.
    pub asks: usize,
    /// How often the plan's account wrote to a workload.
    pub steps: usize,
    /// Pods created in namespaces under isolation, the clean room included.
    pub pods: usize,
    /// Pods asked for before the API server had seen the label that isolated their namespace.
    pub slipped: Vec<Slip>,
    /// Writes that the API server never answered, and what came of them.
    pub unanswered: Vec<Unanswered>,
    /// What was seen in the quiet window. `None`: no window was given, and I8 was not judged.
    pub quiet: Option<Quiet>,
    /// What broke a rule, in the order in which it happened.
    pub violations: Vec<Violation>,
    /// Measured from the log.
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

/// What came of a write that the API server never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Came {
    /// It took effect, and is judged like any other.
    Happened,
    /// It did not.
    DidNot,
    /// Nothing in the log tells.
    Unknown,
}

/// A write that the API server never answered: its client was gone, or its store too slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unanswered {
    /// When the API server gave up.
    pub time: String,
    /// Whose write it was.
    pub user: String,
    /// What would have been written.
    pub object: String,
    /// What came of it.
    pub came: Came,
    /// The revision that shows that it took effect.
    pub revision: Option<u64>,
    /// Nobody knows, and it would have changed a namespace of the plan: the run is not clean.
    pub matters: bool,
    /// Where in the log, counted from 1.
    pub line: usize,
}

/// What was seen in the quiet window.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quiet {
    /// How long it was.
    pub seconds: f64,
    /// What the operator asked for in it, its watches and its lease included.
    pub requests: usize,
}

/// What the rules found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub loosenings: usize,
    pub loosened: BTreeMap<String, usize>,
    pub asks: usize,
    pub steps: usize,
    pub pods: usize,
    pub slipped: Vec<Slip>,
    pub quiet: Option<Quiet>,
    pub violations: Vec<Violation>,
}

/// A write that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// When the API server had answered.
    pub time: String,
    /// Whose write it was.
    pub user: String,
    /// What was written.
    pub object: String,
    /// Which rule.
    pub rule: Rule,
    /// What happened, in words.
    pub message: String,
    /// Where in the log, counted from 1.
    pub line: usize,
}

/// A pod that was asked for before the API server had seen that its namespace was isolated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Slip {
    /// When the API server had the request.
    pub time: String,
    /// Whose it was.
    pub user: String,
    /// The pod.
    pub object: String,
    /// How long after the label was written, in milliseconds; below zero: before the answer to that.
    pub after_ms: i64,
}

impl Report {
    /// Was no rule broken, as far as it can be told, and can it be told of all that matters?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && !self.unanswered.iter().any(|write| write.matters)
    }
}
