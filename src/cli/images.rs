//! `resurgam images`: what runs, or ran when it was sealed, as entries for the list of approved images.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use resurgam_core::gates::images::{NodeImages, in_use, nodes_in_doubt};

use crate::api::RecoveryPlan;
use crate::calls::{call, list_all};
use crate::isolation::evidence::{Location, Store};
use crate::plan::Plan;

mod captured;
mod report;

pub(super) use captured::manifests_by_namespace as manifests;

/// Page size of a list of Pods.
const PAGE: u32 = 500;
/// Name of the ConfigMap, where the plan names none.
const LIST_NAME: &str = "approved-images";

/// What `--help` ends with.
const EXAMPLES: &str = "\
Gate imageDigests compares images with a list in a ConfigMap beside the plan. This prints such a list from what is there. It says \
what ran, not what is good: compare it with what your builds or your registry say, before you commit it.

One entry, and one image, is on each line:
  registry.example/shop/web:1.4 sha256:4bcf… # Deployment shop/web, container web
Several digests of one entry are the same image: its index, and its manifests for platforms.

Examples:
  # Before the day: what runs in the namespaces of a plan, as the ConfigMap that its gates name.
  resurgam images --plan recovery/council -o configmap > approved-images.yaml

  # Two namespaces.
  resurgam images -n shop-web -n shop-db

  # After the fact: what ran in all namespaces that were sealed, as it was captured.
  resurgam images --from-evidence s3://evidence/council

Standard error names what could not be resolved: a container that no node reports a digest of, a spec that pins another digest than \
the node reports, a tag that stands for two images.

Exit status: 0 everything is in the list; 1 something could not be resolved, or nothing runs; 2 it could not be found out. It takes \
`list` on pods, `get` on the plan with --plan, and, where a spec and a node disagree, `get` on nodes if you may.";

/// Arguments of `resurgam images`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, arg_required_else_help = true)]
#[command(group(clap::ArgGroup::new("where").required(true).multiple(true).args(["namespace", "plan", "from_evidence"])))]
pub(super) struct Args {
    /// Of this namespace (repeatable).
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Vec<String>,

    /// Of all namespaces of this plan.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = super::namespaced)]
    plan: Option<(String, String)>,

    /// What ran when it was sealed, from the evidence store (repeatable): of the namespaces that are named, or of all in the store.
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX")]
    from_evidence: Vec<Location>,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// How the list is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Entries, one per line.
    #[default]
    Text,
    /// For programs, with what could not be resolved.
    Json,
    /// A ConfigMap to apply or to commit.
    Configmap,
}

/// Namespaces to look at, and the ConfigMap that the list belongs to.
struct Scope {
    namespaces: BTreeSet<String>,
    config_map: (Option<String>, String),
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(list(args))
}

async fn list(args: &Args) -> Result<ExitCode> {
    let needs_cluster = args.plan.is_some() || args.from_evidence.is_empty();
    let client = match needs_cluster {
        true => Some(crate::client::with_read_retries(super::cluster().await?)?),
        false => None,
    };
    let scope = scope(args, client.as_ref()).await?;
    let (mut pods, mut unresolved, mut nodes) = (Vec::new(), Vec::new(), NodeImages::default());
    if args.from_evidence.is_empty() {
        if let Some(client) = &client {
            pods = running(client, &scope.namespaces).await?;
            nodes = read_nodes(client, &pods).await;
        }
    } else {
        for location in &args.from_evidence {
            let store = Store::open(location.clone(), std::env::vars_os())
                .with_context(|| format!("--from-evidence {location}"))?;
            let captured = captured::pods(&store, &scope.namespaces).await?;
            pods.extend(captured.pods);
            unresolved.extend(captured.unresolved);
        }
    }
    unresolved.extend(report::without_pods(&scope.namespaces, &pods, args.from_evidence.is_empty()));
    let mut found = in_use(&pods, &nodes);
    found.unresolved.extend(unresolved);
    match args.output {
        Format::Text => anstream::print!("{}", report::text(&found)),
        Format::Json => anstream::println!("{}", serde_json::to_string_pretty(&found)?),
        // An empty list approves nothing, and would replace one that does.
        Format::Configmap if found.images.is_empty() => {
            anstream::eprintln!("no image with a digest was found: no ConfigMap is printed");
        }
        Format::Configmap => {
            let (namespace, name) = &scope.config_map;
            anstream::print!("{}", report::config_map(&found, namespace.as_deref(), name));
        }
    }
    for doubt in &found.unresolved {
        anstream::eprintln!("not resolved: {doubt}");
    }
    let is_complete = found.unresolved.is_empty() && !found.images.is_empty();
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the namespaces that are named, by themselves and by the plan.
async fn scope(args: &Args, client: Option<&Client>) -> Result<Scope> {
    let mut scope = Scope {
        namespaces: args.namespace.iter().cloned().collect(),
        config_map: (None, LIST_NAME.to_owned()),
    };
    if let (Some((namespace, name)), Some(client)) = (&args.plan, client) {
        let plans = Api::<RecoveryPlan>::namespaced(client.clone(), namespace);
        let plan = call(format!("get RecoveryPlan {namespace}/{name}"), plans.get(name)).await?;
        let plan = Plan::from_object(&plan);
        scope.namespaces.extend(plan.services.iter().flat_map(|service| service.namespaces.clone()));
        scope.config_map.0 = Some(namespace.clone());
        let gates = plan.services.iter().flat_map(|service| &service.gates);
        let lists = gates.filter_map(|gate| gate.spec.image_digests.as_ref()?.approved_from.as_ref());
        let named: BTreeSet<&str> = lists.map(|list| list.config_map.name.as_str()).collect();
        // Of several lists, nobody can tell which this is.
        if let Some(name) = named.first().filter(|_| named.len() == 1) {
            (*name).clone_into(&mut scope.config_map.1);
        }
    }
    Ok(scope)
}

async fn running(client: &Client, namespaces: &BTreeSet<String>) -> Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for namespace in namespaces {
        let api = Api::<Pod>::namespaced(client.clone(), namespace);
        let what = format!("list pods in namespace {namespace}");
        pods.extend(list_all(&what, &api, ListParams::default(), PAGE).await?);
    }
    Ok(pods)
}

/// Reads the nodes that could resolve a doubt. One that may not be read resolves none.
async fn read_nodes(client: &Client, pods: &[Pod]) -> NodeImages {
    let mut images = NodeImages::default();
    let nodes = Api::<Node>::all(client.clone());
    for name in nodes_in_doubt(pods) {
        match call(format!("get Node {name}"), nodes.get(&name)).await {
            Ok(node) => images.add(&name, &node),
            Err(error) => images.add_unread(&name, error.to_string()),
        }
    }
    images
}

#[cfg(test)]
mod tests;
