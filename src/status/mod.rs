//! View of a recovery for people: `resurgam status`, and the demo's progress. Pure: objects in, text out.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use serde::Serialize;

use crate::api::conditions::{NEEDS_DECISION, ORPHANED, PREPARED, READY, STALLED, find, is_true};
use crate::api::recovery_plan::Blocker;
use crate::api::service_recovery::{Block, ResumeStatus};
use crate::api::{Action, Quarantine, Reason, RecoveryPlan, ServiceRecovery};
use crate::isolation::failure::{Culprit, repeated_culprit};

mod quarantines;
mod render;

#[cfg(test)]
mod tests;

pub use quarantines::{ControlView, QuarantineView, QuarantinesView};
pub use render::{changes, render};

/// One plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Status of its `Ready` condition.
    pub ready: String,
    /// Reason of its `Ready` condition.
    pub reason: String,
    /// Message of its `Ready` condition.
    pub message: String,
    /// Whether everything exists that the plan will need, by its `Prepared` condition.
    pub prepared: Option<PreparedView>,
    /// Number of services.
    pub total: i32,
    /// Number of recovered services.
    pub recovered: i32,
    /// Number of services in progress.
    pub running: i32,
    /// Number of waiting services.
    pub waiting: i32,
    /// Number of services that need a person.
    pub needs_decision: i32,
    /// Whether the plan has to be changed to make progress.
    pub stalled: bool,
    /// When its first service was claimed.
    pub started_at: Option<Timestamp>,
    /// When its last service was recovered.
    pub recovered_at: Option<Timestamp>,
    /// Root blockers.
    pub blocked_by: Vec<Blocker>,
    /// Its services, by tier and name.
    pub services: Vec<ServiceView>,
}

/// A `Prepared` condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreparedView {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Everything that is missing.
    pub message: String,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its tier.
    pub tier: Option<i32>,
    /// Its stage.
    pub stage: String,
    /// Number of the attempt.
    pub attempt: i64,
    /// The loosest isolation enforced.
    pub isolation: Option<String>,
    /// What it waits for.
    pub waiting_for: Option<String>,
    /// Whether it is recovered and its continuous gates pass.
    pub ready: bool,
    /// The plan no longer names it: its recovery stops, and its isolation is kept.
    pub orphaned: bool,
    /// The required Decision, and how to make it.
    pub decision: Option<DecisionView>,
    /// A block that does not clear by itself, and needs no Decision.
    pub held_up: Option<HeldUp>,
    /// Exceptions that were accepted.
    pub exceptions: Vec<String>,
    /// Egress exceptions of its clean room.
    pub holes: Vec<String>,
    /// CronJobs and Jobs that isolating suspended.
    pub resumes: Vec<ResumeStatus>,
}

/// A block that a person has to clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldUp {
    /// Reason of the block.
    pub reason: String,
    /// The culprit: a namespace, a gate, a step, a webhook.
    pub name: String,
    /// The cause, and who can clear it.
    pub message: String,
}

impl HeldUp {
    /// Returns the first block that a person has to clear, by its reason, or by a culprit named in its message.
    fn from_blocks(blocks: &[Block]) -> Option<Self> {
        blocks.iter().find_map(|block| {
            let Block { reason, name, message } = block;
            let culprit = repeated_culprit(message);
            // A Quarantine in progress is not Ready either. A failing one is listed with the Quarantines.
            if culprit.is_none() && (*reason == Reason::QuarantineNotReady || reason.clears_by_itself()) {
                return None;
            }
            // The block of a dependency is reported with that dependency.
            if matches!(reason, Reason::Dependency | Reason::WaitingForGroup) {
                return None;
            }
            let message = culprit.map_or_else(|| message.clone(), |culprit| refused(&culprit, message));
            Some(Self { reason: reason.as_str().to_owned(), name: name.clone(), message })
        })
    }
}

/// Returns the culprit, who can clear it, and the API server's message.
fn refused(culprit: &Culprit, message: &str) -> String {
    let who = match culprit {
        Culprit::Webhook(name) => format!(
            "webhook {name} refuses what is waited for, or does not answer. The webhook's administrator repairs it, or a recovery lead \
             removes it (kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations)"
        ),
        Culprit::Quota(name) => {
            format!("ResourceQuota {name} leaves no room for what is waited for. A recovery lead raises it")
        }
        Culprit::Policy(name) => format!(
            "ValidatingAdmissionPolicy {name} refuses what is waited for. Its author has to add an exemption (kubectl get \
             validatingadmissionpolicy {name})"
        ),
        Culprit::Rights | Culprit::ApiServer => return message.to_owned(),
    };
    format!("{who}: {message}")
}

/// A required Decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionView {
    /// One word.
    pub reason: String,
    /// Complete message.
    pub message: String,
    /// The actions of Decisions that clear it.
    pub actions: Vec<Action>,
    /// What a Decision must repeat in `decidedOn`.
    pub digest: String,
    /// Whether a Decision clears it. Otherwise, only what the message says does.
    pub by_decision: bool,
    /// Since when.
    pub since: Timestamp,
}

/// State of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum OperatorView {
    /// It leads, and renewed its lease in time.
    Leading {
        /// Identity of the leader.
        holder: String,
    },
    /// Its lease has expired or was released.
    #[serde(rename_all = "camelCase")]
    Silent {
        /// Time of the last renewal, if any.
        since: Option<Timestamp>,
    },
}

