//! What became of a Decision: its condition `Applied`.
//!
//! The engine acts on Decisions without it. What took effect is in the record of the ServiceRecovery, written together with the effect;
//! that all else has no effect follows from what is asked now. [`OUTCOMES`] holds every way.

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{APPLIED, MESSAGE_LIMIT, State, find, set, shorten};
use crate::api::service_recovery::{AppliedDecision, DecisionNeeded, StandingOrders};
use crate::api::{Action, DecisionReason, DecisionStatus, Reason};
use crate::plan::checks::nearest;
use crate::plan::{Plan, ServiceId};

use super::approvals::{self, Approvals};
use super::decisions;
use super::phase_gates::approvable;
use super::{DecisionObservation, ServiceObservation, Services};

/// What became of a Decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionVerdict {
    /// Whether it had an effect, and which; or why it has none.
    pub reason: DecisionReason,
    /// The same for people, with what to do next.
    pub message: String,
    /// When it took effect. `None`: it has no effect.
    pub at: Option<Timestamp>,
}

impl DecisionVerdict {
    /// Returns the status of the Decision with this verdict. `None`: it says so already, or that it took effect, which stays.
    #[must_use]
    pub fn status(
        &self,
        before: Option<&DecisionStatus>,
        generation: Option<i64>,
        now: Timestamp,
    ) -> Option<DecisionStatus> {
        let mut conditions = before.map(|before| before.conditions.clone()).unwrap_or_default();
        if find(&conditions, APPLIED).is_some_and(|before| before.status == "True") {
            return None;
        }
        let (reason, at) = (self.reason.as_str(), self.at.unwrap_or(now));
        let state = State::from(self.reason.is_effect());
        set(&mut conditions, APPLIED, state, reason, &self.message, generation, super::next::time(at).0);
        let status = DecisionStatus { observed_generation: generation, conditions };
        (before != Some(&status)).then_some(status)
    }
}

/// A Decision, and what it is about as far as that exists.
struct Case<'a> {
    namespace: &'a str,
    plan_name: &'a str,
    service: &'a str,
    decision: &'a DecisionObservation,
    plan: Option<&'a Plan>,
    services: Option<&'a Services>,
}

/// The service that a Decision is about, once it is taken up.
#[derive(Clone, Copy)]
struct Standing<'a> {
    plan: &'a Plan,
    id: ServiceId,
    of: &'a ServiceObservation,
    question: Option<&'a DecisionNeeded>,
    orders: &'a StandingOrders,
}

/// One outcome of Decisions: its reason, and what it says of a Decision that has it.
struct Outcome {
    reason: DecisionReason,
    says: fn(&Case<'_>) -> Option<String>,
}

/// Every way that a Decision can go. The first that applies counts. None: it has not been considered yet.
const OUTCOMES: [Outcome; 12] = [
    Outcome { reason: DecisionReason::TookEffect, says: |case| case.effect(false) },
    Outcome { reason: DecisionReason::Counted, says: |case| case.effect(true) },
    Outcome { reason: DecisionReason::UnknownPlan, says: unknown_plan },
    Outcome { reason: DecisionReason::UnknownService, says: unknown_service },
    Outcome { reason: DecisionReason::PlanNotActive, says: plan_not_active },
    Outcome { reason: DecisionReason::AnsweredByAnother, says: answered_by_another },
    Outcome { reason: DecisionReason::ActionNotAllowed, says: action_not_allowed },
    Outcome { reason: DecisionReason::NotAsked, says: not_asked },
    Outcome { reason: DecisionReason::StateChanged, says: state_changed },
    Outcome { reason: DecisionReason::RejectedTooOften, says: rejected_too_often },
    Outcome { reason: DecisionReason::CountsForNoParty, says: counts_for_no_party },
    Outcome { reason: DecisionReason::LimitReached, says: limit_reached },
];

fn first(case: &Case<'_>) -> Option<DecisionVerdict> {
    OUTCOMES.iter().find_map(|outcome| {
        let message = shorten(&(outcome.says)(case)?, MESSAGE_LIMIT);
        let at = case.applied().filter(|_| outcome.reason.is_effect()).map(|applied| applied.at.0);
        Some(DecisionVerdict { reason: outcome.reason, message, at })
    })
}

/// Returns what became of a Decision about a service of a plan, by what is observed of the plan's services. `None`: it has not been
/// considered yet.
#[must_use]
pub fn judge_decision(
    plan: &Plan,
    services: &Services,
    service: &str,
    decision: &DecisionObservation,
) -> Option<DecisionVerdict> {
    let (namespace, plan_name) = (plan.namespace.as_str(), plan.name.as_str());
    first(&Case { namespace, plan_name, service, decision, plan: Some(plan), services: Some(services) })
}

/// Returns what became of a Decision about a plan that does not exist.
#[must_use]
pub fn without_plan(
    namespace: &str,
    plan_name: &str,
    service: &str,
    decision: &DecisionObservation,
) -> Option<DecisionVerdict> {
    first(&Case { namespace, plan_name, service, decision, plan: None, services: None })
}

impl<'a> Case<'a> {
    fn id(&self) -> Option<(&'a Plan, ServiceId)> {
        let plan = self.plan?;
        Some((plan, *plan.index.get(self.service)?))
    }

