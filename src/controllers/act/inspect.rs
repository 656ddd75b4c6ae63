//! Reads a service's workloads, once per attempt, before any of them starts.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::Client;
use resurgam_core::steps::inspect::inspect;

use super::super::observe::seals;
use super::{Act, ActError};
use crate::api::service_recovery::ResumeKind;
use crate::calls::IoError;
use crate::engine::Inspection;
use crate::isolation::workloads::{Lists, list_kind};
use crate::plan::Service;

impl Act {
    /// Reads the workloads as the operator, and keeps the result for this attempt at this generation of the plan.
    pub(super) async fn inspect(&self, attempt: i64) -> Result<(), ActError> {
        let service = self.service();
        let seals = seals(&self.context.stores, service);
        let mut found = Inspection::default();
        for namespace in &service.namespaces {
            let lists = read(&self.context.client, service, namespace).await?;
            found.add(inspect(service, seals.get(namespace), lists));
        }
        found.conclude(service);
        let mut state = self.running.state();
        let held = state.services.entry(service.name.clone()).or_default();
        held.inspection = Some((attempt, self.plan.generation, found));
        Ok(())
    }
}

/// Lists what a namespace may start: CronJobs and Jobs only if the plan resumes any, CronJobs also if there is nothing else.
async fn read(client: &Client, service: &Service, namespace: &str) -> Result<Lists, IoError> {
    let (deployments, statefulsets, daemonsets, replicasets, controllers) = futures::try_join!(
        list_kind::<Deployment>(client, namespace),
        list_kind::<StatefulSet>(client, namespace),
        list_kind::<DaemonSet>(client, namespace),
        list_kind::<ReplicaSet>(client, namespace),
        list_kind::<ReplicationController>(client, namespace),
    )?;
    let resumes =
        |kind: ResumeKind| service.resume.iter().any(|r| r.kind == kind && r.namespace == namespace);
    let is_empty = deployments.is_empty() && statefulsets.is_empty() && daemonsets.is_empty();
    let cronjobs = match resumes(ResumeKind::CronJob) || is_empty {
        true => list_kind::<CronJob>(client, namespace).await?,
        false => Vec::new(),
    };
    let jobs = match resumes(ResumeKind::Job) {
        true => list_kind::<Job>(client, namespace).await?,
        false => Vec::new(),
    };
    Ok(Lists { deployments, statefulsets, replicasets, controllers, daemonsets, cronjobs, jobs })
}
