//! Host access that a service's workloads request: read once per attempt, before any of them starts.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use kube::{Client, Resource, ResourceExt};

use super::{Act, ActError};
use crate::api::service_recovery::ResumeKind;
use crate::calls::IoError;
use crate::isolation::pod_security::of_template;
use crate::isolation::workloads::list_kind;
use crate::plan::Service;

impl Act {
    /// Reads the host access as the operator, and keeps it for this attempt at this generation of the plan.
    pub(super) async fn read_host_access(&self, attempt: i64) -> Result<(), ActError> {
        let mut found = Vec::new();
        for namespace in &self.service().namespaces {
            found.extend(read_namespace(&self.context.client, self.service(), namespace).await?);
        }
        found.sort();
        let mut state = self.running.state();
        let held = state.services.entry(self.service().name.clone()).or_default();
        held.host_access = Some((attempt, self.plan.generation, found));
        Ok(())
    }
}

/// Returns the host access of everything that steps or `resume` may start in a namespace. Owned objects start nothing themselves.
async fn read_namespace(client: &Client, service: &Service, namespace: &str) -> Result<Vec<String>, IoError> {
    let (deployments, stateful_sets, daemon_sets, replica_sets, controllers) = futures::try_join!(
        list_kind::<Deployment>(client, namespace),
        list_kind::<StatefulSet>(client, namespace),
        list_kind::<DaemonSet>(client, namespace),
        list_kind::<ReplicaSet>(client, namespace),
        list_kind::<ReplicationController>(client, namespace),
    )?;
    let mut found = Vec::new();
    for object in &deployments {
        found.extend(judged(object, object.spec.as_ref().map(|spec| &spec.template)));
    }
    for object in &stateful_sets {
        found.extend(judged(object, object.spec.as_ref().map(|spec| &spec.template)));
    }
    for object in &daemon_sets {
        found.extend(judged(object, object.spec.as_ref().map(|spec| &spec.template)));
    }
    let uids: Vec<&str> = deployments.iter().filter_map(|of| of.metadata.uid.as_deref()).collect();
    let is_owned = |set: &&ReplicaSet| {
        set.owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && uids.contains(&owner.uid.as_str()))
    };
    for object in replica_sets.iter().filter(|set| !is_owned(set)) {
        found.extend(judged(object, object.spec.as_ref().and_then(|spec| spec.template.as_ref())));
    }
    for object in &controllers {
        found.extend(judged(object, object.spec.as_ref().and_then(|spec| spec.template.as_ref())));
    }
    let names = |kind: ResumeKind| -> Vec<&str> {
        let here = service.resume.iter().filter(|r| r.kind == kind && r.namespace == namespace);
        here.map(|r| r.name.as_str()).collect()
    };
    let (cron_jobs, jobs) = (names(ResumeKind::CronJob), names(ResumeKind::Job));
    if !cron_jobs.is_empty() {
        let all = list_kind::<CronJob>(client, namespace).await?;
        for object in all.iter().filter(|object| cron_jobs.contains(&object.name_any().as_str())) {
            let spec = object.spec.as_ref().and_then(|spec| spec.job_template.spec.as_ref());
            found.extend(judged(object, spec.map(|spec| &spec.template)));
        }
    }
    if !jobs.is_empty() {
        let all = list_kind::<Job>(client, namespace).await?;
        for object in all.iter().filter(|object| jobs.contains(&object.name_any().as_str())) {
            found.extend(judged(object, object.spec.as_ref().map(|spec| &spec.template)));
        }
    }
    Ok(found)
}

/// Returns what one workload requests, prefixed with its name.
fn judged<K: Resource<DynamicType = ()>>(object: &K, template: Option<&PodTemplateSpec>) -> Option<String> {
    let violations = template.map(of_template).unwrap_or_default();
    let name = format!("{} {}/{}", K::kind(&()), object.namespace().unwrap_or_default(), object.name_any());
    (!violations.is_empty()).then(|| format!("{name}: {}", violations.join(", ")))
}