    /// Returns the service as observed, unless it is of another plan of this name.
    fn observed(&self) -> Option<&'a ServiceObservation> {
        let (plan, id) = self.id()?;
        let services = self.services.filter(|services| services.len() == plan.services.len())?;
        Some(&services[id]).filter(|of| of.exists && of.other_plan.is_none())
    }

    /// Returns the record that says that the Decision took effect.
    fn applied(&self) -> Option<&'a AppliedDecision> {
        let record = self.observed()?.status.applied_decisions.as_ref()?;
        record.latest.iter().find(|applied| applied.uid == self.decision.uid)
    }

    /// Returns the service if it follows from its status whether the Decision has an effect: nothing is being written, and a Decision that
    /// took effect is on record.
    fn standing(&self) -> Option<Standing<'a>> {
        let (plan, id) = self.id()?;
        let of = self.observed().filter(|of| !of.busy)?;
        let since = of.status.applied_decisions.as_ref()?.since.0;
        if self.decision.created_at.is_some_and(|at| at < since) {
            return None;
        }
        let (question, orders) = (of.status.decision.as_ref(), of.status.standing_orders.as_ref()?);
        Some(Standing { plan, id, of, question, orders })
    }

    /// Returns the service if the Decision repeats what is asked.
    fn answers(&self) -> Option<Standing<'a>> {
        self.standing().filter(|standing| {
            standing.question.is_some_and(|question| question.digest == self.decision.decided_on)
        })
    }

    /// Returns the service if the Decision repeats nothing that it publishes now.
    fn is_outdated(&self) -> Option<Standing<'a>> {
        let is_other = |standing: &Standing<'_>| standing.orders.digest != self.decision.decided_on;
        self.standing().filter(is_other).filter(|_| self.answers().is_none())
    }

    fn effect(&self, is_counted: bool) -> Option<String> {
        let applied = self.applied()?;
        let action = self.decision.action;
        (matches!(action, Action::Approve | Action::Reject) == is_counted).then(|| {
            format!(
                "service {}, attempt {}, since {}: {}",
                self.service,
                applied.attempt,
                applied.at.0,
                decisions::outcome(action)
            )
        })
    }

    /// Returns the command that shows what is possible.
    fn look(&self) -> String {
        format!("resurgam decide {} -n {} shows what is possible now", self.service, self.namespace)
    }

    /// Returns what is counted where the Decision would be.
    fn approvals(&self) -> Option<Approvals> {
        let Standing { plan, id, of, .. } = self.answers()?;
        let service = &plan.services[id];
        let gates = service.gates.iter().filter_map(approvable);
        let steps = service.steps.iter().filter_map(|step| {
            let manual = step.manual.as_ref()?;
            Some(approvals::of_step(&step.name, manual))
        });
        let judged = gates.chain(steps).map(|asked| approvals::judge(plan, id, of, asked));
        judged.into_iter().find(|approvals| approvals.digest == self.decision.decided_on)
    }
}

fn unknown_plan(case: &Case<'_>) -> Option<String> {
    case.plan.is_none().then(|| {
        let Case { namespace, plan_name, .. } = case;
        format!("there is no RecoveryPlan {plan_name} in namespace {namespace}: kubectl get rplan -n {namespace} lists them")
    })
}

fn unknown_service(case: &Case<'_>) -> Option<String> {
    let plan = case.plan.filter(|_| case.id().is_none())?;
    let hint = nearest(case.service, plan.index.keys()).map_or_else(
        || format!("resurgam status -n {} lists its services", case.namespace),
        |near| format!("did you mean '{near}'?"),
    );
    Some(format!("plan {} has no service {}: {hint}", case.plan_name, case.service))
}

