//! The namespaces that are isolated.

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams};
use rehearsal::{eventually, kind};
use serde_json::{Value, json};

use crate::{AT_ONCE, DEADLINE};

/// Label of the namespaces of one estate.
pub const LABEL: &str = "bench.example/estate";
/// Up to so many namespaces each has pods; of more, one in ten.
pub const ALL_HAVE_PODS: usize = 1000;

/// Many namespaces.
pub struct Estate {
    pub names: Vec<String>,
    /// Those in which something runs.
    pub with_pods: Vec<String>,
}

impl Estate {
    /// Makes them, and waits until all that is to run does.
    ///
    /// # Errors
    /// The API server refused something, or something does not run.
    pub async fn lay_down(admin: &Client, prefix: &str, size: usize, pods: bool) -> Result<Self> {
        let names: Vec<String> = (0..size).map(|n| format!("{prefix}-{n}")).collect();
        let each = if size <= ALL_HAVE_PODS { 1 } else { 10 };
        let with_pods: Vec<String> =
            if pods { names.iter().step_by(each).cloned().collect() } else { Vec::new() };
        apply_all(admin, names.iter().map(|name| namespace(name, prefix))).await?;
        let rules = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]});
        apply_all(admin, names.iter().map(|name| policy(name, "allow", &rules))).await?;
        apply_all(admin, with_pods.iter().map(|name| deployment(name))).await?;
        for name in &with_pods {
            let deployments = kind(admin, "apps/v1", "Deployment", Some(name));
            let up = |object: &Value| object.pointer("/status/readyReplicas") == Some(&json!(2));
            eventually(&deployments, "web", &format!("{name}/web"), DEADLINE, up).await?;
        }
        Ok(Self { names, with_pods })
    }
}

/// Looks whether the network of all is cut, as the audit log is read to say.
///
/// # Errors
/// It is not.
pub async fn ensure_cut(admin: &Client, prefix: &str, size: usize) -> Result<()> {
    let policies = kind(admin, "networking.k8s.io/v1", "NetworkPolicy", None);
    let all = policies.list(&ListParams::default()).await?;
    let prefix = format!("{prefix}-");
    let mut denied = 0;
    for policy in all.items {
        let (namespace, name) =
            (policy.metadata.namespace.unwrap_or_default(), policy.metadata.name.unwrap_or_default());
        if !namespace.starts_with(&prefix) {
            continue;
        }
        let rules = |of: &str| policy.data["spec"][of].as_array().is_some_and(|rules| !rules.is_empty());
        // One that was there is left with its rules, selecting no pod: a label is to exist, and not to exist.
        let selector = policy.data["spec"]["podSelector"]["matchExpressions"].as_array();
        let asks = |operator: &str| {
            let mut all = selector.into_iter().flatten();
            all.any(|one| one["key"] == "resurgam.dev/isolated" && one["operator"] == operator)
        };
        let selects = !(asks("Exists") && asks("DoesNotExist"));
        ensure!(
            !selects || (!rules("ingress") && !rules("egress")),
            "NetworkPolicy {namespace}/{name} allows"
        );
        denied += usize::from(name == "resurgam-default-deny");
    }
    ensure!(denied == size, "{denied} of {size} namespaces have a default-deny policy");
    Ok(())
}

/// Applies objects, some at a time.
pub async fn apply_all(admin: &Client, objects: impl Iterator<Item = Value>) -> Result<()> {
    let one = async |object: Value| {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let api = kind(admin, text("/apiVersion"), text("/kind"), namespace);
        api.patch(text("/metadata/name"), &PatchParams::apply("bench").force(), &Patch::Apply(&object))
            .await?;
        anyhow::Ok(())
    };
    stream::iter(objects).map(one).buffer_unordered(AT_ONCE).try_collect().await
}

/// A namespace of an estate.
pub fn namespace(name: &str, prefix: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {LABEL: prefix}}})
}

/// A NetworkPolicy.
pub fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

fn deployment(namespace: &str) -> Value {
    let labels = json!({"app": "web"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "registry.example/web:1"}],
            },
        }},
    })
}
