//! Builds a [`ServiceObservation`] from stores and caches, without a request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

use super::accepted;
use super::gate_tasks::Binding;
use super::running::{ServiceState, State, at_least_as_new};
use super::stores::Stores;
use crate::api::conditions::{HOST_NETWORK_PODS, NETWORK_NOT_ENFORCED, READY, find};
use crate::api::quarantine::ControlName;
use crate::api::{
    Claim, Decision, Isolation, Quarantine, QuarantineReason, Reason, ServiceRecovery, ServiceRecoverySpec,
    ServiceRecoveryStatus, Stage, StepSpec, service_recovery_name,
};
use crate::engine::{
    Asked, ClaimState, DecisionObservation, Presence, QuarantineObservation, QuarantineState, Refusal, Room,
    ServiceObservation,
};
use crate::gates::Question;
use crate::isolation::Seal;
use crate::plan::{Gate, Plan, Service, ServiceId};
use crate::steps::StepContext;

/// Maximum lag of a watch behind our own write. After that, the watch has missed it.
const LONGEST_LAG: Duration = Duration::from_secs(5 * 60);

/// Observation of one service.
pub(crate) struct Observed {
    pub(crate) service: ServiceObservation,
    /// resourceVersion of its ServiceRecovery. A decision based on this writes over no other version.
    pub(crate) version: Option<String>,
    /// A gate task evaluates an outdated question.
    pub(crate) has_stale_gates: bool,
}

/// Observes one service. `decisions`: the plan's Decisions, by service.
pub(crate) fn service(
    stores: &Stores,
    plan: &Plan,
    state: &mut State,
    id: ServiceId,
    decisions: &BTreeMap<String, Vec<DecisionObservation>>,
    now: Timestamp,
) -> Observed {
    let service = &plan.services[id];
    let scopes = plan.scopes(id);
    let accepted = scopes.iter().map(|scope| accepted::observe(stores, state, scope)).collect();
    let held = state.services.entry(service.name.clone()).or_default();
    let record = record(stores, plan, service, held);
    // A Quarantine missing from the watch was deleted; it was claimed in the watch's version.
    held.claimed.retain(|namespace, claimed| {
        let watched = stores.quarantines.get(&ObjectRef::new(namespace));
        watched.is_some_and(|watched| {
            !at_least_as_new(kube::Resource::meta(watched.as_ref()), &claimed.metadata)
        })
    });
    let observation = service_observation(stores, plan, service, held, record.as_ref(), decisions, now);
    let has_stale_gates = observation.gates.len() < held.gates.len();
    let version = record.and_then(|record| record.metadata.resource_version);
    Observed { service: ServiceObservation { accepted, ..observation }, version, has_stale_gates }
}

/// Returns the ServiceRecovery: the watch's, or this process's last write if that is newer.
pub(crate) fn record(
    stores: &Stores,
    plan: &Plan,
    service: &Service,
    held: &mut ServiceState,
) -> Option<ServiceRecovery> {
    let name = service_recovery_name(&plan.name, &service.name);
    let watched = stores.records.get(&ObjectRef::new(&name).within(&plan.namespace));
    if let Some(own) = &held.own {
        match watched.as_ref() {
            Some(object) if at_least_as_new(kube::Resource::meta(object.as_ref()), &own.metadata) => {
                held.own = None
            }
            // The watch may have missed the deletion while it was broken.
            None if held.own_since.is_some_and(|at| at.elapsed() > LONGEST_LAG) => held.own = None,
            _ => return Some(own.clone()),
        }
    }
    let found = watched.and_then(|object| object.0.as_ref().ok().cloned());
    if found.is_none() {
        // A new ServiceRecovery starts at the first attempt, so recorded steps do not belong to it.
        held.steps.clear();
    }
    found
}

