//! `resurgam evidence digests`: prints which values of Secrets were captured, by keyed digest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kube::Api;
use serde_json::json;

use crate::api::Quarantine;
use crate::calls::call_opt;
use crate::isolation::evidence::{DigestKey, Store};

/// Maximum size of the records, in bytes: an object has at most 1 MiB.
const LIMIT: usize = 1_000_000;

#[derive(Debug, clap::Args)]
pub(super) struct Digests {
    /// The namespaces: those whose Secrets the gate names.
    #[arg(required = true, value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// The ConfigMap to print, in the namespace of the plan.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = super::super::namespaced)]
    config_map: (String, String),
    /// The operator's key of digests: it authenticates the records.
    #[arg(long, value_name = "FILE")]
    evidence_key: PathBuf,
    /// Only these Secrets (repeatable). Default: all that were captured.
    #[arg(long, value_name = "NAME")]
    secret: Vec<String>,
    /// Another capture of the same Quarantine than that in its status, by the digest of its index: `resurgam evidence list` shows them.
    #[arg(long, value_name = "DIGEST")]
    capture: Option<String>,
}

pub(super) async fn run(store: &Store, args: &Digests) -> Result<ExitCode> {
    if args.capture.is_some() && args.namespaces.len() > 1 {
        bail!("--capture is of one namespace");
    }
    let key = DigestKey::read(&args.evidence_key)
        .with_context(|| format!("--evidence-key {}", args.evidence_key.display()))?;
    let client = crate::client::with_read_retries(super::super::cluster().await?)?;
    let quarantines = Api::<Quarantine>::all(client);
    let mut records = BTreeMap::new();
    for namespace in &args.namespaces {
        let found = call_opt(format!("get Quarantine {namespace}"), quarantines.get(namespace)).await?;
        let Some(quarantine) = found else { bail!("namespace {namespace} has no Quarantine") };
        let uid = quarantine.metadata.uid.unwrap_or_default();
        let recorded = quarantine.status.and_then(|status| status.capture).map(|capture| capture.digest);
        let Some(capture) = args.capture.clone().or(recorded) else {
            bail!("nothing was captured of namespace {namespace} yet");
        };
        let record = store.digest_record(namespace, &uid, &capture, &args.secret, &key).await?;
        records.insert(namespace.clone(), record);
    }
    let size: usize = records.values().map(String::len).sum();
    if size > LIMIT {
        bail!("the records have {size} bytes, and a ConfigMap at most {LIMIT}: name the Secrets by --secret");
    }
    let (namespace, name) = &args.config_map;
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": records,
    });
    anstream::print!("{}", serde_yaml::to_string(&object)?);
    Ok(ExitCode::SUCCESS)
}
