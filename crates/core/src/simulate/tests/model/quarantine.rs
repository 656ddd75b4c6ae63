//! What the Quarantine controller makes of a claim and a request, by the target that it really computes.

use super::shell::allows;
use super::state::Services;
use crate::api::conditions::{READY, State, set};
use crate::api::quarantine::{QuarantineLevel, QuarantineSpec, QuarantineStatus};
use crate::api::service_recovery::{PlanRef, ServiceRecoverySpec};
use crate::api::{Claim, DnsLabel, Isolation, PodSecurity, Quarantine, ServiceRecovery};
use crate::engine::{ClaimState, QuarantineState};
use crate::isolation::target::{PlanState, target};
use crate::plan::loosening::Allowance;
use crate::plan::{Plan, ServiceId};

/// Returns what becomes of the Quarantine of a service once its controller has looked at it. `None`: nothing.
pub(super) fn enforcement(plan: &Plan, services: &Services, id: ServiceId) -> Option<QuarantineState> {
    let of = &services[id].of;
    let quarantine = of.quarantines.first()?;
    let found = quarantine.found.as_ref()?;
    let is_as_asked = of.asked.map(|asked| asked.isolation) == found.isolation;
    if found.ready && found.hold.is_none() && (of.asked.is_none() || is_as_asked) {
        return None;
    }
    let claim = match found.claim {
        ClaimState::Mine { attempt } => Some(Claim {
            plan_uid: plan.uid.clone(),
            plan_namespace: plan.namespace.clone(),
            plan: plan.name.clone(),
            service: plan.services[id].name.clone(),
            attempt,
            display: String::new(),
        }),
        ClaimState::Free | ClaimState::Other { .. } => None,
    };
    let hold = found.hold.map(|level| match level {
        Isolation::Sealed => QuarantineLevel::Sealed,
        _ => QuarantineLevel::Contained,
    });
    let mut status = QuarantineStatus {
        isolation: found.isolation,
        overruled: claim.clone().filter(|_| found.overruled),
        claimed_by: claim,
        ..QuarantineStatus::default()
    };
    let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    set(&mut status.conditions, READY, State::from(found.ready), "Test", "", None, now);
    let mut object =
        Quarantine::new(&quarantine.namespace, QuarantineSpec { hold, ..QuarantineSpec::default() });
    object.status = Some(status);
    let recovery = of.asked.map(|asked| {
        let spec = ServiceRecoverySpec {
            plan_ref: PlanRef { name: plan.name.clone(), uid: plan.uid.clone() },
            service: plan.services[id].name.clone(),
            tier: None,
            namespaces: vec![DnsLabel(quarantine.namespace.clone())],
            attempt: asked.attempt,
            isolation: Some(asked.isolation),
            reachable: of.room.reachable.iter().cloned().map(DnsLabel).collect(),
            allow_egress: Vec::new(),
            allow_egress_to: Vec::new(),
            pod_security: PodSecurity::Baseline,
            accepted: Vec::new(),
        };
        let mut recovery = ServiceRecovery::new("s", spec);
        recovery.status = Some(of.status.clone());
        recovery
    });
    let allowance = allows(services, plan.required_dependencies(id).into_iter());
    let state = match allowance {
        Allowance::Allowed => PlanState::Allows,
        Allowance::Unknown(_) => PlanState::Unknown,
        Allowance::Refused(_) => PlanState::Refuses,
    };
    let target = target(&object, recovery.as_ref(), state);
    let next = QuarantineState {
        isolation: Some(target.level),
        ready: true,
        overruled: found.overruled || target.overrules,
        ..found.clone()
    };
    (next != *found).then_some(next)
}