/// Returns why a ServiceRecovery cannot be read. An unreadable one is not missing, and is not overwritten.
fn unreadable(stores: &Stores, plan: &Plan, service: &Service) -> Option<Refusal> {
    let name = service_recovery_name(&plan.name, &service.name);
    let watched = stores.records.get(&ObjectRef::new(&name).within(&plan.namespace))?;
    let error = watched.0.as_ref().err()?;
    Some(Refusal {
        reason: Reason::Unreadable,
        message: format!("ServiceRecovery {name} cannot be read, and is left as it is: {}", error.error),
        again_at: Timestamp::MAX,
        since: None,
    })
}

fn service_observation(
    stores: &Stores,
    plan: &Plan,
    service: &Service,
    held: &ServiceState,
    record: Option<&ServiceRecovery>,
    decisions: &BTreeMap<String, Vec<DecisionObservation>>,
    now: Timestamp,
) -> ServiceObservation {
    let status = record
        .and_then(|r| r.status.clone())
        .unwrap_or_else(|| ServiceRecoveryStatus { attempt: 1, ..Default::default() });
    let attempt = status.attempt;
    ServiceObservation {
        exists: record.is_some(),
        other_plan: record.map(|r| r.spec.plan_ref.uid.clone()).filter(|uid| *uid != plan.uid),
        generation: record.and_then(|r| r.metadata.generation),
        asked: record
            .and_then(|r| r.spec.isolation.map(|isolation| Asked { isolation, attempt: r.spec.attempt })),
        room: record.map(|r| room(&r.spec)).unwrap_or_default(),
        quarantines: service
            .namespaces
            .iter()
            .map(|n| quarantine(stores, plan, service, n, held.claimed.get(n), status.stage))
            .collect(),
        originals: service
            .replaces
            .iter()
            .map(|n| quarantine(stores, plan, service, n, None, status.stage))
            .collect(),
        gates: held
            .gates
            .iter()
            // The plan, account, incident or a seal changed since the gate was evaluated. Such a verdict must not decide even once before
            // the gate is restarted.
            .filter(|(key, task)| {
                let gate = service.gates.iter().find(|g| g.phase == key.phase && g.spec.name == key.name);
                gate.is_some_and(|gate| task.binding == binding(stores, plan, service, gate, &status))
            })
            .map(|(key, task)| (key.clone(), task.state(now)))
            .collect(),
        steps: if held.steps_of == attempt { held.steps.clone() } else { BTreeMap::new() },
        resumes: held.resumes.as_ref().and_then(|(of, generation, found)| {
            (*of == attempt && *generation == plan.generation).then(|| found.clone())
        }),
        accepted: Vec::new(),
        inspection: held.inspection.as_ref().and_then(|(of, generation, found)| {
            (*of == attempt && *generation == plan.generation).then(|| found.clone())
        }),
        refused: record
            .map_or_else(|| unreadable(stores, plan, service), |_| None)
            .or_else(|| held.refused.clone()),
        decisions: decisions.get(&service.name).cloned().unwrap_or_default(),
        busy: held.busy,
        written_at: held.written_at,
        status,
    }
}

/// Returns what the clean room may reach, by the last request.
fn room(spec: &ServiceRecoverySpec) -> Room {
    Room {
        reachable: spec.reachable.iter().map(|namespace| namespace.0.clone()).collect(),
        allow_egress: spec.allow_egress.clone(),
        allow_egress_to: spec.allow_egress_to.clone(),
        pod_security: spec.pod_security,
    }
}

/// Returns the Quarantine of a namespace: the watch's, or the newer version that this process `claimed`.
fn quarantine(
    stores: &Stores,
    plan: &Plan,
    service: &Service,
    namespace: &str,
    claimed: Option<&Quarantine>,
    stage: Stage,
) -> QuarantineObservation {
    let watched = stores.quarantines.get(&ObjectRef::new(namespace));
    let exists = watched.is_some();
    let readable = watched.as_ref().and_then(|watched| watched.0.as_ref().ok());
    let found = claimed.or(readable).and_then(|quarantine| {
        // A Quarantine that is being deleted is being released, so no recovery starts on it.
        let is_leaving = quarantine.metadata.deletion_timestamp.is_some() && stage < Stage::Recovered;
        (!is_leaving).then(|| found(stores, plan, service, quarantine))
    });
    QuarantineObservation { namespace: namespace.to_owned(), exists, found }
}

