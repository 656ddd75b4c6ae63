//! `resurgam baseline capture`: an inventory of what is there, was captured, or is in manifests.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client, ResourceExt};
use resurgam_core::baseline::ignore::IgnoreList;
use resurgam_core::baseline::{Baseline, FORMAT, KindRef, Marks, Object, Observed, Source, observe, reach};
use serde_json::Value;

use super::manifests;
use crate::api::{Isolation, Quarantine, RecoveryPlan};
use crate::baseline::gather::{Request, fingerprint, gather};
use crate::calls::{call, call_opt};
use crate::isolation::evidence::{DigestKey, Location, Store};
use crate::plan::Plan;

/// Arguments of `resurgam baseline capture`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of this namespace (repeatable). With --from-manifests: only of these; objects that name no namespace go into the first.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Vec<String>,

    /// Of all namespaces of this plan.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = crate::cli::namespaced)]
    plan: Option<(String, String)>,

    /// Of the evidence: what was there when the namespaces were isolated. Read it well: it holds what the attacker wrote.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX", conflicts_with = "from_manifests")]
    from_evidence: Option<Location>,

    /// Of rendered manifests (repeatable): a file, or all .yaml, .yml and .json files below a folder.
    #[arg(long, value_name = "DIR|FILE", requires = "scratch")]
    from_manifests: Vec<PathBuf>,

    /// Namespace in which manifests are created as a trial (dry run), so that the API server fills in its defaults. It should be empty,
    /// and in a cluster that nobody has compromised.
    #[arg(long, value_name = "NAMESPACE")]
    scratch: Option<String>,

    /// File with the key of the digests of Secrets' values, at least 32 random bytes. For --from-evidence: the operator's
    /// --evidence-key. Without it, only the names of values are compared.
    #[arg(long, value_name = "FILE")]
    secret_key: Option<PathBuf>,

    /// Leave out what reaches in from outside: ClusterRoleBindings, the roles that bindings name, webhooks.
    #[arg(long)]
    no_outside: bool,

    /// File to write. Default: standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(args: &Args) -> Result<ExitCode> {
    let key = super::digest_key(args.secret_key.as_ref())?;
    let needs_cluster = args.from_evidence.is_none() || args.plan.is_some();
    let client = match needs_cluster {
        true => Some(crate::client::with_read_retries(crate::cli::cluster().await?)?),
        false => None,
    };
    let mut namespaces: BTreeSet<String> = args.namespace.iter().cloned().collect();
    if let (Some((namespace, name)), Some(client)) = (&args.plan, &client) {
        let plans = Api::<RecoveryPlan>::namespaced(client.clone(), namespace);
        let plan = call(format!("get RecoveryPlan {namespace}/{name}"), plans.get(name)).await?;
        namespaces
            .extend(Plan::from_object(&plan).services.into_iter().flat_map(|service| service.namespaces));
    }
    let baseline = match (&args.from_evidence, &client) {
        (Some(location), _) => from_evidence(location, namespaces, key.as_ref()).await?,
        (None, Some(client)) if args.from_manifests.is_empty() => {
            from_cluster(client, namespaces, key.as_ref(), !args.no_outside).await?
        }
        (None, Some(client)) => {
            let scratch = args.scratch.as_deref().unwrap_or_default();
            let first = args.namespace.first().map(String::as_str);
            let only = manifests::Only { namespaces, first };
            manifests::capture(client, &args.from_manifests, scratch, &only, key.as_ref()).await?
        }
        (None, None) => bail!("no cluster is configured"),
    };
    let mut text = serde_json::to_string_pretty(&baseline)?;
    text.push('\n');
    super::write(args.output.as_deref(), &text)?;
    let values =
        if baseline.secret_key.is_some() { "a keyed digest of each value" } else { "names of values" };
    anstream::eprintln!(
        "{} objects in {}. Secrets: {values}. Read it, then sign it: resurgam baseline sign",
        baseline.objects.len(),
        baseline.namespaces.join(", ")
    );
    Ok(ExitCode::SUCCESS)
}

