//! `cargo xtask demo`: three boroughs from the attack to the recovery, on a control plane of its own.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity, Options};
use judge::Report;
use rehearsal::{Endpoint, Operator, OperatorOptions, decisions_needed, three_boroughs as boroughs};
use resurgam::cli::Output;
use resurgam::cli::follow::{Scope, follow};
use resurgam::status::View;

mod attacks;
mod bad_day;
mod node;
mod restore;
mod say;

use say::{note, quote, scene};

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keep the cluster running at the end for inspection, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Folder for the cluster's data. Default: a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Play a library with a real database on a real node instead. Needs root.
    #[arg(long)]
    node: bool,
    /// Play a day on which almost nothing goes as planned instead: examples/bad-day.
    #[arg(long, conflicts_with = "node")]
    bad_day: bool,
    /// Play the three boroughs with data that is gone instead: two services come back from a backup by the real Velero, one by a Job that
    /// loads, and the real Flux gets one back at a reviewed revision (examples/three-boroughs/restore). Builds them first where they are
    /// missing: some 20 minutes on two cores, once.
    #[arg(long, conflicts_with_all = ["node", "bad_day"])]
    restore: bool,
}

/// Time limit of the recovery, including people's actions.
const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // Threads of the runtime are in the network that this one is in.
    let parts = args.node.then(node::Parts::prepare).transpose()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(async {
        let play = async {
            match &parts {
                Some(parts) => node::play(args, parts).await,
                None if args.bad_day => bad_day::play(args).await,
                None if args.restore => restore::play(args).await,
                None => play(args).await,
            }
        };
        let played = tokio::select! {
            played = play => played?,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
        };
        played.end(args.keep, args.node).await
    });
    // A build that was interrupted ends with this process.
    runtime.shutdown_background();
    outcome
}

/// A finished demo, with everything still running.
struct FinishedDemo {
    report: Report,
    cluster: ControlPlane,
    /// The operator, if it is a local process.
    operator: Option<Operator>,
    /// Resources that must stay alive: the endpoint of `http` gates, or kube-router.
    _more: Box<dyn std::any::Any>,
}

