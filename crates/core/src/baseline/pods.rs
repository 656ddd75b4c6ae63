//! Specs of pods: without what admission adds to each, and compared with the template that they come from.

use serde_json::{Map, Value, json};

use super::content::is_empty;
use super::delta::{Delta, deltas};
use super::text;

/// Where admission mounts a pod's own token.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Start of the name of the volume with the token.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// Fields that the scheduler and admission fill in.
const FILLED_IN: [&str; 6] =
    ["nodeName", "priority", "preemptionPolicy", "serviceAccount", "overhead", "schedulingGates"];
/// Lists of containers in a pod's spec.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// Taints that admission tolerates for a while.
const TOLERATED: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Removes what admission and the scheduler add to a pod's spec.
pub(super) fn without_admission(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else { return };
    FILLED_IN.iter().for_each(|field| drop(fields.remove(*field)));
    retain(fields, "tolerations", |toleration| {
        !(TOLERATED.contains(&text(toleration, "/key")) && text(toleration, "/effect") == "NoExecute")
    });
    let volumes = fields.get("volumes").and_then(Value::as_array);
    let token = volumes.into_iter().flatten().find(|volume| is_token(volume));
    let Some(name) = token.map(|volume| text(volume, "/name").to_owned()) else { return };
    retain(fields, "volumes", |volume| text(volume, "/name") != name);
    for container in containers(fields) {
        retain(container, "volumeMounts", |mount| {
            text(mount, "/name") != name || text(mount, "/mountPath") != TOKEN_MOUNT
        });
    }
}

/// Returns whether the volume is the one that admission adds: the pod's own token for the API server, and nothing else.
fn is_token(volume: &Value) -> bool {
    let sources = volume.pointer("/projected/sources").and_then(Value::as_array);
    text(volume, "/name").starts_with(TOKEN_VOLUME)
        && sources.is_some_and(|sources| {
            sources.len() == 3
                && sources.iter().all(|source| match source.as_object().and_then(|of| of.iter().next()) {
                    Some((kind, of)) if kind == "serviceAccountToken" => of.get("audience").is_none(),
                    Some((kind, of)) if kind == "configMap" => text(of, "/name") == "kube-root-ca.crt",
                    Some((kind, _)) => kind == "downwardAPI",
                    None => false,
                })
        })
}

fn containers(spec: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    spec.iter_mut()
        .filter(|(field, _)| CONTAINERS.contains(&field.as_str()))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// Keeps some items of a list, and removes the field if none is left.
fn retain(fields: &mut Map<String, Value>, list: &str, keeps: impl Fn(&Value) -> bool) {
    let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) else { return };
    items.retain(|item| keeps(item));
    if items.is_empty() {
        fields.remove(list);
    }
}

/// Returns the fields in which a pod differs from the template of the workload that owns it, but for what admission, the scheduler and
/// the workload's own controller change. Resources are left out: quotas and autoscalers set them.
pub(super) fn drift(pod: &Value, owner: &Value) -> Vec<Delta> {
    let (Some(was), Some(is)) = (owner.pointer("/spec/template/spec"), pod.pointer("/spec")) else {
        return deltas(&json!({"spec": null}), &json!({"spec": pod.pointer("/spec")}));
    };
    let (mut was, mut is) = (was.clone(), is.clone());
    for spec in [&mut was, &mut is] {
        without_admission(spec);
        for container in spec.as_object_mut().map(containers).into_iter().flatten() {
            container.remove("resources");
        }
    }
    if let (Value::Object(was), Value::Object(is)) = (&mut was, &mut is) {
        align(was, is, pod, owner);
    }
    deltas(&json!({"spec": was}), &json!({"spec": is}))
}

