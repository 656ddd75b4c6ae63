//! `resurgam quarantine`: isolates namespaces at once with the caller's credentials, with or without the operator.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use futures::{StreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};

use super::Output;
use crate::api::{Incident, Isolation, OPERATOR_NAMESPACE, ObjectName, QuarantineLevel, QuarantineSpec};
use crate::calls::{call, call_opt};
use crate::isolation::ensure::{self, ensure};
use crate::isolation::impact;
use crate::isolation::list;
use crate::isolation::offline::{self, NamespaceIsolation, Request};
use crate::isolation::preflight::{self, Kind};
use crate::leader::LEASE;
use crate::text::count;
use report::{LeftOut, Outcome, Report};
use targets::Selection;

mod report;
mod targets;

/// Namespaces isolated at a time. Most of the time is spent waiting for the API server.
const PARALLEL: usize = 32;

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  # What would stop? Nothing is changed.
  resurgam quarantine shared-web shared-db --incident nov-2025 --reason 'unusual logins' --dry-run

  # Isolate them.
  resurgam quarantine shared-web shared-db --incident nov-2025 --reason 'unusual logins'

  # Everything but what you need to work with. kube-*, default and resurgam-system are left out by themselves.
  resurgam quarantine --all-but calico-system,ingress,identity --incident nov-2025 --reason 'ransomware' --yes

  # By labels, and knowing that a webhook of theirs goes away.
  resurgam quarantine --selector borough=rbkc --incident nov-2025 --reason 'ransomware' --accept-risk webhook

No operator is needed: network policies, the namespace's label and, where they are missing, the admission policies are \
written as you. An operator that starts later adopts them. It takes the ClusterRole resurgam-responder, and nothing \
here lets anything out again.

Exit status: 0 all namespaces isolated and verified; 1 some are not, or something that keeps them so is missing, or the \
preflight found a blocker; 2 it could not be found out, or the command line is wrong.";

/// Arguments of `resurgam quarantine`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group(clap::ArgGroup::new("which").required(true)))]
pub(super) struct Args {
    /// These namespaces.
    #[arg(value_name = "NAMESPACE", group = "which")]
    namespaces: Vec<String>,

    /// Namespaces with these labels, as kubectl takes them.
    #[arg(short = 'l', long, value_name = "SELECTOR", group = "which")]
    selector: Option<String>,

    /// All namespaces but these, and but those that are never isolated.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',', group = "which")]
    all_but: Vec<String>,

    /// The Incident that it belongs to.
    #[arg(long, value_name = "NAME")]
    incident: String,

    /// Reason, which is shown to refused users.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,

    /// How tightly. `sealed` also stops what runs, once an operator has captured it.
    #[arg(long, value_enum, default_value_t = Level::Contained)]
    isolation: Level,

    /// Change nothing; report what would stop, and what the preflight found.
    #[arg(long)]
    dry_run: bool,

    /// Isolate in spite of risks of this kind.
    #[arg(long, value_name = "KIND", value_parser = risk(), value_delimiter = ',')]
    accept_risk: Vec<Kind>,

    /// Where the evidence store is, if the operator's Deployment does not say.
    #[arg(long, value_name = "URL")]
    evidence_endpoint: Option<String>,

    /// Do not ask.
    #[arg(short, long)]
    yes: bool,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Namespace of the operator's Lease.
    #[arg(long, default_value = OPERATOR_NAMESPACE)]
    lease_namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    /// No network, no writes; processes stay alive, as memory is evidence.
    Contained,
    /// Nothing runs either.
    Sealed,
}

/// Validates the length, as the Quarantine does.
pub(super) fn reason(text: &str) -> Result<String, String> {
    match text.trim().chars().count() {
        0 => Err("say why".to_owned()),
        1..=512 => Ok(text.trim().to_owned()),
        long => Err(format!("{long} characters: 512 at most")),
    }
}

