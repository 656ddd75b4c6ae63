//! What a person sees of a recovery: `resurgam status`, and the demo's progress. Pure: objects in, text out.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use serde::Serialize;

use crate::api::conditions::{NEEDS_DECISION, ORPHANED, READY, STALLED, find, is_true};
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

/// One plan, as a person wants to see it.
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
    /// Services in all.
    pub total: i32,
    /// Services recovered.
    pub recovered: i32,
    /// Services under way.
    pub running: i32,
    /// Services that wait.
    pub waiting: i32,
    /// Services that need a person.
    pub needs_decision: i32,
    /// Is there something in the plan itself that only a change of it mends?
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

/// One service, as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its tier.
    pub tier: Option<i32>,
    /// Its stage.
    pub stage: String,
    /// Which attempt.
    pub attempt: i64,
    /// The loosest isolation enforced.
    pub isolation: Option<String>,
    /// What it waits for.
    pub waiting_for: Option<String>,
    /// Is it recovered, and are its continuous gates passing?
    pub ready: bool,
    /// The plan names it no more: nothing of it goes on, and its isolation stays.
    pub orphaned: bool,
    /// What a person is asked, and how to answer.
    pub decision: Option<DecisionView>,
    /// What does not clear by itself, although no Decision is asked for.
    pub held_up: Option<HeldUp>,
    /// What was let pass.
    pub exceptions: Vec<String>,
    /// Holes in its clean room.
    pub holes: Vec<String>,
    /// CronJobs and Jobs that isolating suspended.
    pub resumes: Vec<ResumeStatus>,
}

/// What keeps a service from going on until somebody acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldUp {
    /// One word.
    pub reason: String,
    /// The culprit: a namespace, a gate, a step, a webhook.
    pub name: String,
    /// What is the matter with it, and who can clear it.
    pub message: String,
}

impl HeldUp {
    /// The first block that somebody has to clear: by its reason, or as its message names who refuses what is waited for.
    fn of(blocks: &[Block]) -> Option<Self> {
        blocks.iter().find_map(|block| {
            let Block { reason, name, message } = block;
            let culprit = repeated_culprit(message);
            // A Quarantine that is merely on its way is not ready either; one that fails is listed with the Quarantines.
            if culprit.is_none() && (*reason == Reason::QuarantineNotReady || reason.clears_by_itself()) {
                return None;
            }
            // What a dependency is held up by is told with that one.
            if matches!(reason, Reason::Dependency | Reason::WaitingForGroup) {
                return None;
            }
            let message = culprit.map_or_else(|| message.clone(), |culprit| refused(&culprit, message));
            Some(Self { reason: reason.as_str().to_owned(), name: name.clone(), message })
        })
    }
}

/// Who refuses what is waited for, who clears it, and then the API server's own words.
fn refused(culprit: &Culprit, message: &str) -> String {
    let who = match culprit {
        Culprit::Webhook(name) => format!(
            "webhook {name} refuses what is waited for, or does not answer. Whoever runs the webhook repairs it, or a recovery lead \
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

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionView {
    /// One word.
    pub reason: String,
    /// The whole story.
    pub message: String,
    /// The actions of Decisions that clear it.
    pub actions: Vec<Action>,
    /// What a Decision must repeat in `decidedOn`.
    pub digest: String,
    /// Would a Decision clear it? Else only what the message says does.
    pub by_decision: bool,
    /// Since when.
    pub since: Timestamp,
}

/// Is the operator there?
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum OperatorView {
    /// It leads, and renewed its lease in time.
    Leading {
        /// Which replica.
        holder: String,
    },
    /// Its lease has run out, or it gave it back.
    #[serde(rename_all = "camelCase")]
    Silent {
        /// When it was last heard of, if ever.
        since: Option<Timestamp>,
    },
}

/// Everything on one page.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Is the operator there?
    pub operator: OperatorView,
    /// The Quarantines.
    pub quarantines: QuarantinesView,
    /// The plans, by namespace and name.
    pub plans: Vec<PlanView>,
}

impl View {
    /// Does somebody have to do something?
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        matches!(self.operator, OperatorView::Silent { .. })
            || !self.quarantines.failing.is_empty()
            || self.plans.iter().any(|plan| plan.stalled || plan.needs_decision > 0 || plan.ready == "False")
            || self.plans.iter().flat_map(|plan| &plan.services).any(|service| service.held_up.is_some())
    }

    /// From the objects as the API server has them.
    #[must_use]
    pub fn of(
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
            quarantines: QuarantinesView::of(quarantines, now),
            plans,
        }
    }
}

/// Does whoever holds the Lease still lead, by this clock?
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
    // Nothing of a plan that is not armed goes on, so nothing holds it up.
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
    let held_up = HeldUp::of(&status.blocked_by);
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
        // Nobody is asked about what the plan does not name.
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
