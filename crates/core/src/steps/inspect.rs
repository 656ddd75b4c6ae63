//! Inspects a service's workloads before any of them starts: the host access that they need, and how they come back.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::{Resource, ResourceExt};

use super::scale::selects;
use crate::api::service_recovery::ResumeKind;
use crate::engine::{Inspection, Rollout};
use crate::isolation::Seal;
use crate::isolation::controls::rollouts::{is_mended_deployment, is_mended_stateful_set};
use crate::isolation::controls::workloads::{
    Inventory, Kind, Lists, Workload, recorded_nodes, recorded_replicas, recorded_rollout,
};
use crate::isolation::pod_security::of_template;
use crate::plan::Service;

/// Inspects one namespace. `lists`: everything in it that starts pods; of CronJobs and Jobs at least those that the plan resumes.
#[must_use]
pub fn inspect(service: &Service, seal: Option<&Seal>, lists: Lists) -> Inspection {
    let mut found = Inspection { host_access: host_access(service, &lists), ..Inspection::default() };
    let seal = seal.map_or("", |seal| seal.uid.as_str());
    let mended = mended(&lists, seal);
    let workloads = Inventory::from(lists).workloads;
    found.workloads = workloads.iter().filter(|workload| workload.kind != Kind::Job).count();
    for workload in workloads {
        let meta = &workload.meta;
        if service.scaling_steps().any(|step| selects(&step.match_labels, meta)) {
            let rollout = match workload.is_stopped() {
                true => recorded_rollout(meta, seal).filter(|_| !mended.contains(&meta.uid)),
                false => workload.rollout.clone(),
            };
            found.rollouts.extend(
                rollout.map(|rollout| Rollout { workload: workload.to_string(), message: rollout.message }),
            );
        } else if let Some(was) = ran(&workload, seal) {
            found.not_started.push(format!("{workload} is not started: no step selects it; {was}"));
        }
    }
    found
}

/// Returns the UIDs of workloads that specify the revision that served by now.
fn mended(lists: &Lists, seal: &str) -> BTreeSet<Option<String>> {
    let deployments = lists.deployments.iter().filter(|object| {
        recorded_rollout(&object.metadata, seal)
            .is_some_and(|record| is_mended_deployment(object, &lists.replicasets, &record))
    });
    let sets = lists.statefulsets.iter().filter(|object| {
        recorded_rollout(&object.metadata, seal).is_some_and(|record| is_mended_stateful_set(object, &record))
    });
    deployments.map(|of| of.metadata.uid.clone()).chain(sets.map(|of| of.metadata.uid.clone())).collect()
}

/// Returns how a workload ran before it was stopped. `None`: it did not run, or runs by itself.
fn ran(workload: &Workload, seal: &str) -> Option<String> {
    match workload.kind {
        Kind::CronJob | Kind::Job => None,
        Kind::DaemonSet => recorded_nodes(&workload.meta, seal).map(|_| "it ran on its nodes".to_owned()),
        Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet | Kind::ReplicationController => {
            let replicas = recorded_replicas(&workload.meta, seal).filter(|replicas| *replicas > 0)?;
            Some(format!("it had {replicas} replicas"))
        }
    }
}