/// Removes from both specs what the workload's controller and admission may have changed.
fn align(was: &mut Map<String, Value>, is: &mut Map<String, Value>, pod: &Value, owner: &Value) {
    // Defaults of pods that templates do not have.
    was.entry("serviceAccountName").or_insert_with(|| json!("default"));
    was.entry("enableServiceLinks").or_insert(Value::Bool(true));
    is.entry("enableServiceLinks").or_insert(Value::Bool(true));
    for field in ["imagePullSecrets", "priorityClassName"] {
        if !was.contains_key(field) {
            is.remove(field);
        }
    }
    let (kind, name) = (text(owner, "/kind"), text(pod, "/metadata/name"));
    match kind {
        "DaemonSet" => {
            // Its controller pins each pod to its node.
            was.remove("affinity");
            is.remove("affinity");
        }
        "StatefulSet" => {
            if !was.contains_key("hostname") && is.get("hostname") == Some(&json!(name)) {
                is.remove("hostname");
            }
            if !was.contains_key("subdomain") && is.get("subdomain") == owner.pointer("/spec/serviceName") {
                is.remove("subdomain");
            }
            for claim in
                owner.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten()
            {
                let of = text(claim, "/metadata/name");
                let volume =
                    json!({"name": of, "persistentVolumeClaim": {"claimName": format!("{of}-{name}")}});
                retain(is, "volumes", |there| *there != volume);
                retain(was, "volumes", |there| text(there, "/name") != of);
            }
        }
        "Job" => {
            if !was.contains_key("hostname") {
                is.remove("hostname");
            }
            for container in containers(is) {
                retain(container, "env", |variable| {
                    text(variable, "/name") != "JOB_COMPLETION_INDEX" || variable.get("valueFrom").is_none()
                });
            }
        }
        _ => {}
    }
    more_tolerations(was, is);
    always_pulled(was, is);
}

/// Controllers and admission add tolerations; they take none away.
fn more_tolerations(was: &mut Map<String, Value>, is: &mut Map<String, Value>) {
    let of = |spec: &Map<String, Value>| spec.get("tolerations").and_then(Value::as_array).cloned();
    let (before, now) = (of(was).unwrap_or_default(), of(is).unwrap_or_default());
    if before.iter().all(|toleration| now.contains(toleration)) {
        was.remove("tolerations");
        is.remove("tolerations");
    }
}

/// Admission may have every image pulled, which is stricter.
fn always_pulled(was: &mut Map<String, Value>, is: &mut Map<String, Value>) {
    for list in CONTAINERS {
        let Some(before) = was.get(list).and_then(Value::as_array) else { continue };
        for container in is.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = text(container, "/name").to_owned();
            let policy = before.iter().find(|of| text(of, "/name") == name);
            let policy = policy.and_then(|of| of.get("imagePullPolicy")).cloned();
            if let (Some(policy), Some(fields)) = (policy, container.as_object_mut())
                && fields.get("imagePullPolicy") == Some(&json!("Always"))
            {
                fields.insert("imagePullPolicy".to_owned(), policy);
            }
        }
    }
}

/// Returns whether a StatefulSet's controller makes this claim: it has the name of one, and the spec of its template.
pub(super) fn is_claim_of(claim: &Value, set: &Value) -> bool {
    let (name, set_name) = (text(claim, "/metadata/name"), text(set, "/metadata/name"));
    let templates = set.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
    templates.into_iter().flatten().any(|template| {
        let prefix = format!("{}-{set_name}-", text(template, "/metadata/name"));
        let ordinal = name.strip_prefix(&prefix).unwrap_or_default();
        let is_one = !ordinal.is_empty() && ordinal.chars().all(|digit| digit.is_ascii_digit());
        let (Some(was), Some(is)) = (template.get("spec"), claim.get("spec")) else { return false };
        let (mut was, mut is) = (was.clone(), is.clone());
        for spec in [&mut was, &mut is] {
            spec.as_object_mut().map(|fields| fields.remove("volumeName"));
        }
        if was.get("storageClassName").is_none() {
            is.as_object_mut().map(|fields| fields.remove("storageClassName"));
        }
        let meta = |object: &Value| {
            let meta = object.get("metadata").cloned().map(super::content::metadata).unwrap_or_default();
            (meta.get("annotations").cloned(), meta.get("finalizers").cloned())
        };
        let labels = claim.pointer("/metadata/ownerReferences").is_none_or(is_empty);
        is_one && was == is && labels && meta(template) == meta(claim)
    })
}
