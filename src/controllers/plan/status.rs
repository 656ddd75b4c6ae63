//! Writes a plan's own status.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
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

/// Counts in a plan's status are rewritten at most this often; its conditions at once.
const RECOUNT_AFTER: SignedDuration = SignedDuration::from_secs(1);

/// Writes the plan's own status where it changed: conditions at once, counts not more than once a second.
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
                tracing::warn!(%error, "the plan's status was not written");
            }
        }
    };
    writers.spawn(writing.in_current_span());
    None
}

/// A plan that this version cannot read, such as one with a field of a newer version, is told so, once.
pub(super) fn report_unreadable(
    context: &Context,
    running: &Running,
    meta: &kube::api::ObjectMeta,
    error: &str,
) {
    let mut state = running.state();
    let told = Some((meta.generation, error.to_owned()));
    if std::mem::replace(&mut state.unreadable, told.clone()) == told {
        return;
    }
    drop(state);
    let key = running.key.clone();
    context.process.metrics.failed(Controller::Plan, "Unreadable");
    tracing::error!(error, "this plan cannot be read: nothing of it starts");
    let status = engine::unreadable(meta.generation, error, clock::now());
    let patch = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "RecoveryPlan",
        "metadata": {"name": key.name, "uid": meta.uid}, "status": status,
    });
    // The answer cannot be read as a plan either.
    let resource = ApiResource::erase::<RecoveryPlan>(&());
    let plans: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &key.namespace, &resource);
    let telling = async move {
        let params = PatchParams::apply(field_manager::PLAN).force();
        let what = format!("write status of RecoveryPlan {key}");
        if let Err(error) = call(what, plans.patch_status(&key.name, &params, &Patch::Apply(&patch))).await {
            tracing::warn!(%error, "the plan was not told that it cannot be read");
        }
    };
    context.process.writers.spawn(telling.in_current_span());
}
