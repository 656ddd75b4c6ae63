//! What is heard of services' health, from who decides about plans to who isolates. It is of this process alone: a record may say what
//! a leader wrote that is long gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::Health;
use crate::engine::ServiceDecided;
use crate::plan::Plan;

/// What is heard, by the plan's UID and the service's name.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<HashMap<String, HashMap<String, Health>>>>);

impl Heard {
    fn plans(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Health>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that a look at a plan came to.
    pub(crate) fn tell(&self, plan: &Plan, decided: &[ServiceDecided]) {
        let services = plan.services.iter().zip(decided);
        let heard = services.map(|(service, decided)| (service.name.clone(), decided.health)).collect();
        self.plans().insert(plan.uid.clone(), heard);
    }

    /// That plan is not looked at any more.
    pub(crate) fn forget(&self, plan_uid: &str) {
        self.plans().remove(plan_uid);
    }

    /// Of one service.
    pub(crate) fn of(&self, plan_uid: &str, service: &str) -> Health {
        self.plans().get(plan_uid).and_then(|services| services.get(service)).copied().unwrap_or_default()
    }
}
