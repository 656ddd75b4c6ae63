//! `resurgam status`: what is back, what is next, and what is holding it.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};

use super::Output;
use super::controller::LEASE;
use crate::api::{OPERATOR_NAMESPACE, RecoveryPlan, ServiceRecovery};
use crate::isolation::io::{call, call_opt};
use crate::status::{View, changes, render};

/// Arguments of `resurgam status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this plan.
    plan: Option<String>,

    /// Only plans of this namespace.
    #[arg(short, long)]
    namespace: Option<String>,

    /// Keep showing it: redrawn on a terminal, a line for each change otherwise. Ends when every plan is recovered.
    #[arg(short, long)]
    watch: bool,

    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Namespace of the operator's Lease.
    #[arg(long, default_value = OPERATOR_NAMESPACE)]
    lease_namespace: String,
}

/// At the shortest between two drawings.
const FRAME: Duration = Duration::from_millis(200);
/// The page is drawn anew at least this often: time goes on, and a silent operator sends no event.
const TICK: Duration = Duration::from_secs(2);

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    runtime.block_on(async {
        let client = Client::try_default().await.context("no cluster is configured: set KUBECONFIG")?;
        if args.watch { watch(args, &client).await } else { once(args, &client).await }
    })
}

async fn once(args: &Args, client: &Client) -> Result<ExitCode> {
    let view = look(args, client).await?;
    print(args, &view)?;
    if let Some(plan) = &args.plan
        && view.plans.is_empty()
    {
        anyhow::bail!("there is no RecoveryPlan {plan} here");
    }
    Ok(if view.needs_a_person() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(args: &Args, view: &View) -> Result<()> {
    match args.output {
        Output::Text => anstream::print!("{}", render(view, Timestamp::now(), super::terminal_width())),
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(view)?),
    }
    Ok(())
}

async fn watch(args: &Args, client: &Client) -> Result<ExitCode> {
    let woken = {
        let plans =
            watcher(Api::<RecoveryPlan>::all(client.clone()), watcher::Config::default()).default_backoff();
        let records = watcher(Api::<ServiceRecovery>::all(client.clone()), watcher::Config::default())
            .default_backoff();
        futures::stream::select(plans.map(|_| ()), records.map(|_| ()))
    };
    let mut woken = std::pin::pin!(woken);
    let redraw = std::io::stdout().is_terminal() && args.output == Output::Text;
    let mut before: Option<View> = None;
    loop {
        let view = look(args, client).await?;
        if redraw {
            anstream::print!("\x1b[H\x1b[2J{}", render(&view, Timestamp::now(), super::terminal_width()));
            std::io::stdout().flush()?;
        } else if args.output == Output::Json {
            if before.as_ref() != Some(&view) {
                anstream::println!("{}", serde_json::to_string(&view)?);
            }
        } else {
            for line in changes(before.as_ref(), &view) {
                anstream::println!("{line}");
            }
        }
        if !view.plans.is_empty() && view.plans.iter().all(|plan| plan.ready == "True") {
            return Ok(ExitCode::SUCCESS);
        }
        before = Some(view);
        // Whatever comes within a frame is drawn at once.
        tokio::time::sleep(FRAME).await;
        tokio::select! {
            _ = woken.next() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        while woken.next().now_or_never().flatten().is_some() {}
    }
}

async fn look(args: &Args, client: &Client) -> Result<View> {
    let everything = ListParams::default();
    let (plans, records): (Api<RecoveryPlan>, Api<ServiceRecovery>) = match &args.namespace {
        Some(namespace) => {
            (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace))
        }
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), &args.lease_namespace);
    let (plans, records, lease) = tokio::try_join!(
        call("list RecoveryPlans", plans.list(&everything)),
        call("list ServiceRecoveries", records.list(&everything)),
        call_opt("read the operator's Lease", leases.get(LEASE)),
    )?;
    let wanted = |plan: &RecoveryPlan| args.plan.is_none() || args.plan == plan.metadata.name;
    let plans: Vec<RecoveryPlan> = plans.items.into_iter().filter(wanted).collect();
    Ok(View::of(&plans, &records.items, lease.as_ref(), Timestamp::now()))
}
