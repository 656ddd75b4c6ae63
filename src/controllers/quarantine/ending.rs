//! Ends a Quarantine that is being deleted: reads whether its kind stays, and releases the namespace, or tells that it stays isolated.

use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, CustomResourceExt, ResourceExt};

use super::writes::set_finalizers;
use super::{Context, PassError, pass};
use crate::api::{Isolation, Quarantine};
use crate::calls::call_opt;
use crate::isolation::RELEASE_FINALIZER;
use crate::isolation::ending::{CrdState, DeletionMeaning, deletion_meaning};
use crate::isolation::identity;

/// What is being deleted, and waits for something else, is looked at again this often.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Returns what the deletion of a Quarantine means, with a live look at its kind.
pub(super) async fn of(context: &Context, quarantine: &Quarantine) -> DeletionMeaning {
    if quarantine.metadata.deletion_timestamp.is_none() {
        return DeletionMeaning::None;
    }
    let name = Quarantine::crd_name();
    let crds: Api<CustomResourceDefinition> = Api::all(context.client.clone());
    let kind = call_opt(format!("get CustomResourceDefinition {name}"), crds.get_metadata(name)).await;
    deletion_meaning(match kind {
        Ok(Some(kind)) if kind.metadata.deletion_timestamp.is_none() => CrdState::Served,
        Ok(Some(_)) => CrdState::Terminating,
        Ok(None) => CrdState::Missing,
        Err(error) => CrdState::Unknown(error.to_string()),
    })
}

/// Tells, once, that it stays isolated. Returns when to look again.
pub(super) async fn tell(context: &Context, quarantine: &Quarantine, why: String) -> Duration {
    let name = quarantine.name_any();
    if !context.remember(&name, |memory| std::mem::replace(&mut memory.kept, true)) {
        let note = format!(
            "namespace {name} stays isolated though its Quarantine is marked as deleted: {why}. To let it out, somebody who \
             may release it removes the label resurgam.dev/isolation from the namespace (docs/isolation.md)"
        );
        tracing::warn!("{note}");
        context.tell(quarantine, EventType::Warning, "StaysIsolated", note).await;
    }
    LOOK_AGAIN
}

/// Deleting a Quarantine lets its namespace out. Workloads stay at zero with their record: starting them is for people.
pub(super) async fn release(context: &Context, quarantine: &Quarantine) -> Result<Action, PassError> {
    let name = quarantine.name_any();
    let finalizers: Vec<_> =
        quarantine.finalizers().iter().filter(|f| *f != RELEASE_FINALIZER).cloned().collect();
    if finalizers.len() == quarantine.finalizers().len() {
        return Ok(Action::await_change());
    }
    let namespaces: Api<Namespace> = Api::all(context.client.clone());
    if let Some(namespace) = call_opt(format!("get namespace {name}"), namespaces.get(&name)).await? {
        // Nothing can be restored in it any more, and while anything is left in it, it stays isolated. Its end wakes us.
        if namespace.metadata.deletion_timestamp.is_some() {
            tracing::info!("is being deleted, as is its namespace: it ends with that");
            return Ok(Action::requeue(LOOK_AGAIN));
        }
        let uid = quarantine.uid().unwrap_or_default();
        identity::complete(&context.client, &name, &uid).await?;
        let namespace = pass::restore(context, &namespace, &uid).await?;
        context.lists.mark(&namespace, &quarantine.spec, Isolation::Open).await?;
    } else {
        context.lists.set(&name, Isolation::Open).await?;
    }
    let note = "network policies are restored and the namespace is open; workloads stay at zero, with a record of what they were";
    context.tell(quarantine, EventType::Normal, "Released", note.to_owned()).await;
    set_finalizers(context, quarantine, &finalizers).await?;
    context.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    context.tell_network();
    Ok(Action::await_change())
}
