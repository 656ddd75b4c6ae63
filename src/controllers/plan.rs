//! The plan controller: a task for each plan, which looks, asks the engine, and starts what was decided. Wake-ups come from
//! watches through a reverse index; nothing is polled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

use super::accepted;
use super::act::{Act, mark_orphaned};
use super::context::{Context, account_user};
use super::events::Events;
use super::gate_tasks::{Binding, Gatekeeper};
use super::health_cache::HealthCache;
use super::metrics::{Controller, PlanState};
use super::observe;
use super::process::Process;
use super::running::{PlanKey, Running, State};
use super::stores::{Change, Stores, Wakeups};
use super::view::View;
use crate::api::{GROUP, Phase, RecoveryPlan, RecoveryPlanStatus, ServiceRecoveryStatus, field_manager};
use crate::calls::call;
use crate::clock;
use crate::cluster_cache::ClusterCache;
use crate::engine::{self, GateKey};
use crate::gates::{Account, Asker};
use crate::heartbeats;
use crate::plan::ratchet::Scope;
use crate::plan::{Plan, ServiceId};

/// A plan is looked at this often even if nothing tells of a change: only a safety net.
const RESYNC: Duration = Duration::from_secs(10 * 60);
/// Counts in a plan's status are rewritten at most this often; its conditions at once.
const RECOUNT_AFTER: SignedDuration = SignedDuration::from_secs(1);

/// As many changes wait to be taken in. Were there more, everything is taken to have changed.
const CHANGES_LIMIT: usize = 4_096;

/// A look is no more than work for the processor.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// All plans that are tasks to.
struct Plans {
    context: Arc<Context>,
    tasks: Mutex<HashMap<PlanKey, (Arc<Running>, AbortHandle)>>,
    /// By namespace, the plans whose services live there.
    plans_by_namespace: Mutex<HashMap<String, BTreeSet<PlanKey>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs all plans until `process` is told to stop: tasks that write go on then, until they are done. `config` is what `client` was
/// made from: plans act through copies of it that impersonate their account.
///
/// # Errors
/// A watch ended for good.
pub async fn run(
    client: Client,
    config: Config,
    asker: Asker,
    cache: ClusterCache,
    health: HealthCache,
    process: Process,
) -> anyhow::Result<()> {
    let heart = process.heartbeats.watch("plan controller", heartbeats::LIMIT);
    let mut tasks = JoinSet::new();
    let (changes, mut changed) = tokio::sync::mpsc::channel(CHANGES_LIMIT);
    let overflowed = Arc::new(AtomicBool::new(false));
    let stores = Stores::start(&client, &cache, &mut tasks, {
        let overflowed = overflowed.clone();
        move |change| {
            // Nobody receives any more only when everything ends.
            if let Err(TrySendError::Full(_)) = changes.try_send(change) {
                overflowed.store(true, Ordering::Release);
            }
        }
    });
    let wakeups = Wakeups::default();
    tasks.spawn(wakeups.clone().follow(cache.subscribe()));
    let stop = process.stop.clone();
    tokio::select! {
        ready = heart.beat_during(stores.ready()) => ready?,
        () = stop.cancelled() => return Ok(()),
    }
    let context = Context {
        events: Events::start(client.clone(), &mut tasks),
        gatekeeper: Gatekeeper::new(asker, cache, wakeups, process.metrics.clone()),
        client,
        stores,
        process,
        config,
        health,
    };
    let plans = Arc::new(Plans {
        context: Arc::new(context),
        tasks: Mutex::default(),
        plans_by_namespace: Mutex::default(),
    });
    plans.export();
    plans.changed(Change::Everything);
    let mut ticker = heart.ticker();
    loop {
        heart.beat();
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticker.tick() => {}
            change = changed.recv() => match change {
                Some(change) => {
                    plans.changed(change);
                    if overflowed.swap(false, Ordering::AcqRel) {
                        plans.changed(Change::Everything);
                    }
                }
                None => anyhow::bail!("all watches have ended"),
            },
            ended = tasks.join_next() => {
                if let Some(Err(error)) = ended {
                    anyhow::bail!("a watch ended: {error}");
                }
                anyhow::bail!("a watch ended");
            }
        }
    }
    // No look begins any more. What is being written is told of by Events still, whose task is one of `tasks`.
    let writers = plans.context.process.writers.clone();
    drop(plans);
    writers.close();
    heart.beat_during(writers.wait()).await;
    Ok(())
}