async fn from_cluster(
    client: &Client,
    namespaces: BTreeSet<String>,
    key: Option<&DigestKey>,
    outside: bool,
) -> Result<Baseline> {
    let namespaces: Vec<String> = namespaces.into_iter().collect();
    if namespaces.is_empty() {
        bail!("it takes a --namespace or a --plan");
    }
    let marks = marks(client, &namespaces).await?;
    let request =
        Request { namespaces: &namespaces, versions: &[], key, outside, ignore: &IgnoreList::default() };
    let found = gather(client, &request).await?;
    let Observed { objects, drift } = observe(found.objects, &marks);
    if !drift.is_empty() {
        anstream::eprintln!("pods that are not as their workload's template says:");
        anstream::eprint!("{}", resurgam_core::baseline::report::text(&drift));
    }
    Ok(baseline(Source::Cluster, namespaces, objects, found.kinds, key, outside))
}

/// Returns what isolation has left on the objects of these namespaces.
pub(super) async fn marks(client: &Client, namespaces: &[String]) -> Result<Marks> {
    let quarantines: Api<Quarantine> = Api::all(client.clone());
    let mut marks = Marks::default();
    for namespace in namespaces {
        let found = call_opt(format!("get Quarantine {namespace}"), quarantines.get(namespace)).await;
        let quarantine = match found {
            Ok(quarantine) => quarantine,
            // A cluster without the operator, or people who may not read its objects.
            Err(error) if error.is_not_served() || error.is_denied() => None,
            Err(error) => return Err(error.into()),
        };
        let Some(quarantine) = quarantine else { continue };
        marks.seals.insert(namespace.clone(), quarantine.uid().unwrap_or_default());
        let level = quarantine.status.as_ref().and_then(|status| status.isolation);
        if level != Some(Isolation::Open) {
            marks.isolated.insert(namespace.clone());
        }
    }
    Ok(marks)
}

/// Returns the inventory of these objects.
pub(super) fn baseline(
    source: Source,
    namespaces: Vec<String>,
    objects: Vec<Object>,
    kinds: Vec<KindRef>,
    key: Option<&DigestKey>,
    outside: bool,
) -> Baseline {
    let mut objects = reach::within(objects, &namespaces, &BTreeSet::new());
    objects.sort_by_key(Object::key);
    Baseline {
        baseline: FORMAT.to_owned(),
        captured_at: Time(crate::clock::now()),
        source,
        namespaces,
        secret_key: key.and_then(fingerprint),
        outside,
        kinds,
        objects,
    }
}

async fn from_evidence(
    location: &Location,
    namespaces: BTreeSet<String>,
    key: Option<&DigestKey>,
) -> Result<Baseline> {
    let store = Store::open(location.clone(), std::env::vars_os())
        .with_context(|| format!("--from-evidence {location}"))?;
    let captured = crate::cli::images::manifests(&store, &namespaces).await?;
    if captured.is_empty() {
        bail!("--from-evidence {location}: nothing was captured");
    }
    let (mut raw, mut found, mut marks) = (Vec::new(), Vec::new(), Marks::default());
    for (namespace, (quarantine, objects)) in captured {
        // The network is cut before anything is captured.
        marks.seals.insert(namespace.clone(), quarantine);
        marks.isolated.insert(namespace.clone());
        found.push(namespace);
        raw.extend(objects.into_iter().filter(is_comparable));
    }
    if let Some(missing) = namespaces.iter().find(|namespace| !found.contains(namespace)) {
        bail!("--from-evidence {location}: nothing was captured of namespace {missing}");
    }
    let Observed { objects, .. } = observe(raw, &marks);
    let kinds = manifests::kinds(&objects);
    Ok(baseline(Source::Evidence, found, objects, kinds, key, false))
}

/// Returns whether an object of the evidence is of a kind that inventories hold.
fn is_comparable(object: &Value) -> bool {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    resurgam_core::baseline::is_captured(group, &manifests::plural(text("kind")))
}
