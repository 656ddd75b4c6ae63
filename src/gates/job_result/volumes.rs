//! Makes volumes of snapshots in the inspection namespace. Repeating it creates nothing more.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::{NamespaceResourceScope, Status};
use kube::{Api, ResourceExt};
use resurgam_core::gates::backup_before::bound_content;
use resurgam_core::gates::job_result::volumes::{
    GROUP, SnapshotSource, VolumeObjects, choose, is_as_asked, namespace, objects, source,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::dynamic::{kind, list, read};
use super::super::inventory::unreadable;
use super::super::{Answer, Context, Question};
use crate::access::Right;
use crate::api::gate::JobResultSpec;
use crate::api::{GateReason, MANAGED_BY_LABEL, field_manager};

/// Returns the rights of the plan's account that the volumes require. Contents are of the cluster, and their names depend on the attempt.
pub(super) fn rights(spec: &JobResultSpec, question: &Question) -> Vec<Right> {
    if spec.volumes.is_empty() {
        return Vec::new();
    }
    let inspection = spec.inspection_namespace.0.as_str();
    let mut rights = vec![
        Right::new("get", GROUP, "volumesnapshotcontents", None, None),
        Right::new("create", GROUP, "volumesnapshotcontents", None, None),
        Right::new("get", GROUP, "volumesnapshots", Some(inspection), None),
        Right::new("create", GROUP, "volumesnapshots", Some(inspection), None),
        Right::get_any::<PersistentVolumeClaim>(inspection),
        Right::create::<PersistentVolumeClaim>(inspection),
    ];
    for volume in &spec.volumes {
        if let Ok(namespace) = namespace(volume, question) {
            rights.push(Right::new("list", GROUP, "volumesnapshots", Some(namespace), None));
        }
    }
    rights
}

fn snapshots() -> ApiResource {
    kind(GROUP, "VolumeSnapshot", "volumesnapshots")
}

fn contents() -> ApiResource {
    kind(GROUP, "VolumeSnapshotContent", "volumesnapshotcontents")
}

/// Returns the snapshot of the storage system for each volume, in the plan's order.
///
/// # Errors
/// The verdict Unknown: one cannot be read, does not exist, or is not ready.
pub(super) async fn sources(
    spec: &JobResultSpec,
    context: Context<'_>,
) -> Result<Vec<SnapshotSource>, Answer> {
    let mut sources = Vec::with_capacity(spec.volumes.len());
    for volume in &spec.volumes {
        let namespace = namespace(volume, context.question)?;
        let labels = format!("{MANAGED_BY_LABEL}=resurgam");
        let all = list(context, &snapshots(), namespace, &labels).await?;
        let snapshot = choose(volume, context.question, &all)?;
        let content = match bound_content(snapshot) {
            Some(name) => read(context, &contents(), None, name).await?,
            None => None,
        };
        sources.push(source(snapshot, content.as_ref())?);
    }
    Ok(sources)
}

/// Creates the objects of each volume, as far as they are not there. They go with the Job.
///
/// # Errors
/// The verdict Unknown: one cannot be created, or another of its name is there.
pub(super) async fn create(
    spec: &JobResultSpec,
    context: Context<'_>,
    job: &Job,
    sources: &[SnapshotSource],
) -> Result<(), Answer> {
    let client = &context.reads.account.client;
    let namespace = spec.inspection_namespace.0.as_str();
    let (name, uid) = (job.name_any(), job.uid().unwrap_or_default());
    for (volume, source) in spec.volumes.iter().enumerate().zip(sources) {
        let VolumeObjects { content, snapshot, claim } = objects(spec, volume, (&name, &uid), source);
        let of_cluster: Api<DynamicObject> = Api::all_with(client.clone(), &contents());
        ensure(&of_cluster, "VolumeSnapshotContent", &parsed(content)?).await?;
        let of_namespace: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &snapshots());
        ensure(&of_namespace, "VolumeSnapshot", &parsed(snapshot)?).await?;
        ensure(&namespaced(client, namespace), "PersistentVolumeClaim", &claim).await?;
    }
    Ok(())
}

fn namespaced<K>(client: &kube::Client, namespace: &str) -> Api<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

fn parsed(object: Value) -> Result<DynamicObject, Answer> {
    serde_json::from_value(object).map_err(|error| Answer::unknown(GateReason::Unreadable, error.to_string()))
}

/// Creates an object, or verifies that the one that is there says the same.
async fn ensure<K>(api: &Api<K>, kind: &str, object: &K) -> Result<(), Answer>
where
    K: ResourceExt + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let name = object.name_any();
    let what = |verb: &str| format!("cannot {verb} {kind} {name}");
    let params = PostParams { dry_run: false, field_manager: Some(field_manager::STEP.to_owned()) };
    match api.create(&params, object).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if Status::is_already_exists(&status) => {}
        Err(error) => return Err(unreadable(&what("create"), &error)),
    }
    let found = api.get(&name).await.map_err(|error| unreadable(&what("read"), &error))?;
    let value = |object: &K| {
        let unreadable =
            |error: serde_json::Error| Answer::unknown(GateReason::Unreadable, error.to_string());
        serde_json::to_value(object).map_err(unreadable)
    };
    let (asked, found) = (value(object)?, value(&found)?);
    if is_as_asked(&asked["spec"], &found["spec"]) {
        return Ok(());
    }
    let message = format!("{kind} {name} is there, and not as this gate makes it: delete it");
    Err(Answer::unknown(GateReason::JobDiffers, message))
}
