//! The engine against random plans, and what `simulate` tells.

mod incremental;
mod judge;
mod model;
mod properties;
mod random;
mod reports;
mod spoiled;

use std::collections::BTreeMap;

use crate::api::Phase;
use crate::engine::{Decided, Observation, decide};
use crate::plan::{Plan, ServiceId};

/// Every look in every simulation: what is decided of what has changed alone is what would be decided of everything from nothing.
/// `asked` are the phases that are asked by what was decided before.
pub(super) fn same_as_from_nothing(
    plan: &Plan,
    seen: &Observation,
    decided: &Decided,
    asked: impl Fn(ServiceId) -> Vec<Phase>,
) {
    let whole = decide(plan, seen);
    assert_eq!(decided.wake_at, whole.wake_at, "at {}", seen.now);
    assert_eq!(decided.plan, whole.plan, "at {}", seen.now);
    let again: BTreeMap<ServiceId, _> = decided.services.iter().map(|of| (of.service, of)).collect();
    for of in &whole.services {
        match again.get(&of.service) {
            Some(again) => assert_eq!(*again, of, "at {}", seen.now),
            None => assert_eq!(
                (&of.write, &of.effect, &of.ask),
                (&None, &None, &asked(of.service)),
                "{} was not decided again at {}, and has changed",
                plan.services[of.service].name,
                seen.now
            ),
        }
    }
}
