//! Step `restoreBackup`: creates a Restore of Velero once per attempt, follows it to its end, and looks at what is there.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::{GroupVersionKind, NamespaceResourceScope, Status};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use resurgam_core::baseline::ignore::IgnoreList;
use resurgam_core::steps::restore_backup::{
    Followed, GROUP, backup_problem, before, judge, left, name, namespace, not_granted, velero_account,
    velero_namespace, wanted,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{RestoreBackupSpec, Step, StepClients, StepContext, StepError, StepProblem, Writer};
use crate::access::Right;
use crate::api::field_manager;
use crate::baseline::gather::{GatherError, Request, gather};
use crate::calls::{IoError, call, call_opt, list_all};
use crate::engine::StepProgress;
use crate::gates::Interest;
use crate::reviews::RecoverRights;

/// Page size of a list.
const PAGE: u32 = 500;
/// How long after a doubtful reading of a namespace it is read once more.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Step for RestoreBackupSpec {
    /// The Restore's name depends on the attempt, so no right can name it. Whatever is in the namespace is listed.
    fn rights(&self, context: &StepContext) -> Vec<Right> {
        let Ok(namespace) = namespace(self, &context.namespaces) else { return Vec::new() };
        let velero = Some(velero_namespace(self));
        let restores = ["create", "get", "list", "watch"];
        let restores = restores.map(|verb| Right::new(verb, GROUP, "restores", velero, None));
        let others = [
            Right::new("get", GROUP, "backups", velero, Some(&self.backup_name)),
            Right::new("get", "", "namespaces", None, Some(namespace)),
            Right::new("list", "*", "*", Some(namespace), None),
        ];
        restores.into_iter().chain(others).collect()
    }

    fn interests(&self, _context: &StepContext) -> Vec<Interest> {
        Vec::new()
    }

    fn kinds(&self) -> Vec<ApiResource> {
        vec![kind("Restore")]
    }

    fn writers(&self, context: &StepContext) -> Vec<Writer> {
        let namespace = namespace(self, &context.namespaces);
        namespace.map_or_else(|_| Vec::new(), |namespace| vec![writer(self, namespace)])
    }

    /// Velero writes as its own account, which the fence refuses without a grant, in the middle of a restore. Once the Restore is there
    /// it is followed, whatever becomes of the rights.
    fn check<'a>(
        &'a self,
        operator: &'a Client,
        client: &'a Client,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            let namespace = namespace(self, &context.namespaces)?;
            if read(client, self, "Restore", &name(context)).await?.is_some() {
                return Ok(());
            }
            let RecoverRights { recover, wildcard } = writer(self, namespace).review(operator).await?;
            match not_granted(self, namespace, recover, wildcard) {
                None => Ok(()),
                Some((reason, message)) => Err(StepError::NotGranted { reason, message }),
            }
        }
        .boxed()
    }

    /// An error, such as a missing right, yields nothing: the observer looks again at its own interval.
    fn changes(&self, client: &Client, context: &StepContext) -> BoxStream<'static, ()> {
        let restores = api(client, self, "Restore");
        let changes = watcher::watch_object(restores, &name(context)).default_backoff();
        changes.filter_map(|change| std::future::ready(change.ok().map(drop))).boxed()
    }

    fn start<'a>(
        &'a self,
        clients: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let client = &clients.client;
            let (name, velero) = (name(context), velero_namespace(self));
            // After a restart the namespace is not empty any more.
            if let Some(restore) = read(client, self, "Restore", &name).await? {
                return follow(client, self, context, Some(&restore)).await;
            }
            let backup = read(client, self, "Backup", &self.backup_name).await?;
            if let Some(why) = backup_problem(backup.as_ref(), self) {
                return Err(StepProblem::Unusable(why).into());
            }
            before(contents(client, self, context).await?, self, context)?;
            let restore: DynamicObject = serde_json::from_value(wanted(self, context)?)
                .map_err(|error| StepProblem::Unusable(format!("Restore {velero}/{name}: {error}")))?;
            let params = PostParams { dry_run: false, field_manager: Some(field_manager::STEP.to_owned()) };
            let create = api(client, self, "Restore");
            match call(format!("create Restore {velero}/{name}"), create.create(&params, &restore)).await {
                Ok(created) => follow(client, self, context, Some(&json!(created))).await,
                // An answer was lost.
                Err(error) if error.status().is_some_and(Status::is_already_exists) => {
                    self.observe(clients, context).await
                }
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn observe<'a>(
        &'a self,
        StepClients { client, .. }: &'a StepClients,
        context: &'a StepContext,
    ) -> BoxFuture<'a, Result<StepProgress, StepError>> {
        async move {
            let restore = read(client, self, "Restore", &name(context)).await?;
            follow(client, self, context, restore.as_ref()).await
        }
        .boxed()
    }
}

