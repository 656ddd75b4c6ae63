//! Rollouts that are not complete when a workload is stopped. Scaling to zero and back makes Kubernetes forget which revision served: it
//! starts the latest one everywhere.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use kube::ResourceExt;

use crate::api::conditions::shorten;

/// Annotation of the Deployment controller on a ReplicaSet: number of its revision.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Label of the Deployment controller on the pods of one revision.
const HASH: &str = "pod-template-hash";
/// Maximum length of an explanation, in characters.
const LIMIT: usize = 400;

/// Returns why the serving revision of a Deployment cannot be restored. `None`: it can, or nothing serves. `sets`: all ReplicaSets of
/// Deployments.
#[must_use]
pub fn of_deployment(object: &Deployment, sets: &[ReplicaSet]) -> Option<String> {
    let uid = object.uid()?;
    let own: Vec<&ReplicaSet> = sets
        .iter()
        .filter(|set| set.owner_references().iter().any(|of| of.controller == Some(true) && of.uid == uid))
        .collect();
    let serving: Vec<&ReplicaSet> = own
        .iter()
        .copied()
        .filter(|set| set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1) > 0)
        .collect();
    let specified = object.spec.as_ref().map(|spec| content(&spec.template));
    let is_latest = |set: &ReplicaSet| {
        set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(content) == specified
    };
    if serving.iter().all(|set| is_latest(set)) {
        return None;
    }
    let mut names: Vec<String> = serving.iter().map(|set| revision(set)).collect();
    names.sort();
    let latest = own.iter().find(|set| is_latest(set));
    let latest = latest.map_or_else(|| "a template that has no revision yet".to_owned(), |set| revision(set));
    let paused = object.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
    let how = if paused { "its rollout is paused" } else { "its rollout is not complete" };
    Some(shorten(&format!("{how}: {} served, and {latest} is specified", names.join(" and ")), LIMIT))
}

/// Content of a template, without the label that the Deployment controller adds to that of a ReplicaSet.
fn content(template: &PodTemplateSpec) -> (Option<&PodSpec>, BTreeMap<&str, &str>, BTreeMap<&str, &str>) {
    fn pairs(map: Option<&BTreeMap<String, String>>) -> BTreeMap<&str, &str> {
        map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
    let meta = template.metadata.as_ref();
    let mut labels = pairs(meta.and_then(|meta| meta.labels.as_ref()));
    labels.remove(HASH);
    (template.spec.as_ref(), labels, pairs(meta.and_then(|meta| meta.annotations.as_ref())))
}

fn revision(set: &ReplicaSet) -> String {
    let number = set.annotations().get(REVISION);
    let number = number.map_or_else(String::new, |number| format!(" (revision {number})"));
    format!("ReplicaSet {}{number}", set.name_any())
}

/// Returns why the serving revision of a StatefulSet cannot be restored. `None`: it can, or nothing serves.
#[must_use]
pub fn of_stateful_set(object: &StatefulSet) -> Option<String> {
    let status = object.status.as_ref()?;
    let (current, update) = (status.current_revision.as_ref()?, status.update_revision.as_ref()?);
    let updated = status.updated_replicas.unwrap_or(0);
    if current == update || status.replicas == 0 || updated >= status.replicas {
        return None;
    }
    let strategy = object.spec.as_ref().and_then(|spec| spec.update_strategy.clone()).unwrap_or_default();
    let how = match (strategy.type_.as_deref(), strategy.rolling_update.and_then(|rolling| rolling.partition))
    {
        (Some("OnDelete"), _) => "its update strategy is OnDelete".to_owned(),
        (_, Some(partition)) if partition > 0 => format!("its rollout has the partition {partition}"),
        _ => "its rollout is not complete".to_owned(),
    };
    let old = status.replicas - updated;
    Some(format!(
        "{how}: {old} of {} pods ran revision {current}, and {update} is specified",
        status.replicas
    ))
}

#[cfg(test)]
#[path = "rollouts_tests.rs"]
mod tests;