impl Drop for Plans {
    fn drop(&mut self) {
        for (_, task) in lock(&self.tasks).values() {
            task.abort();
        }
    }
}

impl Plans {
    /// Wakes the plans that a change concerns.
    fn changed(self: &Arc<Self>, change: Change) {
        match change {
            Change::Plan { namespace, name, gone } => {
                let key = PlanKey { namespace, name };
                if gone { self.forget(&key) } else { self.wake(&key) }
            }
            Change::Record { namespace, name, gone } => {
                // `<plan>.<service>`: neither carries a dot.
                let Some((plan, service)) = name.split_once('.') else { return };
                let key = PlanKey { namespace, name: plan.to_owned() };
                if let (Some(version), Some((running, _))) = (gone, lock(&self.tasks).get(&key)) {
                    let mut state = running.state();
                    if let Some(held) = state.services.get_mut(service) {
                        let deleted =
                            kube::api::ObjectMeta { resource_version: Some(version), ..Default::default() };
                        if held
                            .own
                            .as_ref()
                            .is_some_and(|own| super::running::at_least_as_new(&deleted, &own.metadata))
                        {
                            held.own = None;
                        }
                    }
                }
                self.wake_known(&key, |running| running.wake_for(service));
            }
            Change::Quarantine { namespace } => {
                let keys: Vec<PlanKey> =
                    lock(&self.plans_by_namespace).get(&namespace).into_iter().flatten().cloned().collect();
                keys.iter()
                    .for_each(|key| self.wake_known(key, |running| running.wake_for_namespace(&namespace)));
            }
            Change::Accepted { name, gone } => self.accepted_changed(&name, gone),
            Change::Incident { name } => {
                self.sweep();
                self.wake_where(|_, state| {
                    state.plan.as_ref().is_none_or(|p| p.incident.as_deref() == Some(&name))
                });
            }
            Change::Decision { namespace } | Change::Account { namespace } => {
                self.wake_where(|key, _| key.namespace == namespace);
            }
            Change::Everything => {
                self.sweep();
                let there: BTreeSet<PlanKey> =
                    self.context.stores.plans.state().iter().map(|object| key_of(object.as_ref())).collect();
                let known: Vec<PlanKey> = lock(&self.tasks).keys().cloned().collect();
                known.iter().filter(|key| !there.contains(key)).for_each(|key| self.forget(key));
                there.iter().for_each(|key| self.wake(key));
            }
        }
    }

    /// Wakes the plans that a record of accepted requirements concerns.
    fn accepted_changed(&self, name: &str, gone: Option<String>) {
        let Some(scope) = accepted::scope(name) else { return };
        let keys: Vec<PlanKey> = match &scope {
            Scope::Namespace(namespace) => {
                lock(&self.plans_by_namespace).get(namespace).into_iter().flatten().cloned().collect()
            }
            Scope::External { plan_namespace, .. } => {
                let keys = lock(&self.tasks);
                keys.keys().filter(|key| key.namespace == *plan_namespace).cloned().collect()
            }
        };
        let deleted =
            gone.map(|version| ObjectMeta { resource_version: Some(version), ..ObjectMeta::default() });
        for key in &keys {
            let Some((running, _)) = lock(&self.tasks).get(key).cloned() else { continue };
            if let Some(deleted) = &deleted {
                let mut state = running.state();
                let is_older = |own: &ConfigMap| super::running::at_least_as_new(deleted, &own.metadata);
                if state.accepted_own.get(name).is_some_and(is_older) {
                    state.accepted_own.remove(name);
                }
                state.accepted_read.remove(name);
            }
            match &scope {
                Scope::Namespace(namespace) => running.wake_for_namespace(namespace),
                Scope::External { service, .. } => running.wake_for(service),
            }
        }
    }

