//! Applies manifests of any kind server-side.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde::Deserialize;
use serde_json::Value;

use crate::wait::kind;

/// Maximum number of concurrent requests.
const AT_ONCE: usize = 8;

/// Parses the documents of a YAML text.
///
/// # Errors
/// The text is not valid YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let read = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    Ok(read.collect::<Result<Vec<_>, _>>()?.into_iter().filter(|value| !value.is_null()).collect())
}

/// Applies manifests server-side with force as `manager`: namespaces first, the rest concurrently.
///
/// # Errors
/// The API server rejected a manifest. With its name and the message.
pub async fn apply(client: &Client, manager: &str, manifests: &[Value]) -> Result<()> {
    let is_namespace = |manifest: &&Value| manifest["kind"] == "Namespace";
    for namespace in manifests.iter().filter(is_namespace) {
        apply_one(client, manager, namespace).await?;
    }
    let others: Vec<Value> = manifests.iter().filter(|m| !is_namespace(m)).cloned().collect();
    let all = others.into_iter().map(|manifest| async move { apply_one(client, manager, &manifest).await });
    stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
}

async fn apply_one(client: &Client, manager: &str, manifest: &Value) -> Result<()> {
    let text = |at: &str| manifest.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let (kind_, name) = (text("/kind"), text("/metadata/name"));
    let namespace = manifest.pointer("/metadata/namespace").and_then(Value::as_str);
    let api = kind(client, text("/apiVersion"), kind_, namespace);
    let params = PatchParams::apply(manager).force();
    api.patch(name, &params, &Patch::Apply(manifest)).await.with_context(|| {
        format!("apply {kind_} {}{name}", namespace.map(|n| format!("{n}/")).unwrap_or_default())
    })?;
    Ok(())
}
