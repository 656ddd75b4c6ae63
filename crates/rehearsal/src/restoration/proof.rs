//! What is there before the attack, while it is isolated, and after the recovery.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use kube::Client;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::velero;
use crate::wait::{condition, field, kind, object, text};

/// What makes up services, by namespace, then kind and name: what Deployments run, and the content of ConfigMaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents(BTreeMap<String, BTreeMap<String, Value>>);

impl Contents {
    /// Reads it.
    pub async fn look(client: &Client, namespaces: &[&str]) -> Result<Self> {
        let mut all = BTreeMap::new();
        for namespace in namespaces {
            let mut found = BTreeMap::new();
            for (version, of) in [("apps/v1", "Deployment"), ("v1", "ConfigMap"), ("v1", "Service")] {
                let list = kind(client, version, of, Some(namespace)).list(&ListParams::default()).await?;
                for item in list {
                    let item = serde_json::to_value(item)?;
                    let name = text(&item, "/metadata/name");
                    if name != "kube-root-ca.crt" {
                        found.insert(format!("{of} {name}"), compared(of, &item));
                    }
                }
            }
            all.insert((*namespace).to_owned(), found);
        }
        Ok(Self(all))
    }

    /// Fails unless these are the contents of others, whose namespaces lack this ending.
    pub fn is_of(&self, others: &Self, ending: &str) -> Result<()> {
        ensure!(!others.0.is_empty() && others.0.len() == self.0.len(), "other namespaces are compared");
        for (namespace, wanted) in &others.0 {
            let name = format!("{namespace}{ending}");
            let found = self.0.get(&name).with_context(|| format!("{name} was not read"))?;
            ensure!(found == wanted, "{name} has {found:#?}, and {namespace} had {wanted:#?}");
        }
        Ok(())
    }

    /// Returns whether every namespace has something else than in another reading.
    pub fn differs_from(&self, other: &Self) -> bool {
        self.0.iter().all(|(namespace, found)| other.0.get(namespace) != Some(found))
    }

    /// Returns kinds and names of what a service has in its new namespace.
    pub fn told(&self, service: &str) -> String {
        let found = self.0.get(&format!("{service}-new"));
        found.into_iter().flat_map(BTreeMap::keys).cloned().collect::<Vec<_>>().join(", ")
    }
}

fn compared(kind: &str, object: &Value) -> Value {
    match kind {
        "Deployment" => json!({
            "replicas": object["spec"]["replicas"],
            "pod": object["spec"]["template"]["spec"],
        }),
        "Service" => json!([object["spec"]["ports"], object["spec"]["selector"]]),
        _ => object["data"].clone(),
    }
}

/// Fails unless the plan has every field of what was applied over it, and of these services what it had besides.
pub fn is_merged(plan: &Value, over: &[Value]) -> Result<()> {
    let services = field(plan, "/spec/services").as_array().context("the plan has no services")?;
    ensure!(services.len() == 32, "the plan has {} services", services.len());
    let [over] = over else { anyhow::bail!("one plan is applied over the other") };
    for wanted in field(over, "/spec/services").as_array().into_iter().flatten() {
        let name = text(wanted, "/name");
        let found = services.iter().find(|service| service["name"] == name);
        let found = found.with_context(|| format!("service {name} is not in the plan"))?;
        for (key, value) in wanted.as_object().into_iter().flatten() {
            ensure!(has(&found[key], value), "{key} of {name} is {}, and not {value}", found[key]);
        }
        for key in ["title", "owner", "dependsOn"] {
            ensure!(!found[key].is_null(), "{name} has lost its {key}");
        }
    }
    Ok(())
}

/// Returns whether a value has everything of another one. The API server adds defaults.
fn has(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| has(found, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| has(found, wanted))
        }
        _ => found == wanted,
    }
}

/// Fails unless a namespace is sealed and has no pod.
pub async fn is_sealed(client: &Client, namespace: &str) -> Result<()> {
    let quarantine = object(&kind(client, "resurgam.dev/v1alpha1", "Quarantine", None), namespace).await?;
    let level = text(&quarantine, "/status/isolation");
    ensure!(level == "Sealed" && condition(&quarantine, "Ready") == "True", "{namespace} is {level}");
    let found = object(&kind(client, "v1", "Namespace", None), namespace).await?;
    let label = text(&found, "/metadata/labels/resurgam.dev~1isolation");
    ensure!(label == "sealed", "{namespace} bears the label {label}");
    let pods = kind(client, "v1", "Pod", Some(namespace)).list(&ListParams::default()).await?;
    ensure!(pods.items.is_empty(), "{namespace} has {} pods", pods.items.len());
    Ok(())
}

/// Returns each Restore of Velero, and how many objects it brought back. Fails unless all are complete.
pub async fn restores(client: &Client) -> Result<Vec<String>> {
    let all = kind(client, velero::API_VERSION, "Restore", Some(velero::NAMESPACE));
    let mut told = Vec::new();
    for restore in all.list(&ListParams::default()).await? {
        let restore = serde_json::to_value(restore)?;
        let (name, phase) = (text(&restore, "/metadata/name"), text(&restore, "/status/phase"));
        ensure!(phase == "Completed", "Restore {name} is {phase}");
        let items = field(&restore, "/status/progress/itemsRestored").as_i64();
        let items = items.map_or_else(String::new, |items| format!(", {items} objects"));
        told.push(format!("Restore {name} {phase}{items}"));
    }
    Ok(told)
}

/// Returns the name of the only Job of a namespace. Fails unless it succeeded, with one pod.
pub async fn ran_once(client: &Client, namespace: &str) -> Result<String> {
    let jobs = kind(client, "batch/v1", "Job", Some(namespace)).list(&ListParams::default()).await?;
    let [job] = &jobs.items[..] else { anyhow::bail!("{namespace} has {} Jobs", jobs.items.len()) };
    let job = serde_json::to_value(job)?;
    ensure!(
        condition(&job, "Complete") == "True" && field(&job, "/status/succeeded") == 1,
        "the Job is {}",
        job["status"]
    );
    ensure!(field(&job, "/status/failed").is_null(), "the Job failed before: {}", job["status"]);
    Ok(text(&job, "/metadata/name").to_owned())
}