/// Parses the name of a risk. Help and completion list all names.
fn risk() -> impl TypedValueParser<Value = Kind> {
    let names = Kind::RISKS.map(|kind| PossibleValue::new(kind.name()).help(kind.meaning()));
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Kind>())
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    runtime.block_on(quarantine(args))
}

async fn quarantine(args: &Args) -> Result<ExitCode> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    // A pod has no kubeconfig; its login is then its account's.
    let kubeconfig = Kubeconfig::read().ok();
    let mut report = begin(args, &client).await?;
    show(args, &report::targets(&report));

    let evidence = args.evidence_endpoint.clone();
    let gathered = preflight::gather(&client, &report.targets, kubeconfig.as_ref(), evidence).await;
    report.by = gathered.login.username.clone().unwrap_or_else(|why| why);
    report.findings = preflight::judge(&report.targets, &gathered);
    show(args, &report::findings(&report));
    let stopped = report.findings.iter().any(|finding| finding.stops(&args.accept_risk));
    if args.dry_run {
        return dry_run(args, &client, report, stopped).await;
    }
    if stopped {
        return finish(args, report, Outcome::Stopped);
    }
    if !confirmed(args, &report)? {
        report.stopped_by = Some("you said no".to_owned());
        return finish(args, report, Outcome::Stopped);
    }
    match ensure(&client, false).await {
        Ok(found) => report.policies = found,
        Err(error) => {
            report.stopped_by = Some(unfenced(&error));
            return finish(args, report, Outcome::Stopped);
        }
    }
    // All namespaces are listed at once, before anything else, which fences them.
    let listed = list::add(&client, &report.targets, Isolation::Contained).await;
    if listed.is_ok() && args.output == Output::Text {
        anstream::eprintln!("{} on the isolation lists", count(report.targets.len(), "namespace"));
    }
    let unlisted = listed.err().map(|error| error.to_string());
    let request = Request { spec: spec(args), operator: report.operator, unlisted, policies: Arc::default() };
    report.namespaces = isolate_all(&client, &report.targets, &request).await;
    let all = report.namespaces.iter().all(|outcome| outcome.isolated);
    finish(args, report, if all { Outcome::Isolated } else { Outcome::Incomplete })
}

/// Resolves the namespaces, and reads whether an operator leads.
async fn begin(args: &Args, client: &Client) -> Result<Report> {
    let meant = match (&args.selector, args.all_but.is_empty()) {
        (Some(selector), _) => Selection::Selected(selector.clone()),
        (None, false) => Selection::AllBut(args.all_but.clone()),
        (None, true) => Selection::Named(args.namespaces.clone()),
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), &args.lease_namespace);
    let incidents: Api<Incident> = Api::all(client.clone());
    let everything = ListParams::default();
    let (all, lease, incident) = futures::join!(
        call("list namespaces", namespaces.list(&everything)),
        call_opt("read the operator's Lease", leases.get(LEASE)),
        call(format!("get Incident {}", args.incident), incidents.get_metadata(&args.incident)),
    );
    let resolved = targets::resolve(&meant, &all?.items).map_err(anyhow::Error::msg)?;
    if incident.is_err_and(|error| error.is_not_served()) {
        show(args, &format!("Incident {} does not exist; recording its name anyway.\n", args.incident));
    }
    let mut accepted = args.accept_risk.clone();
    accepted.sort_unstable();
    accepted.dedup();
    Ok(Report {
        outcome: Outcome::Stopped,
        incident: args.incident.clone(),
        reason: args.reason.clone(),
        isolation: spec(args).isolation,
        by: String::new(),
        operator: lease.ok().flatten().is_some_and(|lease| is_held(&lease, Timestamp::now())),
        dry_run: args.dry_run,
        targets: resolved.names,
        left_out: resolved.left_out.into_iter().map(|(namespace, why)| LeftOut { namespace, why }).collect(),
        findings: Vec::new(),
        accepted,
        stopped_by: None,
        policies: Vec::new(),
        impacts: Vec::new(),
        namespaces: Vec::new(),
    })
}

