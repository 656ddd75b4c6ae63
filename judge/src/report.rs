//! What the judge has to say.

use std::fmt;

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
    /// How often a namespace of the plan was loosened.
    pub loosenings: usize,
    /// Pods created in namespaces under isolation, the clean room included.
    pub pods: usize,
    /// Pods asked for before the API server had seen the label that isolated their namespace.
    pub slipped: Vec<Slip>,
    /// What broke a rule, in the order in which it happened.
    pub violations: Vec<Violation>,
    /// Measured from the log.
    pub figures: Figures,
}

/// A rule of the judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Nothing is loosened before its dependencies are Recovered and Healthy.
    Order,
    /// Nothing isolated gets a pod.
    Pods,
    /// Nothing is loosened but by the operator or a person.
    Opener,
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
    /// Was no rule broken?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "order",
            Self::Pods => "pods",
            Self::Opener => "opener",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.violations.len() {
            0 => "no violation".to_owned(),
            1 => "1 violation".to_owned(),
            n => format!("{n} violations"),
        };
        writeln!(
            f,
            "{}: {verdict} in {} events: {} loosenings, {} pods under isolation",
            self.plan, self.events, self.loosenings, self.pods
        )?;
        for v in &self.violations {
            writeln!(
                f,
                "  {} {} {} (line {}, by {}): {}",
                v.time, v.rule, v.object, v.line, v.user, v.message
            )?;
        }
        for s in &self.slipped {
            writeln!(
                f,
                "  {} {} by {} slipped in, {} ms after the label",
                s.time, s.object, s.user, s.after_ms
            )?;
        }
        let figures = &self.figures;
        writeln!(f, "recovered: {}/{} services", figures.recovered, figures.total)?;
        if figures.recovered == 0 {
            return Ok(());
        }
        let seconds = |ms: f64| format!("{:.2} s", ms / 1_000.0);
        writeln!(
            f,
            "makespan: {} (by the clock {}, of which {} waiting for a person)",
            seconds(figures.makespan_ms),
            seconds(figures.wall_ms),
            seconds(figures.human_ms)
        )?;
        let path = figures.critical_path.join(" → ");
        writeln!(f, "critical path: {} ({path})", seconds(figures.critical_path_ms))?;
        writeln!(f, "ratio: {:.3}", figures.ratio)?;
        match (figures.edge_p50_ms, figures.edge_p99_ms) {
            (Some(p50), Some(p99)) => {
                write!(f, "edge latency: p50 {p50:.1} ms, p99 {p99:.1} ms over {} edges", figures.edges)?
            }
            _ => write!(f, "edge latency: no edge was free to go at once")?,
        }
        writeln!(f, " ({} more waited for a slot or a person)", figures.edges_waited)
    }
}
