//! Observed state of a plan and its services, kept between reconciliations and updated where something changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::observe::{self, Observed};
use super::running::{Changes, State};
use super::stores::Stores;
use crate::api::ServiceRecovery;
use crate::engine::{Decided, Engine, Observation, Services};
use crate::plan::{Plan, ServiceId};

/// Observations of the last reconciliation, and an engine that remembers its decisions on them.
pub(crate) struct View {
    pub(crate) observation: Observation,
    engine: Engine,
    /// For each service, the resourceVersion of the ServiceRecovery that was observed.
    versions: Vec<Option<String>>,
    /// For each service, when the state of one of its gates changes by the passing of time.
    gate_deadlines: Vec<Option<Timestamp>>,
    /// Services by namespace.
    by_namespace: HashMap<String, Vec<ServiceId>>,
}

impl View {
    /// Observes what has changed, and decides. Updates the view in `state`, or creates one for this plan.
    pub(crate) fn observe_and_decide(
        stores: &Stores,
        plan: &Arc<Plan>,
        state: &mut State,
        changes: &Changes,
        now: Timestamp,
    ) -> Decided {
        let before = state.view.take().filter(|view| Arc::ptr_eq(view.engine.plan(), plan));
        let is_new = before.is_none();
        let mut view = before.unwrap_or_else(|| Self::begin(plan, now));
        view.observation.now = now;
        view.observation.incident = observe::incident(stores, plan);
        view.observation.compromised_since = observe::compromised_since(stores, plan);
        view.observation.account = observe::account(stores, plan);
        let concerned: BTreeSet<ServiceId> = if is_new || changes.all {
            (0..plan.services.len()).collect()
        } else {
            view.affected(changes, now)
        };
        let decisions = observe::decisions(stores, plan, &concerned);
        for id in concerned {
            let Observed { service: observed, version, has_stale_gates } =
                observe::service(stores, plan, state, id, &decisions, now);
            view.versions[id] = version;
            view.gate_deadlines[id] = observed.gates.values().filter_map(|gate| gate.changes_at).min();
            // Unchanged services are not decided again. Gates with an outdated question are restarted by a decision.
            if is_new || changes.all || has_stale_gates || view.observation.services[id] != observed {
                view.observation.services[id] = observed;
            }
        }
        let mut decided = view.engine.decide(&view.observation);
        let turn = view.gate_deadlines.iter().flatten().copied().filter(|&at| at > now).min();
        decided.wake_at = decided.wake_at.into_iter().chain(turn).min();
        state.view = Some(view);
        decided
    }

    fn begin(plan: &Arc<Plan>, now: Timestamp) -> Self {
        let mut by_namespace: HashMap<String, Vec<ServiceId>> = HashMap::new();
        for (id, service) in plan.services.iter().enumerate() {
            for namespace in service.namespaces.iter().chain(&service.replaces) {
                by_namespace.entry(namespace.clone()).or_default().push(id);
            }
        }
        let services: Services =
            plan.services.iter().map(|_| crate::engine::ServiceObservation::default()).collect();
        let unknown = || crate::engine::Presence::Unknown(String::new());
        Self {
            observation: Observation {
                now,
                incident: unknown(),
                compromised_since: None,
                account: unknown(),
                services,
            },
            engine: Engine::new(plan.clone()),
            versions: vec![None; plan.services.len()],
            gate_deadlines: vec![None; plan.services.len()],
            by_namespace,
        }
    }

    /// Returns the services that changed, or one of whose gates has changed state by now.
    fn affected(&self, changes: &Changes, now: Timestamp) -> BTreeSet<ServiceId> {
        let index = &self.engine.plan().index;
        let named = changes.services.iter().filter_map(|name| index.get(name).copied());
        let living = changes.namespaces.iter().filter_map(|name| self.by_namespace.get(name)).flatten();
        let turned = self.gate_deadlines.iter().enumerate().filter(|(_, at)| at.is_some_and(|at| at <= now));
        named.chain(living.copied()).chain(turned.map(|(id, _)| id)).collect()
    }

    /// Returns whether the decision for a service is based on this ServiceRecovery. If it is based on an older one, schedules the service
    /// to be decided again.
    pub(crate) fn is_based_on(&mut self, id: ServiceId, record: Option<&ServiceRecovery>) -> bool {
        let version = record.and_then(|record| record.metadata.resource_version.as_deref());
        let is_current = self.versions[id].as_deref() == version;
        if !is_current {
            self.decide_again(id);
        }
        is_current
    }

    /// Schedules an unchanged service to be decided again.
    pub(crate) fn decide_again(&mut self, id: ServiceId) {
        let _changed = &mut self.observation.services[id];
    }

    /// Records that an effect for a service is running.
    pub(crate) fn mark_busy(&mut self, id: ServiceId) {
        self.observation.services[id].busy = true;
    }
}
