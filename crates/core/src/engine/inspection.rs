//! What is checked once per attempt, before any workload starts: host access, and rollouts that cannot be restored.

use crate::api::Reason;
use crate::api::conditions::shorten;
use crate::plan::{Plan, Service, ServiceId};

use super::context::{ServiceContext, digest};
use super::decisions;
use super::next::Next;
use super::{Effect, ServiceObservation};

/// What was read of a service's workloads before any of them starts. Each entry names its workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Host access beyond Pod Security `baseline`.
    pub host_access: Vec<String>,
    /// Rollouts that were not complete: another revision starts than the one that served.
    pub rollouts: Vec<Rollout>,
    /// Workloads that ran and that no step starts.
    pub not_started: Vec<String>,
    /// Number of workloads that were read, CronJobs included.
    pub workloads: usize,
}

impl Inspection {
    /// Adds what was read of another namespace of the service.
    pub fn add(&mut self, other: Self) {
        let Self { host_access, rollouts, not_started, workloads } = other;
        self.host_access.extend(host_access);
        self.rollouts.extend(rollouts);
        self.not_started.extend(not_started);
        self.workloads += workloads;
    }

    /// Adds that nothing was there to start, once all namespaces were read. It may have been destroyed before the isolation: a plan that
    /// starts nothing on purpose says so by an empty list of steps.
    pub fn conclude(&mut self, service: &Service) {
        if self.workloads == 0 && service.scaling_steps().next().is_some() {
            let places = service.namespaces.join(", ");
            self.not_started.push(format!("nothing was there to start in namespaces [{places}]"));
        }
    }
}

/// A rollout that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Rollout {
    /// The workload, such as `Deployment shop/api`.
    pub workload: String,
    /// The revision that served, and the one that starts.
    pub message: String,
}

impl ServiceContext<'_> {
    /// Checks once per attempt, before anything starts, what the service's workloads need and how they come back.
    pub(super) fn check_workloads(&self, next: &mut Next) {
        if is_cleared(self.plan, self.of, self.id) {
            return;
        }
        let Some(found) = &self.of.inspection else {
            self.keep_question(next);
            self.effect(next, Effect::Inspect { attempt: self.of.status.attempt });
            return;
        };
        if let Some(culprit) = found.host_access.first().filter(|_| self.service().host_access.is_none()) {
            let message = format!(
                "{}{}: Pod Security baseline forbids it. Mend it and Retry, or list cleanRoom.hostAccess in the plan and accept that",
                shorten(culprit, 300),
                more(found.host_access.len())
            );
            let evidence = digest(&found.host_access);
            self.need(next, Reason::HostAccess, &self.service().name, &message, Some(&evidence));
            return;
        }
        let open = not_accepted(self.of, found);
        if let Some(first) = open.first() {
            let message = format!(
                "{}: {}{}. Kubernetes starts the specified revision. Override accepts that, as an exception; or specify the revision that \
                 served and Retry",
                first.workload,
                shorten(&first.message, 240),
                more(open.len())
            );
            let evidence = digest(&open);
            self.need(next, Reason::RolloutNotRestorable, &first.workload, &message, Some(&evidence));
            decisions::answer(self, next);
        }
    }

    /// Keeps the last question until the next inspection.
    fn keep_question(&self, next: &mut Next) {
        let asked = |reason| matches!(reason, Reason::HostAccess | Reason::RolloutNotRestorable);
        let before = self.of.status.decision.as_ref().filter(|before| asked(before.reason));
        if next.status.decision.is_none() && before.is_some() {
            next.status.decision = before.cloned();
            next.blocks.extend(self.of.status.blocked_by.iter().filter(|b| asked(b.reason)).cloned());
        }
    }

    /// Returns the rollouts that cannot be restored and that nobody has accepted in this attempt.
    pub(super) fn open_rollouts(&self) -> Vec<&Rollout> {
        self.of.inspection.as_ref().map(|found| not_accepted(self.of, found)).unwrap_or_default()
    }
}

fn more(count: usize) -> String {
    if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() }
}

fn not_accepted<'a>(of: &ServiceObservation, found: &'a Inspection) -> Vec<&'a Rollout> {
    found.rollouts.iter().filter(|rollout| !of.status.accepted_rollouts.contains(&rollout.workload)).collect()
}

/// Returns whether the workloads were inspected in this attempt, and whatever was found was accepted: host access with the requirements,
/// rollouts by a Decision.
pub(super) fn is_cleared(plan: &Plan, of: &ServiceObservation, id: ServiceId) -> bool {
    let service = &plan.services[id];
    service.namespaces.is_empty()
        || of.inspection.as_ref().is_some_and(|found| {
            (service.host_access.is_some() || found.host_access.is_empty())
                && not_accepted(of, found).is_empty()
        })
}