    /// Deletes records of accepted requirements whose Incident is gone.
    fn sweep(&self) {
        let context = self.context.clone();
        self.context.process.writers.spawn(async move {
            if let Err(error) = accepted::sweep(&context).await {
                tracing::warn!(%error, "records of accepted requirements of a deleted Incident stay for now");
            }
        });
    }

    fn wake_known(&self, key: &PlanKey, wake: impl Fn(&Running)) {
        if let Some((running, _)) = lock(&self.tasks).get(key) {
            wake(running);
        }
    }

    fn wake_where(&self, concerned: impl Fn(&PlanKey, &State) -> bool) {
        for (key, (running, _)) in lock(&self.tasks).iter() {
            if concerned(key, &running.state()) {
                running.wake_for_all();
            }
        }
    }

    /// Wakes a plan's task, which begins with its first change.
    fn wake(self: &Arc<Self>, key: &PlanKey) {
        let mut plans = lock(&self.tasks);
        let (running, _) = plans.entry(key.clone()).or_insert_with(|| {
            let running = Arc::new(Running::new(key.clone()));
            let span = tracing::error_span!("plan", plan = %key);
            let running_plan = run_plan(Arc::downgrade(self), running.clone()).instrument(span);
            // It begins what writes, so that it is waited for as well.
            let task = self.context.process.writers.spawn(running_plan);
            (running, task.abort_handle())
        });
        running.wake_for_all();
    }

    /// A plan that is gone is tasks to no more. What it isolated stays isolated.
    fn forget(&self, key: &PlanKey) {
        if let Some((running, task)) = lock(&self.tasks).remove(key) {
            task.abort();
            self.clear_health(&running);
        }
        let mut waiting = BTreeSet::new();
        for keys in lock(&self.plans_by_namespace).values_mut() {
            if keys.remove(key) {
                waiting.extend(keys.iter().cloned());
            }
        }
        // What it had claimed may be free now.
        waiting.iter().for_each(|other| self.wake_known(other, Running::wake_for_all));
    }

    /// Nobody listens for that plan any more, and nothing is known of its services.
    fn clear_health(&self, running: &Running) {
        let mut state = running.state();
        state.view = None;
        if let Some(plan) = &state.plan {
            self.context.health.forget(&plan.uid);
        }
    }

    /// Has the state of the plans that are tasks to exported.
    fn export(self: &Arc<Self>) {
        let plans = Arc::downgrade(self);
        self.context.process.metrics.state.set_plans(move || {
            let Some(plans) = plans.upgrade() else { return Vec::new() };
            let tasks: Vec<Arc<Running>> =
                lock(&plans.tasks).values().map(|(running, _)| running.clone()).collect();
            tasks.iter().filter_map(|running| count(running)).collect()
        });
    }

    /// The plan as the watch has it, compiled once for each generation.
    fn compiled(&self, running: &Running) -> Option<Arc<Plan>> {
        let key = &running.key;
        let object = self.context.stores.plans.get(&ObjectRef::new(&key.name).within(&key.namespace))?;
        let object = match &object.0 {
            Ok(object) => object,
            Err(error) => {
                self.report_unreadable(running, &error.metadata, &error.error);
                return None;
            }
        };
        let mut state = running.state();
        state.unreadable = None;
        if let Some(plan) = &state.plan
            && plan.generation == object.metadata.generation
            && Some(plan.uid.as_str()) == object.metadata.uid.as_deref()
        {
            return Some(plan.clone());
        }
        let plan = Arc::new(Plan::from_object(object));
        let mut plans_by_namespace = lock(&self.plans_by_namespace);
        for namespace in plan.services.iter().flat_map(|s| &s.namespaces) {
            plans_by_namespace.entry(namespace.clone()).or_default().insert(key.clone());
        }
        drop(plans_by_namespace);
        if state.plan.as_ref().is_some_and(|before| before.uid != plan.uid) {
            *state = State::default();
        }
        state.services.retain(|name, _| plan.index.contains_key(name));
        state.plan = Some(plan.clone());
        Some(plan)
    }

