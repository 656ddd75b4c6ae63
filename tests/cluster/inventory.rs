//! Every object of a namespace, of every kind that the API server lists, to compare it before isolation and after release.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use kube::api::{DynamicObject, ListParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

/// Kinds whose objects come and go with what runs.
const TRANSIENT: [&str; 6] = ["Event", "Pod", "Endpoints", "EndpointSlice", "PodMetrics", "Lease"];

/// Objects by kind and name, without what the API server counts and controllers report.
pub struct Inventory {
    objects: BTreeMap<String, Value>,
    /// Annotations, labels and field managers of ours, with their object. Of transient objects, too.
    pub ours: Vec<String>,
}

/// Returns the inventory of a namespace, which is the last object in it.
pub async fn inventory(admin: &Client, namespace: &str) -> Inventory {
    let mut found = Inventory { objects: BTreeMap::new(), ours: Vec::new() };
    let discovered = Discovery::new(admin.clone()).run().await.unwrap();
    for group in discovered.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if capabilities.scope != Scope::Namespaced || !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let api: Api<DynamicObject> = Api::namespaced_with(admin.clone(), namespace, &resource);
            // An API that another test has just removed lists nothing.
            let Ok(listed) = api.list(&ListParams::default()).await else { continue };
            for object in listed.items {
                found.add(&resource.kind, object);
            }
        }
    }
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(admin.clone());
    let itself = namespaces.get(namespace).await.unwrap();
    found.add("Namespace", serde_json::from_value(serde_json::to_value(itself).unwrap()).unwrap());
    found
}

impl Inventory {
    fn add(&mut self, kind: &str, object: DynamicObject) {
        let name = format!("{kind} {}", object.name_any());
        let keys = object.labels().keys().chain(object.annotations().keys());
        let ours = keys.filter(|key| key.starts_with("resurgam.dev/")).cloned();
        let managers = object.managed_fields().iter().filter_map(|entry| entry.manager.clone());
        let managers = managers.filter(|manager| manager.starts_with("resurgam"));
        self.ours.extend(ours.chain(managers).map(|what| format!("{name}: {what}")));
        // Jobs of CronJobs come and go, too.
        if TRANSIENT.contains(&kind) || (kind == "Job" && !object.owner_references().is_empty()) {
            return;
        }
        let mut object = serde_json::to_value(object).unwrap();
        object.as_object_mut().unwrap().remove("status");
        let meta = object["metadata"].as_object_mut().unwrap();
        for counted in ["resourceVersion", "generation", "creationTimestamp", "uid", "managedFields"] {
            meta.remove(counted);
        }
        self.objects.insert(name, object);
    }

    /// Returns what differs, one line for each object.
    pub fn differences(&self, after: &Self) -> String {
        let mut lines = String::new();
        for (name, object) in &self.objects {
            match after.objects.get(name) {
                None => writeln!(lines, "{name} is gone").unwrap(),
                Some(now) if now != object => {
                    writeln!(lines, "{name} was\n  {object}\nand is\n  {now}").unwrap();
                }
                Some(_) => {}
            }
        }
        for (name, object) in &after.objects {
            if !self.objects.contains_key(name) {
                writeln!(lines, "{name} is new: {object}").unwrap();
            }
        }
        lines
    }
}

/// Waits until the namespace is as it was, with nothing of ours on it.
pub async fn as_before(admin: &Client, namespace: &str, before: &Inventory) {
    let mut left = String::new();
    let waiting = async {
        loop {
            let now = inventory(admin, namespace).await;
            left = format!("{}{}", before.differences(&now), now.ours.join("\n"));
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(ended.is_ok(), "namespace {namespace} is not as it was:\n{left}");
}
