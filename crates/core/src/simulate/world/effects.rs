//! Effects of the engine: what becomes of them in the world, each once its latency has passed.

use std::time::Duration;

use super::{Event, Pending, Takes, World, after, contained};
use crate::api::conditions::{HEALTHY, RECOVERED, is_true};
use crate::api::service_recovery::{ResumeState, ResumeStatus};
use crate::api::{DnsLabel, Isolation, Reason, ServiceKey, Stage};
use crate::engine::{
    AcceptedState, Asked, ClaimState, Effect, Refusal, ResumeObservation, Room, pod_security,
};
use crate::plan::{Resume, ServiceId};

/// How long a refused effect waits, as in the operator.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// How long a namespace that a person holds waits until it is looked at again.
const HELD_FOR: Duration = Duration::from_secs(5);

/// What is to be said of one that the plan names.
fn suspended(of: &Resume, already: &[ResumeObservation]) -> ResumeObservation {
    let status = ResumeStatus {
        kind: of.kind,
        namespace: of.namespace.clone(),
        name: of.name.clone(),
        state: ResumeState::Due,
        fires: String::new(),
        message: String::new(),
    };
    let same = |seen: &&ResumeObservation| seen.status.name == status.name && seen.status.kind == status.kind;
    already.iter().find(same).cloned().unwrap_or(ResumeObservation { status, changes_at: None })
}

