//! Objects that controllers produce from others. They are left out, as their owners are compared; but only where the owner really is one:
//! anybody may write an owner reference.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};

use super::compare::{Change, Difference};
use super::content::{Marks, is_empty, normalised, template_metadata};
use super::{Object, group_of, isolated, pods, text};
use crate::gates::inventory::MAKES;

/// What is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Objects of their own, normalised and sorted.
    pub objects: Vec<Object>,
    /// Fields in which pods differ from the templates of their workloads.
    pub drift: Vec<Difference>,
}

impl Observed {
    /// Returns what is there in several places, each of which was observed by itself: no object is produced from one elsewhere.
    #[must_use]
    pub fn merged(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.objects.extend(part.objects);
            all.drift.extend(part.drift);
        }
        all.sort();
        all
    }

    fn sort(&mut self) {
        self.objects.sort_by_key(Object::key);
        self.drift.sort_by(|a, b| a.object.cmp(&b.object));
    }
}

/// Returns what is there, from objects as they were read.
#[must_use]
pub fn observe(mut raw: Vec<Value>, marks: &Marks) -> Observed {
    // Templates of stopped workloads are compared as they were.
    raw.iter_mut().for_each(|object| isolated::restore(object, marks));
    let by_uid: HashMap<&str, &Value> = raw
        .iter()
        .map(|object| (text(object, "/metadata/uid"), object))
        .filter(|(uid, _)| !uid.is_empty())
        .collect();
    let sets: Vec<&Value> = raw.iter().filter(|object| is(object, "apps", "StatefulSet")).collect();
    let mut found = Observed::default();
    for object in &raw {
        if isolated::is_own(object, marks) || is_of_every_namespace(object) || is_left_over(object) {
            continue;
        }
        match owner(object, &by_uid) {
            Some(owner) if is(object, "", "Pod") && !is_of_old_template(object, owner, &by_uid) => {
                found.drift.extend(drift(object, owner, marks))
            }
            Some(owner) if follows(object, owner) => {}
            _ if is(object, "", "PersistentVolumeClaim") && is_claim(object, &sets) => {}
            _ => found.objects.extend(normalised(object, marks)),
        }
    }
    found.sort();
    found
}

fn is(object: &Value, group: &str, kind: &str) -> bool {
    text(object, "/kind") == kind && group_of(text(object, "/apiVersion")) == group
}

/// Returns whether controllers put the object into every namespace: the certificates of the API server, and an account without content.
fn is_of_every_namespace(object: &Value) -> bool {
    match text(object, "/metadata/name") {
        "kube-root-ca.crt" => is(object, "", "ConfigMap"),
        "default" if is(object, "", "ServiceAccount") => {
            normalised(object, &Marks::default()).is_some_and(|object| is_empty(&object.content))
        }
        _ => false,
    }
}

/// Returns whether the object is a pod that has ended and that some controller made. Its owner may be gone already.
fn is_left_over(object: &Value) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let is_controlled = |owner: &Value| owner.get("controller") == Some(&Value::Bool(true));
    is(object, "", "Pod") && has_ended_pod(object) && owners.is_some_and(|all| all.iter().any(is_controlled))
}

fn has_ended_pod(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
}

fn is_claim(object: &Value, sets: &[&Value]) -> bool {
    let namespace = text(object, "/metadata/namespace");
    sets.iter().any(|set| text(set, "/metadata/namespace") == namespace && pods::is_claim_of(object, set))
}

/// Returns the object that controls this one, if it is there under that UID, name and namespace, and its controller produces such objects.
fn owner<'a>(object: &Value, by_uid: &HashMap<&str, &'a Value>) -> Option<&'a Value> {
    let own = (group_of(text(object, "/apiVersion")), text(object, "/kind"));
    let (_, makers) = MAKES.iter().find(|(of, _)| *of == own)?;
    let references = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let reference = references.iter().find(|of| of.get("controller") == Some(&Value::Bool(true)))?;
    let owner = *by_uid.get(text(reference, "/uid"))?;
    let kind = (group_of(text(owner, "/apiVersion")), text(owner, "/kind"));
    let is_same = kind == (group_of(text(reference, "/apiVersion")), text(reference, "/kind"))
        && text(owner, "/metadata/name") == text(reference, "/name")
        && text(owner, "/metadata/namespace") == text(object, "/metadata/namespace");
    (is_same && makers.contains(&kind)).then_some(owner)
}

/// Returns whether a ReplicaSet or Job is what its owner's controller makes: of the owner's template, or with nothing left to run.
fn follows(object: &Value, owner: &Value) -> bool {
    if is(object, "batch", "Job") {
        return has_ended(object) || is_of_template(object, owner);
    }
    let selector = owner.pointer("/spec/selector").cloned();
    let selector = selector.and_then(|of| serde_json::from_value::<LabelSelector>(of).ok());
    let selector = selector.and_then(|of| Selector::try_from(of).ok());
    let labels = object.pointer("/metadata/labels").cloned();
    let labels = labels.and_then(|of| serde_json::from_value(of).ok()).unwrap_or_default();
    let is_selected = selector.is_some_and(|of| !of.selects_all() && of.matches(&labels));
    let runs_nothing = object.pointer("/spec/replicas") == Some(&json!(0));
    is_selected && (runs_nothing || is_of_template(object, owner))
}

/// Returns whether a live pod belongs to an old revision, or to a Job that is said to have ended: those are left out as nothing of them
/// runs.
fn is_of_old_template(pod: &Value, set: &Value, by_uid: &HashMap<&str, &Value>) -> bool {
    !has_ended_pod(pod) && owner(set, by_uid).is_some_and(|owner| !is_of_template(set, owner))
}

/// Returns whether a ReplicaSet or Job is of its owner's template.
fn is_of_template(object: &Value, owner: &Value) -> bool {
    let of_owner = match is(object, "batch", "Job") {
        true => "/spec/jobTemplate/spec/template",
        false => "/spec/template",
    };
    template(object, "/spec/template") == template(owner, of_owner)
}

/// Returns whether a Job has completed or failed: its controller starts no pod of it any more.
fn has_ended(job: &Value) -> bool {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        ["Complete", "Failed"].contains(&text(condition, "/type")) && text(condition, "/status") == "True"
    })
}

/// Returns a template, without what controllers add to its metadata.
fn template(object: &Value, at: &str) -> Option<Value> {
    let mut template = object.pointer(at)?.clone();
    template_metadata(&mut template);
    // A Job names itself on its pods.
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.retain(|key, _| !["job-name", "batch.kubernetes.io/job-name"].contains(&key.as_str()));
        if labels.is_empty()
            && let Some(meta) = template.pointer_mut("/metadata").and_then(Value::as_object_mut)
        {
            meta.remove("labels");
        }
    }
    if template.get("metadata").is_some_and(is_empty)
        && let Some(fields) = template.as_object_mut()
    {
        fields.remove("metadata");
    }
    Some(template)
}

fn drift(pod: &Value, owner: &Value, marks: &Marks) -> Vec<Difference> {
    let Some(object) = normalised(pod, marks) else { return Vec::new() };
    let key = object.key();
    let changes = pods::drift(pod, owner).into_iter();
    changes.map(|delta| Difference { object: key.clone(), change: Change::Changed(delta) }).collect()
}
