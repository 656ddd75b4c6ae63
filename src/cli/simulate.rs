//! `resurgam simulate PLAN.yaml`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::Output;
use crate::api::Duration;
use crate::plan::Plan;
use crate::simulate::Assumed;
use crate::simulate::report::{self, Report};

/// Columns when the output is no terminal.
const WIDTH: usize = 100;

/// What `--help` ends with.
const EXAMPLES: &str = "\
The plan is validated as an API server would: its schema and its rules, of this version of Resurgam. Whether what it names exists, only \
the cluster knows: see condition Prepared of the applied plan.

Examples:
  # In the pipeline that reviews the plan.
  resurgam simulate plan.yaml

  # The plan as it is on the cluster, with what all its field managers wrote.
  kubectl get recoveryplan three-boroughs -n recovery -o yaml | resurgam simulate -

  # How long it takes with faster backups, and with four services at once.
  resurgam simulate plan.yaml --step 2m --max-parallel 4";

/// Arguments of `resurgam simulate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// A file with a RecoveryPlan, as YAML; other kinds in it are passed over. `-` reads standard input.
    plan: PathBuf,
    /// How long a step takes.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    step: Duration,
    /// How long each change of isolation takes.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    isolation: Duration,
    /// So many units at once, instead of what the plan says.
    #[arg(long, value_name = "N")]
    max_parallel: Option<NonZeroUsize>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let (_, plans) = super::plan_file::read(&args.plan)?;
    let assumed = Assumed { step: args.step.0, isolation: args.isolation.0 };
    let mut reports = Vec::new();
    for object in plans {
        let mut plan = Plan::from_object(&object);
        if let Some(n) = args.max_parallel {
            plan.max_parallel = n.get();
        }
        reports.push(Report::of(&plan, assumed)?);
    }
    match args.output {
        Output::Text => {
            let width = terminal_size::terminal_size().map_or(WIDTH, |(w, _)| usize::from(w.0));
            let texts: Vec<String> = reports.iter().map(|r| report::text(r, width)).collect();
            anstream::print!("{}", texts.join("\n"));
        }
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&reports)?),
    }
    let sound = reports.iter().all(|r| r.problems.is_empty());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