impl World<'_> {
    /// Begins an effect; it takes place when its latency has passed. A step is read for before it starts.
    pub(super) fn begin(&mut self, id: ServiceId, effect: Effect) {
        self.seen.services[id].refused = None;
        match effect {
            Effect::Quarantine { .. } | Effect::CreateNamespaces { .. } => {
                self.schedule(Takes::Isolation, id, Pending::Apply { id, effect })
            }
            Effect::Claim { .. } => self.schedule(Takes::Claim, id, Pending::Apply { id, effect }),
            Effect::Adopt
            | Effect::Ask { .. }
            | Effect::Follow { .. }
            | Effect::Accept { .. }
            | Effect::Inspect { .. }
            | Effect::LookAtSuspended { .. }
            | Effect::Resume { .. } => {
                self.schedule(Takes::Write, id, Pending::Apply { id, effect });
            }
            Effect::Step { index, attempt, ref dependencies } => {
                if let Some(refused) = self.live_read(dependencies) {
                    self.refuse(id, refused);
                    return;
                }
                self.note(id, || Event::Done(effect));
                self.schedule(
                    Takes::Step(index),
                    id,
                    Pending::StepEnded { id, index, attempt, starts: true },
                );
            }
        }
    }

    pub(super) fn take_place(&mut self, id: ServiceId, effect: Effect) {
        let of = &mut self.seen.services[id];
        match &effect {
            Effect::Adopt => {
                self.writes[id] += 1;
                of.exists = true;
                of.other_plan = None;
                of.generation = Some(of.generation.unwrap_or(0) + 1);
            }
            Effect::Accept { records } => {
                let scopes = self.plan.scopes(id);
                of.accepted.resize(scopes.len(), AcceptedState::Missing);
                for (scope, seen) in scopes.iter().zip(&mut of.accepted) {
                    if let Some(new) = records.iter().find(|new| new.scope == *scope) {
                        let revision = self.seen.now.as_millisecond().to_string();
                        *seen = AcceptedState::Record { revision, record: new.record.clone() };
                    }
                }
            }
            // What asks for more than a pod should is for a real cluster to find.
            Effect::Inspect { .. } => {
                of.inspection.get_or_insert_default();
            }
            Effect::Quarantine { namespaces } => {
                self.writes[id] += 1;
                for q in of.quarantines.iter_mut().filter(|q| namespaces.contains(&q.namespace)) {
                    q.exists = true;
                    q.found = Some(contained());
                }
                of.status.quarantined.extend(namespaces.iter().cloned().map(DnsLabel));
            }
            Effect::CreateNamespaces { namespaces } => {
                for q in of.quarantines.iter_mut().filter(|q| namespaces.contains(&q.namespace)) {
                    if let Some(found) = &mut q.found {
                        (found.is_namespace_missing, found.ready) = (false, true);
                        found.isolation = Some(Isolation::Contained);
                    }
                }
            }
            Effect::Claim { attempt } => {
                let other =
                    of.quarantines.iter().find_map(|q| match q.found.as_ref().map(|found| &found.claim) {
                        Some(ClaimState::Free | ClaimState::Mine { .. }) => None,
                        Some(ClaimState::Other { holder }) => Some(format!("claimed by {holder}")),
                        None => Some(format!("{} has no Quarantine", q.namespace)),
                    });
                if let Some(message) = other {
                    return self.refuse(id, (Reason::ClaimedByAnother, message));
                }
                for found in of.quarantines.iter_mut().filter_map(|q| q.found.as_mut()) {
                    found.claim = ClaimState::Mine { attempt: *attempt };
                }
            }
            // Everything that the plan names is there, and nothing was missed.
            Effect::LookAtSuspended { .. } => {
                let already = of.resumes.clone().unwrap_or_default();
                let named = self.plan.services[id].resume.iter().map(|r| suspended(r, &already));
                of.resumes = Some(named.collect());
            }
            Effect::Resume { dependencies, .. } => {
                if let Some(refused) = self.live_read(dependencies) {
                    return self.refuse(id, refused);
                }
                for seen in self.seen.services[id].resumes.iter_mut().flatten() {
                    if seen.status.state == ResumeState::Due {
                        seen.status.state = ResumeState::Resumed;
                    }
                }
            }
            Effect::Follow { room, dependencies } => {
                if let Some(refused) = self.live_read(dependencies) {
                    return self.refuse(id, refused);
                }
                self.writes[id] += 1;
                let of = &mut self.seen.services[id];
                of.room = room.clone();
                of.generation = of.generation.map(|g| g + 1);
            }
            Effect::Ask { isolation, attempt, reachable, dependencies } => {
                let asked = Asked { isolation: *isolation, attempt: *attempt };
                let loosens = of.quarantines.iter().any(|q| {
                    q.found.as_ref().is_none_or(|f| f.isolation.is_none_or(|now| now < asked.isolation))
                });
                if let Some(refused) = self.live_read(dependencies).filter(|_| loosens) {
                    return self.refuse(id, refused);
                }
                self.writes[id] += 1;
                let of = &mut self.seen.services[id];
                of.asked = Some(asked);
                let allow_egress = self.plan.services[id].allow_egress.clone();
                of.room = match isolation {
                    Isolation::CleanRoom => Room {
                        reachable: reachable.clone(),
                        allow_egress,
                        allow_egress_to: self.plan.services[id].allow_egress_to.clone(),
                        pod_security: pod_security(&self.plan.services[id]),
                    },
                    Isolation::Sealed | Isolation::Contained | Isolation::Open => Room::default(),
                };
                of.generation = of.generation.map(|g| g + 1);
                for found in of.quarantines.iter_mut().filter_map(|q| q.found.as_mut()) {
                    found.ready = false;
                    "controls are being put in place".clone_into(&mut found.message);
                }
                for namespace in 0..of.quarantines.len() {
                    self.schedule(Takes::Isolation, id, Pending::Enforced { id, namespace, asked });
                }
            }
            Effect::Step { .. } => {}
        }
        self.note(id, || Event::Done(effect));
    }

    pub(super) fn enforced(&mut self, id: ServiceId, index: usize, asked: Asked) {
        let of = &mut self.seen.services[id];
        if of.asked != Some(asked) {
            return;
        }
        let orders = of.status.standing_orders.as_ref();
        let is_on_hold = orders.is_some_and(|orders| orders.hold.is_some());
        let has_ended = of.status.attempt != asked.attempt || of.status.isolating.is_some();
        let quarantine = &mut of.quarantines[index];
        let Some(found) = quarantine.found.as_mut() else { return };
        let loosens = found.isolation.is_some_and(|now| now < asked.isolation);
        // The Quarantine controller loosens nothing of a service that a person has stopped, nor of an attempt that has ended.
        if loosens && has_ended {
            found.ready = true;
            return;
        }
        if loosens && is_on_hold {
            self.enqueue(after(self.seen.now, HELD_FOR), Pending::Enforced { id, namespace: index, asked });
            return;
        }
        found.isolation = Some(asked.isolation);
        found.ready = true;
        found.message.clear();
        let namespace = quarantine.namespace.clone();
        self.note(id, || Event::Enforced(namespace, asked.isolation));
    }

    /// Are these, by what is written, recovered and healthy? Names the first that is not.
    fn live_read(&self, dependencies: &[ServiceKey]) -> Option<(Reason, String)> {
        let carries = |key: &&ServiceKey| {
            let id = self.plan.index.get(&key.service);
            id.map(|&id| &self.seen.services[id].status).is_some_and(|status| {
                status.stage == Stage::Recovered
                    && is_true(&status.conditions, RECOVERED)
                    && is_true(&status.conditions, HEALTHY)
            })
        };
        let name = &dependencies.iter().find(|key| !carries(key))?.service;
        Some((Reason::DependencyNotRecovered, format!("{name} is not recovered and healthy")))
    }

    fn refuse(&mut self, id: ServiceId, (reason, message): (Reason, String)) {
        let again_at = after(self.seen.now, REFUSED_FOR);
        let since =
            self.seen.services[id].refused.as_ref().and_then(|before| before.since).unwrap_or(self.seen.now);
        let refusal = Refusal { reason, message, again_at, since: Some(since) };
        self.note(id, || Event::Refused(refusal.clone()));
        let of = &mut self.seen.services[id];
        of.busy = false;
        of.refused = Some(refusal);
    }
}
