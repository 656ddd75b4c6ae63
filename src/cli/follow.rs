//! Live progress: a page that is redrawn on a terminal, a line for each change otherwise. For `status --watch` and the demo.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client};

use super::Output;
use super::controller::LEASE;
use crate::api::{OPERATOR_NAMESPACE, RecoveryPlan, ServiceRecovery};
use crate::calls::{call, call_opt};
use crate::status::{View, changes, render};

/// At the shortest between two drawings.
const FRAME: Duration = Duration::from_millis(150);
/// The page is drawn anew at least this often: time goes on, and a silent operator sends no event.
const TICK: Duration = Duration::from_secs(1);

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Only this plan.
    pub plan: Option<String>,
    /// Only plans of this namespace.
    pub namespace: Option<String>,
    /// Namespace of the operator's Lease.
    pub lease_namespace: String,
}

impl Default for Scope {
    fn default() -> Self {
        Self { plan: None, namespace: None, lease_namespace: OPERATOR_NAMESPACE.to_owned() }
    }
}

/// One look.
///
/// # Errors
/// The API server could not be asked.
pub async fn look(client: &Client, scope: &Scope) -> Result<View> {
    let everything = ListParams::default();
    let (plans, records) = apis(client, scope);
    let leases: Api<Lease> = Api::namespaced(client.clone(), &scope.lease_namespace);
    let (plans, records, lease) = tokio::try_join!(
        call("list RecoveryPlans", plans.list(&everything)),
        call("list ServiceRecoveries", records.list(&everything)),
        call_opt("read the operator's Lease", leases.get(LEASE)),
    )?;
    let wanted = |plan: &RecoveryPlan| scope.plan.is_none() || scope.plan == plan.metadata.name;
    let plans: Vec<RecoveryPlan> = plans.items.into_iter().filter(wanted).collect();
    Ok(View::of(&plans, &records.items, lease.as_ref(), Timestamp::now()))
}

fn apis(client: &Client, scope: &Scope) -> (Api<RecoveryPlan>, Api<ServiceRecovery>) {
    match &scope.namespace {
        Some(namespace) => {
            (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace))
        }
        None => (Api::all(client.clone()), Api::all(client.clone())),
    }
}

/// Shows what changes on standard output, until `end` says so. `before`: what was shown already. Returns what was shown last.
///
/// # Errors
/// The API server could not be asked, or nothing can be written.
pub async fn follow(
    client: &Client,
    scope: &Scope,
    output: Output,
    mut before: Option<View>,
    end: impl Fn(&View) -> bool,
) -> Result<View> {
    let (plans, records) = apis(client, scope);
    let plans = watcher(plans, Config::default()).default_backoff();
    let records = watcher(records, Config::default()).default_backoff();
    let mut woken = std::pin::pin!(futures::stream::select(plans.map(drop), records.map(drop)));
    let terminal = std::io::stdout().is_terminal();
    let mut drawn = 0;
    loop {
        let view = look(client, scope).await?;
        match output {
            Output::Text if terminal => drawn = draw(&view, drawn)?,
            Output::Text => {
                changes(before.as_ref(), &view).iter().for_each(|line| anstream::println!("{line}"))
            }
            Output::Json if before.as_ref() == Some(&view) => {}
            Output::Json => anstream::println!("{}", serde_json::to_string(&view)?),
        }
        if end(&view) {
            return Ok(view);
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

/// Draws over what was drawn before, cut to the terminal's height. Returns the lines drawn.
fn draw(view: &View, before: usize) -> Result<usize> {
    let (width, height) = super::terminal();
    let page = render(view, Timestamp::now(), width);
    let lines: Vec<&str> = page.lines().take(height.saturating_sub(2).max(5)).collect();
    let mut out = anstream::stdout();
    if before > 0 {
        write!(out, "\x1b[{before}A")?;
    }
    for line in &lines {
        writeln!(out, "\x1b[2K{line}")?;
    }
    write!(out, "\x1b[J")?;
    out.flush()?;
    Ok(lines.len())
}
