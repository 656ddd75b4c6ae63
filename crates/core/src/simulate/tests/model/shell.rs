//! What is explored: an example, and what the engine makes of each of its states.

use std::collections::HashMap;
use std::sync::Mutex;

use k8s_openapi::jiff::Timestamp;

use super::environment::Act;
use super::judge::{Invariant, Judge};
use super::plans::{Example, Stated};
use super::quarantine::enforcement;
use super::state::{Local, Op, Services, State, Store, is_on_its_way};
use crate::api::service_recovery::StepState;
use crate::api::{Health, Isolation, Stage};
use crate::engine::{Decided, Observation, Presence, ServiceObservation, decide};
use crate::plan::loosening::{Allowance, Dependency, allowance};
use crate::plan::{Plan, ServiceId};

/// Alters what the engine decides, to see that the judge finds it.
pub(super) type Distort = fn(&Plan, &Observation, &mut Decided);

/// Time stands still.
pub(super) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

pub(super) fn days_ago(days: i64) -> Timestamp {
    Timestamp::from_second(-86_400 * days).unwrap()
}

/// An example that is explored.
pub(super) struct Model {
    pub name: String,
    pub store: Store,
    pub plans: Vec<Stated>,
    pub adversities: u8,
    /// Explore every order of what happens even after the last adversity. Otherwise, each service takes one more step in any order; then
    /// they go on one after another, and people decide where nothing goes on by itself.
    pub in_every_order: bool,
    distort: Option<Distort>,
    /// What the engine makes of a state, by the services, the plan, and whether `compromisedSince` has moved.
    looks: Mutex<HashMap<Seen, (Vec<u32>, u16)>>,
}

type Seen = (Vec<u32>, u8, bool);

impl Model {
    pub(super) fn new(example: Example, adversities: u8) -> Self {
        Self {
            name: format!("{} with {adversities} adversities", example.name),
            store: Store::default(),
            plans: example.plans,
            adversities,
            in_every_order: false,
            distort: None,
            looks: Mutex::default(),
        }
    }

    pub(super) fn in_every_order(self) -> Self {
        Self { in_every_order: true, ..self }
    }

    pub(super) fn distorted(self, distort: Distort) -> Self {
        Self { distort: Some(distort), ..self }
    }

    pub(super) fn plan(&self, state: &State) -> &Plan {
        &self.plans[usize::from(state.plan)].plan
    }

    fn observation(&self, services: &Services, has_moved: bool) -> Observation {
        Observation {
            now: NOW,
            incident: Presence::Present,
            compromised_since: Some(days_ago(if has_moved { 9 } else { 1 })),
            account: Presence::Present,
            services: services.iter().map(|local| local.of.clone()).collect(),
        }
    }

    /// The engine decides, and what it decided is under way.
    pub(super) fn look(&self, mut services: Services, plan: u8, has_moved: bool) -> (Vec<u32>, u16) {
        let before = self.store.numbers(&mut services);
        let seen = (before, plan, has_moved);
        if let Some(known) = self.looks.lock().unwrap().get(&seen) {
            return known.clone();
        }
        let stated = &self.plans[usize::from(plan)];
        let observation = self.observation(&services, has_moved);
        let mut decided = decide(&stated.plan, &observation);
        if let Some(distort) = self.distort {
            distort(&stated.plan, &observation, &mut decided);
        }
        let mut broken = 0;
        let judge = Judge { stated, services: &services };
        for of in decided.services.iter().filter(|of| !services[of.service].of.busy) {
            broken |= of.effect.as_ref().map_or(0, |effect| judge.decided(of.service, effect));
        }
        for decided in decided.services {
            let local = &services[decided.service];
            let is_dull = decided.write.is_none() && decided.effect.is_none() && local.ask == decided.ask;
            // A running write changes which gates are evaluated.
            if local.health == decided.health && (local.of.busy || is_dull) {
                continue;
            }
            let local = &mut services[decided.service];
            local.health = decided.health;
            if local.of.busy {
                continue;
            }
            let begins = decided.write.as_ref().is_some_and(|next| next.attempt != local.of.status.attempt);
            local.of.gates.retain(|key, _| decided.ask.contains(&key.phase) && !begins);
            local.ask = decided.ask;
            if decided.write.is_some() || decided.effect.is_some() {
                local.of.busy = true;
                local.op = Some(Op { write: decided.write, effect: decided.effect, plan });
            }
        }
        if self.is_at_rest(&stated.plan, &services) {
            broken |= self.unreported(stated, &services, has_moved);
        }
        let after = (self.store.numbers(&mut services), broken);
        self.looks.lock().unwrap().insert(seen, after.clone());
        after
    }

