//! Decides from an API server's audit log and a plan alone whether a recovery kept the invariants. Each rule checks one invariant of the
//! design; its module says what a log can prove of it, and what not.
//!
//! | Rule | Invariant | |
//! |---|---|---|
//! | `order` | I1 | nothing is loosened, and no step starts, before the dependencies are Recovered and Healthy, by a live read |
//! | `gates` | I2 | no clean room and no opening before every gate has passed in this attempt |
//! | `opener` | I4 | nothing is loosened but by the operator, as it was asked to, or by a person |
//! | `pods` | I4 | no pod in what is contained or sealed; in a clean room only those of built-in controllers |
//! | `once` | I5 | intent first; nothing is done twice, and nothing lost |
//! | `quiet` | I8 | in a window in which there is nothing to do: no writes, and no reads beyond the declared intervals |
//!
//! I3, I6 and I7 are about what the operator makes of what it reads, which is in no log.
//!
//! It shares no code with the operator, so that a mistake there is not repeated here. It relies only on answers of the API server, never
//! on what a client requested; for a write without an answer it derives the outcome from later events ([`WriteOutcome`]). A log that
//! proves nothing does not pass: see [`CannotJudge`].
//!
//! What it needs of the audit policy: stage `ResponseComplete`; level `RequestResponse` for all writes (of Secrets less is
//! enough), and for the verb `get` on Namespaces, Quarantines and ServiceRecoveries; `Metadata` for other reads. One file,
//! from the API server's start.
//!
//! Structure: [`log`] reads events, [`change`] derives what each write left behind, [`unanswered`] adds writes without an answer,
//! [`rules`] checks each write against the [`world`] before it, [`figures`] measures durations.

mod change;
mod clocks;
mod event;
mod figures;
mod gates;
mod log;
mod plan;
mod report;
mod rules;
mod text;
mod unanswered;
mod window;
mod world;

use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

pub use figures::{Figures, ServiceFigures};
pub use report::{QuietWindow, RacedPod, Report, Rule, Unanswered, Violation, WriteOutcome};
pub use window::Window;

/// Options of the judge.
#[derive(Clone, Debug)]
pub struct Options {
    /// User name of the operator. Apart from it only people loosen anything.
    pub operator: String,
    /// User names of accounts that may `operate` a Quarantine, or restore into one as Velero does: they may create pods in a clean room. RBAC is
    /// not judged.
    pub operate: Vec<String>,
    /// An API server observes a namespace's label by a watch, some milliseconds after the write. A pod created within this time is
    /// reported as created before the fence was in force, and is no violation.
    pub fence_lag: Duration,
    /// Window without any work. `None`: I8 is not judged.
    pub quiet: Option<Window>,
    /// Longest interval of reads that no gate causes: the operator's `--probe-interval`.
    pub own_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            operator: "system:serviceaccount:resurgam-system:resurgam".to_owned(),
            operate: Vec::new(),
            fence_lag: Duration::from_secs(1),
            quiet: None,
            own_interval: Duration::from_secs(600),
        }
    }
}

/// Why no judgement is possible. Never a pass.
#[derive(Debug, thiserror::Error)]
pub enum CannotJudge {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Path of the file.
        path: String,
        /// The error.
        source: std::io::Error,
    },
    /// The plan cannot be parsed.
    #[error("the plan: {0}")]
    Plan(String),
    /// A line of the log cannot be parsed. If it is the last line, the log was truncated.
    #[error("line {line} of the audit log: {reason}")]
    Line {
        /// Line number, counted from 1.
        line: usize,
        /// The error.
        reason: String,
    },
    /// The log proves nothing.
    #[error("the audit log: {0}")]
    Log(String),
}

/// Judges the recovery of a plan by an audit log, both in files.
///
/// # Errors
/// [`CannotJudge`] if the log or the plan permits no judgement.
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
/// [`CannotJudge`] if the log or the plan permits no judgement.
pub fn judge(audit_log: impl BufRead, plan: &str, options: &Options) -> Result<Report, CannotJudge> {
    let plan = plan::Plan::parse(plan)?;
    let log = log::Log::read(audit_log, &plan, options)?;
    let findings = rules::check(&plan, &log, options)?;
    let figures = figures::measure(&plan, &log);
    Ok(Report {
        plan: plan.name.clone(),
        events: log.events,
        writes: log.writes.len(),
        loosenings: findings.loosenings,
        loosened: findings.loosened,
        asks: findings.asks,
        steps: findings.steps,
        pods: findings.pods,
        slipped: findings.slipped,
        unanswered: log
            .unanswered
            .iter()
            .map(|(write, outcome)| unanswered::to_report(&plan, write, outcome))
            .collect(),
        quiet: findings.quiet,
        violations: findings.violations,
        figures,
    })
}
