//! Decides, from an API server's audit log and a plan alone, whether a recovery kept what was promised. Its rules, and the
//! invariant of the design that each asks about (what a log can prove of it, and what not, is in the rule's own text):
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
//! It shares no code with the operator, on purpose: a mistake there must not be repeated here. It believes only answers
//! of the API server, never what a client asked for; of a write without an answer it says what came of it by what is seen
//! later ([`Came`]). A log that cannot prove anything is no pass: see [`CannotJudge`].
//!
//! What it needs of the audit policy: stage `ResponseComplete`; level `RequestResponse` for all writes (of Secrets less is
//! enough), and for the verb `get` on Namespaces, Quarantines and ServiceRecoveries; `Metadata` for other reads. One file,
//! from the API server's start.
//!
//! How it works: [`log`] reads events, [`what`] tells what of an object each write left behind, [`unanswered`] puts those in
//! that nobody answered, [`rules`] asks each rule of each write against the [`world`] as it was before it, [`figures`] measures.

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
mod what;
mod window;
mod world;

use std::io::BufRead;
use std::path::Path;
use std::time::Duration;

pub use figures::{Figures, ServiceFigures};
pub use report::{Came, Quiet, Report, Rule, Slip, Unanswered, Violation};
pub use window::Window;

/// What the judge is told beside the log and the plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// User name of the operator's account. Beside it only people loosen anything.
    pub operator: String,
    /// An API server learns of a namespace's label by a watch, some milliseconds after the write. A pod asked for within
    /// this time of it has slipped through before the fence closed: told, and no violation.
    pub fence_lag: Duration,
    /// When there was nothing to do. `None`: I8 is not judged.
    pub quiet: Option<Window>,
    /// How often the operator looks at anything that no gate asks for, in its own name: its `--probe-interval`.
    pub own_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            operator: "system:serviceaccount:resurgam-system:resurgam".to_owned(),
            fence_lag: Duration::from_secs(1),
            quiet: None,
            own_interval: Duration::from_secs(600),
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
            .map(|(write, outcome)| unanswered::told(&plan, write, outcome))
            .collect(),
        quiet: findings.quiet,
        violations: findings.violations,
        figures,
    })
}
