//! Writes the isolation label and its annotations, for the operator and for isolating offline.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};

use crate::api::{Isolation, QuarantineSpec, field_manager};
use crate::calls::{IoError, call};

pub use resurgam_core::isolation::controls::label::{is_labelled, patch};

/// Writes label and annotations if the namespace is unchanged since it was read. `dry_run`: only asks the API server.
///
/// # Errors
/// A conflict, or a refusal by the lock.
pub async fn label(
    client: &Client,
    namespace: &Namespace,
    spec: &QuarantineSpec,
    level: Isolation,
    dry_run: bool,
) -> Result<Namespace, IoError> {
    let patch = patch(namespace, spec, level);
    let params = PatchParams {
        field_manager: Some(field_manager::ISOLATION.to_owned()),
        dry_run,
        ..PatchParams::default()
    };
    let name = namespace.name_any();
    let api: Api<Namespace> = Api::all(client.clone());
    call(format!("label namespace {name}"), api.patch(&name, &params, &Patch::Merge(patch))).await
}
