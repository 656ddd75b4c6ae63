//! `resurgam baseline diff`: what differs from an inventory, as a review shows it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use kube::Api;
use resurgam_core::baseline::compare::Scope;
use resurgam_core::baseline::ignore::IgnoreList;
use resurgam_core::baseline::{Baseline, Comparison, Observed, compare, observe, report};

use super::{capture, sign};
use crate::api::RecoveryPlan;
use crate::api::gate::BaselineIgnore;
use crate::baseline::gather::{Request, fingerprint, gather};
use crate::calls::call;

/// Arguments of `resurgam baseline diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The inventory, signed or not. `-`: standard input.
    file: PathBuf,
    /// Compare with this inventory. Default: with the cluster.
    other: Option<PathBuf>,
    /// Public key (repeatable). All of them must have signed it; without one, no signature is verified.
    #[arg(long, value_name = "PUB.pem")]
    key: Vec<PathBuf>,
    /// File with the key of the digests of Secrets' values. Without it, values are not compared.
    #[arg(long, value_name = "FILE")]
    secret_key: Option<PathBuf>,
    /// Leave out what the baseline gates of this plan leave out.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = crate::cli::namespaced)]
    plan: Option<(String, String)>,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode> {
    let baseline = sign::read_inventory(&args.file, &args.key)?;
    let outcome = match &args.other {
        Some(other) => {
            let other = sign::read_inventory(other, &[])?;
            with_inventory(&baseline, other)
        }
        None => with_cluster(args, &baseline).await?,
    };
    anstream::print!("{}", report::text(&outcome.differences));
    let Comparison { differences, compared, left_out } = &outcome;
    let besides = if *left_out > 0 { format!(", {left_out} left out by the plan") } else { String::new() };
    anstream::eprintln!("{} differences in {compared} objects{besides}", differences.len());
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn with_inventory(baseline: &Baseline, other: Baseline) -> Comparison {
    let scope = Scope {
        namespaces: &baseline.namespaces,
        outside: baseline.outside && other.outside,
        secret_values: baseline.secret_key.is_some() && baseline.secret_key == other.secret_key,
        ..Scope::default()
    };
    compare(baseline, Observed { objects: other.objects, drift: Vec::new() }, &scope)
}

async fn with_cluster(args: &Args, baseline: &Baseline) -> Result<Comparison> {
    let client = crate::client::with_read_retries(crate::cli::cluster().await?)?;
    let key = super::digest_key(args.secret_key.as_ref())?;
    if let (Some(key), Some(made_with)) = (&key, &baseline.secret_key)
        && fingerprint(key).as_ref() != Some(made_with)
    {
        bail!("--secret-key is not the key that the inventory was made with");
    }
    let mut ignore: Vec<BaselineIgnore> = Vec::new();
    if let Some((namespace, name)) = &args.plan {
        let plans = Api::<RecoveryPlan>::namespaced(client.clone(), namespace);
        let plan = call(format!("get RecoveryPlan {namespace}/{name}"), plans.get(name)).await?;
        let services = crate::plan::Plan::from_object(&plan).services;
        let gates = services.into_iter().flat_map(|service| service.gates);
        ignore = gates.filter_map(|gate| gate.spec.baseline).flat_map(|gate| gate.ignore).collect();
    }
    let ignore = IgnoreList::parse(&ignore).map_err(anyhow::Error::msg)?;
    let marks = capture::marks(&client, &baseline.namespaces).await?;
    let request = Request {
        namespaces: &baseline.namespaces,
        versions: &baseline.kinds,
        key: key.as_ref(),
        outside: baseline.outside,
        ignore: &ignore,
    };
    let found = gather(&client, &request).await?;
    if let Some(kind) = baseline.unserved(&found.kinds, &ignore) {
        bail!("the API server does not serve kind {kind}, of which the inventory has objects");
    }
    let observed = observe(found.objects, &marks);
    let scope = Scope {
        namespaces: &baseline.namespaces,
        ignore,
        marks,
        outside: baseline.outside,
        secret_values: key.is_some() && baseline.secret_key.is_some(),
        pods_may_be_gone: true,
    };
    Ok(compare(baseline, observed, &scope))
}