fn spec(args: &Args) -> QuarantineSpec {
    QuarantineSpec {
        isolation: match args.isolation {
            Level::Contained => QuarantineLevel::Contained,
            Level::Sealed => QuarantineLevel::Sealed,
        },
        reason: args.reason.clone(),
        incident_ref: Some(ObjectName { name: args.incident.clone() }),
        ..QuarantineSpec::default()
    }
}

/// Returns whether the Lease has a holder and has not expired.
pub(super) fn is_held(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let valid = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(0).into());
    let held = spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
    held && spec.renew_time.as_ref().is_some_and(|at| now.duration_since(at.0) < valid)
}

/// Reports what would stop, and whether the API server would accept the writes.
async fn dry_run(args: &Args, client: &Client, mut report: Report, stopped: bool) -> Result<ExitCode> {
    let spec = spec(args);
    match ensure(client, true).await {
        Ok(found) => report.policies = found,
        Err(error) => report.stopped_by = Some(unfenced(&error)),
    }
    let elsewhere = impact::elsewhere(client).await;
    report.impacts = stream::iter(report.targets.clone())
        .map(|name| {
            let (spec, elsewhere) = (&spec, &elsewhere);
            async move { impact::impact(client, &name, spec, elsewhere).await }
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    show(args, &report::impacts(&report));
    let refused = report.impacts.iter().any(|impact| !impact.refused.is_empty());
    if refused && report.stopped_by.is_none() && !stopped {
        report.stopped_by = Some("the API server would refuse some of it".to_owned());
    }
    let outcome = if stopped || report.stopped_by.is_some() { Outcome::Stopped } else { Outcome::Possible };
    finish(args, report, outcome)
}

fn unfenced(error: &ensure::EnsureError) -> String {
    format!(
        "the admission policies are not in place, and without them nothing is fenced: {error}. A person who may create \
         ValidatingAdmissionPolicies and their bindings has to run this first (the ClusterRole resurgam-responder may), \
         or start the operator once"
    )
}

/// Asks for confirmation of several namespaces, or of ones not named explicitly. Without a terminal, `--yes` is required for the latter.
fn confirmed(args: &Args, report: &Report) -> Result<bool> {
    let unnamed = args.namespaces.is_empty();
    if args.yes || (report.targets.len() == 1 && !unnamed) {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        if unnamed {
            bail!("no terminal to confirm on: pass --yes with --all-but and --selector");
        }
        return Ok(true);
    }
    anstream::eprint!("Isolate {} now? [y/N] ", count(report.targets.len(), "namespace"));
    anstream::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Cuts all networks first, then finishes each namespace.
async fn isolate_all(client: &Client, names: &[String], request: &Request) -> Vec<offline::Outcome> {
    let cut = Progress::of(names.len());
    let works: Vec<_> = stream::iter(names)
        .map(|name| async {
            let work = NamespaceIsolation::cut(client, name, request).await;
            cut.report_progress(name, if work.is_cut() { "network cut" } else { "network NOT cut" });
            work
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    let done = Progress::of(names.len());
    stream::iter(works)
        .map(|work| async {
            let outcome = work.finish().await;
            let what = match &outcome {
                offline::Outcome { isolated: true, .. } => "isolated",
                offline::Outcome { contained: true, .. } => "isolated, with problems",
                _ => "NOT isolated",
            };
            done.report_progress(&outcome.namespace, what);
            outcome
        })
        .buffered(PARALLEL)
        .collect()
        .await
}

/// Counts the namespaces that are done.
struct Progress {
    total: usize,
    done: AtomicUsize,
}

impl Progress {
    fn of(total: usize) -> Self {
        Self { total, done: AtomicUsize::new(0) }
    }

    fn report_progress(&self, name: &str, what: &str) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        anstream::eprintln!("[{done}/{}] {name}: {what}", self.total);
    }
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
        Outcome::Isolated | Outcome::Possible => ExitCode::SUCCESS,
        Outcome::Incomplete | Outcome::Stopped => ExitCode::FAILURE,
    })
}
