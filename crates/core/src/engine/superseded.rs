//! An Incident that began earlier than was known: what was proved for a later `compromisedSince` is superseded, and a person is asked.

use crate::api::{Reason, Stage};

use super::context::{ServiceContext, digest};
use super::next::{Next, time};
use super::{Observation, ServiceObservation};

/// Returns whether a service was proved for a later `compromisedSince` than the Incident has now.
pub(super) fn is_superseded(observed: &Observation, of: &ServiceObservation) -> bool {
    let proved_for = of.status.compromised_since.as_ref().map(|since| since.0);
    of.status.stage > Stage::PreChecks
        && matches!((observed.compromised_since, proved_for), (Some(now), Some(then)) if now < then)
}

impl ServiceContext<'_> {
    /// Records for which `compromisedSince` the gates are evaluated, and asks once it is superseded. A recovered service stays open, and is
    /// still monitored; its dependents wait.
    pub(super) fn is_superseded(&self, next: &mut Next) -> bool {
        let of = self.of;
        let current = self.observed.compromised_since;
        if of.status.stage <= Stage::PreChecks || of.status.compromised_since.is_none() {
            // Verdicts are bound to it: a gate is evaluated anew when it moves.
            if of.status.stage > Stage::Isolated && current.is_some() {
                next.status.compromised_since = current.map(time);
            }
            return false;
        }
        if !is_superseded(self.observed, of) {
            return false;
        }
        let (Some(current), Some(then)) = (current, of.status.compromised_since.as_ref()) else {
            return false;
        };
        if of.status.stage == Stage::Recovered {
            self.recovered(next);
        } else {
            next.ask.clear();
        }
        let message = format!(
            "compromisedSince is now {current}, and what was proved of it was proved for {}: Retry proves it again, through isolation; \
             AcceptException keeps what was proved",
            then.0
        );
        let evidence = digest(&(current.as_second(), then.0.as_second()));
        self.need(next, Reason::Superseded, &self.service().name, &message, Some(&evidence));
        true
    }
}
