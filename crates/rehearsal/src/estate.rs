//! Snapshot of an estate, to compare it before and after a recovery.

use std::collections::BTreeMap;

use anyhow::Result;
use kube::Client;
use kube::api::ListParams;
use serde_json::{Value, json};

/// Compared fields of objects, by `Kind namespace/name`.
pub type Estate = BTreeMap<String, Value>;

/// Returns workloads with replicas and images, NetworkPolicies, and ServiceAccounts without UIDs (they are recreated) of these
/// namespaces.
///
/// # Errors
/// An object cannot be read.
pub async fn look(client: &Client, namespaces: &[String]) -> Result<Estate> {
    let kinds = [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "CronJob"),
        ("batch/v1", "Job"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("v1", "ServiceAccount"),
    ];
    let mut estate = Estate::new();
    for (version, kind) in kinds {
        let list = crate::kind(client, version, kind, None).list(&ListParams::default()).await?;
        for object in list {
            let object = serde_json::to_value(object)?;
            let at = |field: &str| crate::text(&object, field).to_owned();
            let (namespace, name) = (at("/metadata/namespace"), at("/metadata/name"));
            // What a Deployment or a CronJob makes has a name of the moment; its maker stands for it.
            let owned = crate::field(&object, "/metadata/ownerReferences/0").is_object();
            if owned || !namespaces.contains(&namespace) {
                continue;
            }
            estate.insert(format!("{kind} {namespace}/{name}"), comparable_fields(kind, &object));
        }
    }
    Ok(estate)
}

fn comparable_fields(kind: &str, object: &Value) -> Value {
    let spec = |field: &str| crate::field(object, &format!("/spec{field}")).clone();
    let template = if kind == "CronJob" { "/jobTemplate/spec/template" } else { "/template" };
    match kind {
        "NetworkPolicy" => spec(""),
        "ServiceAccount" => json!({
            "labels": labels_of_theirs(object), "pull": object["imagePullSecrets"],
            "automount": object["automountServiceAccountToken"],
        }),
        "CronJob" | "Job" => json!({
            "suspend": spec("/suspend"), "images": images(&spec(template)),
            "complete": crate::condition(object, "Complete") == "True",
        }),
        _ => json!({
            "replicas": spec("/replicas"), "nodes": spec("/template/spec/nodeSelector"),
            "images": images(&spec(template)),
        }),
    }
}

/// Returns the labels without the operator's own, which an earlier version leaves behind.
fn labels_of_theirs(object: &Value) -> Value {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let theirs: serde_json::Map<_, _> = labels
        .filter(|(key, _)| !key.starts_with("resurgam.dev/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if theirs.is_empty() { Value::Null } else { Value::Object(theirs) }
}

fn images(template: &Value) -> Vec<String> {
    let containers = |field: &str| {
        let list = crate::field(template, field).as_array().cloned().unwrap_or_default();
        list.into_iter().map(|c| crate::text(&c, "/image").to_owned())
    };
    containers("/spec/initContainers").chain(containers("/spec/containers")).collect()
}
