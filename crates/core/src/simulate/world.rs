//! One plan's world, moved by timed events. Events of one moment are applied in the order in which they were scheduled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{HEALTHY, RECOVERED, is_true};
use crate::api::service_recovery::{ResumeState, ResumeStatus};
use crate::api::{
    DnsLabel, GateReason, Isolation, Phase, Reason, RecoveryPlanStatus, ServiceRecoveryStatus, Stage, Verdict,
};
use crate::engine::{
    AcceptedState, Answer, Asked, ClaimState, Effect, Engine, GateKey, GateState, Observation, Presence,
    QuarantineObservation, QuarantineState, Refusal, ResumeObservation, Room, ServiceObservation,
    StepOutcome, Tracker, pod_security,
};
use crate::plan::{Plan, Resume, ServiceId};

/// How long a refused effect waits, as in the operator.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// What the world does when the engine acts on it.
pub struct Script<'a> {
    /// What a gate says when it is asked.
    pub gate: Box<dyn FnMut(&Question) -> Verdict + 'a>,
    /// How long something takes.
    pub latency: Box<dyn FnMut(Takes, ServiceId) -> Duration + 'a>,
    /// What comes of a step.
    pub step: Box<dyn FnMut(ServiceId, usize, Timestamp) -> StepOutcome + 'a>,
}

/// A gate that is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of which service.
    pub service: ServiceId,
    /// Which.
    pub gate: GateKey,
    /// In which attempt.
    pub attempt: i64,
    /// When.
    pub at: Timestamp,
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A write to the API server.
    Write,
    /// Claiming the Quarantines of one service.
    Claim,
    /// Bringing one namespace to another isolation.
    Isolation,
    /// A step, by its index.
    Step(usize),
    /// A gate's answer.
    Answer,
}

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Looks at the plan, after which the world is taken to run in circles.
    pub looks: usize,
}

/// The world moved for ever.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("gave up at {at} of virtual time, after {looks} looks at the plan: it does not come to rest")]
pub struct RanAway {
    /// When.
    pub at: Timestamp,
    /// After how many looks.
    pub looks: usize,
}

/// Something that happened, in the words of the world.
#[derive(Clone, Debug)]
pub struct Fact {
    /// When.
    pub at: Timestamp,
    /// To which service.
    pub service: ServiceId,
    /// What.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The engine decided on this effect, by what it saw at this moment.
    Decided(Effect),
    /// The effect took place: claimed, asked for, or a step begun.
    Done(Effect),
    /// A status was written.
    Written(Box<ServiceRecoveryStatus>),
    /// A namespace reached an isolation.
    Enforced(String, Isolation),
    /// A gate answered.
    Answered(GateKey, Verdict),
    /// A step ended.
    StepEnded(usize, StepOutcome),
    /// A live read or another's claim stood in the way.
    Refused(Refusal),
}

enum Pending {
    Written { id: ServiceId, status: Box<ServiceRecoveryStatus>, effect: Option<Effect> },
    Apply { id: ServiceId, effect: Effect },
    Enforced { id: ServiceId, namespace: usize, asked: Asked },
    StepEnded { id: ServiceId, index: usize, attempt: i64 },
    Answer { id: ServiceId, key: GateKey, attempt: i64 },
}

/// What the shell keeps beside a service's objects.
#[derive(Default)]
struct Followed {
    trackers: BTreeMap<GateKey, Tracker>,
    /// Gates with an answer on its way.
    pending: BTreeSet<GateKey>,
    /// Gates that are new: what they say is seen at the next look.
    fresh: Vec<GateKey>,
    phases: Vec<Phase>,
}

/// One plan's world.
pub struct World<'a> {
    /// The plan.
    pub plan: Plan,
    /// All there is to see. Change it between runs to play what people and attackers do.
    pub seen: Observation,
    /// The plan's own status at the last look.
    pub status: RecoveryPlanStatus,
    /// All that happened, in order.
    pub facts: Vec<Fact>,
    /// Writes to each ServiceRecovery: adoption, statuses, isolations asked for.
    pub writes: Vec<usize>,
    script: Script<'a>,
    limits: Limits,
    followed: Vec<Followed>,
    queue: BTreeMap<(Timestamp, u64), Pending>,
    /// When a gate says something else though it is not asked, and of which service.
    turns: BTreeSet<(Timestamp, ServiceId)>,
    /// Services with gates that are new.
    fresh: Vec<ServiceId>,
    scheduled: u64,
    wake_at: Option<Timestamp>,
    looks: usize,
}