async fn follow(
    client: &Client,
    spec: &RestoreBackupSpec,
    context: &StepContext,
    restore: Option<&Value>,
) -> Result<StepProgress, StepError> {
    if let Followed::Progress(progress) = judge(restore, spec, context) {
        return Ok(progress);
    }
    let mut found = left(contents(client, spec, context).await?, spec, context)?;
    if found.is_in_doubt() {
        tokio::time::sleep(AGAIN_AFTER).await;
        found = found.and(&left(contents(client, spec, context).await?, spec, context)?);
    }
    Ok(found.progress(spec, context))
}

/// Returns Velero's account, which writes into the namespace.
fn writer(spec: &RestoreBackupSpec, into: &str) -> Writer {
    let [namespace, account] = [velero_namespace(spec), velero_account(spec)].map(str::to_owned);
    Writer { namespace, account, into: into.to_owned() }
}

/// Returns a kind of Velero.
fn kind(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", kind))
}

/// Returns Velero's objects of a kind, in its namespace.
fn api(client: &Client, spec: &RestoreBackupSpec, of: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), velero_namespace(spec), &kind(of))
}

/// Reads an object of Velero. `None`: it does not exist.
async fn read(
    client: &Client,
    spec: &RestoreBackupSpec,
    kind: &str,
    name: &str,
) -> Result<Option<Value>, StepError> {
    let what = format!("read {kind} {}/{name}", velero_namespace(spec));
    match call_opt(what, api(client, spec, kind).get(name)).await {
        Ok(object) => Ok(object.map(|object| json!(object))),
        Err(error) if error.is_not_served() => {
            let why = format!(
                "the cluster does not serve {kind}s of {GROUP}/v1: a platform engineer installs Velero, or corrects the step"
            );
            Err(StepProblem::Unusable(why).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads everything in the namespace that is restored into, as the plan's account, without Secrets' values.
async fn contents(
    client: &Client,
    spec: &RestoreBackupSpec,
    context: &StepContext,
) -> Result<Vec<Value>, StepError> {
    let namespace = namespace(spec, &context.namespaces)?.to_owned();
    let ignore = IgnoreList::default();
    let namespaces = [namespace.clone()];
    let request =
        Request { namespaces: &namespaces, versions: &[], key: None, outside: false, ignore: &ignore };
    let gathered = gather(client, &request);
    // An inventory leaves them out, as they follow from Services. They matter where there is none.
    let (gathered, endpoints, slices) = futures::join!(
        gathered,
        list::<Endpoints>(client, &namespace),
        list::<EndpointSlice>(client, &namespace)
    );
    let mut objects = gathered.map_err(unread)?.objects;
    objects.extend(endpoints?);
    objects.extend(slices?);
    Ok(objects)
}

async fn list<K>(client: &Client, namespace: &str) -> Result<Vec<Value>, IoError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let what = format!("list {} in namespace {namespace}", K::plural(&()));
    let found = list_all(&what, &api, ListParams::default(), PAGE).await?;
    let typed = found.iter().map(|object| {
        let mut object = json!(object);
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        object
    });
    Ok(typed.collect())
}

fn unread(error: GatherError) -> StepError {
    match error {
        GatherError::Io(error) => error.into(),
        GatherError::TooMany(_) | GatherError::Malformed(..) => {
            StepProblem::Unusable(format!("what is in the namespace cannot be read: {error}")).into()
        }
    }
}
