//! Judges a world by its facts: answers heard, statuses written, isolation enforced. Believes nothing the engine holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::random::{Case, needs};
use crate::api::conditions::{HEALTHY, RECOVERED, is_true};
use crate::api::{Isolation, Phase, ServiceRecoveryStatus, Stage, StepPhase, Verdict};
use crate::engine::{Effect, GateKey, StepProgress};
use crate::plan::Plan;
use crate::simulate::{Event, Fact};

/// All that happened to one service so far.
#[derive(Default)]
struct Known {
    status: ServiceRecoveryStatus,
    /// By gate, in this attempt: since when it passes without a break, when it was last heard, and what it said.
    passing: BTreeMap<GateKey, (Option<Timestamp>, Timestamp, Verdict)>,
    enforced: BTreeMap<String, Isolation>,
    /// The isolation asked for in this attempt.
    asked: Option<Isolation>,
    /// The isolation asked for last, in whichever attempt. It may be tightened to that even after the attempt has ended.
    asked_last: Option<Isolation>,
    step_running: bool,
}

/// What the judge counted, so that a test can tell that there was something to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub loosenings: usize,
    pub steps: usize,
}

/// A person accepted that a gate of a service fails, in one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AcceptedFailure {
    pub at: Timestamp,
    pub service: usize,
    pub attempt: i64,
    pub gate: String,
}

struct Judge<'a> {
    case: &'a Case,
    plan: &'a Plan,
    accepted: &'a [AcceptedFailure],
    known: Vec<Known>,
    judged: Judged,
}

/// Panics at the first fact that breaks an invariant.
pub(super) fn judge(case: &Case, plan: &Plan, facts: &[Fact]) -> Judged {
    judge_with(case, plan, facts, &[])
}

/// The same, where people have accepted that gates fail.
pub(super) fn judge_with(case: &Case, plan: &Plan, facts: &[Fact], accepted: &[AcceptedFailure]) -> Judged {
    let known = (0..plan.services.len()).map(|_| Known::default()).collect();
    let mut judge = Judge { case, plan, accepted, known, judged: Judged::default() };
    for fact in facts {
        judge.take(fact);
    }
    judge.judged
}

