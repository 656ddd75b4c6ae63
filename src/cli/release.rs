//! `resurgam release`: releases namespaces that were isolated by mistake, and starts what ran before, with the caller's credentials.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};

use super::Output;
use super::quarantine::{is_held, reason};
use crate::api::OPERATOR_NAMESPACE;
use crate::calls::{call, call_opt};
use crate::clock;
use crate::leader::LEASE;
use crate::text::count;
use namespace::NamespaceRelease;
use report::{Outcome, Report};

mod namespace;
mod report;
mod start;

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  # A false alarm? What would start, fire and be lost. Nothing is changed.
  resurgam release shared-web --reason 'the logins were a drill' --dry-run

  # Out, and running as before.
  resurgam release shared-web shared-db --reason 'the logins were a drill' --start

  # Again after an interruption: namespaces that are released already are started only.
  resurgam release shared-web --reason 'the logins were a drill' --start --yes

It deletes the Quarantine, and the operator restores the network and opens the namespace. This takes the verbs release and delete on \
quarantines/NAMESPACE, by a grant of their own (ClusterRole resurgam-recovery-lead). --start scales workloads to what was recorded \
when they were stopped, and resumes CronJobs and Jobs that ran; it writes as you. A CronJob that would start a missed run at once \
stays suspended, unless --fire-missed-runs.

Exit status: 0 released, and started if asked for; 1 something is not released, or could not be started; 2 it could not be found out, \
or the command line is wrong.";

/// Arguments of `resurgam release`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// These namespaces.
    #[arg(value_name = "NAMESPACE", required = true)]
    namespaces: Vec<String>,

    /// Reason, which is recorded with your name.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,

    /// Start what was recorded when it was stopped.
    #[arg(long)]
    start: bool,

    /// Resume CronJobs also if they start a run at once that they missed.
    #[arg(long, requires = "start")]
    fire_missed_runs: bool,

    /// Release namespaces also if a plan claims them for a recovery.
    #[arg(long)]
    even_if_claimed: bool,

    /// Change nothing; report what would start, fire and be lost.
    #[arg(long)]
    dry_run: bool,

    /// Do not ask. Required without a terminal.
    #[arg(short, long)]
    yes: bool,

    /// How long to wait for the release.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    timeout: crate::api::Duration,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Namespace of the operator's Lease.
    #[arg(long, default_value = OPERATOR_NAMESPACE)]
    lease_namespace: String,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    runtime.block_on(release(args))
}

async fn release(args: &Args) -> Result<ExitCode> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    let mut report = Report::new(args);
    let mut names = args.namespaces.clone();
    names.sort_unstable();
    names.dedup();
    report.by = caller(&client).await?;
    let all = join_all(names.iter().map(|name| NamespaceRelease::read(&client, name, args))).await;
    let mut all = all.into_iter().collect::<Result<Vec<_>>>()?;
    report.update(&all);
    show(args, &report::forecasts(&report));
    if all.iter().any(|one| one.refused.is_some()) {
        return finish(args, report, Outcome::Stopped);
    }
    if args.dry_run {
        return finish(args, report, Outcome::Possible);
    }
    if all.iter().any(NamespaceRelease::is_isolated)
        && let Some(why) = without_operator(&client, args).await
    {
        report.stopped_by = Some(why);
        return finish(args, report, Outcome::Stopped);
    }
    if !confirmed(args, &all)? {
        report.stopped_by = Some("you said no".to_owned());
        return finish(args, report, Outcome::Stopped);
    }
    // All releases are requested before the first is waited for.
    join_all(all.iter_mut().map(|one| one.request(&client, args, &report.by))).await;
    let timeout: Duration = args.timeout.0;
    let total = all.len();
    let done = std::sync::atomic::AtomicUsize::new(0);
    join_all(all.iter_mut().map(|one| async {
        one.wait(&client, timeout).await;
        if args.start && one.is_released() {
            one.start(&client, args).await;
        }
        let number = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        anstream::eprintln!("[{number}/{total}] {}: {}", one.name, one.progress());
    }))
    .await;
    report.update(&all);
    let outcome =
        if all.iter().all(NamespaceRelease::is_complete) { Outcome::Released } else { Outcome::Incomplete };
    finish(args, report, outcome)
}

/// Returns the caller's name, as the API server knows it.
async fn caller(client: &Client) -> Result<String> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = SelfSubjectReview::default();
    let answer = call("ask who you are", reviews.create(&PostParams::default(), &review)).await?;
    let user = answer.status.and_then(|status| status.user_info).and_then(|user| user.username);
    Ok(user.unwrap_or_else(|| "unknown".to_owned()))
}

/// Returns why nothing is released if no operator leads: the deletion of a Quarantine cannot be taken back, and waits for one.
async fn without_operator(client: &Client, args: &Args) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &args.lease_namespace);
    // What cannot be read is no reason to refuse: the command waits, and reports that.
    let lease = call_opt("read the operator's Lease", leases.get(LEASE)).await.ok()?;
    (!lease.is_some_and(|lease| is_held(&lease, clock::now()))).then(|| {
        format!(
            "no operator holds Lease {}/{LEASE}, and only an operator restores the network and opens the namespace. Start it, or see \
             \"Break-glass\" in docs/isolation.md",
            args.lease_namespace
        )
    })
}

/// Asks for confirmation. Without a terminal, `--yes` is required.
fn confirmed(args: &Args, all: &[NamespaceRelease]) -> Result<bool> {
    if args.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("no terminal to confirm on: pass --yes. Nothing was done");
    }
    let start = if args.start { " and start what ran" } else { "" };
    anstream::eprint!("Release {}{start} now? [y/N] ", count(all.len(), "namespace"));
    anstream::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Prints progress for people, but not in JSON output.
fn show(args: &Args, text: &str) {
    if args.output == Output::Text {
        anstream::print!("{text}");
    }
}

fn finish(args: &Args, mut report: Report, outcome: Outcome) -> Result<ExitCode> {
    report.outcome = outcome;
    match args.output {
        Output::Text => show(args, &report::end(&report)),
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(match outcome {
        Outcome::Released | Outcome::Possible => ExitCode::SUCCESS,
        Outcome::Incomplete | Outcome::Stopped => ExitCode::FAILURE,
    })
}
