//! View of one service: its stage, what it waits for, and what a person has to do about it. Pure.

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::remedies::Subject;
use crate::api::conditions::{HEALTHY, NEEDS_DECISION, ORPHANED, READY, find, is_true};
use crate::api::service_recovery::{Block, DecisionNeeded, ResumeStatus, ServiceRecoveryStatus, Stage};
use crate::api::{Action, AspectStatus, Phase, Reason, RecoveryPlan, ServiceRecovery, Verdict};
use crate::isolation::failure::repeated_culprit;

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
    /// Continuous gates that do not pass, of a recovered service. Its dependents wait for them.
    pub unhealthy: Vec<GateView>,
    /// Exceptions that were accepted.
    pub exceptions: Vec<String>,
    /// What its integrity gates have shown in this attempt, by aspect.
    pub integrity: Vec<AspectStatus>,
    /// Workloads that come back in another revision than the one that served, as a Decision accepted.
    pub accepted_rollouts: Vec<String>,
    /// Egress exceptions of its clean room.
    pub holes: Vec<String>,
    /// CronJobs and Jobs that isolating suspended.
    pub resumes: Vec<ResumeStatus>,
}

/// A gate that does not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateView {
    /// Its name. Empty: the message names it.
    pub name: String,
    /// Its verdict.
    pub verdict: String,
    /// Reason of the verdict.
    pub reason: String,
    /// Everything that the gate names.
    pub message: String,
}

/// A block that a person has to clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldUp {
    /// Reason of the block.
    pub reason: String,
    /// The culprit: a namespace, a gate, a step, a webhook.
    pub name: String,
    /// The culprit, and what is wrong with it.
    pub message: String,
    /// Who clears it, and how.
    pub next: String,
}

/// A required Decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionView {
    /// One word.
    pub reason: String,
    /// The culprit, and what is wrong with it.
    pub message: String,
    /// Who clears it, and how.
    pub next: String,
    /// The actions of Decisions that clear it.
    pub actions: Vec<Action>,
    /// What a Decision must repeat in `decidedOn`.
    pub digest: String,
    /// Whether a Decision clears it. Otherwise, only what `next` says does.
    pub by_decision: bool,
    /// Since when.
    pub since: Timestamp,
}

impl ServiceView {
    /// Builds the view of a service of this plan.
    pub(super) fn from_record(record: &ServiceRecovery, plan: &RecoveryPlan) -> Self {
        let status = record.status.clone().unwrap_or_default();
        let spec = plan.spec.services.iter().find(|service| service.name == record.spec.service);
        let subject = Subject {
            namespace: plan.metadata.namespace.as_deref().unwrap_or_default(),
            plan: plan.metadata.name.as_deref().unwrap_or_default(),
            service: &record.spec.service,
            owner: spec.and_then(|service| service.owner.as_deref()),
            culprit: "",
            message: "",
        };
        let orphan = find(&status.conditions, ORPHANED).filter(|c| c.status == "True");
        let ready = is_true(&status.conditions, READY);
        let held_up = held_up(&status.blocked_by, &subject);
        let held_up = held_up.filter(|_| orphan.is_none() && status.decision.is_none() && !ready);
        // A service that the plan no longer names needs no Decision.
        let question = status.decision.as_ref().filter(|_| orphan.is_none());
        let decision = question.map(|question| decision(question, &status, &subject));
        let waiting_for = match orphan {
            Some(orphan) => Some(format!("{}: {}", orphan.reason, orphan.message)),
            None => status.waiting_for.clone(),
        };
        Self {
            name: record.spec.service.clone(),
            tier: record.spec.tier,
            stage: status.stage.as_str().to_owned(),
            attempt: status.attempt,
            isolation: status.isolation.map(|i| i.as_str().to_owned()),
            waiting_for,
            ready,
            orphaned: orphan.is_some(),
            held_up,
            decision,
            unhealthy: if orphan.is_none() { unhealthy(&status) } else { Vec::new() },
            exceptions: status.exceptions,
            integrity: status.integrity,
            accepted_rollouts: status.accepted_rollouts,
            resumes: status.resumes,
            holes: status.holes.iter().map(|hole| hole.as_str().to_owned()).collect(),
        }
    }
}

/// Returns the first block that a person has to clear, by its reason, or by a culprit named in its message.
fn held_up(blocks: &[Block], service: &Subject<'_>) -> Option<HeldUp> {
    blocks.iter().find_map(|block| {
        let Block { reason, name, message } = block;
        let culprit = repeated_culprit(message);
        // A Quarantine in progress is not Ready either. A failing one is listed with the Quarantines.
        let is_under_way = matches!(reason, Reason::QuarantineNotReady | Reason::AccountUnknown);
        if culprit.is_none() && (is_under_way || reason.clears_by_itself()) {
            return None;
        }
        // The block of a dependency is reported with that dependency.
        if matches!(reason, Reason::Dependency | Reason::WaitingForGroup) {
            return None;
        }
        let subject = Subject { culprit: name, message, ..*service };
        let next = match culprit {
            Some(culprit) => subject.next_action_about(&culprit),
            None => subject.next_action(*reason, &[]),
        };
        Some(HeldUp {
            reason: reason.as_str().to_owned(),
            name: name.clone(),
            message: subject.problem(),
            next,
        })
    })
}

fn decision(
    question: &DecisionNeeded,
    status: &ServiceRecoveryStatus,
    service: &Subject<'_>,
) -> DecisionView {
    // The condition's message also says who can clear it, as `next` does.
    let block = status.blocked_by.iter().find(|block| block.reason == question.reason);
    let condition =
        find(&status.conditions, NEEDS_DECISION).map_or("", |condition| condition.message.as_str());
    let (culprit, message) =
        block.map_or(("", condition), |block| (block.name.as_str(), block.message.as_str()));
    let subject = Subject { culprit, message, ..*service };
    DecisionView {
        reason: question.reason.as_str().to_owned(),
        message: subject.problem(),
        next: subject.next_action(question.reason, &question.actions),
        actions: question.actions.clone(),
        digest: question.digest.clone(),
        by_decision: !question.actions.is_empty(),
        since: question.since.0,
    }
}

/// Returns the continuous gates of a recovered service that do not pass, or else what its condition `Healthy` says.
fn unhealthy(status: &ServiceRecoveryStatus) -> Vec<GateView> {
    let healthy = find(&status.conditions, HEALTHY).filter(|condition| condition.status != "True");
    let Some(healthy) = healthy.filter(|_| status.stage == Stage::Recovered) else { return Vec::new() };
    let gates =
        status.gates.iter().filter(|gate| gate.phase == Phase::Continuous && gate.verdict != Verdict::Pass);
    let gates: Vec<GateView> = gates
        .map(|gate| GateView {
            name: gate.name.clone(),
            verdict: gate.verdict.as_str().to_owned(),
            reason: gate.reason.clone(),
            message: gate.message.clone(),
        })
        .collect();
    if !gates.is_empty() {
        return gates;
    }
    let verdict = if healthy.status == "False" { Verdict::Fail } else { Verdict::Unknown };
    vec![GateView {
        name: String::new(),
        verdict: verdict.as_str().to_owned(),
        reason: healthy.reason.clone(),
        message: healthy.message.clone(),
    }]
}
