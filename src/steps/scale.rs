//! Step `scale`: scales workloads to the recorded replicas, or to a number in the plan.

use std::fmt::Debug;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use resurgam_core::steps::scale::decide;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ScaleSpec, Step, StepClients, StepContext, StepError};
use crate::access::Right;
use crate::api::field_manager;
use crate::calls::{IoError, call};
use crate::engine::StepProgress;
use crate::gates::Interest;
use crate::isolation::workloads::{self, Kind, Workload};

impl Step for ScaleSpec {
    /// The plan does not say which kinds a namespace contains, so all scalable kinds are included.
    fn rights(&self, context: &StepContext) -> Vec<Right> {
        let of = |namespace: &String| {
            let writes = [
                Right::patch::<Deployment>(namespace, None),
                Right::patch::<StatefulSet>(namespace, None),
                Right::patch::<ReplicaSet>(namespace, None),
                Right::patch::<ReplicationController>(namespace, None),
                Right::patch::<DaemonSet>(namespace, None),
            ];
            workloads::inventory_rights(namespace).into_iter().chain(writes)
        };
        context.namespaces.iter().flat_map(of).collect()
    }

    fn interests(&self, _context: &StepContext) -> Vec<Interest> {
        Vec::new()
    }

    /// Everything is read and decided before anything is written.
    fn start<'a>(
        &'a self,
        StepClients { client, .. }: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let found = list(client, context).await?;
            for (workload, patch) in decide(&found, self, context)? {
                write(client, workload, &patch).await?;
            }
            Ok(StepProgress::Succeeded)
        }
        .boxed()
    }

    /// The step has succeeded once nothing is left to write. Gates judge what the workloads become.
    fn observe<'a>(
        &'a self,
        StepClients { client, .. }: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let found = list(client, context).await?;
            Ok(match decide(&found, self, context)?.len() {
                0 => StepProgress::Succeeded,
                left => StepProgress::Running(format!("{left} workloads are still to be started")),
            })
        }
        .boxed()
    }
}

/// Lists the workloads of the service's namespaces.
async fn list(client: &Client, context: &StepContext) -> Result<Vec<Workload>, IoError> {
    let mut found = Vec::new();
    for namespace in &context.namespaces {
        found.extend(workloads::list(client, namespace).await?);
    }
    Ok(found)
}

async fn write(client: &Client, workload: &Workload, patch: &Value) -> Result<(), IoError> {
    match workload.kind {
        Kind::Deployment => write_as::<Deployment>(client, workload, patch).await,
        Kind::StatefulSet => write_as::<StatefulSet>(client, workload, patch).await,
        Kind::ReplicaSet => write_as::<ReplicaSet>(client, workload, patch).await,
        Kind::ReplicationController => write_as::<ReplicationController>(client, workload, patch).await,
        Kind::DaemonSet => write_as::<DaemonSet>(client, workload, patch).await,
        // This step never resumes them: a resumed CronJob runs its missed schedule.
        Kind::CronJob | Kind::Job => Ok(()),
    }
}

async fn write_as<K>(client: &Client, workload: &Workload, patch: &Value) -> Result<(), IoError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let namespace = workload.meta.namespace.as_deref().unwrap_or_default();
    let name = workload.meta.name.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::STEP.to_owned()), ..PatchParams::default() };
    call(format!("scale {workload}"), api.patch(name, &params, &Patch::Merge(patch))).await?;
    Ok(())
}
