//! Writes the label by which the admission policies go, and why it is there: the operator, or who isolates without one.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};

use crate::api::{Isolation, QuarantineSpec, field_manager};
use crate::calls::{IoError, call};

pub use resurgam_core::isolation::controls::label::{is_labelled, patch};

/// Writes label and annotations, if the namespace is still as it was read. `dry_run`: the API server only says what it would do.
///
/// # Errors
/// The API server's, such as a conflict, or its refusal by the lock.
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
