//! Inventory of a namespace, to compare it before isolation and after release.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kube::api::ListParams;
use serde_json::{Value, json};

use super::Scene;
use super::check::short;
use super::scene::KEEP;
use crate::{field, kind, object, text};

/// Kinds that must be unchanged.
const KEPT: [(&str, &str); 6] = [
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "ServiceAccount"),
    ("v1", "ConfigMap"),
    ("v1", "ResourceQuota"),
    ("v1", "LimitRange"),
    ("cilium.io/v2", "CiliumNetworkPolicy"),
];

/// Kinds that isolation stops and people start again.
const STOPPED: [(&str, &str); 4] =
    [("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "ReplicaSet"), ("batch/v1", "Job")];

/// Fields that stop such a kind.
const STOPPED_BY: [&str; 2] = ["replicas", "suspend"];

/// Objects by kind and name.
pub(super) struct Inventory {
    kept: BTreeMap<String, Value>,
    stopped: BTreeMap<String, Value>,
    /// ServiceAccounts that are being deleted and that a finalizer of the tenant keeps: only its owner lets them be recreated.
    lingering: Vec<String>,
}

/// Returns the inventory of a namespace.
///
/// # Errors
/// Something cannot be listed.
pub(super) async fn inventory(scene: &Scene<'_>) -> Result<Inventory> {
    let (mut kept, mut stopped) = (all(scene, &KEPT).await?, all(scene, &STOPPED).await?);
    let is_going = |object: &Value| !object["metadata"]["deletionTimestamp"].is_null();
    let is_kept = |object: &Value| {
        let finalizers = field(object, "/metadata/finalizers").as_array();
        finalizers.is_some_and(|all| all.contains(&json!(KEEP)))
    };
    let lingering = kept
        .iter()
        .filter(|(_, object)| object["kind"] == "ServiceAccount" && is_going(object) && is_kept(object))
        .map(|(name, _)| name.clone())
        .collect();
    // The names of our own two policies are ours: what a tenant put there is evidence, and does not come back.
    let is_ours = |name: &str| {
        ["NetworkPolicy resurgam-default-deny", "NetworkPolicy resurgam-clean-room"].contains(&name)
    };
    kept.retain(|name, _| !is_ours(name));
    // What the tenant deleted before may go or stay.
    kept.retain(|_, object| !is_going(object));
    stopped.retain(|_, object| !is_going(object));
    Ok(Inventory { kept, stopped, lingering })
}

async fn all(scene: &Scene<'_>, kinds: &[(&str, &str)]) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for (version, what) in kinds {
        let listed = scene.objects(version, what).list(&ListParams::default()).await;
        for object in listed.with_context(|| format!("list {what}s"))?.items {
            let mut object = serde_json::to_value(object)?;
            object["kind"] = json!(what);
            found.insert(format!("{what} {}", text(&object, "/metadata/name")), object);
        }
    }
    Ok(found)
}

/// Returns an object without the fields that the API server and isolation write.
fn comparable_fields(object: &Value) -> Value {
    let mut comparable_fields = object.clone();
    let theirs = |at: &str| {
        let mut map = field(object, at).as_object().cloned().unwrap_or_default();
        map.retain(|key, _| !key.starts_with("resurgam.dev/"));
        map
    };
    comparable_fields["metadata"] = json!({
        "labels": theirs("/metadata/labels"), "annotations": theirs("/metadata/annotations"),
    });
    if let Some(fields) = comparable_fields.as_object_mut() {
        fields.remove("status");
        // Of token Secrets, which no version that is supported makes for an account.
        fields.remove("secrets");
    }
    comparable_fields
}

/// Returns the differences to the inventory before. Empty: none.
///
/// # Errors
/// Something cannot be read.
pub(super) async fn differences(
    scene: &Scene<'_>,
    before: &Inventory,
    after: &Inventory,
) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (name, was) in &before.kept {
        match after.kept.get(name) {
            None if after.lingering.contains(name) => {}
            None => all.push(format!("{name} is gone")),
            Some(is) if comparable_fields(was) != comparable_fields(is) => {
                all.push(format!(
                    "{name} was {}, and is {}",
                    short(&comparable_fields(was)),
                    short(&comparable_fields(is))
                ));
            }
            Some(_) => {}
        }
    }
    let new = after.kept.keys().filter(|name| !before.kept.contains_key(*name));
    all.extend(new.map(|name| format!("{name} was not there before")));
    for (name, was) in before.stopped.iter().filter(|(_, was)| !is_of_deployment(was)) {
        let Some(is) = after.stopped.get(name) else {
            all.push(format!("{name} is gone"));
            continue;
        };
        if template(was) != template(is) {
            all.push(format!(
                "the template of {name} was {}, and is {}",
                short(&template(was)),
                short(&template(is))
            ));
        }
        for by in STOPPED_BY {
            let (was, now) = (&was["spec"][by], &is["spec"][by]);
            if was != now && !is_recorded(scene, name, is, was).await? {
                all.push(format!("{by} of {name} was {was}, is {now}, and is recorded nowhere"));
            }
        }
    }
    let namespace = object(&kind(&scene.admin, "v1", "Namespace", None), scene.namespace()).await?;
    for at in ["/metadata/labels", "/metadata/annotations"] {
        let ours = field(&namespace, at).as_object().into_iter().flatten();
        let ours = ours.filter(|(key, _)| key.starts_with("resurgam.dev/"));
        all.extend(ours.map(|(key, value)| format!("the namespace still bears {key}: {value}")));
    }
    Ok(all)
}