    /// A plan that this version cannot read, such as one with a field of a newer version, is told so, once.
    fn report_unreadable(&self, running: &Running, meta: &kube::api::ObjectMeta, error: &str) {
        let mut state = running.state();
        let told = Some((meta.generation, error.to_owned()));
        if std::mem::replace(&mut state.unreadable, told.clone()) == told {
            return;
        }
        drop(state);
        let key = running.key.clone();
        self.context.process.metrics.failed(Controller::Plan, "Unreadable");
        tracing::error!(error, "this plan cannot be read: nothing of it starts");
        let status = engine::unreadable(meta.generation, error, clock::now());
        let patch = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "RecoveryPlan",
            "metadata": {"name": key.name, "uid": meta.uid}, "status": status,
        });
        // The answer cannot be read as a plan either.
        let resource = ApiResource::erase::<RecoveryPlan>(&());
        let plans: Api<DynamicObject> =
            Api::namespaced_with(self.context.client.clone(), &key.namespace, &resource);
        let telling = async move {
            let params = PatchParams::apply(field_manager::PLAN).force();
            let what = format!("write status of RecoveryPlan {key}");
            if let Err(error) =
                call(what, plans.patch_status(&key.name, &params, &Patch::Apply(&patch))).await
            {
                tracing::warn!(%error, "the plan was not told that it cannot be read");
            }
        };
        self.context.process.writers.spawn(telling.in_current_span());
    }
}

