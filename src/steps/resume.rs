//! Step `resume`: asks Flux or Argo CD to apply the approved revision, and reads what they say of it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use resurgam_core::steps::StepProblem;
use resurgam_core::steps::resume::{Start, argocd, flux, token};
use serde_json::Value;

use super::{POLL, ResumeStepSpec, Step, StepClients, StepContext, StepError, not_served};
use crate::access::Right;
use crate::api::field_manager;
use crate::api::step::{ArgoCdResume, FluxResume};
use crate::calls::{call, call_opt};
use crate::engine::StepProgress;
use crate::gates::Interest;

const SOURCES: &str = "source.toolkit.fluxcd.io";

fn kustomizations() -> ApiResource {
    let kind = GroupVersionKind::gvk("kustomize.toolkit.fluxcd.io", "v1", "Kustomization");
    ApiResource::from_gvk_with_plural(&kind, "kustomizations")
}

fn applications() -> ApiResource {
    let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application");
    ApiResource::from_gvk_with_plural(&kind, "applications")
}

fn right(verb: &'static str, resource: &ApiResource, namespace: &str, name: Option<&str>) -> Right {
    Right {
        namespace: Some(namespace.to_owned()),
        group: resource.group.clone(),
        resource: resource.plural.clone(),
        verb,
        name: name.map(str::to_owned),
    }
}

impl Step for ResumeStepSpec {
    /// The Kustomization names its source, not the plan: rights are those for a source in the same namespace, of whatever kind and name.
    fn rights(&self, _context: &StepContext) -> Vec<Right> {
        let mut rights = Vec::new();
        let mut of = |resource: &ApiResource, namespace: &str, name: &str| {
            rights.extend(["get", "patch"].map(|verb| right(verb, resource, namespace, Some(name))));
        };
        if let Some(FluxResume { namespace, name, .. }) = &self.flux {
            of(&kustomizations(), &namespace.0, name);
            let sources = flux::source_plurals().map(|plural| Right {
                namespace: Some(namespace.0.clone()),
                group: SOURCES.to_owned(),
                resource: plural.to_owned(),
                verb: "get",
                name: None,
            });
            rights.extend(sources);
        } else if let Some(ArgoCdResume { namespace, name, .. }) = &self.argocd {
            of(&applications(), &namespace.0, name);
        }
        rights
    }

    fn interests(&self, _context: &StepContext) -> Vec<Interest> {
        Vec::new()
    }

    fn kinds(&self) -> Vec<ApiResource> {
        let flux = self.flux.iter().map(|_| kustomizations());
        flux.chain(self.argocd.iter().map(|_| applications())).collect()
    }

    fn interval(&self) -> Duration {
        POLL
    }

    fn start<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let client = &clients.client;
            let token = token(context);
            match (&self.flux, &self.argocd) {
                (Some(spec), None) => start_flux(client, spec, &token).await?,
                (None, Some(spec)) => start_argocd(client, spec, &token).await?,
                _ => return Err(malformed()),
            }
            self.observe(clients, context).await
        }
        .boxed()
    }

    fn observe<'a>(
        &'a self,
        StepClients { client, .. }: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let token = token(context);
            match (&self.flux, &self.argocd) {
                (Some(spec), None) => observe_flux(client, spec, &token).await,
                (None, Some(spec)) => observe_argocd(client, spec, &token).await,
                _ => Err(malformed()),
            }
        }
        .boxed()
    }
}

fn malformed() -> StepError {
    StepProblem::Unusable("the step names not exactly one of flux, argocd".to_owned()).into()
}

/// Reads one object. `None`: it does not exist.
async fn read(
    client: &Client,
    resource: &ApiResource,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, StepError> {
    let title = format!("{} {namespace}/{name}", resource.kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let read = call_opt(format!("read {title}"), api.get(name)).await;
    let object = read.map_err(|error| not_served(error, &title, resource))?;
    let value = object.map(serde_json::to_value).transpose();
    value.map_err(|error| StepProblem::Unusable(format!("{title} is no JSON: {error}")).into())
}

/// Writes the request that starts the step, unless it was written in this attempt.
async fn write(
    client: &Client,
    resource: &ApiResource,
    namespace: &str,
    name: &str,
    start: Start,
) -> Result<(), StepError> {
    let patch = match start {
        Start::Begun => return Ok(()),
        Start::Waits(message) => return Err(StepError::Waiting(message)),
        Start::Write(patch) => patch,
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let params =
        PatchParams { field_manager: Some(field_manager::STEP.to_owned()), ..PatchParams::default() };
    let what = format!("resume {} {namespace}/{name}", resource.kind);
    call(what, api.patch(name, &params, &Patch::Merge(patch))).await?;
    Ok(())
}

async fn read_source(client: &Client, source: &flux::Source) -> Result<Option<Value>, StepError> {
    let kind = GroupVersionKind::gvk(SOURCES, "v1", source.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, source.plural);
    read(client, &resource, &source.namespace, &source.name).await
}

async fn start_flux(client: &Client, spec: &FluxResume, token: &str) -> Result<(), StepError> {
    let (resource, namespace) = (kustomizations(), &spec.namespace.0);
    let object = read(client, &resource, namespace, &spec.name).await?;
    let object =
        object.ok_or_else(|| StepProblem::Unusable(format!("{} does not exist", flux::title(spec))))?;
    let source = flux::source(spec, &object)?;
    let found = read_source(client, &source).await?;
    let start = flux::start(spec, &object, &source, found.as_ref(), token)?;
    write(client, &resource, namespace, &spec.name, start).await
}

async fn observe_flux(client: &Client, spec: &FluxResume, token: &str) -> Result<StepProgress, StepError> {
    let object = read(client, &kustomizations(), &spec.namespace.0, &spec.name).await?;
    let source = object.as_ref().map(|object| flux::source(spec, object)).transpose()?;
    let found = match &source {
        Some(source) => read_source(client, source).await?,
        None => None,
    };
    let source = source.as_ref().map(|source| (source, found.as_ref()));
    let progress = flux::judge(spec, object.as_ref(), source, token);
    Ok(match (progress, &object) {
        (StepProgress::Succeeded, Some(object)) => StepProgress::SucceededWith(flux::done(spec, object)),
        (progress, _) => progress,
    })
}

async fn start_argocd(client: &Client, spec: &ArgoCdResume, token: &str) -> Result<(), StepError> {
    let (resource, namespace) = (applications(), &spec.namespace.0);
    let object = read(client, &resource, namespace, &spec.name).await?;
    let object =
        object.ok_or_else(|| StepProblem::Unusable(format!("{} does not exist", argocd::title(spec))))?;
    let start = argocd::start(spec, &object, token)?;
    write(client, &resource, namespace, &spec.name, start).await
}

async fn observe_argocd(
    client: &Client,
    spec: &ArgoCdResume,
    token: &str,
) -> Result<StepProgress, StepError> {
    let object = read(client, &applications(), &spec.namespace.0, &spec.name).await?;
    let progress = argocd::judge(spec, object.as_ref(), token);
    Ok(match progress {
        StepProgress::Succeeded => StepProgress::SucceededWith(argocd::done(spec)),
        progress => progress,
    })
}
