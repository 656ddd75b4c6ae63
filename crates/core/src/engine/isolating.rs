//! Isolating a service again: on a Decision `Abort`, or by `onRegression: Contain`. It comes before everything else, and waits for no slot,
//! dependency, or other decision.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::shorten;
use crate::api::recovery_plan::OnRegression;
use crate::api::service_recovery::Isolating;
use crate::api::{Isolation, Reason};
use crate::plan::Gate;

use super::attempts::next_attempt;
use super::context::ServiceContext;
use super::next::{Next, missing_quarantine, time};
use super::stages::loosest;
use super::{Asked, ClaimState, Effect, GateState, QuarantineState};

/// A service is isolated by itself at most once in this time.
const CONTAIN_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// Returns whether a level lets anything in or out.
fn is_open(found: &QuarantineState) -> bool {
    found.isolation.is_some_and(|level| level >= Isolation::CleanRoom)
}

impl ServiceContext<'_> {
    /// Isolates the service, and ends its attempt once every namespace is isolated, and none is about to be let in.
    pub(super) fn isolate_again(&self, isolating: &Isolating) -> Next {
        let mut next = Next::unchanged(self.of);
        next.ask.clear();
        next.blocks.clear();
        next.status.isolation = loosest(self.of);
        next.status.decision = None;
        let (mut waits, mut claimed) = (false, None);
        for q in &self.of.quarantines {
            // Nothing isolates that namespace now, and this attempt can change nothing about it.
            let Some(found) = &q.found else {
                next.block(Reason::QuarantineMissing, &q.namespace, missing_quarantine(&q.namespace));
                continue;
            };
            // A claim of an earlier attempt isolates as well.
            let claim = match found.claim {
                ClaimState::Mine { attempt } => Some(attempt),
                ClaimState::Free | ClaimState::Other { .. } => None,
            };
            // What is asked for and not enforced yet would come later.
            let is_to_open = self
                .of
                .asked
                .is_some_and(|of| Some(of.attempt) == claim && of.isolation >= Isolation::CleanRoom);
            if !is_open(found) && !is_to_open {
                continue;
            }
            waits = true;
            let namespace = &q.namespace;
            if claim.is_some() {
                claimed = claimed.or(claim);
                let level = isolating.level.as_str();
                let message = format!("{namespace} is on its way to {level}: {}", found.message);
                next.block(Reason::Isolation, namespace, message);
            } else {
                // It stays open until somebody isolates it, which is said for as long.
                let message = format!(
                    "namespace {namespace} is open, and not claimed by this service: isolate it by spec.hold of its Quarantine, with \
                     resurgam quarantine {namespace}"
                );
                next.block(Reason::ClaimLost, namespace, message);
            }
        }
        if !waits {
            return Next::begun(self.isolated_again(isolating));
        }
        if let Some(attempt) = claimed
            && self.of.asked != Some(Asked { isolation: isolating.level, attempt })
        {
            let (isolation, dependencies) = (isolating.level, self.plan.dependency_keys(self.id));
            self.effect(&mut next, Effect::Ask { isolation, attempt, reachable: Vec::new(), dependencies });
        }
        self.follow_deadline(&mut next);
        next
    }

    fn isolated_again(&self, isolating: &Isolating) -> crate::api::ServiceRecoveryStatus {
        let mut next = next_attempt(&self.of.status, self.observed.now, isolating.reason, &isolating.message);
        next.isolation = loosest(self.of);
        next
    }

    /// Starts to isolate a service whose continuous gate fails, if the plan says so. Not if the gate has never passed as it asks now, or the
    /// service is what it was when it passed, as that is no change of the service; and not again within an hour, as that would not be a
    /// remedy.
    pub(super) fn contains(&self, next: &mut Next, gate: &Gate, state: &GateState) -> bool {
        let now = self.observed.now;
        if self.service().on_regression != OnRegression::Contain
            || !state.has_passed
            || state.is_judged_anew
            || self.service().namespaces.is_empty()
            || self.of.status.contained_at.as_ref().is_some_and(|at| next_containment(at.0) > now)
        {
            return false;
        }
        let message = format!("continuous gate '{}' fails: {}", gate.spec.name, state.message);
        next.status.isolating = Some(Isolating {
            level: Isolation::Contained,
            reason: Reason::Contained,
            message: shorten(&message, 600),
            since: time(now),
        });
        next.status.contained_at = Some(time(now));
        next.ask.clear();
        true
    }
}

/// Returns when a service may be isolated by itself again.
fn next_containment(last: Timestamp) -> Timestamp {
    last.checked_add(CONTAIN_EVERY).unwrap_or(Timestamp::MAX)
}