fn found(stores: &Stores, plan: &Plan, service: &Service, quarantine: &Quarantine) -> QuarantineState {
    let status = quarantine.status.clone().unwrap_or_default();
    let ready = find(&status.conditions, READY);
    let current = status.observed_generation == quarantine.metadata.generation;
    QuarantineState {
        isolation: status.isolation,
        // Pods on the node network end with the sealing, before anything is loosened.
        ready: current
            && ready.is_some_and(|c| {
                let is_cured =
                    status.isolation == Some(Isolation::Contained) && c.reason == HOST_NETWORK_PODS;
                c.status == "True" || is_cured
            }),
        message: ready
            .map_or_else(|| "its Quarantine has not been taken up yet".to_owned(), |c| c.message.clone()),
        unready_since: ready.filter(|c| c.status != "True").map(|c| c.last_transition_time.0),
        lacking: ready
            .filter(|c| current && c.status == "False" && c.reason == NETWORK_NOT_ENFORCED)
            .map(|_| ControlName::Network),
        claim: claim(stores, plan, service, status.claimed_by.as_ref()),
        hold: quarantine.spec.hold.map(Isolation::from),
        overruled: status.overruled.is_some() && status.overruled == status.claimed_by,
        is_namespace_missing: current
            && ready.is_some_and(|c| c.reason == QuarantineReason::NamespaceMissing.as_str()),
        unmanaged_pods: status.unmanaged_pods,
    }
}

fn claim(stores: &Stores, plan: &Plan, service: &Service, claim: Option<&Claim>) -> ClaimState {
    match claim {
        None => ClaimState::Free,
        Some(claim) if claim.plan_uid == plan.uid && claim.service == service.name => {
            ClaimState::Mine { attempt: claim.attempt }
        }
        // Taking over the claim is preceded by a live read of that plan.
        Some(claim) if !plan_exists(stores, claim) => ClaimState::Free,
        Some(claim) => ClaimState::Other { holder: claim.display.clone() },
    }
}

fn plan_exists(stores: &Stores, claim: &Claim) -> bool {
    stores.plans.get(&ObjectRef::new(&claim.plan).within(&claim.plan_namespace)).is_some_and(|object| {
        kube::Resource::meta(object.as_ref()).uid.as_deref() == Some(claim.plan_uid.as_str())
    })
}

pub(crate) fn incident(stores: &Stores, plan: &Plan) -> Presence {
    let Some(name) = &plan.incident else { return Presence::Missing };
    match stores.incidents.get(&ObjectRef::new(name)) {
        None => Presence::Missing,
        Some(object) => match &object.0 {
            Ok(_) => Presence::Present,
            Err(error) => Presence::Unknown(format!("Incident {name} cannot be read: {error}")),
        },
    }
}

pub(crate) fn account(stores: &Stores, plan: &Plan) -> Presence {
    match stores.accounts.get(&plan.namespace, &plan.account) {
        Some(_) => Presence::Present,
        None => Presence::Missing,
    }
}

/// Returns the Decisions in the plan's namespace that name the plan and any of these services, by service.
pub(crate) fn decisions(
    stores: &Stores,
    plan: &Plan,
    concerned: &BTreeSet<ServiceId>,
) -> BTreeMap<String, Vec<DecisionObservation>> {
    let mut found: BTreeMap<String, Vec<DecisionObservation>> = BTreeMap::new();
    if concerned.is_empty() {
        return found;
    }
    for object in stores.decisions.state() {
        let Ok(object) = &object.0 else { continue };
        let spec = &object.spec;
        if object.metadata.namespace.as_deref() == Some(&plan.namespace) && spec.plan == plan.name {
            found.entry(spec.service.clone()).or_default().push(decision(object));
        }
    }
    found
}

