//! What is asked about a service, what is possible, and what became of the Decision that was made.

use serde::Serialize;

use crate::api::conditions::{APPLIED, NEEDS_DECISION, find};
use crate::api::{Action, Decision, ServiceRecovery, ServiceRecoveryStatus};

/// What is asked about a service, and what came of a Decision about it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub plan: String,
    pub service: String,
    pub stage: &'static str,
    pub attempt: i64,
    /// What is asked now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<Question>,
    /// Digest that a `Hold` or an `Abort` repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing_orders_digest: Option<String>,
    /// Why nothing is asked, although it will be in a moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soon: Option<String>,
    /// Decisions that the operator has not considered yet: what is asked may change by them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub being_considered: Vec<Considered>,
    /// What answers it, and what is possible at any time.
    pub actions: Vec<Possible>,
    /// Why it is not known what the caller may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights_unknown: Option<String>,
    /// Name of the Decision that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// What became of it. Absent: it has not been considered yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What is asked.
#[derive(Debug, Serialize)]
pub(super) struct Question {
    pub reason: &'static str,
    pub message: String,
    /// What a Decision repeats.
    pub digest: String,
}

/// A Decision that the operator has not considered yet.
#[derive(Debug, Serialize)]
pub(super) struct Considered {
    pub decision: String,
    pub action: &'static str,
    pub by: String,
}

/// An action that is possible now.
#[derive(Debug, Serialize)]
pub(super) struct Possible {
    pub action: &'static str,
    pub verb: &'static str,
    /// Whether the caller may. `None`: not known.
    pub allowed: Option<bool>,
}

/// What became of a Decision: its condition `Applied`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    pub took_effect: bool,
    pub reason: String,
    pub message: String,
}

impl Outcome {
    /// Returns what a Decision's own status says became of it.
    pub(super) fn of(decision: &Decision) -> Option<Self> {
        let applied = find(&decision.status.as_ref()?.conditions, APPLIED)?;
        let (reason, message) = (applied.reason.clone(), applied.message.clone());
        Some(Self { took_effect: applied.status == "True", reason, message })
    }
}

impl Report {
    pub(super) fn new(record: &ServiceRecovery, status: &ServiceRecoveryStatus) -> Self {
        let question = status.decision.as_ref().map(|asked| Question {
            reason: asked.reason.as_str(),
            message: find(&status.conditions, NEEDS_DECISION)
                .map_or_else(String::new, |of| of.message.clone()),
            digest: asked.digest.clone(),
        });
        Self {
            plan: record.spec.plan_ref.name.clone(),
            service: record.spec.service.clone(),
            stage: status.stage.as_str(),
            attempt: status.attempt,
            soon: soon(status).filter(|_| question.is_none()),
            question,
            standing_orders_digest: status.standing_orders.as_ref().map(|orders| orders.digest.clone()),
            being_considered: Vec::new(),
            actions: Vec::new(),
            rights_unknown: None,
            decision: None,
            outcome: None,
        }
    }

    /// Returns the report for people.
    pub(super) fn shown(&self) -> String {
        let Self { plan, service, stage, attempt, .. } = self;
        let mut text = format!("{service} (plan {plan}): {stage}, attempt {attempt}\n  {}\n", self.asked());
        for Considered { decision, action, by } in &self.being_considered {
            text += &format!(
                "  Being considered: Decision {decision} ({action} by {by}): what is asked may change\n"
            );
        }
        let actions: Vec<String> = self.actions.iter().map(Possible::shown).collect();
        text += &format!("  Possible now: {}\n", actions.join(", "));
        if self.actions.iter().any(|possible| possible.allowed == Some(false)) {
            text += &format!(
                "  Not yours: it takes a grant of its verb of its own on recoveryplans/{plan} (a wildcard is none). Ask a recovery lead\n"
            );
        }
        if let Some(error) = &self.rights_unknown {
            text += &format!("  Whether you may is not known: {error}\n");
        }
        text
    }

    /// Returns what is asked, in one line.
    pub(super) fn asked(&self) -> String {
        match (&self.question, &self.soon) {
            (Some(Question { reason, message, .. }), _) => format!("{reason}: {message}"),
            (None, Some(soon)) => format!("nothing is asked yet: {soon}"),
            (None, None) if self.being_considered.is_empty() => "nothing is asked".to_owned(),
            (None, None) => "nothing is asked yet".to_owned(),
        }
    }

    /// Returns the digest that the Decision repeats.
    pub(super) fn decided_on(
        &self,
        action: Action,
        status: &ServiceRecoveryStatus,
    ) -> Result<String, String> {
        if action.is_standing_order() {
            return self.standing_orders_digest.clone().ok_or_else(|| {
                "the operator has not taken the service up yet, so that nothing can be ordered: hold its namespaces by their Quarantines"
                    .to_owned()
            });
        }
        let Some(question) = &status.decision else {
            let considered = self.being_considered.first().map(|of| {
                format!("Decision {} ({} by {}) is being considered", of.decision, of.action, of.by)
            });
            return Err(match self.soon.clone().or(considered) {
                Some(why) => format!("nothing is asked about it yet: {why}: try again in a moment"),
                None => format!("nothing is asked about it, so that there is nothing to {}", action.verb()),
            });
        };
        if question.actions.contains(&action) {
            return Ok(question.digest.clone());
        }
        let possible: Vec<&str> = question.actions.iter().map(|action| action.as_str()).collect();
        let possible = if possible.is_empty() {
            "no Decision does".to_owned()
        } else {
            format!("possible are {}", possible.join(", "))
        };
        Err(format!("{} does not answer {}: {possible}", action.as_str(), question.reason))
    }
}

