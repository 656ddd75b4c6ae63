//! One service of a plan, while it is being decided about: what every stage, step and question shares.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::api::service_recovery::DecisionNeeded;
use crate::api::{Isolation, Reason};
use crate::plan::{Plan, Service, ServiceId};

use super::next::{Next, time};
use super::slots::{UnitView, holds};
use super::{Effect, Observation, ServiceObservation, decisions};

/// As many exceptions as a status holds.
const EXCEPTIONS_LIMIT: usize = 16;

/// One service in its plan.
pub(super) struct ServiceContext<'a> {
    pub plan: &'a Plan,
    pub seen: &'a Observation,
    pub unit: &'a UnitView,
    pub id: ServiceId,
    pub of: &'a ServiceObservation,
}

impl ServiceContext<'_> {
    pub(super) fn service(&self) -> &Service {
        &self.plan.services[self.id]
    }

    /// The members of its unit, itself included.
    pub(super) fn members(&self) -> impl Iterator<Item = (ServiceId, &ServiceObservation)> {
        self.plan.units[self.service().unit].members.iter().map(|&m| (m, &self.seen.services[m]))
    }

    /// Returns whether the Quarantine of every namespace has reached this level, with all that belongs to it.
    pub(super) fn enforced(&self, level: Isolation) -> bool {
        enforced(self.of, level)
    }

    /// The isolation that was asked for in this attempt.
    pub(super) fn asked(&self) -> Option<Isolation> {
        self.of.asked.filter(|asked| asked.attempt == self.of.status.attempt).map(|asked| asked.isolation)
    }

    /// Asks a person: publishes a question, with the actions that answer it and the digest that a Decision names. The first reason stands.
    pub(super) fn need(
        &self,
        next: &mut Next,
        reason: Reason,
        culprit: &str,
        message: &str,
        evidence: Option<&str>,
    ) {
        next.block(reason, culprit, message);
        if next.status.decision.is_some() {
            return;
        }
        let what = (
            &self.plan.uid,
            &self.service().name,
            self.of.status.attempt,
            self.of.status.stage,
            reason,
            culprit,
            evidence,
        );
        let digest = digest(&what);
        let since = match &self.of.status.decision {
            Some(before) if before.digest == digest => before.since.clone(),
            _ => time(self.seen.now),
        };
        next.status.decision =
            Some(DecisionNeeded { reason, digest, actions: decisions::offered(reason), since });
        next.effect = None;
    }

    /// Begins an effect, unless it was refused a moment ago: then says so, and waits.
    pub(super) fn effect(&self, next: &mut Next, effect: Effect) {
        if let Some(refused) = &self.of.refused {
            next.block(refused.reason, &self.service().name, refused.message.clone());
            next.wake.push(refused.again_at);
            if refused.again_at > self.seen.now {
                return;
            }
        }
        next.effect = Some(effect);
    }
}

/// Returns whether the Quarantine of every namespace of a service has reached this level, with all that belongs to it.
pub(super) fn enforced(of: &ServiceObservation, level: Isolation) -> bool {
    of.quarantines.iter().all(|q| {
        q.found.as_ref().is_some_and(|found| holds(of, &q.namespace, found) && found.isolation == Some(level))
    })
}

/// Records an exception, once.
pub(super) fn except(next: &mut Next, exception: &str) {
    if !next.status.exceptions.iter().any(|known| known == exception) {
        next.status.exceptions.push(exception.to_owned());
        next.status.exceptions.truncate(EXCEPTIONS_LIMIT);
    }
}

/// Digest of what is decided on. Strings and numbers always serialise; were it ever otherwise, nobody could decide on an empty one
/// by chance.
pub(super) fn digest(what: &impl Serialize) -> String {
    let digest = Sha256::digest(serde_json::to_vec(what).unwrap_or_default());
    format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>())
}
