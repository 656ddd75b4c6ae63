//! The ratchet: nothing of a service is loosened unless the plan's current requirements were accepted for each of its namespaces.
//!
//! The first requirements of an armed plan are accepted as they are. Changes that only tighten are accepted at once. Everything else
//! needs a Decision `AcceptLoosening`.

use std::sync::Arc;

use super::slots::is_armed;
use super::{AcceptedRecord, AcceptedState, ClaimState, Observation, RequirementsWrite};
use crate::api::Stage;
use crate::plan::ratchet::{Requirements, Scope, loosenings};
use crate::plan::{Plan, ServiceId};

/// Maximum number of accepted loosenings in a record.
const EXCEPTIONS_LIMIT: usize = 16;

/// State of a service's requirements compared with the accepted ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ratchet {
    /// Accepted as they are now.
    Accepted,
    /// To be recorded first: nothing was accepted before, or they only tighten.
    Records(Vec<RequirementsWrite>),
    /// Loosened. With the loosenings as messages, and the records to write once they are accepted.
    Loosened {
        /// The loosenings, with their namespace.
        lost: Vec<String>,
        /// The requirements accepted before, for the digest of the question.
        before: Vec<String>,
        /// Records to write once a person accepts.
        records: Vec<RequirementsWrite>,
    },
    /// Not to be recorded now: the plan or service has a problem, or another service claims a namespace.
    Waits,
}

/// Returns the scopes of a service with the records accepted for them.
fn scopes<'a>(
    plan: &Plan,
    observed: &'a Observation,
    id: ServiceId,
) -> impl Iterator<Item = (Scope, &'a AcceptedState)> {
    const MISSING: AcceptedState = AcceptedState::Missing;
    let accepted = observed.services[id].accepted.iter().chain(std::iter::repeat(&MISSING));
    plan.scopes(id).into_iter().zip(accepted)
}

/// Compares the current requirements with the accepted ones, scope by scope.
pub(super) fn judge(plan: &Plan, observed: &Observation, id: ServiceId) -> Ratchet {
    let now = &plan.services[id].requirements;
    if is_accepted(plan, observed, id) {
        return Ratchet::Accepted;
    }
    if !may_record(plan, observed, id) {
        return Ratchet::Waits;
    }
    let by = format!("plan {}/{}, service {}", plan.namespace, plan.name, plan.services[id].name);
    let accepting =
        |scope: &Scope, over: Option<&String>, requirements: Arc<Requirements>, exceptions: &[String]| {
            let record = AcceptedRecord { requirements, by: by.clone(), exceptions: exceptions.to_vec() };
            RequirementsWrite { scope: scope.clone(), over: over.cloned(), record }
        };
    let (mut tighter, mut all, mut lost, mut before) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (scope, accepted) in scopes(plan, observed, id) {
        match accepted {
            AcceptedState::Missing => {
                tighter.push(accepting(&scope, None, Arc::new(now.baseline()), &[]));
            }
            AcceptedState::Outdated { revision } => {
                tighter.push(accepting(&scope, Some(revision), Arc::new(now.baseline()), &[]));
            }
            AcceptedState::Record { revision, record } => {
                let here = loosenings(&record.requirements, now);
                let new = accepting(&scope, Some(revision), now.clone(), &record.exceptions);
                if !here.is_empty() {
                    lost.extend(here.into_iter().filter(|what| !lost.contains(what)).collect::<Vec<_>>());
                } else if record.requirements != *now {
                    tighter.push(new.clone());
                }
                before.push(serde_json::to_string(&*record.requirements).unwrap_or_default());
                all.push(new);
            }
            AcceptedState::Unreadable { revision, why } => {
                lost.push(format!("what was accepted for {scope} cannot be read, so nobody can say what would be lost ({why})"));
                before.push(format!("{scope} at {revision}"));
                all.push(accepting(&scope, Some(revision), now.clone(), &[]));
            }
        }
    }
    // Requirements that need no acceptance are recorded first, so that the rest can be decided on as a whole.
    let missing = |new: &&RequirementsWrite| !all.iter().any(|other| other.scope == new.scope);
    let first: Vec<RequirementsWrite> = tighter.iter().filter(missing).cloned().collect();
    match (first.is_empty(), lost.is_empty()) {
        (false, _) => Ratchet::Records(first),
        (true, true) => Ratchet::Records(tighter),
        (true, false) => Ratchet::Loosened { lost, before, records: all },
    }
}

/// Returns whether the current requirements are accepted for all scopes.
pub(super) fn is_accepted(plan: &Plan, observed: &Observation, id: ServiceId) -> bool {
    let now = &plan.services[id].requirements;
    scopes(plan, observed, id).all(|(_, accepted)| {
        matches!(accepted, AcceptedState::Record { record, .. } if record.requirements == *now)
    })
}

/// Returns whether the plan requires less than was accepted.
pub(super) fn is_loosened(plan: &Plan, observed: &Observation, id: ServiceId) -> bool {
    let now = &plan.services[id].requirements;
    scopes(plan, observed, id).any(|(_, accepted)| match accepted {
        AcceptedState::Missing | AcceptedState::Outdated { .. } => false,
        AcceptedState::Record { record, .. } => {
            record.requirements != *now && !loosenings(&record.requirements, now).is_empty()
        }
        AcceptedState::Unreadable { .. } => true,
    })
}

/// Returns the loosenings that people have accepted since the Incident began.
pub(super) fn exceptions(observed: &Observation, id: ServiceId) -> impl Iterator<Item = &String> {
    observed.services[id].accepted.iter().flat_map(|accepted| match accepted {
        AcceptedState::Record { record, .. } => record.exceptions.as_slice(),
        AcceptedState::Missing | AcceptedState::Outdated { .. } | AcceptedState::Unreadable { .. } => &[],
    })
}

/// Returns whether the plan may record requirements. A plan with problems may not, nor one whose namespace another claims.
fn may_record(plan: &Plan, observed: &Observation, id: ServiceId) -> bool {
    let of = &observed.services[id];
    let begins = of.status.stage == Stage::Isolated;
    let is_its_own = of.quarantines.iter().all(|q| match &q.found {
        None => !begins,
        Some(found) => !begins || !matches!(found.claim, ClaimState::Other { .. }),
    });
    is_armed(plan, observed) && plan.services[id].problems.is_empty() && is_its_own
}

/// Returns the records to write once a person has accepted the loosenings.
pub(super) fn accepted_by(
    mut records: Vec<RequirementsWrite>,
    by: &str,
    exception: &str,
) -> Vec<RequirementsWrite> {
    for new in &mut records {
        new.record.by = by.to_owned();
        if !new.record.exceptions.iter().any(|known| known == exception) {
            new.record.exceptions.insert(0, exception.to_owned());
        }
        new.record.exceptions.truncate(EXCEPTIONS_LIMIT);
    }
    records
}
