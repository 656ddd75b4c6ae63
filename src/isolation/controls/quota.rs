//! Raises quotas that block the writes of a control, and restores them on release.

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::cleanup;
use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt};

pub use resurgam_core::isolation::controls::quota::{RAISED_ANNOTATION, raising, restoring};

/// Raises every quota that limits what isolating creates. Returns the names of the raised quotas.
///
/// # Errors
/// The API server refused, or did not answer. What was raised is kept.
pub async fn raise(client: &Client, namespace: &str) -> Result<Vec<String>, IoError> {
    let api: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    let what = format!("list resourcequotas in namespace {namespace}");
    let mut raised = Vec::new();
    for quota in call(what, api.list(&ListParams::default())).await?.items {
        let Some(patch) = raising(&quota) else { continue };
        let name = quota.name_any();
        write(&api, format!("raise ResourceQuota {namespace}/{name}"), &name, patch).await?;
        raised.push(name);
    }
    Ok(raised)
}

/// Restores every raised quota.
///
/// # Errors
/// The API server refused, or did not answer. The next call continues.
pub async fn restore(client: &Client, namespace: &str) -> Result<(), IoError> {
    let api: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    let what = format!("list resourcequotas in namespace {namespace}");
    for quota in call(what, api.list(&ListParams::default())).await?.items {
        let Some(patch) = restoring(&quota) else { continue };
        let name = quota.name_any();
        let what = format!("restore ResourceQuota {namespace}/{name}");
        let Some(restored) = write(&api, what, &name, patch).await? else { continue };
        if let Err(error) = cleanup::remove_managers(&api, &restored.metadata).await {
            tracing::warn!(%error, "quota restored, but its field managers are left");
        }
    }
    Ok(())
}

async fn write(
    api: &Api<ResourceQuota>,
    what: String,
    name: &str,
    patch: Value,
) -> Result<Option<ResourceQuota>, IoError> {
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    call_opt(what, api.patch(name, &params, &Patch::Merge(patch))).await
}
