//! What takes a service out of its stage: somebody holds a namespace, its claim is gone, or it is open without having been recovered.

use crate::api::{Isolation, Reason, Stage};

use super::context::ServiceContext;
use super::next::Next;
use super::slots::held;
use super::{ClaimState, QuarantineObservation, QuarantineState};

impl ServiceContext<'_> {
    /// Somebody on call holds a namespace of it, or did: what it was on its way to was taken back, and it begins anew.
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

    /// Under way, and a namespace is not claimed for it: its Quarantine was made anew, or the plan names another namespace
    /// than when this attempt began. Nothing was proved of that one.
    pub(super) fn lost_its_claim(&self, next: &mut Next) -> bool {
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
            format!("namespace {namespace} is not claimed for this attempt any more: retry claims it anew");
        self.need(next, Reason::ClaimLost, namespace, &message, None);
        next.ask.clear();
        true
    }

    /// Its namespace is open, and nobody has decided about it in this plan: the plan bears another name than the one that
    /// recovered it, or somebody deleted its ServiceRecovery. What runs is not stopped for that.
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
