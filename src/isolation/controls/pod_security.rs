//! Enforces the Pod Security Standard `baseline` in a clean room, and restores the namespace's own level when it opens.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::api::field_manager;
use crate::calls::{IoError, call};

pub use resurgam_core::isolation::controls::pod_security::{change, is_enforced};

/// Enforces the level that a clean room requires. Returns the updated namespace.
///
/// # Errors
/// The API server's, such as a conflict.
pub async fn enforce(client: &Client, namespace: &Namespace, privileged: bool) -> Result<Namespace, IoError> {
    write(client, namespace, change(namespace, privileged)).await
}

/// Restores the level that the namespace had before.
///
/// # Errors
/// The API server's, such as a conflict.
pub async fn restore(client: &Client, namespace: &Namespace) -> Result<Namespace, IoError> {
    write(client, namespace, change(namespace, true)).await
}

async fn write(client: &Client, namespace: &Namespace, change: Option<Value>) -> Result<Namespace, IoError> {
    let Some(change) = change else { return Ok(namespace.clone()) };
    let name = namespace.name_any();
    let api: Api<Namespace> = Api::all(client.clone());
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let what = format!("set Pod Security of namespace {name}");
    call(what, api.patch(&name, &params, &Patch::Merge(change))).await
}
