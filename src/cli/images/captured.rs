//! Pods from captured evidence.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::isolation::evidence::{Object, Sealing, Store};

/// Maximum size of a namespace's manifests, in bytes: they are held in memory.
const LIMIT: u64 = 1 << 30;

/// What the evidence holds.
#[derive(Debug, Default)]
pub(super) struct Captured {
    pub(super) pods: Vec<Pod>,
    /// What could not be used, and why.
    pub(super) unresolved: Vec<String>,
}

/// Returns the Pods of the last sealing of each namespace that had any. No namespaces: of all.
pub(super) async fn pods(store: &Store, namespaces: &BTreeSet<String>) -> Result<Captured> {
    let mut captured = Captured::default();
    let mut sealings: BTreeMap<String, Vec<Sealing>> = BTreeMap::new();
    for sealing in store.sealings(None).await? {
        let namespace = sealing.object.namespace.clone();
        if namespaces.is_empty() || namespaces.contains(&namespace) {
            sealings.entry(namespace).or_default().push(sealing);
        }
    }
    for (namespace, sealings) in sealings {
        let objects = store.objects(Some(&namespace)).await?;
        // A later sealing may be of an empty clean room.
        for sealing in sealings.iter().rev() {
            match manifests(store, sealing, &objects).await {
                Ok(manifests) => {
                    let found = captured.add(&namespace, manifests);
                    if found {
                        break;
                    }
                }
                Err(error) => captured
                    .unresolved
                    .push(format!("namespace {namespace}, captured at {}: {error:#}", sealing.index.at)),
            }
        }
    }
    Ok(captured)
}

/// Returns the objects of the last sealing of each namespace. No namespaces: of all.
///
/// # Errors
/// The last sealing of a namespace cannot be read, or was changed.
pub(crate) async fn manifests_by_namespace(
    store: &Store,
    namespaces: &BTreeSet<String>,
) -> Result<BTreeMap<String, (String, Vec<Value>)>> {
    let mut last: BTreeMap<String, Sealing> = BTreeMap::new();
    for sealing in store.sealings(None).await? {
        let namespace = sealing.object.namespace.clone();
        if namespaces.is_empty() || namespaces.contains(&namespace) {
            last.insert(namespace, sealing);
        }
    }
    let mut captured = BTreeMap::new();
    for (namespace, sealing) in last {
        let objects = store.objects(Some(&namespace)).await?;
        let Value::Object(mut found) = manifests(store, &sealing, &objects).await? else {
            bail!("namespace {namespace}: the manifests are malformed");
        };
        let Some(Value::Array(objects)) = found.remove("objects") else {
            bail!("namespace {namespace}: the manifests have no objects");
        };
        captured.insert(namespace, (sealing.index.quarantine, objects));
    }
    Ok(captured)
}

impl Captured {
    /// Adds the Pods among a namespace's objects. Returns whether there are any.
    fn add(&mut self, namespace: &str, manifests: Value) -> bool {
        let Value::Object(mut manifests) = manifests else { return false };
        let Some(Value::Array(objects)) = manifests.remove("objects") else { return false };
        let is_pod = |object: &Value| object["kind"] == "Pod" && object["apiVersion"] == "v1";
        let mut found = false;
        for object in objects.into_iter().filter(is_pod) {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match serde_json::from_value(object) {
                Ok(pod) => {
                    self.pods.push(pod);
                    found = true;
                }
                Err(error) => self.unresolved.push(format!("Pod {namespace}/{name}: {error}")),
            }
        }
        found
    }
}

/// Reads the manifests of a sealing, once they are compared with their digest.
async fn manifests(store: &Store, sealing: &Sealing, objects: &[Object]) -> Result<Value> {
    if !sealing.is_intact() {
        bail!("{} was changed: resurgam evidence verify says more", sealing.object);
    }
    let Some(listed) = sealing.index.listed().into_iter().find(|listed| listed.what == "manifests") else {
        bail!("no manifests were kept");
    };
    let Some(object) = objects.iter().find(|object| object.to_string() == listed.kept.object) else {
        bail!("{} is missing", listed.kept.object);
    };
    if object.size > LIMIT {
        bail!("{object} is larger than {LIMIT} bytes");
    }
    let mut bytes = Vec::new();
    let mut chunks = store.open_object(object).await?;
    while let Some(chunk) = chunks.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if format!("sha256:{hex}") != listed.kept.digest {
        bail!("{object} was changed: resurgam evidence verify says more");
    }
    Ok(serde_json::from_slice(&bytes)?)
}
