//! Every transition of a service's life, as stories in virtual time and as single looks.

mod approvals;
mod attempts;
mod counts;
mod deadlines;
mod decisions;
mod exceptions;
mod gates;
mod groups;
mod holds;
mod integrity;
pub(crate) mod kstatus;
mod life;
mod orders;
mod overrides;
mod policy;
mod quarantines;
mod ratchet;
mod regressions;
mod resumes;
mod room;
mod slots;
mod spoiled;
mod steps;
mod story;
mod undo;
mod verdicts;
mod waiting;

use super::{Effect, Observation, decide};
use crate::api::{Health, Phase, ServiceRecoveryStatus};
use crate::plan::{Plan, ServiceId};

/// What one look at a service came to.
pub(super) struct Look {
    pub status: ServiceRecoveryStatus,
    pub write: bool,
    pub effect: Option<Effect>,
    pub ask: Vec<Phase>,
    pub(super) observe_step: Option<usize>,
    pub health: Health,
}

/// Looks at everything from nothing, and returns what came of one service.
pub(super) fn look_at(plan: &Plan, seen: &Observation, service: ServiceId) -> Look {
    let decided = decide(plan, seen).services.swap_remove(service);
    let status = decided.status(seen).clone();
    Look {
        status,
        write: decided.write.is_some(),
        effect: decided.effect,
        ask: decided.ask,
        observe_step: decided.observe_step,
        health: decided.health,
    }
}
