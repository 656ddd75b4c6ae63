//! Writes to the Quarantine itself: finalizer, status and Events.

use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::Context;
use crate::api::{Quarantine, QuarantineStatus, conditions, field_manager};
use crate::calls::{IoError, call};
use crate::isolation::RELEASE_FINALIZER;

pub(super) async fn with_finalizer(
    context: &Context,
    quarantine: &Quarantine,
) -> Result<Quarantine, IoError> {
    let there = quarantine.finalizers().iter().any(|f| f == RELEASE_FINALIZER);
    // The API server refuses new finalizers on an object that is being deleted.
    if there || quarantine.metadata.deletion_timestamp.is_some() {
        return Ok(quarantine.clone());
    }
    let mut finalizers = quarantine.finalizers().to_vec();
    finalizers.push(RELEASE_FINALIZER.to_owned());
    set_finalizers(context, quarantine, &finalizers).await
}

pub(super) async fn set_finalizers(
    context: &Context,
    quarantine: &Quarantine,
    finalizers: &[String],
) -> Result<Quarantine, IoError> {
    let name = quarantine.name_any();
    let api: Api<Quarantine> = Api::all(context.client.clone());
    let patch = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": quarantine.metadata.resource_version,
    }});
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let what = format!("write finalizers of Quarantine {name}");
    let written: Quarantine = call(what, api.patch(&name, &params, &Patch::Merge(patch))).await?;
    remember_written(context, &written);
    Ok(written)
}

/// Publishes Events for drift that was repaired and for a changed Ready condition.
pub(super) async fn announce(
    context: &Context,
    quarantine: &Quarantine,
    before: &QuarantineStatus,
    after: &QuarantineStatus,
    drift: Vec<String>,
) {
    // What follows from a change of the spec, such as a further incident in the annotations, is no drift.
    if !drift.is_empty() && before.observed_generation == after.observed_generation {
        let note = format!("drift repaired: {}", drift.join(", "));
        context.publish_event(quarantine, EventType::Warning, "DriftPutBack", note).await;
    }
    // What the namespace was isolated for first is no further incident.
    let is_new = |incident: &&String| !before.incidents.is_empty() && !before.incidents.contains(incident);
    for incident in after.incidents.iter().filter(is_new) {
        let reason = quarantine.spec.further_incidents.iter().find(|further| further.name == *incident);
        let reason = reason.map_or("not given", |further| &further.reason);
        let note = format!("isolated for Incident {incident}, too: {reason}");
        context.publish_event(quarantine, EventType::Normal, "IncidentAdded", note).await;
    }
    let ready = conditions::find(&after.conditions, conditions::READY);
    let old = conditions::find(&before.conditions, conditions::READY);
    if let Some(ready) =
        ready.filter(|new| old.is_none_or(|old| (&old.status, &old.reason) != (&new.status, &new.reason)))
    {
        tracing::info!(ready = ready.status, reason = ready.reason, "Ready changed");
        let type_ = match ready.status.as_str() {
            "True" => EventType::Normal,
            "False" => EventType::Warning,
            // An intermediate state; the Event follows with the final one.
            _ => return,
        };
        context.publish_event(quarantine, type_, &ready.reason, ready.message.clone()).await;
    }
}

/// Writes the status, except for the claim, if it differs from the stored one. The resourceVersion makes a deposed leader's write
/// conflict.
pub(super) async fn write(
    context: &Context,
    quarantine: &Quarantine,
    status: QuarantineStatus,
) -> Result<Quarantine, IoError> {
    if quarantine.status.as_ref() == Some(&status) {
        return Ok(quarantine.clone());
    }
    let name = quarantine.name_any();
    let status = QuarantineStatus { claimed_by: None, ..status };
    let patch = json!({
        "apiVersion": Quarantine::api_version(&()),
        "kind": Quarantine::kind(&()),
        "metadata": {
            "name": name,
            "uid": quarantine.metadata.uid,
            "resourceVersion": quarantine.metadata.resource_version,
        },
        "status": status,
    });
    let params = PatchParams::apply(field_manager::ISOLATION).force();
    let api: Api<Quarantine> = Api::all(context.client.clone());
    let what = format!("write status of Quarantine {name}");
    let written = call(what, api.patch_status(&name, &params, &Patch::Apply(patch))).await?;
    remember_written(context, &written);
    Ok(written)
}

/// Remembers the version that this process wrote last. Decisions based on an older version are not made.
fn remember_written(context: &Context, written: &Quarantine) {
    context.remember(&written.name_any(), |memory| memory.written = Some(written.metadata.clone()));
}
