//! One plan's world, moved by timed events. Events of one moment are applied in the order in which they were scheduled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::assume::ServiceRun;
use crate::api::{Isolation, Phase, RecoveryPlanStatus, ServiceRecoveryStatus};
use crate::engine::{
    Asked, ClaimState, Effect, Engine, GateKey, Observation, Presence, QuarantineObservation,
    QuarantineState, ServiceObservation, StepProgress, StepRun, Tracker,
};
use crate::plan::{Plan, ServiceId};
use crate::time::after;

mod effects;
mod gates;
mod script;

pub use script::{Event, Fact, Limits, Question, RanAway, Script, Takes};

enum Pending {
    Written { id: ServiceId, status: Box<ServiceRecoveryStatus>, effect: Option<Effect> },
    Apply { id: ServiceId, effect: Effect },
    Enforced { id: ServiceId, namespace: usize, asked: Asked },
    StepEnded { id: ServiceId, index: usize, attempt: i64, starts: bool },
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
    /// All that happened, in order, unless it is [played for its times](World::without_facts) alone.
    pub facts: Vec<Fact>,
    /// How each service went, in the plan's order.
    pub runs: Vec<ServiceRun>,
    /// Writes to each ServiceRecovery: adoption, statuses, isolations asked for.
    pub writes: Vec<usize>,
    start: Timestamp,
    keeps_facts: bool,
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

/// A Quarantine that nobody has claimed.
fn contained() -> QuarantineState {
    QuarantineState {
        isolation: Some(Isolation::Contained),
        hold: None,
        overruled: false,
        is_namespace_missing: false,
        unmanaged_pods: Vec::new(),
        ready: true,
        message: String::new(),
        unready_since: None,
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
        let isolated = |namespace: &String| QuarantineObservation {
            namespace: namespace.clone(),
            exists: true,
            found: Some(contained()),
        };
        let services = plan.services.iter().map(|service| ServiceObservation {
            quarantines: service.namespaces.iter().map(quarantine).collect(),
            originals: service.replaces.iter().map(isolated).collect(),
            ..ServiceObservation::default()
        });
        let seen = Observation {
            now,
            incident: Presence::Present,
            compromised_since: None,
            account: Presence::Present,
            services: services.collect(),
        };
        let count = plan.services.len();
        Self {
            plan,
            seen,
            status: RecoveryPlanStatus::default(),
            facts: Vec::new(),
            runs: vec![ServiceRun::default(); count],
            start: now,
            keeps_facts: true,
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

    /// The same world, which keeps no facts: most of the work of a large plan is to copy what is written into them.
    #[must_use]
    pub fn without_facts(self) -> Self {
        Self { keeps_facts: false, ..self }
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
                self.note(id, || Event::Decided(effect.clone()));
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

    fn apply(&mut self, pending: Pending) {
        match pending {
            Pending::Written { id, status, effect } => {
                self.writes[id] += 1;
                self.note(id, || Event::Written(status.clone()));
                let at = self.seen.now.duration_since(self.start).unsigned_abs();
                self.runs[id].follow(at, &status);
                let of = &mut self.seen.services[id];
                if of.status.attempt != status.attempt {
                    of.gates.clear();
                    of.steps.clear();
                    of.resumes = None;
                    of.inspection = None;
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
            Pending::StepEnded { id, index, attempt, starts } => {
                let outcome = (self.script.step)(id, index, self.seen.now);
                self.note(id, || Event::StepEnded(index, outcome.clone()));
                let of = &mut self.seen.services[id];
                of.busy &= !starts;
                if of.status.attempt == attempt {
                    let runs = matches!(outcome, StepProgress::Running(_));
                    of.steps.insert(StepRun::latest(&of.status, index), outcome);
                    if runs {
                        let observed = Pending::StepEnded { id, index, attempt, starts: false };
                        self.schedule(Takes::Step(index), id, observed);
                    }
                }
            }
            Pending::Answer { id, key, attempt } => self.answer(id, key, attempt),
        }
    }

    /// Tells of an event, where somebody is to read of it.
    fn note(&mut self, service: ServiceId, event: impl FnOnce() -> Event) {
        if self.keeps_facts {
            self.facts.push(Fact { at: self.seen.now, service, event: event() });
        }
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