/// Returns whether a Deployment owns the object, so that it need not be compared.
fn is_of_deployment(object: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners
        .into_iter()
        .flatten()
        .any(|owner| owner["kind"] == "Deployment" && owner["apiVersion"] == "apps/v1")
}

fn template(object: &Value) -> Value {
    object["spec"]["template"]["spec"].clone()
}

/// Returns whether the replicas of a workload were recorded: on itself, or where the tenant cannot write.
async fn is_recorded(scene: &Scene<'_>, name: &str, workload: &Value, was: &Value) -> Result<bool> {
    let was = if was.is_null() { "false".to_owned() } else { was.to_string() };
    if workload["metadata"]["annotations"]["resurgam.dev/replicas"] == was {
        return Ok(true);
    }
    let name = name.split_once(' ').map_or(name, |(_, name)| name);
    let records = kind(&scene.admin, "v1", "ConfigMap", Some("resurgam-records"));
    let records = records.list(&ListParams::default()).await.context("list the operator's ConfigMaps")?;
    let tells = |record: &kube::api::DynamicObject| {
        let text = format!("{:?} {}", record.metadata.name, record.data);
        text.contains(scene.namespace()) && text.contains(name) && text.contains(&was)
    };
    Ok(records.items.iter().any(tells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_isolation_writes_is_left_out_of_a_comparison() {
        let was = json!({
            "metadata": {"name": "web", "uid": "1", "labels": {"team": "housing"}, "annotations": {"ticket": "4711"}},
            "spec": {"podSelector": {}}, "status": {},
        });
        let mut is = was.clone();
        is["metadata"]["uid"] = json!("2");
        is["metadata"]["annotations"]["resurgam.dev/seal"] = json!("3");
        assert_eq!(comparable_fields(&was), comparable_fields(&is));
        for at in ["/metadata/labels/team", "/metadata/annotations/ticket", "/spec/podSelector"] {
            let mut other = was.clone();
            if let Some(field) = other.pointer_mut(at) {
                *field = json!("other");
            }
            assert_ne!(comparable_fields(&was), comparable_fields(&other), "{at}");
        }
    }

    #[test]
    fn only_a_built_in_deployment_starts_its_replica_sets() {
        let owned = |version: &str| {
            is_of_deployment(
                &json!({"metadata": {"ownerReferences": [{"apiVersion": version, "kind": "Deployment"}]}}),
            )
        };
        assert!(owned("apps/v1"));
        assert!(!owned("apps.implant.example/v1"));
    }
}
