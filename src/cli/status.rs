//! `resurgam status`: what is back, what is next, what is holding it, and which Quarantines are failing.

use std::process::ExitCode;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;

use super::Output;
use super::follow::{Scope, follow, look, missing};
use crate::api::OPERATOR_NAMESPACE;
use crate::status::{View, render};

/// Arguments of `resurgam status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this plan, and the Quarantines of its namespaces.
    plan: Option<String>,

    /// Only plans of this namespace, and the Quarantines of theirs.
    #[arg(short, long)]
    namespace: Option<String>,

    /// Keep showing it: redrawn on a terminal, a line for each change otherwise. Ends when every plan is recovered.
    #[arg(short, long)]
    watch: bool,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Namespace of the operator's Lease.
    #[arg(long, default_value = OPERATOR_NAMESPACE)]
    lease_namespace: String,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    runtime.block_on(show(args))
}

async fn show(args: &Args) -> Result<ExitCode> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    let scope = Scope {
        plan: args.plan.clone(),
        namespace: args.namespace.clone(),
        lease_namespace: args.lease_namespace.clone(),
    };
    let first = look(&client, &scope).await?;
    if let Some(missing) = missing(&client, &scope, &first).await? {
        anyhow::bail!(missing);
    }
    let view = if args.watch {
        follow(&client, &scope, args.output, None, |view| {
            !view.plans.is_empty() && view.plans.iter().all(|plan| plan.ready == "True")
        })
        .await?
    } else {
        print(args, &first)?;
        first
    };
    Ok(match &view.quarantines.unreadable {
        _ if view.needs_a_person() => ExitCode::FAILURE,
        Some(_) => ExitCode::from(2),
        None => ExitCode::SUCCESS,
    })
}

fn print(args: &Args, view: &View) -> Result<()> {
    match args.output {
        Output::Text => anstream::print!("{}", render(view, Timestamp::now(), super::terminal().0)),
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(view)?),
    }
    Ok(())
}
