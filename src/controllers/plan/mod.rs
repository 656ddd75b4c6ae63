//! The plan controller: one task per plan, which observes, calls the engine, and starts effects. Watches wake tasks through a reverse
//! index; nothing is polled.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Config};
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

use super::accepted;
use super::context::Context;
use super::events::Events;
use super::gate_tasks::GateRunner;
use super::health_cache::HealthCache;
use super::metrics::PlanState;
use super::preparation::ReviewSlots;
use super::process::Process;
use super::running::{self, PlanKey, Running, State};
use super::stores::{self, Change, Stores, Wakeups};
use super::verdicts::{self, VerdictSlots, Verdicts};
use crate::api::RecoveryPlan;
use crate::cluster_cache::ClusterCache;
use crate::gates::Asker;
use crate::heartbeats;
use crate::plan::Plan;
use crate::plan::ratchet::Scope;
use crate::steps::StepServices;

mod reconcile;
mod status;

/// Capacity of the queue of changes. If it overflows, everything counts as changed.
const CHANGES_LIMIT: usize = 4_096;

/// All plans with a task.
struct Plans {
    context: Arc<Context>,
    tasks: Mutex<HashMap<PlanKey, (Arc<Running>, AbortHandle)>>,
    /// Plans by the namespaces of their services.
    plans_by_namespace: Mutex<HashMap<String, BTreeSet<PlanKey>>>,
    /// Statuses of Decisions without a plan that this process wrote.
    verdicts: Verdicts,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs all plans until `process` stops; running writes are finished. `config`: the configuration that `client` was created from. Plans
/// use copies of it that impersonate their account.
///
/// # Errors
/// A watch ended permanently.
pub async fn run(
    client: Client,
    config: Config,
    asker: Asker,
    step_services: StepServices,
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
            // The receiver is only closed at shutdown.
            if let Err(TrySendError::Full(_)) = changes.try_send(change) {
                overflowed.store(true, Ordering::Release);
            }
        }
    });
    let wakeups = Wakeups::default();
    tasks.spawn(wakeups.clone().follow(cache.subscribe()));
    tasks.spawn(wakeups.clone().follow_change_logs(cache.subscribe_to_change_logs()));
    let stop = process.stop.clone();
    tokio::select! {
        ready = heart.beat_during(stores.ready()) => ready?,
        () = stop.cancelled() => return Ok(()),
    }
    let context = Context {
        events: Events::start(client.clone(), &mut tasks),
        gate_runner: GateRunner::new(asker, cache, wakeups.clone(), process.metrics.clone()),
        wakeups,
        step_services,
        review_slots: ReviewSlots::default(),
        verdict_slots: VerdictSlots::default(),
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
        verdicts: Verdicts::default(),
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
    // No further reconciliation starts. Running writes still publish Events, whose task is one of `tasks`.
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
    /// Wakes the plans that a change affects.
    fn changed(self: &Arc<Self>, change: Change) {
        match change {
            Change::Plan { namespace, name, gone } => {
                let key = PlanKey { namespace, name };
                if gone {
                    self.forget(&key);
                    self.judge_without_plan(Some(&key.namespace));
                } else {
                    self.wake(&key);
                }
            }
            Change::Record { namespace, name, gone } => {
                // The name is `<plan>.<service>`, and neither part contains a dot.
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
                            .is_some_and(|own| running::at_least_as_new(&deleted, &own.metadata))
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
            Change::Decision { is_judged: true, .. } => {}
            Change::Decision { namespace, .. } => {
                self.wake_where(|key, _| key.namespace == namespace);
                self.judge_without_plan(Some(&namespace));
            }
            Change::Account { namespace } => self.wake_where(|key, _| key.namespace == namespace),
            Change::Everything => {
                self.sweep();
                let there: BTreeSet<PlanKey> =
                    self.context.stores.plans.state().iter().map(|object| key_of(object.as_ref())).collect();
                let known: Vec<PlanKey> = lock(&self.tasks).keys().cloned().collect();
                known.iter().filter(|key| !there.contains(key)).for_each(|key| self.forget(key));
                there.iter().for_each(|key| self.wake(key));
                self.judge_without_plan(None);
            }
        }
    }

    /// Wakes the plans that a record of accepted requirements affects.
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
                let is_older = |own: &ConfigMap| running::at_least_as_new(deleted, &own.metadata);
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

    /// Tells of Decisions in a namespace, or in all of them, that they name a plan that does not exist.
    fn judge_without_plan(self: &Arc<Self>, namespace: Option<&str>) {
        let (plans, of) = (Arc::downgrade(self), namespace.map(str::to_owned));
        let again = move || plans.upgrade().iter().for_each(|plans| plans.judge_without_plan(of.as_deref()));
        verdicts::without_plan(&self.context, &self.verdicts, namespace, again);
    }

    /// Deletes records of accepted requirements whose Incident is gone.
    fn sweep(&self) {
        let context = self.context.clone();
        self.context.process.writers.spawn(async move {
            if let Err(error) = accepted::sweep(&context).await {
                tracing::warn!(%error, "records of a deleted Incident not deleted; ignored until the next sweep");
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

    /// Wakes a plan's task. Starts the task at the plan's first change.
    fn wake(self: &Arc<Self>, key: &PlanKey) {
        let mut plans = lock(&self.tasks);
        let (running, _) = plans.entry(key.clone()).or_insert_with(|| {
            let running = Arc::new(Running::new(key.clone()));
            let span = tracing::error_span!("plan", plan = %key);
            let running_plan = reconcile::run_plan(Arc::downgrade(self), running.clone()).instrument(span);
            // The task starts writes, so shutdown waits for it as well.
            let task = self.context.process.writers.spawn(running_plan);
            (running, task.abort_handle())
        });
        running.wake_for_all();
    }

    /// Removes a deleted plan. What it isolated stays isolated.
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
        // What the plan had claimed may be free now.
        waiting.iter().for_each(|other| self.wake_known(other, Running::wake_for_all));
    }

    /// Removes the plan's services from the health cache.
    fn clear_health(&self, running: &Running) {
        let mut state = running.state();
        state.view = None;
        if let Some(plan) = &state.plan {
            self.context.health.forget(&plan.uid);
        }
    }

    /// Exports the state of all plans as metrics.
    fn export(self: &Arc<Self>) {
        let plans = Arc::downgrade(self);
        self.context.process.metrics.state.set_plans(move || {
            let Some(plans) = plans.upgrade() else { return Vec::new() };
            let tasks: Vec<Arc<Running>> =
                lock(&plans.tasks).values().map(|(running, _)| running.clone()).collect();
            tasks.iter().filter_map(|running| count(running)).collect()
        });
    }

    /// Returns the plan in the watch's store, compiled once per generation.
    fn compiled(&self, running: &Running) -> Option<Arc<Plan>> {
        let key = &running.key;
        let object = self.context.stores.plans.get(&ObjectRef::new(&key.name).within(&key.namespace))?;
        let object = match &object.0 {
            Ok(object) => object,
            Err(error) => {
                status::report_unreadable(&self.context, running, &error.metadata, &error.error);
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
        for namespace in plan.services.iter().flat_map(|s| s.namespaces.iter().chain(&s.replaces)) {
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
}

fn key_of(object: &stores::Guarded<RecoveryPlan>) -> PlanKey {
    let meta = kube::Resource::meta(object);
    PlanKey {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// Counts the services of a plan by stage. A Dormant plan has none at any stage.
fn count(running: &Running) -> Option<PlanState> {
    let state = running.state();
    let armed = state.plan.as_ref()?.incident.is_some();
    let services = state.view.as_ref().filter(|_| armed)?.observation.services.iter();
    Some(PlanState::new(running.key.to_string(), services.map(|of| &of.status)))
}