impl FinishedDemo {
    async fn end(self, keep: bool, node: bool) -> Result<ExitCode> {
        if keep {
            let kubeconfig = self.cluster.kubeconfig(Identity::PlatformAdministrator);
            if node {
                note(&format!("its network, for a shell: nsenter --net --target {}", std::process::id()));
            }
            note(&format!("kept running, until Ctrl-C: export KUBECONFIG={}", kubeconfig.display()));
            tokio::signal::ctrl_c().await?;
        }
        let state = self.state().await;
        drop(self.operator);
        self.cluster.stop().await?;
        last_line(&self.report, &state?);
        Ok(if self.report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Returns the state of the plan, by its condition: `Recovered` alone means without exceptions.
    async fn state(&self) -> Result<String> {
        let admin = self.cluster.client(Identity::PlatformAdministrator).await?;
        let plans =
            rehearsal::kind(&admin, "resurgam.dev/v1alpha1", "RecoveryPlan", Some(boroughs::NAMESPACE));
        let plan = rehearsal::object(&plans, &self.report.plan).await?;
        Ok(match rehearsal::condition(&plan, "Recovered") {
            "True" => rehearsal::of_condition(&plan, "Recovered", "reason").to_owned(),
            _ => "not recovered".to_owned(),
        })
    }
}

async fn play(args: &Args) -> Result<FinishedDemo> {
    let began = Instant::now();
    scene("Building the operator");
    let binary = build()?;

    scene("Starting a control plane: etcd, API server, controllers, scheduler, and fake nodes (kwok)");
    let cluster = ControlPlane::start(Options { dir: args.dir.clone(), ..Options::default() }).await?;
    let built = Instant::now();
    rehearsal::install(&cluster).await?;
    note(&format!("audit log: {}", cluster.audit_log().display()));

    scene(
        "Three boroughs share a cluster. An attacker was here: two images are not what their names say, and payroll pays into another bank",
    );
    let objects = boroughs::lay_down(&cluster, true).await?;
    note(&format!("{objects} objects laid down, everything runs"));

    scene("On-call staff isolate everything");
    let endpoint = Endpoint::start().await?;
    let mut operator = Operator::start(&cluster, &OperatorOptions::within(&cluster, &binary))?;
    isolate(&cluster).await?;

    scene("A tenant administrator, and GitOps as cluster-admin, try to bring a service back on their own");
    attacks::try_all(&cluster, "shared-identity").await?;

    scene("GitOps applies the Incident and the plan, which names it and is thereby armed");
    let plan = boroughs::arm(&cluster, endpoint.url()).await?;
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let stuck = |view: &View| {
        view.plans.iter().any(|p| {
            p.needs_decision > 0
                && p.running == 0
                && p.waiting + p.recovered + p.needs_decision == p.total
                && settled(p)
        })
    };
    let seen = tokio::time::timeout(DEADLINE, follow(&admin, &Scope::default(), Output::Text, None, stuck))
        .await
        .context("the recovery did not come to where people are needed")??;

    scene("Three services need a person; what depends on them waits, everybody else is back");
    let lead = cluster.client(Identity::RecoveryLead).await?;
    let asked = decisions_needed(&lead, boroughs::NAMESPACE).await?;
    for asked in &asked {
        quote(&asked.service, &format!("{}: {}", asked.reason, asked.message));
    }
    ensure!(!asked.is_empty(), "nobody asked for a person, although the attacker changed three services");

    scene("The recovery lead puts back what was approved, deletes what was planted, and decides: retry");
    boroughs::repair(&cluster).await?;
    for asked in &asked {
        let why = "what was approved is back";
        rehearsal::retry(&lead, boroughs::NAMESPACE, boroughs::PLAN, &asked.service, why).await?;
        quote(&asked.service, "Decision written: Retry");
    }
    let done =
        |view: &View| view.plans.iter().any(|p| p.ready == "True" && p.recovered == p.total && p.total > 0);
    tokio::time::timeout(DEADLINE, follow(&admin, &Scope::default(), Output::Text, Some(seen), done))
        .await
        .context("the recovery did not come to its end")??;
    ensure!(operator.ended()?.is_none(), "the operator ended by itself");

    scene("Nothing is left to do: the operator is watched while it rests");
    let (from, until) = rehearsal::idle(&cluster).await?;
    let quiet = Some(judge::Window::new(from, until).map_err(anyhow::Error::msg)?);

    scene("The judge reads the API server's audit log and the plan, and nothing else");
    let report = judge::judge(
        std::io::BufReader::new(std::fs::File::open(cluster.audit_log())?),
        &plan,
        &judge::Options { quiet, ..judge::Options::default() },
    )?;
    anstream::print!("{report}");
    note(&format!(
        "the whole demo took {:.0} s, of which {:.0} s once the operator and the control plane were built and up",
        began.elapsed().as_secs_f64(),
        built.elapsed().as_secs_f64()
    ));
    Ok(FinishedDemo { report, cluster, operator: Some(operator), _more: Box::new(endpoint) })
}

/// Returns whether nothing can proceed without a person: every service is ready, needs a decision, or waits for such a service.
fn settled(plan: &resurgam::status::PlanView) -> bool {
    plan.services.iter().all(|s| s.ready || s.decision.is_some() || s.stage == "Isolated")
}

fn last_line(report: &Report, state: &str) {
    let figures = &report.figures;
    anstream::println!(
        "{}: {state}, {}/{} services, makespan {:.1} s, critical path {:.1} s, ratio {:.2}",
        report.plan,
        figures.recovered,
        figures.total,
        figures.makespan_ms / 1000.0,
        figures.critical_path_ms / 1000.0,
        figures.ratio
    );
}

/// Builds the operator with the running Cargo, and returns the path of its binary.
pub(crate) fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(rehearsal::repository("."))
        // All members, as tests are built: else their dependencies have other features, and half of them is compiled again.
        .args(["build", "--quiet", "--workspace", "--bin", "resurgam"])
        .status()
        .context("cargo cannot be run")?;
    ensure!(built.success(), "the operator does not build");
    let beside = std::env::current_exe()?.with_file_name("resurgam");
    ensure!(beside.exists(), "{} is not where it should have been built", beside.display());
    Ok(beside)
}

async fn isolate(cluster: &ControlPlane) -> Result<()> {
    let namespaces = boroughs::isolate(cluster).await?;
    let mut last = None;
    for namespace in &namespaces {
        last = Some(boroughs::isolated(cluster, namespace).await?);
    }
    note(&format!(
        "{} namespaces isolated: manifests and events captured first, then stopped",
        namespaces.len()
    ));
    let controls =
        last.as_ref().and_then(|q| q.pointer("/status/controls")).and_then(serde_json::Value::as_array);
    for control in controls.into_iter().flatten() {
        let text = |field: &str| control[field].as_str().unwrap_or_default();
        quote(&format!("{} {}", text("name"), text("state")), text("message"));
    }
    Ok(())
}
