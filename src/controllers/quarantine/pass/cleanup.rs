//! Removes what isolating left on the objects of a released namespace. The namespace is open by then: no failure delays its release.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};

use super::super::Context;
use super::confirm;
use crate::calls::{IoError, call};
use crate::isolation::controls::cleanup;
use crate::isolation::workloads::{self, Inventory};

/// How long until a failed cleanup is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// Cleans up a released namespace. Returns when another pass is due, if one is. What controllers copy from their own caches later wakes
/// another pass.
pub(super) async fn clean_up_later(context: &Context, namespace: &Namespace) -> Option<Duration> {
    match clean_up(context, namespace).await {
        Ok(()) => None,
        Err(error) => {
            let again = RETRY.as_secs();
            tracing::warn!(%error, "namespace released, but not all records and field managers are removed; next attempt in {again} s");
            Some(RETRY)
        }
    }
}

/// Removes records and field managers from the workloads and the namespace.
///
/// # Errors
/// The first [`IoError`]. Everything else was done, and the next call continues.
pub(in super::super) async fn clean_up(context: &Context, namespace: &Namespace) -> Result<(), IoError> {
    let (client, name) = (&context.client, namespace.name_any());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let is_retry = context.remember(&name, |memory| std::mem::replace(&mut memory.is_cleanup_due, true));
    let meta = if is_retry {
        call(format!("get namespace {name}"), namespaces.get_metadata(&name)).await?.metadata
    } else {
        namespace.metadata.clone()
    };
    let unmanaged = cleanup::remove_managers(&namespaces, &meta).await;
    let known = match confirm::inventory(context.cache.kinds(), &name).filter(|_| context.cache.is_fresh()) {
        Some(cached) => cached,
        None => workloads::inventory(client, &name).await?,
    };
    remember_awaiting(context, &name, &known);
    if cleanup::is_anything_left(&known) {
        cleanup::workloads(client, &name, &known).await?;
    }
    unmanaged?;
    context.remember(&name, |memory| memory.is_cleanup_due = false);
    Ok(())
}

/// Remembers whether people have yet to start a workload. Its record is removed once it runs.
pub(super) fn remember_awaiting(context: &Context, name: &str, inventory: &Inventory) {
    let awaits_start = inventory.workloads.iter().any(cleanup::awaits_start);
    context.remember(name, |memory| memory.awaits_start = awaits_start);
}
