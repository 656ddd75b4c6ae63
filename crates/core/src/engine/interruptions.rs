//! Events that take a service out of its stage: a hold on a namespace, a lost claim, or a namespace that is open without a recovery.

use crate::api::{Isolation, Reason, Stage};

use super::context::ServiceContext;
use super::next::Next;
use super::slots::held;
use super::{ClaimState, QuarantineObservation, QuarantineState};

impl ServiceContext<'_> {
    /// Handles a hold on one of the service's namespaces, current or past. The transition under way was reverted, and the attempt starts
    /// over.
    pub(super) fn is_held(&self, next: &mut Next) -> bool {
        let recovered = self.of.status.stage == Stage::Recovered;
        if let Some((namespace, level)) = held(self.of) {
            let message = format!(
                "namespace {namespace} is held at {}: who may release quarantines/{namespace} ends that by taking spec.hold away",
                level.as_str()
            );
            self.need(next, Reason::Held, namespace, &message, None);
            if !recovered {
                next.ask.clear();
            }
            return true;
        }
        let was = |q: &&QuarantineObservation| q.found.as_ref().is_some_and(|found| found.overruled);
        if recovered || self.of.status.stage == Stage::Isolated {
            return false;
        }
        let Some(was) = self.of.quarantines.iter().find(was) else { return false };
        let namespace = &was.namespace;
        let message = format!(
            "namespace {namespace} was held while this attempt was under way: retry brings it back through its gates"
        );
        self.need(next, Reason::IsolatedAgain, namespace, &message, None);
        next.ask.clear();
        true
    }

    /// Handles a namespace that is not claimed by this attempt: its Quarantine was recreated, or the plan names other namespaces than
    /// when the attempt began. Nothing has been proved about such a namespace.
    pub(super) fn has_lost_claim(&self, next: &mut Next) -> bool {
        if matches!(self.of.status.stage, Stage::Isolated | Stage::Recovered) {
            return false;
        }
        let mine = ClaimState::Mine { attempt: self.of.status.attempt };
        let is_lost = |found: &QuarantineState| found.claim != mine;
        let Some(lost) = self.of.quarantines.iter().find(|q| q.found.as_ref().is_some_and(is_lost)) else {
            return false;
        };
        let namespace = &lost.namespace;
        let message =
            format!("namespace {namespace} is no longer claimed for this attempt: a retry claims it again");
        self.need(next, Reason::ClaimLost, namespace, &message, None);
        next.ask.clear();
        true
    }

    /// Handles a namespace that is open although this plan did not open it: another plan of a different name recovered it, or the
    /// ServiceRecovery was deleted. What runs is not stopped.
    pub(super) fn is_open_already(&self, next: &mut Next) -> bool {
        let decided =
            self.of.status.history.first().is_some_and(|past| past.reason != Reason::PlanReplaced.as_str());
        let is_open = |found: &QuarantineState| found.isolation == Some(Isolation::Open);
        let open = self.of.quarantines.iter().find(|q| q.found.as_ref().is_some_and(is_open));
        let Some(open) = open.filter(|_| !decided) else { return false };
        let namespace = &open.namespace;
        let message = format!(
            "namespace {namespace} is open already: retry seals it and brings it back through its gates"
        );
        self.need(next, Reason::AlreadyOpen, namespace, &message, None);
        true
    }
}
