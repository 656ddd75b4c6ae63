//! Context of a decision about one service: what every stage, step and question needs.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::api::service_recovery::DecisionNeeded;
use crate::api::{Isolation, Reason};
use crate::plan::{Plan, Service, ServiceId};

use super::next::{Next, time};
use super::slots::{UnitView, holds};
use super::{Effect, Observation, ServiceObservation, decisions};

/// Maximum number of exceptions in a status.
const EXCEPTIONS_LIMIT: usize = 16;

/// A service in its plan, with the observation.
pub(super) struct ServiceContext<'a> {
    pub plan: &'a Plan,
    pub observed: &'a Observation,
    pub unit: &'a UnitView,
    pub id: ServiceId,
    pub of: &'a ServiceObservation,
}

impl ServiceContext<'_> {
    pub(super) fn service(&self) -> &Service {
        &self.plan.services[self.id]
    }

    /// Returns the members of the service's unit, including itself.
    pub(super) fn members(&self) -> impl Iterator<Item = (ServiceId, &ServiceObservation)> {
        self.plan.units[self.service().unit].members.iter().map(|&m| (m, &self.observed.services[m]))
    }

    /// Returns whether the Quarantine of every namespace enforces this level and is ready.
    pub(super) fn enforced(&self, level: Isolation) -> bool {
        enforced(self.of, level)
    }

    /// Returns the isolation requested in this attempt.
    pub(super) fn asked(&self) -> Option<Isolation> {
        self.of.asked.filter(|asked| asked.attempt == self.of.status.attempt).map(|asked| asked.isolation)
    }

    /// Requests a decision: publishes a question with the actions that answer it and the digest that a Decision repeats. The first reason
    /// of an attempt stays.
    pub(super) fn need(
        &self,
        next: &mut Next,
        reason: Reason,
        culprit: &str,
        message: &str,
        evidence: Option<&str>,
    ) {
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
        self.publish(next, reason, culprit, message, digest);
    }

    /// Publishes a question with a digest of its own.
    pub(super) fn publish(
        &self,
        next: &mut Next,
        reason: Reason,
        culprit: &str,
        message: &str,
        digest: String,
    ) {
        next.block(reason, culprit, message);
        if next.status.decision.is_some() {
            return;
        }
        let since = match &self.of.status.decision {
            Some(before) if before.digest == digest => before.since.clone(),
            _ => time(self.observed.now),
        };
        next.status.decision =
            Some(DecisionNeeded { reason, digest, actions: decisions::offered(reason), since });
        next.effect = None;
    }

    /// Begins an effect. If it was denied recently, adds a blocker instead and waits.
    pub(super) fn effect(&self, next: &mut Next, effect: Effect) {
        if let Some(refused) = &self.of.refused {
            next.block(refused.reason, &self.service().name, refused.message.clone());
            next.wake.push(refused.again_at);
            if refused.again_at > self.observed.now {
                return;
            }
        }
        next.effect = Some(effect);
    }
}

/// Returns whether the Quarantine of every namespace of a service enforces this level and is ready.
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

/// Returns the digest of the state to decide on. Strings and numbers always serialise; if they did not, the digest would be empty and no
/// Decision could match it.
pub(super) fn digest(what: &impl Serialize) -> String {
    let digest = Sha256::digest(serde_json::to_vec(what).unwrap_or_default());
    format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>())
}
