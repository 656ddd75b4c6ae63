//! Writes what became of Decisions into their own status. Nothing is decided by it: a write that fails delays no recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::context::Context;
use super::metrics::Controller;
use super::observe;
use super::running::{Changes, Running};
use crate::api::conditions::{APPLIED, is_true};
use crate::api::{Decision, DecisionStatus, GROUP, field_manager};
use crate::calls::{IoError, call};
use crate::clock;
use crate::engine::{self, DecisionVerdict};
use crate::plan::Plan;

/// Maximum number of statuses that are written at the same time. A plan may have many Decisions when an operator begins to lead.
const PARALLEL: usize = 4;
/// Pause after a failed write that may succeed by itself. One that is denied is tried again when something changes.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Statuses of Decisions that this process writes or has written, by UID, until the watch has caught up (I6).
#[derive(Clone, Default)]
pub(crate) struct Verdicts(Arc<Mutex<BTreeMap<String, DecisionStatus>>>);

/// Limits writes of Decisions' statuses.
#[derive(Clone)]
pub(crate) struct VerdictSlots(Arc<Semaphore>);

impl Default for VerdictSlots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PARALLEL)))
    }
}

impl Verdicts {
    fn sent(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, DecisionStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the status to write, and keeps it as written. `None`: it is written already.
    fn take(&self, decision: &Decision, verdict: &DecisionVerdict) -> Option<DecisionStatus> {
        let uid = decision.uid()?;
        let mut sent = self.sent();
        if sent.get(&uid) == decision.status.as_ref() {
            sent.remove(&uid);
        }
        let before = sent.get(&uid).or(decision.status.as_ref());
        let status = verdict.status(before, decision.metadata.generation, clock::now())?;
        sent.insert(uid, status.clone());
        Some(status)
    }
}

/// Writes what became of the plan's Decisions, where something may have changed.
pub(super) fn of_plan(context: &Arc<Context>, running: &Arc<Running>, plan: &Plan, changes: &Changes) {
    if !changes.all && changes.services.is_empty() {
        return;
    }
    let of_plan: Vec<_> = context
        .stores
        .decisions
        .state()
        .into_iter()
        .filter(|object| {
            object.0.as_ref().is_ok_and(|decision| {
                decision.metadata.namespace.as_deref() == Some(&plan.namespace)
                    && decision.spec.plan == plan.name
            })
        })
        .collect();
    let verdicts = running.state().verdicts.clone();
    if changes.all {
        let uids: BTreeSet<_> = of_plan.iter().filter_map(|object| object.meta().uid.as_ref()).collect();
        verdicts.sent().retain(|uid, _| uids.contains(uid));
    }
    for object in &of_plan {
        let Ok(decision) = &object.0 else { continue };
        let service = &decision.spec.service;
        if is_applied(decision) || !(changes.all || changes.services.contains(service)) {
            continue;
        }
        let verdict = {
            let state = running.state();
            let Some(view) = &state.view else { return };
            let services = &view.observation.services;
            engine::judge_decision(plan, services, service, &observe::decision(decision))
        };
        let (again, name) = (Arc::downgrade(running), service.clone());
        write(context, &verdicts, decision, verdict, move || {
            again.upgrade().iter().for_each(|running| running.wake_for(&name));
        });
    }
}

/// Writes that Decisions in a namespace (in all of them, if `None`) name a plan that does not exist.
pub(super) fn without_plan(
    context: &Arc<Context>,
    verdicts: &Verdicts,
    namespace: Option<&str>,
    again: impl Fn() + Clone + Send + 'static,
) {
    let decisions = context.stores.decisions.state();
    if namespace.is_none() {
        let uids: BTreeSet<_> = decisions.iter().filter_map(|object| object.meta().uid.as_ref()).collect();
        verdicts.sent().retain(|uid, _| uids.contains(uid));
    }
    for object in &decisions {
        let Ok(decision) = &object.0 else { continue };
        let of = decision.namespace().unwrap_or_default();
        let plan = ObjectRef::new(&decision.spec.plan).within(&of);
        if is_applied(decision)
            || namespace.is_some_and(|namespace| namespace != of)
            || context.stores.plans.get(&plan).is_some()
        {
            continue;
        }
        let spec = &decision.spec;
        let verdict = engine::without_plan(&of, &spec.plan, &spec.service, &observe::decision(decision));
        write(context, verdicts, decision, verdict, again.clone());
    }
}

/// Returns whether a Decision's own status says that it took effect.
pub(super) fn is_applied(decision: &Decision) -> bool {
    decision.status.as_ref().is_some_and(|status| is_true(&status.conditions, APPLIED))
}

/// Writes a verdict, if the Decision does not say so already. `again` is called some time after a write that may succeed then.
fn write(
    context: &Arc<Context>,
    verdicts: &Verdicts,
    decision: &Decision,
    verdict: Option<DecisionVerdict>,
    again: impl Fn() + Send + 'static,
) {
    let Some(verdict) = verdict else { return };
    let Some(status) = verdicts.take(decision, &verdict) else { return };
    let (context, verdicts, decision) = (context.clone(), verdicts.clone(), decision.clone());
    let writers = context.process.writers.clone();
    let writing = async move {
        match patch(&context, &decision, &status).await {
            Ok(()) => {
                let name = decision.name_any();
                tracing::info!(decision = name, reason = %verdict.reason, "Decision considered");
                context.events.decision_judged(&decision, &verdict);
            }
            Err(error) => {
                verdicts.sent().remove(&decision.uid().unwrap_or_default());
                if error.is_not_found() || error.is_conflict() {
                    return; // It was deleted.
                }
                context.process.metrics.failed(Controller::Plan, "VerdictNotWritten");
                tracing::warn!(%error, "status of Decision not written; will retry; no recovery waits for it");
                if !error.is_transient() {
                    return;
                }
                // Shutdown does not wait for it.
                tokio::spawn(async move {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    again();
                });
            }
        }
    };
    writers.spawn(writing.in_current_span());
}

async fn patch(context: &Context, decision: &Decision, status: &DecisionStatus) -> Result<(), IoError> {
    // The semaphore is never closed.
    let _slot = context.verdict_slots.0.acquire().await.ok();
    let (namespace, name) = (decision.namespace().unwrap_or_default(), decision.name_any());
    let decisions: Api<Decision> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Decision",
        "metadata": {"name": name, "uid": decision.uid()}, "status": status,
    });
    let params = PatchParams::apply(field_manager::DECISION).force();
    let what = format!("write status of Decision {namespace}/{name}");
    call(what, decisions.patch_status(&name, &params, &Patch::Apply(&patch))).await?;
    Ok(())
}