/// Returns why something will be asked, although nothing is yet: an order has just taken effect.
fn soon(status: &ServiceRecoveryStatus) -> Option<String> {
    if let Some(isolating) = &status.isolating {
        return Some(format!("it is being isolated again: {}", isolating.message));
    }
    let hold = status.standing_orders.as_ref()?.hold.as_ref()?;
    Some(format!("on hold by {} (Decision {})", hold.by, hold.decision))
}

impl Possible {
    fn shown(&self) -> String {
        match self.allowed {
            Some(false) => format!("{} (not yours)", self.action),
            Some(true) | None => self.action.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;
    use crate::api::conditions::{State, set};
    use crate::api::service_recovery::{DecisionNeeded, HoldStatus, StandingOrders};
    use crate::api::{ServiceRecoverySpec, service_recovery_name};

    fn at(time: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
        k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time.parse().unwrap())
    }

    fn asked() -> ServiceRecoveryStatus {
        let digest = "sha256:question".to_owned();
        let actions = vec![Action::Retry, Action::AcceptException];
        let since = at("2025-11-24T08:00:00Z");
        let mut conditions = Vec::new();
        let message = "images: one is not approved";
        set(&mut conditions, NEEDS_DECISION, State::True, "GateFailed", message, Some(1), since.0);
        ServiceRecoveryStatus {
            conditions,
            decision: Some(DecisionNeeded { reason: Reason::GateFailed, digest, actions, since }),
            standing_orders: Some(StandingOrders {
                digest: "sha256:orders".to_owned(),
                number: 0,
                hold: None,
            }),
            ..ServiceRecoveryStatus::default()
        }
    }

    fn report(status: &ServiceRecoveryStatus) -> Report {
        let spec = serde_json::json!({"planRef": {"name": "p", "uid": "u"}, "service": "db", "namespaces": ["db"], "attempt": 1});
        let spec: ServiceRecoverySpec = serde_json::from_value(spec).unwrap();
        Report::new(&ServiceRecovery::new(&service_recovery_name("p", "db"), spec), status)
    }

    fn digest(action: Action, status: &ServiceRecoveryStatus) -> Result<String, String> {
        report(status).decided_on(action, status)
    }

    #[test]
    fn decision_repeats_the_digest_of_what_it_is_about() {
        assert_eq!(digest(Action::Retry, &asked()).unwrap(), "sha256:question");
        assert_eq!(digest(Action::Abort, &asked()).unwrap(), "sha256:orders");
        let error = digest(Action::Skip, &asked()).unwrap_err();
        assert_eq!(error, "Skip does not answer GateFailed: possible are Retry, AcceptException");
        let error = digest(Action::Retry, &ServiceRecoveryStatus::default()).unwrap_err();
        assert_eq!(error, "nothing is asked about it, so that there is nothing to retry");
    }

    #[test]
    fn nothing_is_asked_yet_while_a_decision_is_considered() {
        let mut status = asked();
        status.decision = None;
        let mut report = report(&status);
        assert_eq!(report.asked(), "nothing is asked");
        report.being_considered =
            vec![Considered { decision: "db-retry-1".to_owned(), action: "Retry", by: "ana".to_owned() }];
        assert_eq!(report.asked(), "nothing is asked yet");
        let error = report.decided_on(Action::Skip, &status).unwrap_err();
        assert_eq!(
            error,
            "nothing is asked about it yet: Decision db-retry-1 (Retry by ana) is being considered: try again in a moment"
        );
        let hold = HoldStatus {
            by: "ana".to_owned(),
            decision: "db-hold-1".to_owned(),
            reason: "the bank asks".to_owned(),
            since: at("2025-11-24T08:00:00Z"),
        };
        status.standing_orders.as_mut().unwrap().hold = Some(hold);
        let error = digest(Action::Unhold, &status).unwrap_err();
        assert!(error.contains("on hold by ana (Decision db-hold-1): try again in a moment"), "{error}");
    }

    #[test]
    fn what_is_possible_is_marked_for_who_asks() {
        let mut report = report(&asked());
        let possible =
            |action: Action, allowed| Possible { action: action.as_str(), verb: action.verb(), allowed };
        report.actions = vec![possible(Action::Retry, Some(false)), possible(Action::Hold, Some(true))];
        report.being_considered =
            vec![Considered { decision: "db-hold-1".to_owned(), action: "Hold", by: "ana".to_owned() }];
        insta::assert_snapshot!(report.shown(), @r"
        db (plan p): Isolated, attempt 1
          GateFailed: images: one is not approved
          Being considered: Decision db-hold-1 (Hold by ana): what is asked may change
          Possible now: Retry (not yours), Hold
          Not yours: it takes a grant of its verb of its own on recoveryplans/p (a wildcard is none). Ask a recovery lead
        ");
        report.being_considered.clear();
        report.actions = vec![possible(Action::Retry, None)];
        report.rights_unknown = Some("ask whether you may retry recoveryplans/p: no answer".to_owned());
        insta::assert_snapshot!(report.shown(), @r"
        db (plan p): Isolated, attempt 1
          GateFailed: images: one is not approved
          Possible now: Retry
          Whether you may is not known: ask whether you may retry recoveryplans/p: no answer
        ");
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
        {
          "plan": "p",
          "service": "db",
          "stage": "Isolated",
          "attempt": 1,
          "question": {
            "reason": "GateFailed",
            "message": "images: one is not approved",
            "digest": "sha256:question"
          },
          "standingOrdersDigest": "sha256:orders",
          "actions": [
            {
              "action": "Retry",
              "verb": "retry",
              "allowed": null
            }
          ],
          "rightsUnknown": "ask whether you may retry recoveryplans/p: no answer"
        }
        "#);
    }
}
