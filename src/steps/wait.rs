//! Step `wait`: reads one object until it is current, or a condition of it is true. It writes nothing.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use resurgam_core::steps::StepProblem;
use resurgam_core::steps::wait::{judge, resource, target};

use super::{POLL, Step, StepClients, StepContext, StepError, WaitSpec, not_served};
use crate::access::Right;
use crate::calls::call_opt;
use crate::engine::StepProgress;
use crate::gates::Interest;

impl Step for WaitSpec {
    fn rights(&self, context: &StepContext) -> Vec<Right> {
        // A step that can name no object reads none.
        let Ok(target) = target(self, context) else { return Vec::new() };
        vec![Right {
            namespace: Some(target.namespace),
            group: target.resource.group,
            resource: target.resource.plural,
            verb: "get",
            name: Some(target.name),
        }]
    }

    /// Kinds of Kubernetes that are watched anyway wake the step; any other is read at its interval.
    fn interests(&self, context: &StepContext) -> Vec<Interest> {
        let Ok(target) = target(self, context) else { return Vec::new() };
        let namespace = target.namespace;
        match (target.resource.group.as_str(), target.resource.kind.as_str()) {
            ("apps" | "batch", _) | ("", "ReplicationController") => vec![Interest::Workloads { namespace }],
            ("", "Pod") => vec![Interest::Pods { namespace }],
            ("", "ConfigMap") => vec![Interest::ConfigMap { namespace, name: target.name }],
            _ => Vec::new(),
        }
    }

    fn kinds(&self) -> Vec<ApiResource> {
        vec![resource(self)]
    }

    fn interval(&self) -> Duration {
        POLL
    }

    fn start<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        self.observe(clients, context)
    }

    fn observe<'a>(
        &'a self,
        StepClients { client, .. }: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let target = target(self, context)?;
            let api: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), &target.namespace, &target.resource);
            let title = target.title();
            let read = call_opt(format!("read {title}"), api.get(&target.name)).await;
            let object = read.map_err(|error| not_served(error, &title, &target.resource))?;
            let object = object
                .map(serde_json::to_value)
                .transpose()
                .map_err(|error| StepProblem::Unusable(format!("{title} is no JSON: {error}")))?;
            Ok(judge(self, &target, object.as_ref()))
        }
        .boxed()
    }
}
