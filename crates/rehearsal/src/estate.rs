//! What an estate is like, to compare it before and after.

use std::collections::BTreeMap;

use anyhow::Result;
use kube::Client;
use kube::api::ListParams;
use serde_json::{Value, json};

/// What a person would compare, by `Kind namespace/name`.
pub type Estate = BTreeMap<String, Value>;

/// Workloads with their size and images, NetworkPolicies, and service accounts but for who they are (they are made anew), of
/// the namespaces given.
///
/// # Errors
/// Something cannot be read.
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
            estate.insert(format!("{kind} {namespace}/{name}"), essence(kind, &object));
        }
    }
    Ok(estate)
}

fn essence(kind: &str, object: &Value) -> Value {
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

/// Labels but for marks of ours, which an operator of an earlier version leaves.
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
