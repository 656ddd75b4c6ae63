//! One reconciliation of a plan: observes changes, decides, starts effects.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tracing::Instrument;

use super::super::act::{Act, mark_orphaned};
use super::super::context::{Context, account_user};
use super::super::gate_tasks::Binding;
use super::super::metrics::Controller;
use super::super::running::Running;
use super::super::view::View;
use super::super::{observe, preparation, step_tasks, verdicts};
use super::{Plans, status};
use crate::api::{Phase, ServiceRecoveryStatus};
use crate::clock;
use crate::engine::GateKey;
use crate::gates::{Account, Cached};
use crate::plan::{Plan, ServiceId};

/// Resync interval of a plan, in case a watch missed a change.
const RESYNC: Duration = Duration::from_secs(10 * 60);
/// Liveness limit of one reconciliation, which only computes.
const LONGEST_RECONCILIATION: Duration = Duration::from_secs(60);

/// Reconciles one plan whenever it is woken.
pub(super) async fn run_plan(plans: std::sync::Weak<Plans>, running: Arc<Running>) {
    let mut pause = RESYNC;
    let mut last_whole = None;
    loop {
        tokio::select! {
            () = running.woken() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let Some(plans) = plans.upgrade() else { return };
        // A plan that causes a panic is not reconciled again before a change. Other plans are not affected.
        let reconciled =
            std::panic::catch_unwind(AssertUnwindSafe(|| reconcile(&plans, &running, &mut last_whole)));
        let wake_at = reconciled.unwrap_or_else(|_| {
            plans.context.process.metrics.failed(Controller::Plan, "Panicked");
            tracing::error!("bug: the operator panicked on this plan; it is skipped until it changes");
            plans.clear_health(&running);
            None
        });
        let until = wake_at.map(|at| at.duration_since(clock::now()));
        pause = until.map_or(RESYNC, |d| Duration::try_from(d).unwrap_or(Duration::ZERO).min(RESYNC));
    }
}

/// Reconciles a plan once. Returns the latest time of the next reconciliation. `last_whole`: when everything was last observed.
fn reconcile(plans: &Plans, running: &Arc<Running>, last_whole: &mut Option<Instant>) -> Option<Timestamp> {
    let Some(plan) = plans.compiled(running) else {
        plans.clear_health(running);
        return None;
    };
    let context = &plans.context;
    let _heart = context.process.heartbeats.watch(format!("plan {}", running.key), LONGEST_RECONCILIATION);
    let began = Instant::now();
    let now = clock::now();
    let mut changes = running.take_changes();
    // Everything is observed from time to time, in case a watch missed a change.
    changes.all |= last_whole.is_none_or(|at| began.duration_since(at) >= RESYNC);
    let all = changes.all;
    if all {
        *last_whole = Some(began);
    }
    preparation::update(context, running, &plan, all);
    let decided = View::observe_and_decide(&context.stores, &plan, &mut running.state(), &changes, now);
    context.health.publish(&plan, &decided.services);
    let mut wake_at = decided.wake_at;
    for of in decided.services {
        let id = of.service;
        let service = &plan.services[id];
        let mut state = running.state();
        let held = state.services.entry(service.name.clone()).or_default();
        // A running write changes which gates are wanted. The service is reconciled again when the write ends.
        if held.busy {
            continue;
        }
        let record = observe::record(&context.stores, &plan, service, held);
        // The ServiceRecovery was written since it was observed, and the decision must not overwrite that.
        if !state.view.as_mut().is_none_or(|view| view.is_based_on(id, record.as_ref())) {
            drop(state);
            running.wake_for(&service.name);
            continue;
        }
        drop(state);
        let before = record.as_ref().and_then(|record| record.status.as_ref());
        let first = ServiceRecoveryStatus { attempt: 1, ..Default::default() };
        let status = of.write.as_deref().or(before).unwrap_or(&first);
        update_gate_tasks(context, running, &plan, id, &of.ask, status);
        step_tasks::update(context, running, &plan, id, of.observe_step, status);
        if of.write.is_some() || of.effect.is_some() {
            let attempt = status.attempt;
            let mut state = running.state();
            let held = state.services.entry(service.name.clone()).or_default();
            // The backoff prevents a busy loop after a failed write.
            if let Some(at) = held.not_before.filter(|&at| at > now) {
                wake_at = Some(wake_at.map_or(at, |before: Timestamp| before.min(at)));
                state.view.iter_mut().for_each(|view| view.decide_again(id));
                continue;
            }
            held.busy = true;
            state.view.iter_mut().for_each(|view| view.mark_busy(id));
            let act = Act {
                context: context.clone(),
                running: running.clone(),
                plan: plan.clone(),
                id,
                record,
                wrote: false,
            };
            let span = tracing::error_span!(
                // A child of the plan's span would log the plan's name twice.
                parent: None,
                "service",
                plan = %running.key,
                service = service.name,
                attempt
            );
            context.process.writers.spawn(act.carry_out(of).instrument(span));
        }
    }
    verdicts::of_plan(context, running, &plan, &changes);
    let has_others = all || changes.services.iter().any(|name| !plan.index.contains_key(name));
    for orphan in has_others.then(|| observe::orphans(&context.stores, &plan)).into_iter().flatten() {
        let writers = context.process.writers.clone();
        let context = context.clone();
        let marking = async move {
            if let Err(error) = mark_orphaned(&context, &orphan).await {
                tracing::debug!(%error, "ServiceRecovery not marked as orphaned yet; will retry");
            }
        };
        writers.spawn(marking.in_current_span());
    }
    let status_due = status::write(context, running, &plan, decided.plan, now);
    context.process.metrics.reconciled(Controller::Plan, began);
    wake_at.into_iter().chain(status_due).min()
}

/// Starts and stops gate tasks so that exactly the gates that the engine wants are evaluated.
fn update_gate_tasks(
    context: &Context,
    running: &Arc<Running>,
    plan: &Plan,
    id: ServiceId,
    ask: &[Phase],
    status: &ServiceRecoveryStatus,
) {
    let service = &plan.services[id];
    let mut state = running.state();
    let Some(client) = context.account_client(plan, &mut state) else { return };
    let account = Account { user: account_user(&plan.namespace, &plan.account), client };
    let mut gates = plan.services.iter().flat_map(|service| &service.gates);
    if !gates.any(|gate| crate::gates::cached(&gate.spec) == Cached::Kept) {
        state.kept_reads = None;
    }
    let mut kept_reads = state.kept_reads.take();
    let held = state.services.entry(service.name.clone()).or_default();
    let wanted: BTreeMap<GateKey, (Binding, crate::plan::GatePolicy)> = service
        .gates
        .iter()
        // Approvals are Decisions, which the engine counts.
        .filter(|gate| ask.contains(&gate.phase) && gate.spec.approval.is_none())
        .map(|gate| {
            let binding = observe::binding(&context.stores, plan, service, gate, status);
            (gate.key.clone(), (binding, gate.policy))
        })
        .collect();
    held.gates.retain(|key, task| wanted.get(key).is_some_and(|(binding, _)| *binding == task.binding));
    for (key, (binding, policy)) in wanted {
        kept_reads = kept_reads.or_else(|| context.gate_runner.keep_reads(&binding.question));
        held.gates.entry(key).or_insert_with_key(|key| {
            let span = tracing::error_span!(
                parent: None,
                "gate",
                plan = %running.key,
                service = service.name,
                attempt = binding.question.attempt,
                phase = key.phase.as_str(),
                gate = key.name
            );
            context.gate_runner.begin(account.clone(), binding, policy, running.waker(&service.name), span)
        });
    }
    state.kept_reads = kept_reads;
}
