//! Rollouts that are not complete when a workload is stopped. Scaling to zero and back makes Kubernetes forget which revision served: it
//! starts the latest one everywhere.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::api::conditions::shorten;

/// Annotation of the Deployment controller on a ReplicaSet: number of its revision.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Label of the Deployment controller on the pods of one revision.
const HASH: &str = "pod-template-hash";
/// Maximum length of an explanation, in characters.
const LIMIT: usize = 400;

/// A rollout that was not complete when its workload was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Names of the revisions that served: ReplicaSets, or ControllerRevisions.
    pub serving: Vec<String>,
    /// The revisions that served, and the one that Kubernetes starts.
    pub message: String,
}

/// Returns the rollout of a Deployment whose serving revision cannot be restored. `None`: it can, or nothing serves. `sets`: all
/// ReplicaSets of Deployments.
#[must_use]
pub fn of_deployment(object: &Deployment, sets: &[ReplicaSet]) -> Option<RolloutRecord> {
    let uid = object.uid()?;
    let is_own = |set: &&ReplicaSet| {
        set.owner_references().iter().any(|of| of.controller == Some(true) && of.uid == uid)
    };
    let own: Vec<&ReplicaSet> = sets.iter().filter(is_own).collect();
    let ready = |set: &&&ReplicaSet| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0) > 0;
    let specified = |set: &&&ReplicaSet| set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1) > 0;
    let mut serving: Vec<&ReplicaSet> = own.iter().filter(ready).copied().collect();
    if serving.is_empty() {
        serving = own.iter().filter(specified).copied().collect();
    }
    if serving.iter().all(|set| is_specified(object, set)) {
        return None;
    }
    serving.sort_by_key(|set| set.name_any());
    let names: Vec<String> = serving.iter().map(|set| revision(set)).collect();
    let latest = own.iter().find(|set| is_specified(object, set));
    let latest = latest.map_or_else(|| "a template that has no revision yet".to_owned(), |set| revision(set));
    let paused = object.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
    let how = if paused { "its rollout is paused" } else { "its rollout is not complete" };
    Some(RolloutRecord {
        serving: serving.iter().map(|set| set.name_any()).collect(),
        message: shorten(&format!("{how}: {} served, and {latest} is specified", names.join(" and ")), LIMIT),
    })
}

/// Returns whether a Deployment specifies the revision of one of its ReplicaSets.
fn is_specified(object: &Deployment, set: &ReplicaSet) -> bool {
    let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(content);
    own == object.spec.as_ref().map(|spec| content(&spec.template))
}

/// Returns whether a Deployment specifies the one revision that served by now.
#[must_use]
pub fn is_mended_deployment(object: &Deployment, sets: &[ReplicaSet], record: &RolloutRecord) -> bool {
    let [serving] = &record.serving[..] else { return false };
    sets.iter().any(|set| set.metadata.name.as_ref() == Some(serving) && is_specified(object, set))
}

/// Returns whether a StatefulSet specifies the one revision that served by now.
#[must_use]
pub fn is_mended_stateful_set(object: &StatefulSet, record: &RolloutRecord) -> bool {
    let [serving] = &record.serving[..] else { return false };
    object.status.as_ref().is_some_and(|status| {
        status.observed_generation == object.metadata.generation
            && status.update_revision.as_ref() == Some(serving)
    })
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

/// Returns the rollout of a StatefulSet whose serving revision cannot be restored. `None`: it can, or nothing serves.
#[must_use]
pub fn of_stateful_set(object: &StatefulSet) -> Option<RolloutRecord> {
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
    let message =
        format!("{how}: {old} of {} pods ran revision {current}, and {update} is specified", status.replicas);
    let serving = if updated > 0 { vec![current.clone(), update.clone()] } else { vec![current.clone()] };
    Some(RolloutRecord { serving, message })
}

#[cfg(test)]
#[path = "rollouts_tests.rs"]
mod tests;
