//! Host access of a service's workloads, checked before any of them starts.

use crate::api::Reason;
use crate::plan::{Plan, ServiceId};

use super::context::{ServiceContext, digest};
use super::next::Next;
use super::{Effect, ServiceObservation};

impl ServiceContext<'_> {
    /// Checks once per attempt, before anything starts, which host access the service's workloads need.
    pub(super) fn check_host_access(&self, next: &mut Next) {
        if has_host_clearance(self.plan, self.of, self.id) {
            return;
        }
        let Some(found) = &self.of.host_access else {
            // The last findings apply until the next check.
            let before =
                self.of.status.decision.as_ref().filter(|before| before.reason == Reason::HostAccess);
            if next.status.decision.is_none() && before.is_some() {
                next.status.decision = before.cloned();
                next.blocks.extend(
                    self.of.status.blocked_by.iter().filter(|b| b.reason == Reason::HostAccess).cloned(),
                );
            }
            self.effect(next, Effect::LookAtHostAccess { attempt: self.of.status.attempt });
            return;
        };
        let culprit = found.first().map_or("", String::as_str);
        let more = if found.len() > 1 { format!(" (and {} more)", found.len() - 1) } else { String::new() };
        let message = format!(
            "{}{more}: Pod Security baseline forbids it. Mend it and Retry, or list cleanRoom.hostAccess in the plan and accept that",
            crate::api::conditions::shorten(culprit, 300)
        );
        self.need(next, Reason::HostAccess, &self.service().name, &message, Some(&digest(found)));
    }
}

/// Returns whether no workload needs what Pod Security `baseline` forbids, or host access was accepted with the requirements.
pub(super) fn has_host_clearance(plan: &Plan, of: &ServiceObservation, id: ServiceId) -> bool {
    let service = &plan.services[id];
    service.namespaces.is_empty()
        || service.host_access.is_some()
        || of.host_access.as_ref().is_some_and(Vec::is_empty)
}
