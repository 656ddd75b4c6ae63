//! Content of an object: what people or their tools wrote, without what the API server, controllers, autoscalers and isolation own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Object, group_of, isolated, pods, text};

/// Fields of metadata that are content.
const META: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

/// Annotations that controllers and tools write. A `/` at the end stands for all with that prefix.
const ANNOTATIONS: [&str; 9] = [
    "autoscaling.alpha.kubernetes.io/",
    "deployment.kubernetes.io/",
    "deprecated.daemonset.template.generation",
    "kubectl.kubernetes.io/last-applied-configuration",
    "kubectl.kubernetes.io/restartedAt",
    "pv.kubernetes.io/",
    "resurgam.dev/",
    "volume.beta.kubernetes.io/",
    "volume.kubernetes.io/",
];

/// Labels that controllers write.
const LABELS: [&str; 4] =
    ["batch.kubernetes.io/controller-uid", "controller-uid", "pod-template-hash", "resurgam.dev/"];

/// Finalizers that controllers write.
const FINALIZERS: [&str; 3] = [
    "batch.kubernetes.io/job-tracking",
    "kubernetes.io/pvc-protection",
    "service.kubernetes.io/load-balancer-cleanup",
];

/// What isolation may have left on the objects of some namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// UID of each namespace's Quarantine. Records of others are ignored.
    pub seals: BTreeMap<String, String>,
    /// Namespaces that are isolated now.
    pub isolated: BTreeSet<String>,
}

/// Removes what no comparison needs from an object as it was read, so that it takes less memory.
pub fn trim(object: &mut Value) {
    if let Some(meta) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "generation", "selfLink"] {
            meta.remove(field);
        }
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    // Whether a Job or a pod has ended.
    let kept = match text(object, "/kind") {
        "Job" => "conditions",
        "Pod" => "phase",
        _ => "",
    };
    let Some(fields) = object.as_object_mut() else { return };
    if kept.is_empty() {
        fields.remove("status");
    } else if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut) {
        status.retain(|field, _| field == kept);
    }
}

/// Returns an object, as read from a cluster, with its normalised content. `None`: it has no kind or no name.
#[must_use]
pub fn normalised(object: &Value, marks: &Marks) -> Option<Object> {
    let [api_version, kind, name, namespace] =
        ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"]
            .map(|at| text(object, at).to_owned());
    if kind.is_empty() || name.is_empty() {
        return None;
    }
    let mut object = object.clone();
    isolated::restore(&mut object, marks);
    let fields = object.as_object_mut()?;
    for own in ["apiVersion", "kind", "status"] {
        fields.remove(own);
    }
    let meta = fields.remove("metadata").map(metadata).unwrap_or_default();
    if !meta.is_empty() {
        fields.insert("metadata".to_owned(), Value::Object(meta));
    }
    spec(group_of(&api_version), &kind, &mut object);
    Some(Object { api_version, kind, namespace, name, content: object })
}

/// Returns the fields of metadata that are content.
pub(super) fn metadata(meta: Value) -> Map<String, Value> {
    let Value::Object(mut all) = meta else { return Map::new() };
    all.retain(|key, _| META.contains(&key.as_str()));
    for (field, owned) in [("annotations", &ANNOTATIONS[..]), ("labels", &LABELS[..])] {
        if let Some(Value::Object(values)) = all.get_mut(field) {
            values.retain(|key, _| !is_listed(owned, key));
        }
    }
    if let Some(Value::Array(finalizers)) = all.get_mut("finalizers") {
        finalizers.retain(|finalizer| !finalizer.as_str().is_some_and(|text| is_listed(&FINALIZERS, text)));
    }
    if let Some(Value::Array(owners)) = all.get_mut("ownerReferences") {
        // An owner that is restored has another UID.
        owners.iter_mut().filter_map(Value::as_object_mut).for_each(|owner| drop(owner.remove("uid")));
    }
    all.retain(|_, value| !is_empty(value));
    all
}

fn is_listed(list: &[&str], key: &str) -> bool {
    list.iter().any(|listed| key == *listed || (listed.ends_with('/') && key.starts_with(listed)))
}

pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Removes what is not content from the fields of a kind.
fn spec(group: &str, kind: &str, object: &mut Value) {
    match (group, kind) {
        ("apps", "Deployment" | "StatefulSet" | "ReplicaSet") | ("", "ReplicationController") => {
            remove(object, "/spec", "replicas");
            template(object, "/spec/template");
            claims(object);
        }
        ("apps", "DaemonSet") => template(object, "/spec/template"),
        ("batch", "Job") => job(object, "/spec"),
        ("batch", "CronJob") => {
            if let Some(meta) = object.pointer_mut("/spec/jobTemplate") {
                template_metadata(meta);
            }
            job(object, "/spec/jobTemplate/spec");
        }
        ("", "Pod") => {
            if let Some(spec) = object.pointer_mut("/spec") {
                pods::without_admission(spec);
            }
        }
        ("", "Service") => service(object),
        ("", "PersistentVolumeClaim") => remove(object, "/spec", "volumeName"),
        _ => {}
    }
}

fn remove(object: &mut Value, at: &str, field: &str) {
    if let Some(fields) = object.pointer_mut(at).and_then(Value::as_object_mut) {
        fields.remove(field);
    }
}

fn job(object: &mut Value, at: &str) {
    let Some(spec) = object.pointer_mut(at).and_then(Value::as_object_mut) else { return };
    if spec.get("manualSelector") != Some(&Value::Bool(true)) {
        spec.remove("selector");
    }
    if let Some(of) = spec.get_mut("template") {
        template_metadata(of);
    }
}

/// A StatefulSet's claims have a status, too.
fn claims(object: &mut Value) {
    let claims = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten() {
        remove(claim, "", "status");
        remove(claim, "/metadata", "creationTimestamp");
    }
}

fn template(object: &mut Value, at: &str) {
    if let Some(of) = object.pointer_mut(at) {
        template_metadata(of);
    }
    // The hash of a ReplicaSet's template is in its selector, too.
    let selector = object.pointer_mut("/spec/selector/matchLabels").and_then(Value::as_object_mut);
    if let Some(labels) = selector {
        labels.retain(|key, _| !is_listed(&LABELS, key));
    }
}

pub(super) fn template_metadata(template: &mut Value) {
    let Some(fields) = template.as_object_mut() else { return };
    let meta = fields.remove("metadata").map(metadata).unwrap_or_default();
    if !meta.is_empty() {
        fields.insert("metadata".to_owned(), Value::Object(meta));
    }
}

/// Addresses and ports that the API server chooses. `None` as an address is a choice of people.
fn service(object: &mut Value) {
    let Some(spec) = object.pointer_mut("/spec").and_then(Value::as_object_mut) else { return };
    if spec.get("clusterIP").and_then(Value::as_str) != Some("None") {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    spec.remove("healthCheckNodePort");
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        remove(port, "", "nodePort");
    }
}