fn plan_not_active(case: &Case<'_>) -> Option<String> {
    let plan = case.plan.filter(|plan| plan.incident.is_none())?;
    Some(format!(
        "plan {} is Dormant: nothing is decided about its services before a recovery lead arms it (spec.incidentRef)",
        plan.name
    ))
}

fn answered_by_another(case: &Case<'_>) -> Option<String> {
    let Standing { of, .. } = case.is_outdated()?;
    let record = of.status.applied_decisions.as_ref()?;
    let is_first = |other: &&DecisionObservation| {
        let is_recorded = || record.latest.iter().any(|applied| applied.uid == other.uid);
        other.decided_on == case.decision.decided_on && (other.is_applied || is_recorded())
    };
    let first = of.decisions.iter().find(is_first)?;
    Some(format!(
        "Decision {} ({} by {}) on the same state took effect first: {}",
        first.name,
        first.action.as_str(),
        first.by,
        case.look()
    ))
}

fn action_not_allowed(case: &Case<'_>) -> Option<String> {
    let standing = case.standing()?;
    let action = case.decision.action;
    let (name, look) = (action.as_str(), case.look());
    if let Some(question) = case.answers().and_then(|standing| standing.question) {
        if action.is_standing_order() {
            return Some(format!(
                "{name} answers no question: decidedOn repeats status.standingOrders.digest, and not status.decision.digest: {look}"
            ));
        }
        return (!question.actions.contains(&action)).then(|| {
            let actions: Vec<&str> = question.actions.iter().map(|action| action.as_str()).collect();
            let answers = if actions.is_empty() {
                "no Decision does".to_owned()
            } else {
                format!("that takes {}", actions.join(" or "))
            };
            format!("{name} does not answer {}: {answers}: {look}", question.reason)
        });
    }
    let is_order = standing.orders.digest == case.decision.decided_on;
    (is_order && !action.is_standing_order()).then(|| {
        format!(
            "{name} answers a question: decidedOn repeats status.decision.digest, and not status.standingOrders.digest: {look}"
        )
    })
}

fn not_asked(case: &Case<'_>) -> Option<String> {
    let standing = case.is_outdated()?;
    let action = case.decision.action;
    (standing.question.is_none() && !action.is_standing_order()).then(|| {
        format!(
            "nothing is asked about service {}: there is nothing to {}: {}",
            case.service,
            action.verb(),
            case.look()
        )
    })
}

fn state_changed(case: &Case<'_>) -> Option<String> {
    let standing = case.is_outdated()?;
    let now = match standing.question.filter(|_| !case.decision.action.is_standing_order()) {
        Some(question) => format!("{} is asked now, as {}", question.reason, question.digest),
        None => format!("the standing orders are at {}", standing.orders.digest),
    };
    Some(format!("what it was decided on is no more: {now}: {}", case.look()))
}

fn rejected_too_often(case: &Case<'_>) -> Option<String> {
    let approvals = case.approvals()?;
    let counts = matches!(case.decision.action, Action::Approve | Action::Reject);
    (counts && approvals.is_beyond).then(|| {
        format!(
            "approvals of this attempt were rejected too often to be followed: Retry begins the next one: {}",
            case.look()
        )
    })
}

fn counts_for_no_party(case: &Case<'_>) -> Option<String> {
    if case.decision.action != Action::Approve {
        return None;
    }
    let approvals = case.approvals()?;
    let of = case.observed()?;
    let is_it = |index: &usize| of.decisions.get(*index).is_some_and(|other| other.uid == case.decision.uid);
    (!approvals.counted.iter().any(is_it)).then(|| {
        let group = case
            .decision
            .group
            .as_deref()
            .map_or_else(|| "no group".to_owned(), |group| format!("group {group}"));
        format!(
            "{} approves for {group}, which counts for no party or counts already: still needed: {}: {}",
            case.decision.by,
            approvals.missing.join(", "),
            case.look()
        )
    })
}

fn limit_reached(case: &Case<'_>) -> Option<String> {
    let Standing { of, question, .. } = case.answers()?;
    let question = question.filter(|question| question.reason != Reason::Superseded)?;
    if case.decision.action != Action::AcceptException {
        return None;
    }
    let gate = &of.status.blocked_by.iter().find(|block| block.reason == question.reason)?.name;
    (!decisions::has_room(&of.status, gate)).then(|| {
        format!(
            "service {} has as many accepted failures as its status holds: Retry begins anew",
            case.service
        )
    })
}
