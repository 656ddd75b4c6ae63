//! `Hold`, `Unhold` and `Abort`. `Hold` and `Abort` answer no question: they are possible at any time, and name the digest of the standing
//! orders, which changes with each that takes effect.

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::shorten;
use crate::api::service_recovery::{HoldStatus, Isolating, StandingOrders};
use crate::api::{Action, Isolation, Reason, Stage};
use crate::plan::{Plan, ServiceId};

use super::super::ServiceObservation;
use super::super::context::{ServiceContext, digest};
use super::super::next::{Next, time};
use super::{DecisionObservation, Row, Takes};

pub(super) const HOLD: Row = Row {
    action: Action::Hold,
    answers: |_| false,
    outcome: "on hold until an Unhold",
    takes: Takes::AtAnyTime(|_, _, _| {}),
};

pub(super) const ABORT: Row = Row {
    action: Action::Abort,
    answers: |_| false,
    outcome: "isolated again, and on hold until an Unhold",
    takes: Takes::AtAnyTime(abort),
};

pub(super) const UNHOLD: Row = Row {
    action: Action::Unhold,
    answers: |reason| reason == Reason::OnHold,
    outcome: "the hold has ended",
    takes: Takes::OnTheQuestion(unhold),
};

/// Requests isolation. The attempt ends once it is in place.
fn abort(next: &mut Next, decision: &DecisionObservation, now: Timestamp) {
    next.status.decision = None;
    next.blocks.clear();
    next.ask.clear();
    next.status.isolating = Some(Isolating {
        level: Isolation::Sealed,
        reason: Reason::Aborted,
        message: shorten(
            &format!("aborted by {} (Decision {}): {}", decision.by, decision.name, decision.reason),
            600,
        ),
        since: time(now),
    });
}

fn unhold(_: &ServiceContext<'_>, next: &mut Next, _: &DecisionObservation) {
    next.status.decision = None;
    next.blocks.retain(|block| block.reason != Reason::OnHold);
    if let Some(orders) = &mut next.status.standing_orders {
        orders.hold = None;
    }
}

/// Returns the digest that the next `Hold` or `Abort` repeats.
fn current(plan: &Plan, id: ServiceId, number: i64) -> String {
    digest(&(&plan.uid, &plan.services[id].name, "standing orders", number))
}

/// Publishes what the next standing order refers to.
pub(in super::super) fn publish(plan: &Plan, id: ServiceId, next: &mut Next) {
    let before = next.status.standing_orders.take().unwrap_or_default();
    let digest = current(plan, id, before.number);
    next.status.standing_orders = Some(StandingOrders { digest, ..before });
}

/// Takes a standing order, before anything else is decided. Both keep the service from going on.
pub(in super::super) fn take(
    plan: &Plan,
    id: ServiceId,
    of: &ServiceObservation,
    now: Timestamp,
) -> Option<Next> {
    let orders = of.status.standing_orders.as_ref()?;
    let digest = current(plan, id, orders.number);
    // An Abort isolates, so that it goes first.
    [ABORT, HOLD].iter().find_map(|row| {
        let decision = super::fitting(of, row, &digest)?;
        let mut next = Next::unchanged(of);
        // A recovered service is still monitored: gates that are not asked for a moment would have to settle again.
        if of.status.stage != Stage::Recovered {
            next.ask.clear();
        }
        // A question that is asked stays, with what it is about; all else is said again at the next pass.
        let asked = of.status.decision.as_ref().map(|question| question.reason);
        next.blocks.retain(|block| Some(block.reason) == asked);
        let hold = HoldStatus {
            by: decision.by.clone(),
            decision: decision.name.clone(),
            reason: shorten(&decision.reason, 1024),
            since: time(now),
        };
        next.status.standing_orders =
            Some(StandingOrders { number: orders.number + 1, hold: Some(hold), digest: digest.clone() });
        if let Takes::AtAnyTime(order) = row.takes {
            order(&mut next, decision, now);
        }
        super::applied::record(&mut next, of, decision, now);
        Some(next)
    })
}

impl ServiceContext<'_> {
    /// Handles a hold by a Decision. A recovered service stays recovered, and is still monitored.
    pub(in super::super) fn is_on_hold(&self, next: &mut Next) -> bool {
        let Some(hold) = self.of.status.standing_orders.as_ref().and_then(|orders| orders.hold.as_ref())
        else {
            return false;
        };
        if self.of.status.stage == Stage::Recovered {
            self.recovered(next);
        } else {
            next.ask.clear();
        }
        let message = format!(
            "on hold by {} since {} (Decision {}): {}",
            hold.by, hold.since.0, hold.decision, hold.reason
        );
        self.need(next, Reason::OnHold, &self.service().name, &message, Some(&hold.decision));
        true
    }
}
