//! `resurgam check`.

use std::process::ExitCode;
use std::time::{Duration as StdDuration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use kube::Client;

use super::Output;
use crate::api::Duration;
use crate::calls::error_line;
use crate::check::{Report, Scope, Verdict, gather, judge, render};

/// Pause between two tries of `--wait`.
const PAUSE: StdDuration = StdDuration::from_secs(2);

const AFTER_HELP: &str = "\
Exit codes:
  0  every check that isolating and recovering do not work without has passed; there may be warnings
  1  one has failed
  2  it could not be found out: there is no cluster, or you may not read what it takes

Each check has a section in docs/checks.md. Nothing is changed: what is tried is tried by dry-runs.";

/// Arguments of `resurgam check`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// Only what has to be so before anything is installed.
    #[arg(long)]
    pre: bool,

    /// Of plans, only this one's rights.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = super::namespaced)]
    plan: Option<(String, String)>,

    /// Try again until nothing that is fatal fails, for so long.
    #[arg(long, value_name = "DURATION")]
    wait: Option<Duration>,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    let report = runtime.block_on(report(args))?;
    match args.output {
        Output::Text => anstream::print!("{}", render::text(&report, super::terminal().0)),
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&render::json(&report))?),
    }
    Ok(match report.verdict() {
        Verdict::NotApplicable | Verdict::Passed | Verdict::Warning => ExitCode::SUCCESS,
        Verdict::Failed => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(2),
    })
}

async fn report(args: &Args) -> Result<Report> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    let scope = Scope { pre: args.pre, plan: args.plan.clone() };
    let end = Instant::now() + args.wait.map_or(StdDuration::ZERO, |wait| wait.0);
    let mut told = String::new();
    loop {
        let report = once(&client, &scope).await;
        if Instant::now() + PAUSE > end {
            return report;
        }
        let waiting = match &report {
            Ok(found) if found.verdict() < Verdict::Unknown => return report,
            Ok(found) => found.blocking().map(|outcome| outcome.check.id).collect::<Vec<_>>().join(", "),
            Err(error) => error_line(error.as_ref()),
        };
        // On standard error, once for each change: what is waited for.
        if waiting != told {
            anstream::eprintln!("waiting for {waiting}");
            told = waiting;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(client: &Client, scope: &Scope) -> Result<Report> {
    let facts = gather(client, scope).await.map_err(anyhow::Error::msg)?;
    Ok(judge(&facts, Timestamp::now()))
}
