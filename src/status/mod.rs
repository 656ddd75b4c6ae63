//! View of a recovery for people: `resurgam status`, and the demo's progress. Pure: objects in, text out.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use serde::Serialize;

use crate::api::conditions::{PREPARED, READY, STALLED, find, is_true};
use crate::api::recovery_plan::{Blocker, GateOverride};
use crate::api::{Quarantine, Reason, RecoveryPlan, ServiceRecovery};

mod changes;
mod left;
mod quarantines;
mod remedies;
mod render;
mod services;

#[cfg(test)]
mod tests;

pub use changes::changes;
pub use left::LeftView;
pub use quarantines::{ControlView, QuarantineView, QuarantinesView};
pub use render::render;
pub use services::{DecisionView, GateView, HeldUp, ServiceView};

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
    /// What a person does next about `reason`, if the plan itself has to be changed.
    pub next: Option<String>,
    /// Root blockers.
    pub blocked_by: Vec<Blocker>,
    /// Services whose gates differ from the plan's defaults.
    pub gate_overrides: Vec<GateOverride>,
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
    /// What is left for people, by namespace.
    pub left: Vec<LeftView>,
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
        let shown: Vec<&ServiceRecovery> =
            records.iter().filter(|record| plans.iter().any(|plan| is_of(record, plan))).collect();
        let left = left::left(&shown, quarantines.ok());
        let mut plans: Vec<PlanView> = plans.iter().map(|plan| plan_view(plan, records)).collect();
        plans.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Self {
            operator: operator_view(lease, now),
            quarantines: QuarantinesView::from_objects(quarantines, now),
            plans,
            left,
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

/// Returns whether a service belongs to this plan.
fn is_of(record: &ServiceRecovery, plan: &RecoveryPlan) -> bool {
    record.metadata.namespace == plan.metadata.namespace
        && Some(&record.spec.plan_ref.name) == plan.metadata.name.as_ref()
}

fn plan_view(plan: &RecoveryPlan, records: &[ServiceRecovery]) -> PlanView {
    let status = plan.status.clone().unwrap_or_default();
    let ready = find(&status.conditions, READY);
    let name = plan.metadata.name.clone().unwrap_or_default();
    let mut services: Vec<ServiceView> = records
        .iter()
        .filter(|record| is_of(record, plan))
        .map(|record| ServiceView::from_record(record, plan))
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
        next: ready.filter(|ready| ready.status == "False").and_then(|ready| plan_next(plan, &ready.reason)),
        blocked_by: status.blocked_by,
        gate_overrides: status.gate_overrides,
        services,
        name,
    }
}

/// Returns what to do about the plan itself. Decisions that its services need are reported with them.
fn plan_next(plan: &RecoveryPlan, reason: &str) -> Option<String> {
    let reason: Reason = reason.parse().ok()?;
    let culprit = match reason {
        Reason::NeedsDecision => return None,
        Reason::ServiceAccountMissing | Reason::ServiceAccountUnknown => &plan.spec.service_account_name.0,
        Reason::IncidentMissing | Reason::IncidentUnknown => {
            plan.spec.incident_ref.as_ref().map_or("", |incident| &incident.name)
        }
        _ => "",
    };
    let subject = remedies::Subject {
        namespace: plan.metadata.namespace.as_deref().unwrap_or_default(),
        plan: plan.metadata.name.as_deref().unwrap_or_default(),
        service: "the service",
        owner: None,
        culprit,
        message: "",
    };
    Some(subject.next_action(reason, &[]))
}