/// `at` plus a duration, staying within time.
fn after(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration).ok().and_then(|d| at.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}

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

/// A Quarantine that nobody has claimed.
fn contained() -> QuarantineState {
    QuarantineState {
        isolation: Some(Isolation::Contained),
        hold: None,
        overruled: false,
        unmanaged_pods: Vec::new(),
        ready: true,
        message: String::new(),
        lacking: None,
        claim: ClaimState::Free,
    }
}

impl<'a> World<'a> {
    /// A world at `now` in which every namespace is quarantined at `Contained`, unless the plan is to see to that, and nothing has been
    /// recovered yet.
    #[must_use]
    pub fn new(plan: Plan, script: Script<'a>, limits: Limits, now: Timestamp) -> Self {
        // A plan that makes its Quarantines is played from where there is none.
        let exists = !plan.creates_quarantines;
        let quarantine = |namespace: &String| QuarantineObservation {
            namespace: namespace.clone(),
            exists,
            found: exists.then(contained),
        };
        let services = plan.services.iter().map(|service| ServiceObservation {
            quarantines: service.namespaces.iter().map(quarantine).collect(),
            ..ServiceObservation::default()
        });
        let seen = Observation {
            now,
            incident: Presence::Present,
            account: Presence::Present,
            services: services.collect(),
        };
        let count = plan.services.len();
        Self {
            plan,
            seen,
            status: RecoveryPlanStatus::default(),
            facts: Vec::new(),
            writes: vec![0; count],
            script,
            limits,
            followed: (0..count).map(|_| Followed::default()).collect(),
            queue: BTreeMap::new(),
            turns: BTreeSet::new(),
            fresh: Vec::new(),
            scheduled: 0,
            wake_at: None,
            looks: 0,
        }
    }

