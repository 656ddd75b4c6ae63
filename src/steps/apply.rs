//! Step `apply`: reads manifests from ConfigMaps or an OCI artifact, and applies them server-side with a field manager of the step's own.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, ResourceExt};
use resurgam_core::steps::StepProblem;
use resurgam_core::steps::apply::oci::{self, Reference};
use resurgam_core::steps::apply::{
    Conflict, Manifest, Manifests, applied, artifact_manifests, conflict, is_malformed, judge, manager,
    manifests,
};
use zeroize::Zeroizing;

use super::{ApplySpec, Step, StepClients, StepContext, StepError, StepServices};
use crate::access::Right;
use crate::api::step::OciArtifact;
use crate::calls::{IoError, call, call_opt};
use crate::engine::StepProgress;
use crate::gates::Interest;
use crate::registries::ArtifactError;

/// Type and key of a Secret with logins for registries.
const LOGIN_TYPE: &str = "kubernetes.io/dockerconfigjson";
const LOGIN_KEY: &str = ".dockerconfigjson";

impl Step for ApplySpec {
    /// What the manifests hold is not known from the plan: rights to `get`, `create` and `patch` their kinds are granted by hand.
    fn rights(&self, context: &StepContext) -> Vec<Right> {
        let namespace = &context.plan_namespace;
        let maps = self.config_maps.iter().map(|map| Right::get::<ConfigMap>(namespace, &map.name));
        let secret = self.oci.iter().filter_map(|artifact| artifact.pull_secret.as_ref());
        maps.chain(secret.map(|secret| Right::get::<Secret>(namespace, &secret.name))).collect()
    }

    fn interests(&self, _context: &StepContext) -> Vec<Interest> {
        Vec::new()
    }

    /// To read, create and patch each kind among the manifests, in each namespace that it is applied to.
    fn prepare<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<Vec<Right>, StepError>> {
        async move {
            let manifests = read(self, clients, context).await?;
            let kinds = kinds(&clients.client, &manifests).await?;
            let mut rights = BTreeSet::new();
            for manifest in &manifests.objects {
                let Some(ApiResource { group, plural, .. }) = kinds.get(&key(manifest)) else { continue };
                let of = |verb| Right::new(verb, group, plural, Some(&manifest.namespace), None);
                rights.extend(["create", "get", "patch"].map(of));
            }
            Ok(rights.into_iter().collect())
        }
        .boxed()
    }

    /// Everything is read and checked before anything is written. Applying again changes nothing.
    fn start<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let client = &clients.client;
            let manifests = read(self, clients, context).await?;
            let kinds = kinds(client, &manifests).await?;
            let manager = manager(context);
            for manifest in &manifests.objects {
                let api = api(client, &kinds, manifest)?;
                if let Err(conflict) = apply(&api, manifest, &manager).await? {
                    return Ok(StepProgress::Failed(conflict));
                }
            }
            let message = applied(&manifests);
            tracing::info!(message);
            Ok(StepProgress::Running(message))
        }
        .boxed()
    }

    /// The step has succeeded once everything that it applied is read back.
    fn observe<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let client = &clients.client;
            let manifests = read(self, clients, context).await?;
            let kinds = kinds(client, &manifests).await?;
            let mut found = Vec::new();
            for manifest in &manifests.objects {
                let api = api(client, &kinds, manifest)?;
                found.push(call_opt(format!("read {}", manifest.title()), api.get(&manifest.name)).await?);
            }
            Ok(match judge(&manifests, &found, context) {
                StepProgress::Succeeded => StepProgress::SucceededWith(applied(&manifests)),
                progress => progress,
            })
        }
        .boxed()
    }
}

/// Reads the manifests.
async fn read(
    spec: &ApplySpec,
    clients: &StepClients,
    context: &StepContext,
) -> Result<Manifests, StepError> {
    let StepClients { client, services } = clients;
    if let Some(artifact) = &spec.oci {
        return read_artifact(artifact, client, services, context).await;
    }
    let namespace = &context.plan_namespace;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut maps = Vec::new();
    for map in &spec.config_maps {
        maps.push(call_opt(format!("read ConfigMap {namespace}/{}", map.name), api.get(&map.name)).await?);
    }
    Ok(manifests(spec, context, &maps)?)
}

/// Reads the manifests of an artifact. Nothing is asked of a registry, nor is its login read, unless the operator allows it.
async fn read_artifact(
    artifact: &OciArtifact,
    client: &Client,
    services: &StepServices,
    context: &StepContext,
) -> Result<Manifests, StepError> {
    let reference: Reference = artifact.reference.parse().map_err(StepProblem::Unusable)?;
    let title = format!("artifact {}/{}", reference.registry, reference.repository);
    let failed = |error: ArtifactError| match error {
        ArtifactError::Refused(why) => StepProblem::Unusable(format!("{title}: {why}")).into(),
        ArtifactError::Unavailable(why) => StepError::Waiting(format!("{title}: {why}")),
    };
    let Some(registries) = &services.registries else {
        return Err(failed(ArtifactError::Refused("no registry can be read".to_owned())));
    };
    registries.allowed(&reference).map_err(failed)?;
    let login = match &artifact.pull_secret {
        None => None,
        Some(named) => Some(login(&named.name, client, &reference, context).await?),
    };
    let files = registries.files(&reference, login.as_deref().map(String::as_str)).await;
    Ok(artifact_manifests(&reference, context, &files.map_err(failed)?)?)
}