fn key_of(object: &super::stores::Guarded<RecoveryPlan>) -> PlanKey {
    let meta = kube::Resource::meta(object);
    PlanKey {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// Where the services of a plan stand. One that is Dormant has no service at any stage.
fn count(running: &Running) -> Option<PlanState> {
    let state = running.state();
    let armed = state.plan.as_ref()?.incident.is_some();
    let services = state.view.as_ref().filter(|_| armed)?.seen.services.iter();
    Some(PlanState::new(running.key.to_string(), services.map(|of| &of.status)))
}

/// Looks at one plan whenever it is woken.
async fn run_plan(plans: std::sync::Weak<Plans>, running: Arc<Running>) {
    let mut pause = RESYNC;
    let mut last_whole = None;
    loop {
        tokio::select! {
            () = running.woken() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let Some(plans) = plans.upgrade() else { return };
        // A plan that makes us panic is not looked at again before something changes; the others go on.
        let looked = std::panic::catch_unwind(AssertUnwindSafe(|| look(&plans, &running, &mut last_whole)));
        let wake_at = looked.unwrap_or_else(|_| {
            plans.context.process.metrics.failed(Controller::Plan, "Panicked");
            tracing::error!("the operator panicked on this plan: a bug; nothing of it moves");
            plans.clear_health(&running);
            None
        });
        let until = wake_at.map(|at| at.duration_since(clock::now()));
        pause = until.map_or(RESYNC, |d| Duration::try_from(d).unwrap_or(Duration::ZERO).min(RESYNC));
    }
}

/// One look: observe what has changed, decide, start what was decided. Returns when to look again at the latest. `last_whole` is when
/// everything was observed last.
fn look(plans: &Plans, running: &Arc<Running>, last_whole: &mut Option<Instant>) -> Option<Timestamp> {
    let Some(plan) = plans.compiled(running) else {
        plans.clear_health(running);
        return None;
    };
    let context = &plans.context;
    let _heart = context.process.heartbeats.watch(format!("plan {}", running.key), LONGEST_LOOK);
    let began = Instant::now();
    let now = clock::now();
    let mut changes = running.take_changes();
    // Once in a while everything is looked at, whatever the watches have told.
    changes.all |= last_whole.is_none_or(|at| began.duration_since(at) >= RESYNC);
    let all = changes.all;
    if all {
        *last_whole = Some(began);
    }
    let decided = View::look(&context.stores, &plan, &mut running.state(), &changes, now);
    context.health.publish(&plan, &decided.services);
    let mut wake_at = decided.wake_at;
    for of in decided.services {
        let id = of.service;
        let service = &plan.services[id];
        let mut state = running.state();
        let held = state.services.entry(service.name.clone()).or_default();
        // What is asked follows from the status, which is being written: it is looked at again when that has ended.
        if held.busy {
            continue;
        }
        let record = observe::record(&context.stores, &plan, service, held);
        drop(state);
        let before = record.as_ref().and_then(|record| record.status.as_ref());
        let first = ServiceRecoveryStatus { attempt: 1, ..Default::default() };
        let status = of.write.as_deref().or(before).unwrap_or(&first);
        update_gate_tasks(context, running, &plan, id, &of.ask, status);
        if of.write.is_some() || of.effect.is_some() {
            let attempt = status.attempt;
            let mut state = running.state();
            let held = state.services.entry(service.name.clone()).or_default();
            // What could not be written is not tried again in a circle.
            if let Some(at) = held.not_before.filter(|&at| at > now) {
                wake_at = Some(wake_at.map_or(at, |before: Timestamp| before.min(at)));
                state.view.iter_mut().for_each(|view| view.decide_again(id));
                continue;
            }
            held.busy = true;
            state.view.iter_mut().for_each(|view| view.begins(id));
            let act = Act {
                context: context.clone(),
                running: running.clone(),
                plan: plan.clone(),
                id,
                record,
                wrote: false,
            };
            let span = tracing::error_span!(
                // No child of the plan's span, which would say the plan a second time.
                parent: None,
                "service",
                plan = %running.key,
                service = service.name,
                attempt
            );
            context.process.writers.spawn(act.carry_out(of).instrument(span));
        }
    }
    let has_others = all || changes.services.iter().any(|name| !plan.index.contains_key(name));
    for orphan in has_others.then(|| observe::orphans(&context.stores, &plan)).into_iter().flatten() {
        let writers = context.process.writers.clone();
        let context = context.clone();
        let marking = async move {
            if let Err(error) = mark_orphaned(&context, &orphan).await {
                tracing::debug!(%error, "not marked as orphaned yet");
            }
        };
        writers.spawn(marking.in_current_span());
    }
    let status_due = write_plan_status(context, running, &plan, decided.plan, now);
    context.process.metrics.reconciled(Controller::Plan, began);
    wake_at.into_iter().chain(status_due).min()
}

/// Starts and ends the asking of gates, so that those which the engine wants asked are.
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
    let held = state.services.entry(service.name.clone()).or_default();
    let wanted: BTreeMap<GateKey, (Binding, crate::plan::GatePolicy)> = service
        .gates
        .iter()
        .filter(|gate| ask.contains(&gate.phase))
        .map(|gate| {
            let binding = observe::binding(&context.stores, plan, service, gate, status);
            (gate.key.clone(), (binding, gate.policy))
        })
        .collect();
    held.gates.retain(|key, task| wanted.get(key).is_some_and(|(binding, _)| *binding == task.binding));
    for (key, (binding, policy)) in wanted {
        held.gates.entry(key).or_insert_with_key(|key| {
            let span = tracing::error_span!(
                parent: None,
                "gate",
                plan = %running.key,
                service = service.name,
                attempt = binding.attempt,
                phase = key.phase.as_str(),
                gate = key.name
            );
            context.gatekeeper.begin(account.clone(), binding, policy, running.waker(&service.name), span)
        });
    }
}

/// Writes the plan's own status where it changed: conditions at once, counts not more than once a second.
fn write_plan_status(
    context: &Arc<Context>,
    running: &Arc<Running>,
    plan: &Arc<Plan>,
    mut status: RecoveryPlanStatus,
    now: Timestamp,
) -> Option<Timestamp> {
    let object = context.stores.plans.get(&ObjectRef::new(&plan.name).within(&plan.namespace))?;
    let object = object.0.as_ref().ok()?;
    let mut state = running.state();
    state.own_status.take_if(|(own, _)| super::running::at_least_as_new(&object.metadata, own));
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