    /// A way through the states, for people.
    pub(super) fn told(&self, way: &[(State, Option<Act>)]) -> String {
        let told = |(state, act): &(State, Option<Act>)| {
            let services = self.store.services(&state.services);
            let services = services.iter().map(|local| {
                let of = &local.of;
                let found = of.quarantines.first().and_then(|q| q.found.as_ref());
                let asks = of.status.decision.as_ref().map_or("", |question| question.reason.as_str());
                format!(
                    "{}/{} {:?} asked {:?} {asks} op {:?}",
                    of.status.stage.as_str(),
                    of.status.attempt,
                    found.and_then(|found| found.isolation),
                    of.asked.map(|asked| (asked.isolation, asked.attempt)),
                    local
                        .op
                        .as_ref()
                        .map(|op| (op.write.as_ref().map(|w| w.stage), op.effect.as_ref().map(|e| e.name()))),
                )
            });
            let services: Vec<String> = services.collect();
            format!("  {}\n    {act:?}", services.join(" | "))
        };
        let from = way.len().saturating_sub(12);
        let acts: Vec<String> =
            way.iter().filter_map(|(_, act)| Some(format!("{:?}", act.as_ref()?))).collect();
        format!("{}\n{}", acts.join(", "), way[from..].iter().map(told).collect::<Vec<_>>().join("\n"))
    }

    /// Nothing is under way, and nothing happens by itself but that a gate turns.
    fn is_at_rest(&self, plan: &Plan, services: &Services) -> bool {
        services.iter().enumerate().all(|(id, local)| {
            let mut asked = plan.services[id].gates.iter().filter(|gate| local.ask.contains(&gate.phase));
            local.op.is_none()
                && enforcement(plan, services, id).is_none()
                && asked.all(|gate| gate.spec.approval.is_some() || local.of.gates.contains_key(&gate.key))
                && steps_on_their_way(&local.of).next().is_none()
        })
    }

    /// Is somebody named for each service that does not go on?
    fn unreported(&self, stated: &Stated, services: &Services, has_moved: bool) -> u16 {
        let mut observation = self.observation(services, has_moved);
        // Informational texts are due.
        observation.services.iter_mut().for_each(|of| of.written_at = None);
        let mut decided = decide(&stated.plan, &observation);
        if let Some(distort) = self.distort {
            distort(&stated.plan, &observation, &mut decided);
        }
        let status = |id: ServiceId| decided.services[id].status(&observation);
        let asks = |id: ServiceId| {
            status(id).decision.is_some()
                || status(id).blocked_by.iter().any(|block| !block.reason.is_in_turn())
        };
        let is_told = |id: ServiceId| {
            let root = status(id).held_up_by.as_ref().and_then(|root| stated.plan.index.get(root));
            asks(id) || root.is_some_and(|&root| asks(root))
        };
        let is_well = |id: ServiceId| {
            status(id).stage == Stage::Recovered && decided.services[id].health == Health::Healthy
        };
        let mut broken = 0;
        if !(0..services.len()).all(|id| is_well(id) || is_told(id)) {
            broken |= Invariant::Reported.bit();
        }
        let is_isolated = |local: &Local| {
            local.of.quarantines.iter().all(|q| {
                q.found
                    .as_ref()
                    .is_some_and(|found| found.isolation.is_some_and(|level| level < Isolation::CleanRoom))
            })
        };
        if services.iter().any(|local| local.witness.is_aborted && !is_isolated(local)) {
            broken |= Invariant::Orders.bit();
        }
        broken
    }
}

/// Steps that this process observes as running, and that are recorded so.
pub(super) fn steps_on_their_way(of: &ServiceObservation) -> impl Iterator<Item = usize> {
    of.status.steps.iter().enumerate().filter_map(|(index, step)| {
        let runs = step.state == StepState::Running && of.step_progress(index).is_some_and(is_on_its_way);
        runs.then_some(index)
    })
}

/// Are these recovered and healthy, by what is recorded and as the operator publishes it?
pub(super) fn allows(services: &Services, on: impl Iterator<Item = ServiceId>) -> Allowance<'static> {
    let allowance = allowance(on.map(|on| Dependency {
        service: "",
        record: Some(&services[on].of.status),
        health: services[on].health,
    }));
    match allowance {
        Allowance::Allowed => Allowance::Allowed,
        Allowance::Unknown(_) => Allowance::Unknown(""),
        Allowance::Refused(_) => Allowance::Refused(""),
    }
}