/// Returns a Decision as the engine observes it.
pub(crate) fn decision(object: &Decision) -> DecisionObservation {
    let Decision { metadata, spec, .. } = object;
    DecisionObservation {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        created_at: metadata.creation_timestamp.as_ref().map(|at| at.0),
        is_applied: super::verdicts::is_applied(object),
        by: spec.by.clone(),
        action: spec.action,
        reason: spec.reason.clone(),
        decided_on: spec.decided_on.clone(),
        group: spec.group.clone(),
    }
}

/// Returns what a gate's verdict is bound to, given the service's status.
pub(crate) fn binding(
    stores: &Stores,
    plan: &Plan,
    service: &Service,
    gate: &Gate,
    status: &ServiceRecoveryStatus,
) -> Binding {
    let question = Question {
        plan_namespace: plan.namespace.clone(),
        plan: plan.name.clone(),
        service: service.name.clone(),
        attempt: status.attempt,
        compromised_since: compromised_since(stores, plan),
        namespaces: service.namespaces.clone(),
        phase: gate.phase,
        spec: gate.spec.clone(),
        seals: seals(stores, service),
        started: service.scaling_steps().cloned().collect(),
        accepted_rollouts: status.accepted_rollouts.clone(),
    };
    Binding { question, claimed_at: status.claimed_at.clone(), account: plan.account.clone() }
}

/// Returns what a step may use of the service that it restores, given the service's status.
pub(crate) fn step_context(
    stores: &Stores,
    plan: &Plan,
    service: &Service,
    step: &StepSpec,
    status: &ServiceRecoveryStatus,
) -> StepContext {
    StepContext {
        plan_namespace: plan.namespace.clone(),
        plan: plan.name.clone(),
        account: plan.account.clone(),
        plan_uid: plan.uid.clone(),
        service: service.name.clone(),
        step: step.name.clone(),
        attempt: status.attempt,
        retries: status.steps.iter().find(|of| of.name == step.name).map_or(0, |of| of.retries),
        claimed_at: status.claimed_at.as_ref().map(|at| at.0),
        namespaces: service.namespaces.clone(),
        seals: seals(stores, service),
    }
}

/// Returns the sealings of a service's namespaces.
pub(crate) fn seals(stores: &Stores, service: &Service) -> BTreeMap<String, Seal> {
    let seal = |namespace: &String| {
        let object = stores.quarantines.get(&ObjectRef::new(namespace))?;
        let meta = kube::Resource::meta(object.as_ref());
        let uid = meta.uid.clone()?;
        let created_at = meta.creation_timestamp.as_ref().map(|at| at.0);
        let readable = object.0.as_ref().ok();
        let contents = readable.and_then(|quarantine| quarantine.status.as_ref()?.contents);
        Some((namespace.clone(), Seal { uid, created_at, contents }))
    };
    service.namespaces.iter().filter_map(seal).collect()
}

/// Returns services of earlier generations that the plan no longer names.
pub(crate) fn orphans(stores: &Stores, plan: &Plan) -> Vec<ServiceRecovery> {
    stores
        .records
        .state()
        .iter()
        .filter_map(|object| object.0.as_ref().ok())
        .filter(|r| {
            r.metadata.namespace.as_deref() == Some(&plan.namespace) && r.spec.plan_ref.name == plan.name
        })
        .filter(|r| !plan.index.contains_key(&r.spec.service))
        .filter(|r| {
            let conditions = r.status.as_ref().map_or(&[][..], |s| &s.conditions);
            !crate::api::conditions::is_true(conditions, crate::api::conditions::ORPHANED)
        })
        .cloned()
        .collect()
}

/// Returns whether an isolation level needs no proof.
pub(crate) fn is_tightening(isolation: Isolation) -> bool {
    isolation < Isolation::CleanRoom
}

/// Returns the incident's cut-off, to which verdicts are bound.
pub(crate) fn compromised_since(stores: &Stores, plan: &Plan) -> Option<Timestamp> {
    let object = stores.incidents.get(&ObjectRef::new(plan.incident.as_deref()?))?;
    Some(object.0.as_ref().ok()?.spec.compromised_since.0)
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
