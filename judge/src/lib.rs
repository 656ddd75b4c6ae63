//! Decides, from an API server's audit log and a plan alone, whether a recovery kept what was promised:
//!
//! 1. **order**: no namespace of a service was loosened (sealed or contained to clean room, anything to no label) before
//!    each of the service's dependencies was written as Recovered and Healthy;
//! 2. **pods**: no pod was created in a contained or sealed namespace, and in a clean room only by the built-in workload
//!    controllers;
//! 3. **opener**: nothing was loosened but by the operator's account or by a person.
//!
//! It shares no code with the operator, on purpose: a mistake there must not be repeated here. It believes only answers
//! of the API server, never what a client asked for. A log that cannot prove anything is no pass: see [`CannotJudge`].
//!
//! What it needs of the audit policy: stage `ResponseComplete`, and level `RequestResponse` for writes of namespaces, pods,
//! and our own kinds. One file, from the API server's start.

mod figures;
mod log;
mod plan;
mod report;
mod rules;

use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

pub use figures::{Figures, ServiceFigures};
pub use report::{Report, Rule, Slip, Violation};

/// What the judge is told beside the log and the plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// User name of the operator's account. Beside it only people loosen anything.
    pub operator: String,
    /// An API server learns of a namespace's label by a watch, some milliseconds after the write. A pod asked for within
    /// this time of it has slipped through before the fence closed: told, and no violation.
    pub fence_lag: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            operator: "system:serviceaccount:resurgam-system:resurgam".to_owned(),
            fence_lag: Duration::from_secs(1),
        }
    }
}

/// Why there is no judgement. Never a pass.
#[derive(Debug, thiserror::Error)]
pub enum CannotJudge {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The plan cannot be understood.
    #[error("the plan: {0}")]
    Plan(String),
    /// A line of the log cannot be understood; the last line: the log was cut short.
    #[error("line {line} of the audit log: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The log as a whole proves nothing.
    #[error("the audit log: {0}")]
    Log(String),
}

/// Judges the recovery of a plan by an audit log, both in files.
///
/// # Errors
/// [`CannotJudge`] when the log or the plan cannot carry a judgement.
pub fn judge_files(audit_log: &Path, plan: &Path, options: &Options) -> Result<Report, CannotJudge> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| CannotJudge::Io { path, source }
    };
    let plan_text = std::fs::read_to_string(plan).map_err(io(plan))?;
    let log = std::fs::File::open(audit_log).map_err(io(audit_log))?;
    judge(std::io::BufReader::new(log), &plan_text, options)
}

/// Judges the recovery of the one RecoveryPlan in `plan` (YAML, one or more documents) by an audit log (JSON lines).
///
/// # Errors
/// [`CannotJudge`] when the log or the plan cannot carry a judgement.
pub fn judge(audit_log: impl BufRead, plan: &str, options: &Options) -> Result<Report, CannotJudge> {
    let plan = plan::Plan::parse(plan)?;
    let log = log::Log::read(audit_log, &plan)?;
    let findings = rules::check(&plan, &log, options)?;
    let figures = figures::measure(&plan, &log);
    Ok(Report {
        plan: plan.name.clone(),
        events: log.events,
        writes: log.writes.len(),
        loosenings: findings.loosenings,
        pods: findings.pods,
        slipped: findings.slipped,
        violations: findings.violations,
        figures,
    })
}