/// Returns the host access of everything that steps or `resume` may start. Owned ReplicaSets start nothing themselves.
fn host_access(service: &Service, lists: &Lists) -> Vec<String> {
    let mut found = Vec::new();
    for object in &lists.deployments {
        found.extend(judged(object, object.spec.as_ref().map(|spec| &spec.template)));
    }
    for object in &lists.statefulsets {
        found.extend(judged(object, object.spec.as_ref().map(|spec| &spec.template)));
    }
    for object in &lists.daemonsets {
        found.extend(judged(object, object.spec.as_ref().map(|spec| &spec.template)));
    }
    let uids: Vec<&str> = lists.deployments.iter().filter_map(|of| of.metadata.uid.as_deref()).collect();
    for object in &lists.replicasets {
        let mut owners = object.owner_references().iter();
        if !owners.any(|owner| owner.controller == Some(true) && uids.contains(&owner.uid.as_str())) {
            found.extend(judged(object, object.spec.as_ref().and_then(|spec| spec.template.as_ref())));
        }
    }
    for object in &lists.controllers {
        found.extend(judged(object, object.spec.as_ref().and_then(|spec| spec.template.as_ref())));
    }
    let resumed: BTreeMap<(ResumeKind, &str), &str> =
        service.resume.iter().map(|r| ((r.kind, r.name.as_str()), r.namespace.as_str())).collect();
    let is_resumed = |kind, name: &str, namespace: Option<String>| {
        resumed.get(&(kind, name)).is_some_and(|of| namespace.as_deref() == Some(*of))
    };
    for object in &lists.cronjobs {
        if is_resumed(ResumeKind::CronJob, &object.name_any(), object.namespace()) {
            let spec = object.spec.as_ref().and_then(|spec| spec.job_template.spec.as_ref());
            found.extend(judged(object, spec.map(|spec| &spec.template)));
        }
    }
    for object in &lists.jobs {
        if is_resumed(ResumeKind::Job, &object.name_any(), object.namespace()) {
            found.extend(judged(object, object.spec.as_ref().map(|spec| &spec.template)));
        }
    }
    found.sort();
    found
}

/// Returns what one workload requests, prefixed with its name.
fn judged<K: Resource<DynamicType = ()>>(object: &K, template: Option<&PodTemplateSpec>) -> Option<String> {
    let violations = template.map(of_template).unwrap_or_default();
    let name = format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any());
    (!violations.is_empty()).then(|| format!("{name}: {}", violations.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{RECORDED_ANNOTATION, ROLLOUT_ANNOTATION, SEAL_ANNOTATION};
    use crate::plan::Plan;

    #[test]
    fn rollouts_and_what_no_step_starts_are_named() {
        let spec = "serviceAccountName: r\nservices:\n- {name: shop, ungated: {reason: x}, restore: [{name: s, scale: {matchLabels: {app: api}}}]}";
        let plan = Plan::compile("recovery", "p", "u", &serde_yaml::from_str(spec).unwrap());
        let deployment = |name: &str, was: &str, rollout: Option<&str>| {
            let mut annotations = json!({SEAL_ANNOTATION: "seal", RECORDED_ANNOTATION: was});
            if let Some(rollout) = rollout {
                annotations[ROLLOUT_ANNOTATION] =
                    json!(json!({"serving": ["api-1"], "message": rollout}).to_string());
            }
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}, "annotations": annotations},
                "spec": {"replicas": 0, "selector": {}, "template": {}},
            }))
            .unwrap()
        };
        let lists = || Lists {
            deployments: vec![
                deployment("api", "2", Some("it is paused")),
                deployment("web", "3", None),
                deployment("idle", "0", None),
            ],
            ..Lists::default()
        };
        let seal = |uid: &str| Seal { uid: uid.to_owned(), ..Seal::default() };
        let found = inspect(&plan.services[0], Some(&seal("seal")), lists());
        assert_eq!(
            found.rollouts,
            [Rollout { workload: "Deployment shop/api".into(), message: "it is paused".into() }]
        );
        assert_eq!(
            found.not_started,
            ["Deployment shop/web is not started: no step selects it; it had 3 replicas"]
        );
        assert_eq!(found.workloads, 3);
        let mut nothing = inspect(&plan.services[0], None, Lists::default());
        nothing.conclude(&plan.services[0]);
        assert_eq!(nothing.not_started, ["nothing was there to start in namespaces [shop]"]);
        let other = inspect(&plan.services[0], Some(&seal("another")), lists());
        assert_eq!((other.rollouts.len(), other.not_started.len()), (0, 0), "records of another sealing");
    }
}