/// Reads user and password for an artifact's registry.
async fn login(
    name: &str,
    client: &Client,
    reference: &Reference,
    context: &StepContext,
) -> Result<Zeroizing<String>, StepError> {
    let namespace = &context.plan_namespace;
    let title = format!("Secret {namespace}/{name}");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = call_opt(format!("read {title}"), secrets.get(name)).await?;
    let unusable = |why: &str| StepProblem::Unusable(format!("{title}: {why}"));
    let secret = secret.ok_or_else(|| unusable("it does not exist"))?;
    if secret.type_.as_deref() != Some(LOGIN_TYPE) {
        return Err(unusable(&format!("it is not of type {LOGIN_TYPE}")).into());
    }
    let config = secret.data.as_ref().and_then(|data| data.get(LOGIN_KEY));
    let config = config.ok_or_else(|| unusable(&format!("it has no key {LOGIN_KEY}")))?;
    Ok(Zeroizing::new(oci::login(&config.0, reference).map_err(|why| unusable(&why))?))
}

/// Kinds as the API server serves them.
type Kinds = BTreeMap<(String, String), ApiResource>;

fn key(manifest: &Manifest) -> (String, String) {
    (manifest.kind.api_version(), manifest.kind.kind.clone())
}

/// Returns the resource of every kind among the manifests, each asked for once.
async fn kinds(client: &Client, manifests: &Manifests) -> Result<Kinds, StepError> {
    let mut kinds = Kinds::new();
    for manifest in &manifests.objects {
        if let Entry::Vacant(entry) = kinds.entry(key(manifest)) {
            entry.insert(served(client, manifest).await?);
        }
    }
    Ok(kinds)
}

/// Returns the resource of a manifest's kind, which must be one of objects in namespaces.
async fn served(client: &Client, manifest: &Manifest) -> Result<ApiResource, StepError> {
    let GroupVersionKind { kind, .. } = &manifest.kind;
    let api_version = manifest.kind.api_version();
    let missing = || {
        StepProblem::Unusable(format!(
            "{}: the API server does not serve kind {kind} in {api_version}: install its CRD",
            manifest.title()
        ))
    };
    match call(format!("ask for kind {kind} in {api_version}"), pinned_kind(client, &manifest.kind)).await {
        Ok((resource, capabilities)) if capabilities.scope == Scope::Namespaced => Ok(resource),
        Ok(_) => {
            let message = format!(
                "{}: a {kind} is of the whole cluster, and a step changes its service only",
                manifest.title()
            );
            Err(StepProblem::Unusable(message).into())
        }
        Err(IoError::Api { source, .. }) if matches!(*source, kube::Error::Discovery(_)) => {
            Err(missing().into())
        }
        Err(error) if error.is_not_served() => Err(missing().into()),
        Err(error) => Err(error.into()),
    }
}

fn api(client: &Client, kinds: &Kinds, manifest: &Manifest) -> Result<Api<DynamicObject>, StepError> {
    // Every manifest's kind was asked for.
    let resource = kinds.get(&key(manifest));
    let resource =
        resource.ok_or_else(|| StepProblem::Unusable(format!("{} is of no kind", manifest.title())))?;
    Ok(Api::namespaced_with(client.clone(), &manifest.namespace, resource))
}

/// Applies one object. `Err` in `Ok`: the step fails, as it says.
async fn apply(
    api: &Api<DynamicObject>,
    manifest: &Manifest,
    manager: &str,
) -> Result<Result<(), String>, StepError> {
    let params = PatchParams::apply(manager).validation_strict();
    match attempt(api, manifest, &params, None).await? {
        Outcome::Applied => return Ok(Ok(())),
        Outcome::Refused(message) => return Ok(Err(message)),
        Outcome::OwnFields => {}
    }
    // Fields are taken over from one version of the object only, of which it is known that nobody else's are among them.
    let title = manifest.title();
    let found = call_opt(format!("read {title}"), api.get(&manifest.name)).await?;
    let version = found.and_then(|found| found.resource_version());
    let version = version.ok_or_else(|| StepError::Waiting(format!("{title} was deleted meanwhile")))?;
    match attempt(api, manifest, &params, Some(&version)).await? {
        Outcome::Applied => return Ok(Ok(())),
        Outcome::Refused(message) => return Ok(Err(message)),
        Outcome::OwnFields => {}
    }
    match attempt(api, manifest, &params.force(), Some(&version)).await? {
        Outcome::Applied => Ok(Ok(())),
        Outcome::Refused(message) => Ok(Err(message)),
        Outcome::OwnFields => Err(StepError::Waiting(format!("{title}: its fields change hands"))),
    }
}

/// What became of one apply.
enum Outcome {
    Applied,
    /// Every field in the way is this program's.
    OwnFields,
    /// It cannot be applied, as it says.
    Refused(String),
}

/// Applies one object once, in this version if one is given.
async fn attempt(
    api: &Api<DynamicObject>,
    manifest: &Manifest,
    params: &PatchParams,
    version: Option<&str>,
) -> Result<Outcome, StepError> {
    let title = manifest.title();
    let mut body = manifest.body.clone();
    if let Some(version) = version {
        body["metadata"]["resourceVersion"] = version.into();
    }
    let patch = Patch::Apply(&body);
    let error = match call(format!("apply {title}"), api.patch(&manifest.name, params, &patch)).await {
        Ok(_) => return Ok(Outcome::Applied),
        Err(error) => error,
    };
    let Some(status) = error.status() else { return Err(error.into()) };
    match conflict(&title, status) {
        Some(Conflict::Own) => Ok(Outcome::OwnFields),
        Some(Conflict::Others(message)) => Ok(Outcome::Refused(message)),
        None if is_malformed(status) => Ok(Outcome::Refused(error.to_string())),
        None => Err(error.into()),
    }
}
