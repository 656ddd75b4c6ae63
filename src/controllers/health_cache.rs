//! Health of services by their continuous gates: published by the plan controller, read by the quarantine controller. It is kept in
//! memory only, since a status may contain what an earlier leader wrote.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::Health;
use crate::engine::ServiceDecided;
use crate::plan::Plan;

/// Health of services, by the plan's UID.
#[derive(Clone, Debug, Default)]
pub struct HealthCache(Arc<Mutex<HashMap<String, PlanHealth>>>);

/// Health in one generation of a plan, by service name.
#[derive(Debug)]
struct PlanHealth {
    plan: Arc<Plan>,
    services: HashMap<String, Health>,
}

impl HealthCache {
    fn plans(&self) -> MutexGuard<'_, HashMap<String, PlanHealth>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the decisions on a plan. Services that were not decided again keep their published health.
    pub(crate) fn publish(&self, plan: &Arc<Plan>, decided: &[ServiceDecided]) {
        let mut plans = self.plans();
        let begun = || PlanHealth { plan: plan.clone(), services: HashMap::new() };
        let health = plans.entry(plan.uid.clone()).or_insert_with(begun);
        if health.plan.generation != plan.generation {
            *health = begun();
        }
        for of in decided {
            health.services.insert(plan.services[of.service].name.clone(), of.health);
        }
    }

    /// Removes a plan that is no longer reconciled.
    pub(crate) fn forget(&self, plan_uid: &str) {
        self.plans().remove(plan_uid);
    }

    /// Returns a generation of a plan as the plan controller compiled it.
    pub(crate) fn plan(&self, uid: &str, generation: Option<i64>) -> Option<Arc<Plan>> {
        let plans = self.plans();
        plans.get(uid).map(|of| &of.plan).filter(|plan| plan.generation == generation).cloned()
    }

    /// Returns the health of a service. Another generation of the plan may have other gates, so its health is Unknown.
    pub(crate) fn of(&self, plan: &Plan, service: &str) -> Health {
        let plans = self.plans();
        let health = plans.get(&plan.uid).filter(|health| health.plan.generation == plan.generation);
        health.and_then(|health| health.services.get(service)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(uid: &str, generation: i64) -> Arc<Plan> {
        let spec = json!({"serviceAccountName": "recovery", "services": [{"name": "db"}, {"name": "web"}]});
        let plan = Plan::compile("council", "plan", uid, &serde_json::from_value(spec).unwrap());
        Arc::new(Plan { generation: Some(generation), ..plan })
    }

    fn decided(healths: [Health; 2]) -> [ServiceDecided; 2] {
        let one = |service: usize| ServiceDecided {
            service,
            write: None,
            effect: None,
            ask: Vec::new(),
            observe_step: None,
            health: healths[service],
        };
        [one(0), one(1)]
    }

    #[test]
    fn health_belongs_to_one_generation_of_a_plan() {
        let health = HealthCache::default();
        let (now, amended, other) = (plan("u1", 1), plan("u1", 2), plan("u2", 1));
        assert_eq!(health.of(&now, "db"), Health::Unknown, "by a new leader");
        health.publish(&now, &decided([Health::Healthy, Health::Unhealthy]));
        let known = |uid: &str, generation| health.plan(uid, Some(generation)).is_some();
        assert_eq!((known("u1", 1), known("u1", 2), known("u2", 1)), (true, false, false));
        assert_eq!((health.of(&now, "db"), health.of(&now, "web")), (Health::Healthy, Health::Unhealthy));
        for (plan, service) in [(&amended, "db"), (&other, "db"), (&now, "no such service")] {
            assert_eq!(health.of(plan, service), Health::Unknown);
        }
        health.publish(&amended, &decided([Health::Unknown, Health::Healthy]));
        assert_eq!((health.of(&now, "db"), health.of(&amended, "web")), (Health::Unknown, Health::Healthy));
        // Within a generation, services that were not decided again keep their health.
        health.publish(&amended, &decided([Health::Unhealthy, Health::Unhealthy])[..1]);
        assert_eq!(
            (health.of(&amended, "db"), health.of(&amended, "web")),
            (Health::Unhealthy, Health::Healthy)
        );
        health.publish(&other, &decided([Health::Healthy, Health::Healthy]));
        health.forget("u1");
        assert_eq!((health.of(&amended, "web"), health.of(&other, "db")), (Health::Unknown, Health::Healthy));
    }
}
