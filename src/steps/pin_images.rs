//! Step `pinImages`: replaces the tags in the pod templates of a service by approved digests.

use std::fmt::Debug;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, ReplicationController};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use resurgam_core::steps::StepProblem;
use resurgam_core::steps::pin_images::{Pin, approved, changed, decide};
use serde::de::DeserializeOwned;

use super::{PinImagesSpec, Step, StepClients, StepContext, StepError};
use crate::access::Right;
use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt};
use crate::engine::StepProgress;
use crate::gates::Interest;
use crate::isolation::workloads::{Kind, Lists, list_kind};

impl Step for PinImagesSpec {
    /// The plan does not say which kinds a namespace contains, so all kinds with a template are included.
    fn rights(&self, context: &StepContext) -> Vec<Right> {
        let list = self
            .approved_from
            .iter()
            .map(|from| Right::get::<ConfigMap>(&context.plan_namespace, &from.config_map.name));
        let of = |namespace: &String| {
            [
                Right::list::<Deployment>(namespace),
                Right::list::<StatefulSet>(namespace),
                Right::list::<ReplicaSet>(namespace),
                Right::list::<ReplicationController>(namespace),
                Right::list::<DaemonSet>(namespace),
                Right::list::<CronJob>(namespace),
                Right::patch::<Deployment>(namespace, None),
                Right::patch::<StatefulSet>(namespace, None),
                Right::patch::<ReplicaSet>(namespace, None),
                Right::patch::<ReplicationController>(namespace, None),
                Right::patch::<DaemonSet>(namespace, None),
                Right::patch::<CronJob>(namespace, None),
            ]
        };
        context.namespaces.iter().flat_map(of).chain(list).collect()
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
            let pins = pins(self, client, context).await?;
            for pin in &pins {
                write(client, pin).await?;
            }
            Ok(StepProgress::SucceededWith(changed(&pins)))
        }
        .boxed()
    }

    /// The step has succeeded once nothing is left to pin.
    fn observe<'a>(
        &'a self,
        StepClients { client, .. }: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let left = pins(self, client, context).await?;
            let titles: Vec<String> = left.iter().map(Pin::title).collect();
            Ok(match titles.as_slice() {
                [] => StepProgress::Succeeded,
                [first, ..] => StepProgress::Failed(format!(
                    "{first} has an image by tag again, which somebody else wrote after it was pinned"
                )),
            })
        }
        .boxed()
    }
}

/// Reads the list and all templates, and returns what is to be pinned.
async fn pins(spec: &PinImagesSpec, client: &Client, context: &StepContext) -> Result<Vec<Pin>, StepError> {
    let namespace = &context.plan_namespace;
    let list = match &spec.approved_from {
        Some(from) => {
            let name = &from.config_map.name;
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            call_opt(format!("read ConfigMap {namespace}/{name}"), api.get(name)).await?
        }
        None => None,
    };
    let approved = approved(spec, context, list.as_ref())?;
    let mut found = Vec::new();
    for namespace in &context.namespaces {
        found.push(lists(client, namespace).await?);
    }
    Ok(decide(&approved, found)?)
}

async fn lists(client: &Client, namespace: &str) -> Result<Lists, IoError> {
    let (deployments, statefulsets, replicasets, controllers, daemonsets, cronjobs) = futures::try_join!(
        list_kind::<Deployment>(client, namespace),
        list_kind::<StatefulSet>(client, namespace),
        list_kind::<ReplicaSet>(client, namespace),
        list_kind::<ReplicationController>(client, namespace),
        list_kind::<DaemonSet>(client, namespace),
        list_kind::<CronJob>(client, namespace),
    )?;
    let jobs = Vec::new();
    Ok(Lists { deployments, statefulsets, replicasets, controllers, daemonsets, cronjobs, jobs })
}

async fn write(client: &Client, pin: &Pin) -> Result<(), StepError> {
    match pin.kind {
        Kind::Deployment => write_as::<Deployment>(client, pin).await,
        Kind::StatefulSet => write_as::<StatefulSet>(client, pin).await,
        Kind::ReplicaSet => write_as::<ReplicaSet>(client, pin).await,
        Kind::ReplicationController => write_as::<ReplicationController>(client, pin).await,
        Kind::DaemonSet => write_as::<DaemonSet>(client, pin).await,
        Kind::CronJob => write_as::<CronJob>(client, pin).await,
        Kind::Job => {
            Err(StepProblem::Unusable(format!("{}: nobody can change its template", pin.title())).into())
        }
    }
}

async fn write_as<K>(client: &Client, pin: &Pin) -> Result<(), StepError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &pin.namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::STEP.to_owned()), ..PatchParams::default() };
    let patch = serde_json::from_value(pin.patch.clone())
        .map_err(|error| StepProblem::Unusable(format!("{}: {error}", pin.title())))?;
    let what = format!("pin the images of {}", pin.title());
    call(what, api.patch(&pin.name, &params, &Patch::Json::<()>(patch))).await?;
    Ok(())
}