    /// Lets time pass until `until`, or until nothing more is going to happen.
    ///
    /// # Errors
    ///
    /// [`RanAway`] when the limits are reached first.
    pub fn run(&mut self, until: Timestamp) -> Result<(), RanAway> {
        // Between runs, plan and world may have been changed.
        let mut engine = Engine::new(Arc::new(self.plan.clone()));
        loop {
            self.looks += 1;
            if self.looks > self.limits.looks {
                return Err(RanAway { at: self.seen.now, looks: self.limits.looks });
            }
            self.look(&mut engine);
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = event.into_iter().chain(self.wake_at).min().filter(|&at| at <= until) else {
                return Ok(());
            };
            self.seen.now = self.seen.now.max(next);
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= next) {
                let pending = entry.remove();
                self.apply(pending);
            }
        }
    }

    /// One look: decide, and begin what was decided.
    fn look(&mut self, engine: &mut Engine) {
        self.turn_gates();
        let decided = engine.decide(&self.seen);
        #[cfg(test)]
        super::tests::same_as_from_nothing(&self.plan, &self.seen, &decided, |id| {
            self.followed[id].phases.clone()
        });
        self.wake_at = decided.wake_at;
        self.status = decided.plan;
        for of in decided.services {
            let id = of.service;
            self.ask(id, of.ask);
            if self.seen.services[id].busy || (of.write.is_none() && of.effect.is_none()) {
                continue;
            }
            self.seen.services[id].busy = true;
            if let Some(effect) = &of.effect {
                self.note(id, Event::Decided(effect.clone()));
            }
            match (of.write, of.effect) {
                (Some(status), effect) => {
                    self.schedule(Takes::Write, id, Pending::Written { id, status, effect });
                }
                (None, Some(effect)) => self.begin(id, effect),
                (None, None) => {}
            }
        }
    }

    /// Has the gates seen that are new, or that say something else by now without having been asked.
    fn turn_gates(&mut self) {
        let now = self.seen.now;
        for id in std::mem::take(&mut self.fresh) {
            for key in std::mem::take(&mut self.followed[id].fresh) {
                let state = self.followed[id].trackers.get(&key).map(|tracker| tracker.state(now));
                if let Some(state) = state.filter(|_| !self.seen.services[id].gates.contains_key(&key)) {
                    self.show(id, key, state);
                }
            }
        }
        while let Some(&(at, id)) = self.turns.first().filter(|(at, _)| *at <= now) {
            self.turns.remove(&(at, id));
            let has_turned = |key: &GateKey| {
                let shown = self.seen.services[id].gates.get(key);
                shown.is_some_and(|shown| shown.changes_at.is_none_or(|at| at <= now))
            };
            let turned: Vec<_> = self.followed[id]
                .trackers
                .iter()
                .filter(|(key, _)| has_turned(key))
                .map(|(key, tracker)| (key.clone(), tracker.state(now)))
                .collect();
            turned.into_iter().for_each(|(key, state)| self.show(id, key, state));
        }
    }

    fn show(&mut self, id: ServiceId, key: GateKey, state: GateState) {
        self.turns.extend(state.changes_at.map(|at| (at, id)));
        self.seen.services[id].gates.insert(key, state);
    }

    /// Asks the gates of these phases, and no others, from now on.
    fn ask(&mut self, id: ServiceId, phases: Vec<Phase>) {
        let attempt = self.seen.services[id].status.attempt;
        let followed = &mut self.followed[id];
        followed.phases = phases;
        let mut begin = Vec::new();
        for gate in self.plan.services[id].gates.iter().filter(|g| followed.phases.contains(&g.phase)) {
            let key = gate.key.clone();
            followed.trackers.entry(key.clone()).or_insert_with(|| {
                followed.fresh.push(key.clone());
                Tracker::new(gate.policy, self.seen.now)
            });
            if followed.pending.insert(key.clone()) {
                begin.push(key);
            }
        }
        if !followed.fresh.is_empty() {
            self.fresh.push(id);
        }
        for key in begin {
            self.schedule(Takes::Answer, id, Pending::Answer { id, key, attempt });
        }
    }

    /// Begins an effect; it takes place when its latency has passed. A step is read for before it starts.
    fn begin(&mut self, id: ServiceId, effect: Effect) {
        self.seen.services[id].refused = None;
        match effect {
            Effect::Quarantine { .. } => self.schedule(Takes::Isolation, id, Pending::Apply { id, effect }),
            Effect::Claim { .. } => self.schedule(Takes::Claim, id, Pending::Apply { id, effect }),
            Effect::Adopt
            | Effect::Ask { .. }
            | Effect::Follow { .. }
            | Effect::Accept { .. }
            | Effect::LookAtHostAccess { .. }
            | Effect::LookAtSuspended { .. }
            | Effect::Resume { .. } => {
                self.schedule(Takes::Write, id, Pending::Apply { id, effect });
            }
            Effect::Step { index, attempt, ref dependencies } => {
                if let Some(refused) = self.live_read(dependencies) {
                    self.refuse(id, refused);
                    return;
                }
                self.note(id, Event::Done(effect));
                self.schedule(Takes::Step(index), id, Pending::StepEnded { id, index, attempt });
            }
        }
    }

    fn apply(&mut self, pending: Pending) {
        match pending {
            Pending::Written { id, status, effect } => {
                self.writes[id] += 1;
                self.note(id, Event::Written(status.clone()));
                let of = &mut self.seen.services[id];
                if of.status.attempt != status.attempt {
                    of.gates.clear();
                    of.steps.clear();
                    of.resumes = None;
                    of.host_access = None;
                    self.followed[id] = Followed::default();
                }
                of.status = *status;
                of.written_at = Some(self.seen.now);
                of.busy = false;
                if let Some(effect) = effect {
                    of.busy = true;
                    self.begin(id, effect);
                }
            }
            Pending::Apply { id, effect } => {
                self.seen.services[id].busy = false;
                self.take_place(id, effect);
            }
            Pending::Enforced { id, namespace, asked } => self.enforced(id, namespace, asked),
            Pending::StepEnded { id, index, attempt } => {
                let outcome = (self.script.step)(id, index, self.seen.now);
                self.note(id, Event::StepEnded(index, outcome.clone()));
                let of = &mut self.seen.services[id];
                of.busy = false;
                if of.status.attempt == attempt {
                    of.steps.insert(index, outcome);
                }
            }
            Pending::Answer { id, key, attempt } => self.answer(id, key, attempt),
        }
    }

    fn take_place(&mut self, id: ServiceId, effect: Effect) {
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
            Effect::LookAtHostAccess { .. } => {
                of.host_access.get_or_insert_default();
            }
            Effect::Quarantine { namespaces } => {
                self.writes[id] += 1;
                for q in of.quarantines.iter_mut().filter(|q| namespaces.contains(&q.namespace)) {
                    q.exists = true;
                    q.found = Some(contained());
                }
                of.status.quarantined.extend(namespaces.iter().cloned().map(DnsLabel));
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
        self.note(id, Event::Done(effect));
    }

    fn enforced(&mut self, id: ServiceId, namespace: usize, asked: Asked) {
        let of = &mut self.seen.services[id];
        if of.asked != Some(asked) {
            return;
        }
        let quarantine = &mut of.quarantines[namespace];
        let Some(found) = quarantine.found.as_mut() else { return };
        found.isolation = Some(asked.isolation);
        found.ready = true;
        found.message.clear();
        let event = Event::Enforced(quarantine.namespace.clone(), asked.isolation);
        self.note(id, event);
    }

    fn answer(&mut self, id: ServiceId, key: GateKey, attempt: i64) {
        if self.seen.services[id].status.attempt != attempt {
            return;
        }
        let followed = &mut self.followed[id];
        followed.pending.remove(&key);
        if !followed.phases.contains(&key.phase) {
            return;
        }
        let Some(tracker) = followed.trackers.get_mut(&key) else { return };
        let now = self.seen.now;
        let verdict = (self.script.gate)(&Question { service: id, gate: key.clone(), attempt, at: now });
        let answer = Answer {
            verdict,
            reason: match verdict {
                Verdict::Pass => GateReason::Current,
                Verdict::Fail => GateReason::NotReady,
                Verdict::Unknown => GateReason::InProgress,
            },
            message: format!("{} says {verdict:?}", key.name),
            evidence: None,
        };
        tracker.record(answer, now);
        let (state, again) = (tracker.state(now), tracker.next_ask(now));
        followed.pending.insert(key.clone());
        self.show(id, key.clone(), state);
        self.note(id, Event::Answered(key.clone(), verdict));
        let latency = (self.script.latency)(Takes::Answer, id);
        self.enqueue(after(again, latency), Pending::Answer { id, key, attempt });
    }

    /// Are these, by what is written, recovered and healthy? Names the first that is not.
    fn live_read(&self, dependencies: &[ServiceId]) -> Option<(Reason, String)> {
        let carries = |id: ServiceId| {
            let status = &self.seen.services[id].status;
            status.stage == Stage::Recovered
                && is_true(&status.conditions, RECOVERED)
                && is_true(&status.conditions, HEALTHY)
        };
        let culprit = dependencies.iter().find(|&&id| !carries(id))?;
        let name = &self.plan.services[*culprit].name;
        Some((Reason::DependencyNotRecovered, format!("{name} is not recovered and healthy")))
    }

    fn refuse(&mut self, id: ServiceId, (reason, message): (Reason, String)) {
        let again_at = after(self.seen.now, REFUSED_FOR);
        let refusal = Refusal { reason, message, again_at };
        self.note(id, Event::Refused(refusal.clone()));
        let of = &mut self.seen.services[id];
        of.busy = false;
        of.refused = Some(refusal);
    }

    fn note(&mut self, service: ServiceId, event: Event) {
        self.facts.push(Fact { at: self.seen.now, service, event });
    }

    fn schedule(&mut self, takes: Takes, id: ServiceId, pending: Pending) {
        let latency = (self.script.latency)(takes, id);
        self.enqueue(after(self.seen.now, latency), pending);
    }

    fn enqueue(&mut self, at: Timestamp, pending: Pending) {
        self.scheduled += 1;
        self.queue.insert((at, self.scheduled), pending);
    }
}
