//! `cargo xtask judge`: the judge of the crate `judge`, on the command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use judge::{Options, judge_files};

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
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Judges. Exit code 0: no rule was broken; 1: one was; 2: the log cannot tell.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let options = Options { operator: args.operator.clone(), ..Options::default() };
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
    Ok(ExitCode::from(u8::from(!report.is_clean())))
}
