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

    /// All that a look at a plan came to.
    pub(crate) fn tell(&self, plan: &Plan, decided: &[ServiceDecided]) {
        let each = plan.services.iter().zip(decided);
        let services = each.map(|(service, decided)| (service.name.clone(), decided.health)).collect();
        self.plans().insert(plan.uid.clone(), OfPlan { generation: plan.generation, services });
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
