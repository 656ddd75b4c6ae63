//! Writes a plan's own status.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use resurgam_core::preparation;
use serde_json::json;
use tracing::Instrument;

use super::super::context::Context;
use super::super::metrics::Controller;
use super::super::running::{self, Running};
use crate::api::{GROUP, RecoveryPlan, RecoveryPlanStatus, field_manager};
use crate::calls::call;
use crate::clock;
use crate::engine;
use crate::plan::Plan;

/// Minimum time between two writes of the counts in a plan's status. Conditions are written at once.
const RECOUNT_AFTER: SignedDuration = SignedDuration::from_secs(1);

/// Writes the plan's status if it changed: conditions at once, counts at most once a second.
pub(super) fn write(
    context: &Arc<Context>,
    running: &Arc<Running>,
    plan: &Arc<Plan>,
    mut status: RecoveryPlanStatus,
    now: Timestamp,
) -> Option<Timestamp> {
    let object = context.stores.plans.get(&ObjectRef::new(&plan.name).within(&plan.namespace))?;
    let object = object.0.as_ref().ok()?;
    let mut state = running.state();
    state.own_status.take_if(|(own, _)| running::at_least_as_new(&object.metadata, own));
    let own = state.own_status.as_ref().map(|(_, status)| status.clone());
    let before = own.or_else(|| object.status.clone()).unwrap_or_default();
    let judgement = state.preparation.as_ref().and_then(|task| task.judgement(plan));
    preparation::put(&mut status, &before, judgement.as_ref(), now);
    engine::keep_times(&mut status, &before);
    if status == before {
        return None;
    }
    if state.status_busy {
        return None; // Its end wakes the plan.
    }
    let due = state.status_written_at.and_then(|at| at.checked_add(RECOUNT_AFTER).ok());
    if let Some(due) = due.filter(|&due| due > now && !engine::is_news(&before, &status)) {
        return Some(due);
    }
    state.status_busy = true;
    drop(state);
    let (context, running, plan) = (context.clone(), running.clone(), plan.clone());
    let writers = context.process.writers.clone();
    let writing = async move {
        let plans: Api<RecoveryPlan> = Api::namespaced(context.client.clone(), &plan.namespace);
        let patch = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "RecoveryPlan",
            "metadata": {"name": plan.name, "uid": plan.uid}, "status": status,
        });
        let params = PatchParams::apply(field_manager::PLAN).force();
        let written = call(
            format!("write status of RecoveryPlan {}", running.key),
            plans.patch_status(&plan.name, &params, &Patch::Apply(&patch)),
        )
        .await;
        {
            let mut state = running.state();
            state.status_busy = false;
            state.status_written_at = Some(clock::now());
            if let Ok(written) = &written {
                let version = written.metadata.resource_version.clone();
                let own = kube::api::ObjectMeta { resource_version: version, ..Default::default() };
                state.own_status = Some((own, written.status.clone().unwrap_or_default()));
            }
        }
        running.wake_for_status();
        match written {
            Ok(written) => {
                context.events.plan_changed(&written, &before, &status);
            }
            Err(error) => {
                context.process.metrics.failed(Controller::Plan, "StatusNotWritten");
                tracing::warn!(%error, "plan status not written; will retry");
            }
        }
    };
    writers.spawn(writing.in_current_span());
    None
}

/// Reports in the status, once, that this version cannot read the plan, for instance because of a field of a newer version.
pub(super) fn report_unreadable(
    context: &Context,
    running: &Running,
    meta: &kube::api::ObjectMeta,
    error: &str,
) {
    let mut state = running.state();
    let reported = Some((meta.generation, error.to_owned()));
    if std::mem::replace(&mut state.unreadable, reported.clone()) == reported {
        return;
    }
    drop(state);
    let key = running.key.clone();
    context.process.metrics.failed(Controller::Plan, "Unreadable");
    tracing::error!(error, "plan skipped: this version cannot read it; its author has to correct it");
    let status = engine::unreadable(meta.generation, error, clock::now());
    let patch = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "RecoveryPlan",
        "metadata": {"name": key.name, "uid": meta.uid}, "status": status,
    });
    // The response cannot be deserialized as a plan either.
    let resource = ApiResource::erase::<RecoveryPlan>(&());
    let plans: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &key.namespace, &resource);
    let write = async move {
        let params = PatchParams::apply(field_manager::PLAN).force();
        let what = format!("write status of RecoveryPlan {key}");
        if let Err(error) = call(what, plans.patch_status(&key.name, &params, &Patch::Apply(&patch))).await {
            tracing::warn!(%error, "status of the unreadable plan not written; will retry when it changes");
        }
    };
    context.process.writers.spawn(write.in_current_span());
}
