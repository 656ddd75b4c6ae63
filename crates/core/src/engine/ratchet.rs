//! The ratchet: nothing of a service is loosened unless what its plan requires now was accepted, for every namespace of it.
//!
//! The first requirements of an armed plan are accepted as they are, as early as they are seen; whatever only tightens is accepted
//! at once; anything else waits for a Decision `AcceptLoosening`.

use std::sync::Arc;

use super::slots::is_armed;
use super::{AcceptedRecord, AcceptedState, Accepting, ClaimState, Observation};
use crate::api::Stage;
use crate::plan::ratchet::{Requirements, Scope, loosenings};
use crate::plan::{Plan, ServiceId};

/// As many accepted loosenings as a record holds.
const EXCEPTIONS_LIMIT: usize = 16;

/// Where the requirements of a service stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ratchet {
    /// They are on record as they are now.
    Accepted,
    /// Nothing was accepted before, or they only tighten: these are to be recorded first.
    Records(Vec<Accepting>),
    /// Something would be lost. Each in words, with the records that would be written were it accepted.
    Loosened {
        /// What, and for which namespace.
        lost: Vec<String>,
        /// What was accepted before, for the digest of what is decided on.
        before: Vec<String>,
        /// What is recorded once a person accepts it.
        records: Vec<Accepting>,
    },
    /// Not to be recorded now: its plan or service is not sound, or a namespace is somebody else's.
    Waits,
}

/// What is known of one scope of a service.
fn scopes<'a>(
    plan: &Plan,
    seen: &'a Observation,
    id: ServiceId,
) -> impl Iterator<Item = (Scope, &'a AcceptedState)> {
    const MISSING: AcceptedState = AcceptedState::Missing;
    let accepted = seen.services[id].accepted.iter().chain(std::iter::repeat(&MISSING));
    plan.scopes(id).into_iter().zip(accepted)
}

/// Compares what is required now with what was accepted, scope by scope.
pub(super) fn judge(plan: &Plan, seen: &Observation, id: ServiceId) -> Ratchet {
    let now = &plan.services[id].requirements;
    if is_accepted(plan, seen, id) {
        return Ratchet::Accepted;
    }
    if !may_record(plan, seen, id) {
        return Ratchet::Waits;
    }
    let by = format!("plan {}/{}, service {}", plan.namespace, plan.name, plan.services[id].name);
    let accepting =
        |scope: &Scope, over: Option<&String>, requirements: Arc<Requirements>, exceptions: &[String]| {
            let record = AcceptedRecord { requirements, by: by.clone(), exceptions: exceptions.to_vec() };
            Accepting { scope: scope.clone(), over: over.cloned(), record }
        };
    let (mut tighter, mut all, mut lost, mut before) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (scope, accepted) in scopes(plan, seen, id) {
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
    // First what nobody has to accept: from then on it can be asked about as a whole.
    let missing = |new: &&Accepting| !all.iter().any(|other| other.scope == new.scope);
    let first: Vec<Accepting> = tighter.iter().filter(missing).cloned().collect();
    match (first.is_empty(), lost.is_empty()) {
        (false, _) => Ratchet::Records(first),
        (true, true) => Ratchet::Records(tighter),
        (true, false) => Ratchet::Loosened { lost, before, records: all },
    }
}

/// Is what is required now on record for all of it?
pub(super) fn is_accepted(plan: &Plan, seen: &Observation, id: ServiceId) -> bool {
    let now = &plan.services[id].requirements;
    scopes(plan, seen, id).all(|(_, accepted)| {
        matches!(accepted, AcceptedState::Record { record, .. } if record.requirements == *now)
    })
}

/// Would something be lost that was accepted?
pub(super) fn is_loosened(plan: &Plan, seen: &Observation, id: ServiceId) -> bool {
    let now = &plan.services[id].requirements;
    scopes(plan, seen, id).any(|(_, accepted)| match accepted {
        AcceptedState::Missing | AcceptedState::Outdated { .. } => false,
        AcceptedState::Record { record, .. } => {
            record.requirements != *now && !loosenings(&record.requirements, now).is_empty()
        }
        AcceptedState::Unreadable { .. } => true,
    })
}

/// The loosenings of it that people have accepted since its Incident began.
pub(super) fn exceptions(seen: &Observation, id: ServiceId) -> impl Iterator<Item = &String> {
    seen.services[id].accepted.iter().flat_map(|accepted| match accepted {
        AcceptedState::Record { record, .. } => record.exceptions.as_slice(),
        AcceptedState::Missing | AcceptedState::Outdated { .. } | AcceptedState::Unreadable { .. } => &[],
    })
}

/// Is this what a plan may be held to? What is not sound never begins, and what is another's is not for it to say.
fn may_record(plan: &Plan, seen: &Observation, id: ServiceId) -> bool {
    let of = &seen.services[id];
    let begins = of.status.stage == Stage::Isolated;
    let is_its_own = of.quarantines.iter().all(|q| match &q.found {
        None => !begins,
        Some(found) => !begins || !matches!(found.claim, ClaimState::Other { .. }),
    });
    is_armed(plan, seen) && plan.services[id].problems.is_empty() && is_its_own
}

/// The records, as they are written once a person has accepted what they no longer require.
pub(super) fn accepted_by(mut records: Vec<Accepting>, by: &str, exception: &str) -> Vec<Accepting> {
    for new in &mut records {
        new.record.by = by.to_owned();
        if !new.record.exceptions.iter().any(|known| known == exception) {
            new.record.exceptions.insert(0, exception.to_owned());
        }
        new.record.exceptions.truncate(EXCEPTIONS_LIMIT);
    }
    records
}