impl Judge<'_> {
    fn take(&mut self, fact: &Fact) {
        let (id, at) = (fact.service, fact.at);
        match &fact.event {
            Event::Written(status) => {
                crate::engine::tests::kstatus::check(status);
                let of = &mut self.known[id];
                assert!(status.attempt == of.status.attempt || status.attempt == of.status.attempt + 1);
                if status.attempt != of.status.attempt {
                    of.passing.clear();
                    of.asked = None;
                    of.step_running = false;
                }
                of.status = (**status).clone();
            }
            Event::Answered(key, verdict) => {
                let heard = self.known[id].passing.entry(key.clone()).or_insert((None, at, *verdict));
                heard.0 = (*verdict == Verdict::Pass).then(|| heard.0.unwrap_or(at));
                (heard.1, heard.2) = (at, *verdict);
            }
            Event::Enforced(namespace, isolation) => {
                let is_stopped = {
                    let status = &self.known[id].status;
                    let orders = status.standing_orders.as_ref();
                    status.isolating.is_some() || orders.is_some_and(|orders| orders.hold.is_some())
                };
                let loosens = self.loosens(id, *isolation);
                assert!(!(is_stopped && loosens), "I4: s{id} is loosened though stopped");
                let of = &mut self.known[id];
                let asked = if loosens { of.asked } else { of.asked_last };
                assert_eq!(asked, Some(*isolation), "s{id}: enforced what nobody asks");
                of.enforced.insert(namespace.clone(), *isolation);
            }
            Event::Decided(effect) => self.decided(id, effect, at),
            Event::Done(effect) => self.done(id, effect, at),
            Event::StepEnded(_, progress) => {
                self.known[id].step_running &= matches!(progress, StepProgress::Running(_));
            }
            Event::Refused(_) => {}
        }
    }

    /// Does this effect loosen anything of this service?
    fn loosens(&self, id: usize, to: Isolation) -> bool {
        self.plan.services[id]
            .namespaces
            .iter()
            .any(|n| self.known[id].enforced.get(n).copied().unwrap_or(Isolation::Contained) < to)
    }

    /// By what was known when it was decided.
    fn decided(&mut self, id: usize, effect: &Effect, at: Timestamp) {
        let loosens = match effect {
            Effect::Ask { isolation, .. } if self.loosens(id, *isolation) => Some(*isolation),
            Effect::Step { .. } | Effect::Resume { .. } | Effect::Claim { .. } => None,
            Effect::Ask { .. } | Effect::Quarantine { .. } | Effect::Adopt => return,
            Effect::CreateNamespaces { .. } => return,
            // What comes in anew stands by what is written, when it takes place.
            Effect::Follow { .. } | Effect::LookAtSuspended { .. } => return,
            Effect::Accept { .. } | Effect::Inspect { .. } => return,
        };
        for dependency in needs(&self.case.spec, id) {
            self.carries(id, dependency);
            for gate in self.phase_of(dependency, Phase::Continuous) {
                self.passes(dependency, &gate, at, &format!("I1: s{id} goes on"));
            }
        }
        match loosens {
            Some(Isolation::CleanRoom) => self.door(id, Phase::BeforeRestore, Isolation::CleanRoom, at),
            Some(Isolation::Open) => self.door(id, Phase::BeforeRelease, Isolation::Open, at),
            Some(Isolation::Sealed | Isolation::Contained) | None => {}
        }
    }

    /// By what is written when it takes place.
    fn done(&mut self, id: usize, effect: &Effect, _: Timestamp) {
        match effect {
            Effect::Ask { isolation, .. } => {
                if self.loosens(id, *isolation) {
                    self.judged.loosenings += 1;
                    needs(&self.case.spec, id).into_iter().for_each(|d| self.carries(id, d));
                }
                (self.known[id].asked, self.known[id].asked_last) = (Some(*isolation), Some(*isolation));
            }
            Effect::Step { index, .. } => {
                self.judged.steps += 1;
                needs(&self.case.spec, id).into_iter().for_each(|d| self.carries(id, d));
                let (service, rooms) = (&self.plan.services[id], &self.known[id].enforced);
                let wanted = match service.steps[*index].phase {
                    StepPhase::CleanRoom => Isolation::CleanRoom,
                    StepPhase::AfterRelease => Isolation::Open,
                };
                assert!(
                    service.namespaces.iter().all(|n| rooms.get(n) == Some(&wanted)),
                    "s{id}: a step outside of {wanted:?}"
                );
                self.known[id].step_running = true;
                let units: BTreeSet<usize> = (0..self.known.len())
                    // Whoever waits for a person has given the slot back.
                    .filter(|&s| self.known[s].step_running && self.known[s].status.decision.is_none())
                    .map(|s| self.plan.services[s].unit)
                    .collect();
                assert!(units.len() <= self.plan.max_parallel, "{units:?} run steps at once");
            }
            Effect::Follow { dependencies, .. } => {
                dependencies.iter().for_each(|key| self.carries(id, self.plan.index[&key.service]));
            }
            Effect::Resume { .. } => self.carries(id, id),
            // It starts nothing: what a dependency becomes meanwhile is judged at what does.
            Effect::Claim { .. }
            | Effect::Quarantine { .. }
            | Effect::LookAtSuspended { .. }
            | Effect::Adopt => {}
            Effect::Accept { .. } | Effect::Inspect { .. } | Effect::CreateNamespaces { .. } => {}
        }
    }

    /// Is a dependency, by what is written, recovered and healthy?
    fn carries(&self, id: usize, dependency: usize) {
        let status = &self.known[dependency].status;
        let of = &status.conditions;
        assert!(
            status.stage == Stage::Recovered && is_true(of, RECOVERED) && is_true(of, HEALTHY),
            "I1: s{id} goes on while s{dependency} is at {:?}: {of:?}",
            status.stage
        );
    }

    /// I2, for the service and for every mate that has not gone through this door in its attempt.
    fn door(&self, id: usize, phase: Phase, level: Isolation, at: Timestamp) {
        for &mate in &self.plan.units[self.plan.services[id].unit].members {
            let of = &self.known[mate];
            let through = of.asked.is_some_and(|asked| asked >= level) || of.status.stage == Stage::Recovered;
            if mate != id && through {
                continue;
            }
            for gate in self.phase_of(mate, phase) {
                self.passes(mate, &gate, at, &format!("I2: s{id} to {level:?}"));
            }
        }
    }

    fn phase_of(&self, id: usize, phase: Phase) -> Vec<(GateKey, Duration, Duration)> {
        let gates: Vec<_> = self.plan.services[id]
            .gates_of(phase)
            .map(|g| {
                let key = GateKey { phase, name: g.spec.name.clone() };
                (key, g.policy.stable_for, g.policy.freshness())
            })
            .collect();
        assert!(!gates.is_empty(), "empty is not passed");
        gates
    }

    fn is_accepted(&self, id: usize, key: &GateKey, at: Timestamp) -> bool {
        let attempt = self.known[id].status.attempt;
        self.accepted
            .iter()
            .any(|of| (of.service, of.attempt, &of.gate) == (id, attempt, &key.name) && of.at <= at)
    }

    fn passes(
        &self,
        id: usize,
        (key, stable, fresh): &(GateKey, Duration, Duration),
        at: Timestamp,
        what: &str,
    ) {
        let heard = self.known[id].passing.get(key);
        if heard.is_some_and(|heard| heard.2 == Verdict::Fail) && self.is_accepted(id, key, at) {
            return;
        }
        let Some((Some(since), last, _)) = heard else {
            panic!("{what} while {} of s{id} does not pass in this attempt: {heard:?}", key.name);
        };
        let ago = |t: &Timestamp| at.duration_since(*t);
        assert!(
            ago(last) < SignedDuration::try_from(*fresh).unwrap(),
            "{what}: {} of s{id} is stale",
            key.name
        );
        let proved = last.duration_since(*since) >= SignedDuration::try_from(*stable).unwrap();
        assert!(proved, "{what}: {} of s{id} was not stable yet", key.name);
    }
}
