//! `cargo xtask judge`: the judge of the crate `judge`, on the command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use judge::{Options, Window, judge_files};

/// Arguments of `cargo xtask judge`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The API server's audit log, from its start.
    audit_log: PathBuf,
    /// A file with the RecoveryPlan.
    plan: PathBuf,
    /// How to say it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// User name of the operator's account.
    #[arg(long, default_value_t = Options::default().operator)]
    operator: String,
    /// When there was nothing to do, as RFC 3339: FROM/UNTIL. Without it, whether the operator kept quiet is not judged.
    #[arg(long, value_name = "FROM/UNTIL")]
    quiet: Option<Window>,
    /// How often the operator looks at what no gate asks for, in seconds: its --probe-interval.
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().own_interval.as_secs())]
    own_interval: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Judges. Exit code 0: no rule was broken; 1: one was; 2: the log cannot tell, or not of all that matters.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = Options {
        operator: args.operator.clone(),
        quiet: args.quiet,
        own_interval: Duration::from_secs(args.own_interval),
        ..Options::default()
    };
    let report = match judge_files(&args.audit_log, &args.plan, &options) {
        Ok(report) => report,
        Err(error) => {
            anstream::eprintln!("cannot judge: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let mut out = anstream::stdout();
    match args.output {
        Output::Text => write!(out, "{report}")?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    Ok(ExitCode::from(match (report.is_clean(), report.violations.is_empty()) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    }))
}
