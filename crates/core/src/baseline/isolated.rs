//! Undoes, on a copy, what isolation writes on objects, so that an isolated namespace compares as the one that it was.

use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};

use super::content::{Marks, is_empty};
use super::{group_of, text};
use crate::api::{RECORDED_ANNOTATION, SEAL_ANNOTATION, WHEN_SCALED_ANNOTATION};
use crate::isolation::controls::workloads::NOWHERE;
use crate::isolation::controls::{network, pod_security, quota};

/// Restores what records of the namespace's own Quarantine say. Records of others change nothing.
pub(super) fn restore(object: &mut Value, marks: &Marks) {
    let (kind, group) = (text(object, "/kind").to_owned(), group_of(text(object, "/apiVersion")).to_owned());
    let namespace = match kind.as_str() {
        "Namespace" => text(object, "/metadata/name"),
        _ => text(object, "/metadata/namespace"),
    };
    let is_isolated = marks.isolated.contains(namespace);
    let record = record(object, marks.seals.get(namespace));
    match (group.as_str(), kind.as_str()) {
        ("batch", "Job" | "CronJob") => {
            if let Some(was) = record.and_then(|text| text.parse::<bool>().ok()) {
                set(object, "/spec", "suspend", json!(was));
            }
        }
        ("apps", "DaemonSet") => {
            let was = record.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            let selects_nowhere = object
                .pointer("/spec/template/spec/nodeSelector")
                .is_some_and(|nodes| nodes.get(NOWHERE).is_some());
            if let Some(was) = was.filter(|was| was.is_object() && selects_nowhere) {
                set(object, "/spec/template/spec", "nodeSelector", was);
            }
        }
        ("apps", "StatefulSet") => {
            let was = annotation(object, WHEN_SCALED_ANNOTATION).filter(|_| record.is_some());
            if was.as_deref() == Some("Delete") {
                set(object, "/spec/persistentVolumeClaimRetentionPolicy", "whenScaled", json!("Delete"));
            }
        }
        ("", "Namespace") if is_isolated => {
            let Some(before) = annotation(object, pod_security::BEFORE_ANNOTATION) else { return };
            let was = if before == pod_security::NOTHING { Value::Null } else { json!(before) };
            set(object, "/metadata/labels", pod_security::ENFORCE_LABEL, was);
        }
        ("", "ResourceQuota") if is_isolated => raised(object),
        ("networking.k8s.io", "NetworkPolicy") if is_isolated => neutralised(object),
        _ => {}
    }
}

/// Returns whether isolation itself put the object there.
pub(super) fn is_own(object: &Value, marks: &Marks) -> bool {
    let is_isolated = marks.isolated.contains(text(object, "/metadata/namespace"));
    let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
    is_isolated && kind == "NetworkPolicy" && [network::DEFAULT_DENY, network::CLEAN_ROOM].contains(&name)
}

/// Returns what this seal recorded on a workload.
fn record(object: &Value, seal: Option<&String>) -> Option<String> {
    (annotation(object, SEAL_ANNOTATION).as_ref() == seal && seal.is_some())
        .then(|| annotation(object, RECORDED_ANNOTATION))?
}

fn annotation(object: &Value, key: &str) -> Option<String> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str().map(str::to_owned)
}

/// Sets a field. Null, or an empty value, removes it, as the API server does.
fn set(object: &mut Value, at: &str, field: &str, value: Value) {
    let Some(fields) = object.pointer_mut(at).and_then(Value::as_object_mut) else { return };
    if is_empty(&value) {
        fields.remove(field);
    } else {
        fields.insert(field.to_owned(), value);
    }
}

/// A quota that left no room for isolation's own objects.
fn raised(object: &mut Value) {
    let Ok(quota) = serde_json::from_value::<ResourceQuota>(object.clone()) else { return };
    let Some(patch) = quota::restoring(&quota) else { return };
    for (key, was) in patch.pointer("/spec/hard").and_then(Value::as_object).into_iter().flatten() {
        set(object, "/spec/hard", key, was.clone());
    }
}

/// A policy that was made to select no pod.
fn neutralised(object: &mut Value) {
    let selector = "/spec/podSelector";
    let Some(requirements) =
        object.pointer_mut("/spec/podSelector/matchExpressions").and_then(Value::as_array_mut)
    else {
        return;
    };
    requirements.retain(|requirement| text(requirement, "/key") != network::NEUTRALISED);
    if requirements.is_empty() {
        set(object, selector, "matchExpressions", Value::Null);
    }
}
