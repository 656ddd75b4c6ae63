//! Gates that are asked: what a script says of them, and when the engine learns of it.

use std::mem;

use super::{Event, Pending, Question, Takes, World, after};
use crate::api::{GateReason, Phase, Verdict};
use crate::engine::{Answer, GateKey, GateState, Tracker};
use crate::plan::ServiceId;

impl World<'_> {
    /// Has the gates seen that are new, or that say something else by now without having been asked.
    pub(super) fn turn_gates(&mut self) {
        let now = self.seen.now;
        for id in mem::take(&mut self.fresh) {
            for key in mem::take(&mut self.followed[id].fresh) {
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
    pub(super) fn ask(&mut self, id: ServiceId, phases: Vec<Phase>) {
        let attempt = self.seen.services[id].status.attempt;
        let followed = &mut self.followed[id];
        followed.phases = phases;
        let mut begin = Vec::new();
        for gate in self.plan.services[id].gates.iter().filter(|g| followed.phases.contains(&g.phase)) {
            if !followed.trackers.contains_key(&gate.key) {
                followed.fresh.push(gate.key.clone());
                followed.trackers.insert(gate.key.clone(), Tracker::new(gate.policy, self.seen.now));
            }
            if !followed.pending.contains(&gate.key) {
                followed.pending.insert(gate.key.clone());
                begin.push(gate.key.clone());
            }
        }
        if !followed.fresh.is_empty() {
            self.fresh.push(id);
        }
        for key in begin {
            self.schedule(Takes::Answer, id, Pending::Answer { id, key, attempt });
        }
    }

    pub(super) fn answer(&mut self, id: ServiceId, key: GateKey, attempt: i64) {
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
            subject: None,
            exceptions: Vec::new(),
        };
        tracker.record(answer, now);
        let (state, again) = (tracker.state(now), tracker.next_ask(now));
        followed.pending.insert(key.clone());
        self.show(id, key.clone(), state);
        self.note(id, || Event::Answered(key.clone(), verdict));
        let latency = (self.script.latency)(Takes::Answer, id);
        self.enqueue(after(again, latency), Pending::Answer { id, key, attempt });
    }
}
