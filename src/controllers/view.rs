//! What is observed of a plan's world, kept between two looks and brought up to date where something has changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::observe::{self, Observed};
use super::running::{Changes, State};
use super::stores::Stores;
use crate::api::ServiceRecovery;
use crate::engine::{Decided, Engine, Observation, Services};
use crate::plan::{Plan, ServiceId};

/// What was observed at the last look, and an engine that remembers what it decided on that.
pub(crate) struct View {
    pub(crate) seen: Observation,
    engine: Engine,
    /// For each service, the resourceVersion of the ServiceRecovery that it was observed by.
    versions: Vec<Option<String>>,
    /// For each service, when one of its gates says something else though nothing is heard.
    turns: Vec<Option<Timestamp>>,
    /// The services of each namespace.
    by_namespace: HashMap<String, Vec<ServiceId>>,
}

impl View {
    /// Observes what has changed, and decides. The view in `state` is brought up to date, or begun where there is none for this plan.
    pub(crate) fn look(
        stores: &Stores,
        plan: &Arc<Plan>,
        state: &mut State,
        changes: &Changes,
        now: Timestamp,
    ) -> Decided {
        let before = state.view.take().filter(|view| Arc::ptr_eq(view.engine.plan(), plan));
        let is_new = before.is_none();
        let mut view = before.unwrap_or_else(|| Self::begin(plan, now));
        view.seen.now = now;
        view.seen.incident = observe::incident(stores, plan);
        view.seen.account = observe::account(stores, plan);
        let concerned: BTreeSet<ServiceId> = if is_new || changes.all {
            (0..plan.services.len()).collect()
        } else {
            view.concerned(changes, now)
        };
        let decisions = observe::decisions(stores, plan, &concerned);
        for id in concerned {
            let Observed { service: observed, version, has_stale_gates } =
                observe::service(stores, plan, state, id, &decisions, now);
            view.versions[id] = version;
            view.turns[id] = observed.gates.values().filter_map(|gate| gate.changes_at).min();
            // What is as it was is not decided again. Gates that ask what is not to be asked any more are begun anew with a decision.
            if is_new || changes.all || has_stale_gates || view.seen.services[id] != observed {
                view.seen.services[id] = observed;
            }
        }
        let mut decided = view.engine.decide(&view.seen);
        let turn = view.turns.iter().flatten().copied().filter(|&at| at > now).min();
        decided.wake_at = decided.wake_at.into_iter().chain(turn).min();
        state.view = Some(view);
        decided
    }

    fn begin(plan: &Arc<Plan>, now: Timestamp) -> Self {
        let mut by_namespace: HashMap<String, Vec<ServiceId>> = HashMap::new();
        for (id, service) in plan.services.iter().enumerate() {
            for namespace in &service.namespaces {
                by_namespace.entry(namespace.clone()).or_default().push(id);
            }
        }
        let services: Services =
            plan.services.iter().map(|_| crate::engine::ServiceObservation::default()).collect();
        let unknown = || crate::engine::Presence::Unknown(String::new());
        Self {
            seen: Observation { now, incident: unknown(), account: unknown(), services },
            engine: Engine::new(plan.clone()),
            versions: vec![None; plan.services.len()],
            turns: vec![None; plan.services.len()],
            by_namespace,
        }
    }

    /// The services that have changed, or of which a gate says something else by now.
    fn concerned(&self, changes: &Changes, now: Timestamp) -> BTreeSet<ServiceId> {
        let index = &self.engine.plan().index;
        let named = changes.services.iter().filter_map(|name| index.get(name).copied());
        let living = changes.namespaces.iter().filter_map(|name| self.by_namespace.get(name)).flatten();
        let turned = self.turns.iter().enumerate().filter(|(_, at)| at.is_some_and(|at| at <= now));
        named.chain(living.copied()).chain(turned.map(|(id, _)| id)).collect()
    }

    /// Returns whether what was decided for a service rests on this ServiceRecovery. Where it rests on an older one, the service is decided
    /// again at the next look.
    pub(crate) fn rests_on(&mut self, id: ServiceId, record: Option<&ServiceRecovery>) -> bool {
        let version = record.and_then(|record| record.metadata.resource_version.as_deref());
        let is_current = self.versions[id].as_deref() == version;
        if !is_current {
            self.decide_again(id);
        }
        is_current
    }

    /// Has a service decided again at the next look, though it is as it was.
    pub(crate) fn decide_again(&mut self, id: ServiceId) {
        let _changed = &mut self.seen.services[id];
    }

    /// Remembers that something is being done for a service.
    pub(crate) fn begins(&mut self, id: ServiceId) {
        self.seen.services[id].busy = true;
    }
}
