//! Ends a Quarantine that is being deleted: releases the namespace, or reports that it stays isolated because its CRD is going away.

use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, CustomResourceExt, ResourceExt};

use super::writes::set_finalizers;
use super::{Context, PassError, pass};
use crate::api::{Isolation, Quarantine, RELEASE_REASON_ANNOTATION, RELEASED_BY_ANNOTATION};
use crate::calls::call_opt;
use crate::isolation::RELEASE_FINALIZER;
use crate::isolation::ending::{CrdState, DeletionMeaning, deletion_meaning};
use crate::isolation::identity;

/// How often a deletion that waits for something else is checked.
pub(super) const RECHECK_AFTER: Duration = Duration::from_secs(30);

/// Returns what the deletion of a Quarantine means, after a live read of its CRD.
pub(super) async fn observe(context: &Context, quarantine: &Quarantine) -> DeletionMeaning {
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

/// Publishes, once, that the namespace stays isolated. Returns when to check again.
pub(super) async fn report_retention(context: &Context, quarantine: &Quarantine, why: String) -> Duration {
    let name = quarantine.name_any();
    if !context.remember(&name, |memory| std::mem::replace(&mut memory.is_retention_reported, true)) {
        let note = format!(
            "namespace {name} stays isolated although its Quarantine is being deleted: {why}. To release it, a holder of `release` \
             removes the label resurgam.dev/isolation from the namespace (docs/isolation.md)"
        );
        tracing::warn!("{note}");
        context.publish_event(quarantine, EventType::Warning, "StaysIsolated", note).await;
    }
    RECHECK_AFTER
}

/// Releases the namespace of a deleted Quarantine. Workloads stay at zero with their record, for people to start them.
pub(super) async fn release(context: &Context, quarantine: &Quarantine) -> Result<Action, PassError> {
    let name = quarantine.name_any();
    let finalizers: Vec<_> =
        quarantine.finalizers().iter().filter(|f| *f != RELEASE_FINALIZER).cloned().collect();
    if finalizers.len() == quarantine.finalizers().len() {
        return Ok(Action::await_change());
    }
    let namespaces: Api<Namespace> = Api::all(context.client.clone());
    if let Some(namespace) = call_opt(format!("get namespace {name}"), namespaces.get(&name)).await? {
        // Nothing can be restored in a terminating namespace, and it stays isolated while anything is left in it. Its deletion wakes the
        // next pass.
        if namespace.metadata.deletion_timestamp.is_some() {
            tracing::info!("namespace is being deleted; waiting for its end");
            return Ok(Action::requeue(RECHECK_AFTER));
        }
        let uid = quarantine.uid().unwrap_or_default();
        identity::complete(&context.client, &name, &uid).await?;
        let namespace = pass::restore(context, &namespace, &uid).await?;
        let namespace = context.lists.mark(&namespace, &quarantine.spec, Isolation::Open).await?;
        clean_up(context, quarantine, &namespace).await;
    } else {
        context.lists.set(&name, Isolation::Open).await?;
    }
    context.publish_event(quarantine, EventType::Normal, "Released", released(quarantine)).await;
    set_finalizers(context, quarantine, &finalizers).await?;
    context.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    context.update_network_demand();
    Ok(Action::await_change())
}

/// Returns the note of the Event: who released the namespace and why, if they recorded it.
fn released(quarantine: &Quarantine) -> String {
    let annotation = |key| quarantine.annotations().get(key).map(String::as_str);
    let by = annotation(RELEASED_BY_ANNOTATION).map(|by| format!(" by {by}")).unwrap_or_default();
    let reason = annotation(RELEASE_REASON_ANNOTATION).map(|why| format!(": {why}")).unwrap_or_default();
    format!(
        "released{by}{reason}. Network policies are restored and the namespace is open; stopped workloads stay stopped, with a record \
         of what they were: resurgam release {} --start starts them",
        quarantine.name_any()
    )
}

/// How long removing what isolating left may delay the end of a Quarantine. Each write may wait for a webhook that does not answer.
const CLEANUP_WITHIN: Duration = Duration::from_secs(10);

/// Removes what isolating left on the objects of the namespace. A failure does not keep the Quarantine, and so is reported at once.
async fn clean_up(context: &Context, quarantine: &Quarantine, namespace: &Namespace) {
    let outcome = match tokio::time::timeout(CLEANUP_WITHIN, pass::clean_up(context, namespace)).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("not done within {} s", CLEANUP_WITHIN.as_secs())),
    };
    if let Err(error) = outcome {
        let name = namespace.name_any();
        let note = format!(
            "namespace {name} is released, but records (annotations resurgam.dev/*) or field managers of workloads are left: {error}. \
             They change nothing; resurgam release {name} --start removes those of workloads that run"
        );
        tracing::warn!("{note}");
        context.publish_event(quarantine, EventType::Warning, "CleanupFailed", note).await;
    }
}
