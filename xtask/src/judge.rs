//! `cargo xtask judge`: command line of the crate `judge`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use judge::{Options, Window, judge_files};

/// Arguments of `cargo xtask judge`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Audit log of the API server, from its start.
    audit_log: PathBuf,
    /// File with the RecoveryPlan.
    plan: PathBuf,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// User name of the operator.
    #[arg(long, default_value_t = Options::default().operator)]
    operator: String,
    /// User name of an account that may `operate` a Quarantine, or restores into one as Velero does: it creates pods in a clean room
    /// (repeatable).
    #[arg(long, value_name = "USER")]
    operate: Vec<String>,
    /// Window without any work in RFC 3339: FROM/UNTIL. Without it, idleness of the operator is not judged.
    #[arg(long, value_name = "FROM/UNTIL")]
    quiet: Option<Window>,
    /// Interval in seconds of reads that no gate causes: the operator's --probe-interval.
    #[arg(long, value_name = "SECONDS", default_value_t = Options::default().own_interval.as_secs())]
    own_interval: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Judges the log. Exit code 0: no violation; 1: violations; 2: the log does not prove enough.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = Options {
        operator: args.operator.clone(),
        operate: args.operate.clone(),
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
