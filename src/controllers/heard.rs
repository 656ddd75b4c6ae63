//! What is heard of services' health, from who decides about plans to who isolates. It is of this process alone: a record may say what
//! a leader wrote that is long gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::Health;
use crate::engine::ServiceDecided;
use crate::plan::Plan;

/// What is heard, by the plan's UID.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<HashMap<String, OfPlan>>>);

/// Of one generation of a plan, by the service's name.
#[derive(Debug)]
struct OfPlan {
    generation: Option<i64>,
    services: HashMap<String, Health>,
}

impl Heard {
    fn plans(&self) -> MutexGuard<'_, HashMap<String, OfPlan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a look at a plan came to. Of services that were not decided again, what was told before stands.
    pub(crate) fn tell(&self, plan: &Plan, decided: &[ServiceDecided]) {
        let mut plans = self.plans();
        let begun = || OfPlan { generation: plan.generation, services: HashMap::new() };
        let of_plan = plans.entry(plan.uid.clone()).or_insert_with(begun);
        if of_plan.generation != plan.generation {
            *of_plan = begun();
        }
        for of in decided {
            of_plan.services.insert(plan.services[of.service].name.clone(), of.health);
        }
    }

    /// That plan is not looked at any more.
    pub(crate) fn forget(&self, plan_uid: &str) {
        self.plans().remove(plan_uid);
    }

    /// Of one service of that plan, as it is now: another generation of it may ask other gates.
    pub(crate) fn of(&self, plan: &Plan, service: &str) -> Health {
        let plans = self.plans();
        let of_plan = plans.get(&plan.uid).filter(|heard| heard.generation == plan.generation);
        of_plan.and_then(|heard| heard.services.get(service)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(uid: &str, generation: i64) -> Plan {
        let spec = json!({"serviceAccountName": "recovery", "services": [{"name": "db"}, {"name": "web"}]});
        let plan = Plan::compile("council", "plan", uid, &serde_json::from_value(spec).unwrap());
        Plan { generation: Some(generation), ..plan }
    }

    fn decided(healths: [Health; 2]) -> [ServiceDecided; 2] {
        let one = |service: usize| ServiceDecided {
            service,
            write: None,
            effect: None,
            ask: Vec::new(),
            health: healths[service],
        };
        [one(0), one(1)]
    }

    #[test]
    fn what_is_heard_is_of_one_generation_of_a_plan_and_forgotten_with_it() {
        let heard = Heard::default();
        let (now, amended, other) = (plan("u1", 1), plan("u1", 2), plan("u2", 1));
        assert_eq!(heard.of(&now, "db"), Health::Unheard, "by a new leader");
        heard.tell(&now, &decided([Health::Passes, Health::Doubtful]));
        assert_eq!((heard.of(&now, "db"), heard.of(&now, "web")), (Health::Passes, Health::Doubtful));
        for (plan, service) in [(&amended, "db"), (&other, "db"), (&now, "no such service")] {
            assert_eq!(heard.of(plan, service), Health::Unheard);
        }
        heard.tell(&amended, &decided([Health::Unheard, Health::Passes]));
        assert_eq!((heard.of(&now, "db"), heard.of(&amended, "web")), (Health::Unheard, Health::Passes));
        // What was not decided again stands, of the same generation.
        heard.tell(&amended, &decided([Health::Doubtful, Health::Doubtful])[..1]);
        assert_eq!((heard.of(&amended, "db"), heard.of(&amended, "web")), (Health::Doubtful, Health::Passes));
        heard.tell(&other, &decided([Health::Passes, Health::Passes]));
        heard.forget("u1");
        assert_eq!((heard.of(&amended, "web"), heard.of(&other, "db")), (Health::Unheard, Health::Passes));
    }
}