/// The whole page.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// State of the operator.
    pub operator: OperatorView,
    /// The Quarantines.
    pub quarantines: QuarantinesView,
    /// The plans, by namespace and name.
    pub plans: Vec<PlanView>,
}

impl View {
    /// Returns whether a person has to act.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        matches!(self.operator, OperatorView::Silent { .. })
            || !self.quarantines.failing.is_empty()
            || self.plans.iter().any(|plan| plan.stalled || plan.needs_decision > 0 || plan.ready == "False")
            || self.plans.iter().flat_map(|plan| &plan.services).any(|service| service.held_up.is_some())
    }

    /// Builds the view from the API objects.
    #[must_use]
    pub fn from_objects(
        plans: &[RecoveryPlan],
        records: &[ServiceRecovery],
        quarantines: Result<&[DeserializeGuard<Quarantine>], &str>,
        lease: Option<&Lease>,
        now: Timestamp,
    ) -> Self {
        let mut plans: Vec<PlanView> = plans.iter().map(|plan| plan_view(plan, records)).collect();
        plans.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Self {
            operator: operator_view(lease, now),
            quarantines: QuarantinesView::from_objects(quarantines, now),
            plans,
        }
    }
}

/// Returns whether the holder of the Lease still leads, by this clock.
pub(crate) fn operator_view(lease: Option<&Lease>, now: Timestamp) -> OperatorView {
    let Some(spec) = lease.and_then(|l| l.spec.as_ref()) else { return OperatorView::Silent { since: None } };
    let renewed = spec.renew_time.as_ref().map(|t| t.0);
    let holder = spec.holder_identity.clone().filter(|h| !h.is_empty());
    let lasts = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or(0)));
    match (holder, renewed) {
        (Some(holder), Some(at)) if at.checked_add(lasts).is_ok_and(|until| until > now) => {
            OperatorView::Leading { holder }
        }
        (_, since) => OperatorView::Silent { since },
    }
}

fn plan_view(plan: &RecoveryPlan, records: &[ServiceRecovery]) -> PlanView {
    let status = plan.status.clone().unwrap_or_default();
    let ready = find(&status.conditions, READY);
    let name = plan.metadata.name.clone().unwrap_or_default();
    let mut services: Vec<ServiceView> = records
        .iter()
        .filter(|r| r.metadata.namespace == plan.metadata.namespace && r.spec.plan_ref.name == name)
        .map(service_view)
        .collect();
    // A plan that is not armed does not act, so nothing blocks it.
    if ready.is_some_and(|ready| ready.reason == Reason::Dormant.as_str()) {
        services.iter_mut().for_each(|service| service.held_up = None);
    }
    services
        .sort_by(|a, b| (a.tier.unwrap_or(i32::MAX), &a.name).cmp(&(b.tier.unwrap_or(i32::MAX), &b.name)));
    PlanView {
        namespace: plan.metadata.namespace.clone().unwrap_or_default(),
        ready: ready.map_or("Unknown", |c| &c.status).to_owned(),
        reason: ready.map_or("NotTakenUp", |c| &c.reason).to_owned(),
        message: ready.map_or("no operator has looked at it yet", |c| &c.message).to_owned(),
        prepared: find(&status.conditions, PREPARED)
            .map(|c| PreparedView { status: c.status.clone(), message: c.message.clone() }),
        total: status.total,
        recovered: status.recovered,
        running: status.running,
        waiting: status.waiting,
        needs_decision: status.needs_decision,
        stalled: is_true(&status.conditions, STALLED),
        started_at: status.started_at.map(|t| t.0),
        recovered_at: status.recovered_at.map(|t| t.0),
        blocked_by: status.blocked_by,
        services,
        name,
    }
}

fn service_view(record: &ServiceRecovery) -> ServiceView {
    let status = record.status.clone().unwrap_or_default();
    let message = find(&status.conditions, NEEDS_DECISION).map_or_else(String::new, |c| c.message.clone());
    let orphan = find(&status.conditions, ORPHANED).filter(|c| c.status == "True");
    let ready = is_true(&status.conditions, READY);
    let held_up = HeldUp::from_blocks(&status.blocked_by);
    let held_up = held_up.filter(|_| orphan.is_none() && status.decision.is_none() && !ready);
    let waiting_for = match orphan {
        Some(orphan) => Some(format!("{}: {}", orphan.reason, orphan.message)),
        None => status.waiting_for.clone(),
    };
    ServiceView {
        name: record.spec.service.clone(),
        tier: record.spec.tier,
        stage: status.stage.as_str().to_owned(),
        attempt: status.attempt,
        isolation: status.isolation.map(|i| i.as_str().to_owned()),
        waiting_for,
        ready,
        orphaned: orphan.is_some(),
        held_up,
        // A service that the plan no longer names needs no Decision.
        decision: status.decision.filter(|_| orphan.is_none()).map(|d| DecisionView {
            reason: d.reason.as_str().to_owned(),
            message,
            by_decision: !d.actions.is_empty(),
            actions: d.actions,
            digest: d.digest,
            since: d.since.0,
        }),
        exceptions: status.exceptions,
        resumes: status.resumes,
        holes: status.holes.iter().map(|hole| hole.as_str().to_owned()).collect(),
    }
}
