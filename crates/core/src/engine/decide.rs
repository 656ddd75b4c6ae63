//! [`Engine`]: decides for a whole plan, and again only what a change can have altered.
//!
//! What becomes of a service follows from what is observed of it, of the members of its unit and of its dependencies, from its
//! unit's slot, and from the time. Each look decides again for those of whom one of these has changed, and for no others. What is
//! said of those who hold others up goes through the whole graph, and follows in a second pass.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::attempts::adopt;
use super::context::ServiceContext;
use super::decisions;
use super::memory::{ServiceMemory, WakeTimes};
use super::next::{Next, phases};
use super::services::Followed;
use super::slots::{self, Slots, UnitView};
use super::stages::advance;
use super::summary::{self, Tally, Totals};
use super::write::must_write;
use super::{Decided, Observation, Presence, ServiceDecided, blocks, conditions, quarantines, resumes, room};
use crate::api::{ServiceRecoveryStatus, Stage};
use crate::plan::{Plan, ServiceId, UnitId};

/// Decides for one plan, and remembers what it decided on.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    memory: Option<Memory>,
}

impl Engine {
    /// An engine for this plan, which has decided nothing yet.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { plan, memory: None }
    }

    /// The plan that it decides for.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Decides. `seen.services` follows the plan's services; if it does not, nothing is decided. Only services are returned for
    /// which something may have changed since the last look: for all others what was decided then stands.
    #[must_use]
    pub fn decide(&mut self, seen: &Observation) -> Decided {
        look(&self.plan, seen, &mut self.memory)
    }
}

/// Decides for a whole plan, from nothing but what is observed. `seen.services` follows `plan.services`; if it does not, nothing is
/// decided.
#[must_use]
pub fn decide(plan: &Plan, seen: &Observation) -> Decided {
    look(plan, seen, &mut None)
}

/// What was decided at the last look, and on what.
#[derive(Debug)]
struct Memory {
    now: Timestamp,
    incident: Presence,
    compromised_since: Option<Timestamp>,
    account: Presence,
    services: Vec<ServiceMemory>,
    /// Of each service, what it was decided on, and up to where its changes were followed.
    revisions: Vec<u64>,
    followed: Followed,
    /// When each service is decided again at the latest.
    wake_at: WakeTimes,
    /// What counts of each service.
    tallies: Vec<Tally>,
    totals: Totals,
    slots: Slots,
    views: Vec<UnitView>,
    /// For each service the one that holds it up.
    roots: Vec<Option<ServiceId>>,
}

fn look(plan: &Plan, seen: &Observation, memory: &mut Option<Memory>) -> Decided {
    if seen.services.len() != plan.services.len() || plan.incident.is_none() {
        *memory = None;
        return Decided { services: Vec::new(), plan: summary::dormant(plan, seen), wake_at: None };
    }
    let before = memory.take().filter(|before| {
        before.incident == seen.incident
            && before.compromised_since == seen.compromised_since
            && before.account == seen.account
            && before.now <= seen.now
    });
    let mut pass = Pass::new(plan, seen, before);
    pass.observe();
    pass.allot_slots();
    pass.advance();
    pass.find_roots();
    let services = pass.finish();
    let memory = memory.insert(pass.memory);
    let status = summary::plan_status(plan, seen, &memory.totals, &memory.tallies, &memory.services);
    Decided { services, plan: status, wake_at: memory.wake_at.first() }
}

/// Some of the services, or units.
struct Marks {
    is_marked: Vec<bool>,
    marked: Vec<usize>,
}

impl Marks {
    fn new(of: usize, all: bool) -> Self {
        Self { is_marked: vec![all; of], marked: if all { (0..of).collect() } else { Vec::new() } }
    }

    /// Marks one. Returns whether it was not marked before.
    fn insert(&mut self, one: usize) -> bool {
        let is_new = !std::mem::replace(&mut self.is_marked[one], true);
        if is_new {
            self.marked.push(one);
        }
        is_new
    }

    /// Those that are marked, in their order.
    fn sorted(&mut self) -> Vec<usize> {
        self.marked.sort_unstable();
        self.marked.clone()
    }
}

/// One look.
struct Pass<'a> {
    plan: &'a Plan,
    seen: &'a Observation,
    /// Nothing is remembered: everything is decided.
    is_first: bool,
    memory: Memory,
    /// Services to decide again.
    dirty: Marks,
    /// What was decided again, in the plan's order.
    next: Vec<(ServiceId, Next)>,
    /// Services that hold others up for another reason than before, or do so no more.
    turned: Marks,
    /// Services that are told again who holds them up.
    untold: Marks,
    /// Units to look at again.
    units: Marks,
}

impl<'a> Pass<'a> {
    fn new(plan: &'a Plan, seen: &'a Observation, before: Option<Memory>) -> Self {
        let is_first = before.is_none();
        let mut memory = before.unwrap_or_else(|| Memory {
            now: seen.now,
            incident: seen.incident.clone(),
            compromised_since: seen.compromised_since,
            account: seen.account.clone(),
            services: (0..plan.services.len())
                .map(|id| ServiceMemory {
                    standing: slots::standing(plan, seen, id),
                    is_recovered: false,
                    stuck: None,
                })
                .collect(),
            revisions: seen.services.revisions().to_vec(),
            followed: seen.services.followed(),
            wake_at: WakeTimes::new(plan.services.len()),
            tallies: vec![Tally::default(); plan.services.len()],
            totals: Totals::default(),
            slots: Slots::new(plan),
            views: Vec::new(),
            roots: vec![None; plan.services.len()],
        });
        memory.now = seen.now;
        let (services, units) = (plan.services.len(), plan.units.len());
        Self {
            plan,
            seen,
            is_first,
            memory,
            dirty: Marks::new(services, is_first),
            next: Vec::new(),
            turned: Marks::new(services, false),
            untold: Marks::new(services, is_first),
            units: Marks::new(units, is_first),
        }
    }

    /// Which services have changed, or have to be looked at because time has passed; and whom that concerns.
    fn observe(&mut self) {
        let (plan, seen) = (self.plan, self.seen);
        let due: Vec<ServiceId> = self.memory.wake_at.until(seen.now).collect();
        for id in due {
            // What asks about a failure wants a slot whenever it may try again.
            self.concern(plan.services[id].unit);
        }
        let followed = std::mem::replace(&mut self.memory.followed, seen.services.followed());
        for id in seen.services.changed_since(followed) {
            let revision = seen.services.revisions()[id];
            if self.memory.revisions[id] == revision {
                continue;
            }
            self.memory.revisions[id] = revision;
            let standing = slots::standing(plan, seen, id);
            let falls_or_rises = standing != self.memory.services[id].standing;
            self.memory.services[id].standing = standing;
            let unit = plan.services[id].unit;
            self.concern(unit);
            if falls_or_rises {
                plan.units[unit].dependents.iter().for_each(|&dependent| self.concern(dependent));
            }
        }
    }

    /// All of a unit is decided again.
    fn concern(&mut self, unit: UnitId) {
        if self.units.insert(unit) {
            self.mark_members(unit);
        }
    }

    fn mark_members(&mut self, unit: UnitId) {
        for &member in &self.plan.units[unit].members {
            self.dirty.insert(member);
        }
    }

    fn allot_slots(&mut self) {
        if self.units.marked.is_empty() {
            return;
        }
        let (plan, seen) = (self.plan, self.seen);
        let memory = &mut self.memory;
        let satisfies = |id: ServiceId| memory.services[id].standing.satisfies;
        for &unit in &self.units.marked {
            let (state, view) = slots::unit_state(plan, seen, &satisfies, unit);
            memory.slots.set(plan, unit, state);
            if self.is_first {
                memory.views.push(view);
            } else {
                memory.views[unit] = view;
            }
        }
        let turned = memory.slots.allot(plan);
        for &unit in self.units.marked.iter().chain(&turned) {
            memory.views[unit].go = memory.slots.has(unit);
        }
        turned.into_iter().for_each(|unit| self.mark_members(unit));
    }

    /// Decides again for each service that is dirty.
    fn advance(&mut self) {
        let (plan, seen) = (self.plan, self.seen);
        for id in self.dirty.sorted() {
            let observed = &seen.services[id];
            // Nothing is decided for what is being written.
            let next = (!observed.busy).then(|| one(plan, seen, &self.memory.views, id));
            let stuck = match &next {
                Some(next) => blocks::stuck(&next.status, &next.blocks),
                None => blocks::asked_about(&observed.status, &observed.status.blocked_by),
            };
            let of = &mut self.memory.services[id];
            let status = next.as_ref().map_or(&observed.status, |next| &next.status);
            of.is_recovered = status.stage == Stage::Recovered;
            self.untold.insert(id);
            if of.stuck != stuck {
                of.stuck = stuck;
                self.turned.insert(id);
                let unit = plan.services[id].unit;
                for &mate in &plan.units[unit].members {
                    self.untold.insert(mate);
                }
            }
            self.next.extend(next.map(|next| (id, next)));
        }
    }

    /// Who holds whom up. Whoever waits for one that is stuck, or was, is told again where that says something else now.
    fn find_roots(&mut self) {
        let (plan, memory) = (self.plan, &mut self.memory);
        let services = &memory.services;
        let holds_none_up = |roots: &[Option<ServiceId>]| roots.iter().all(Option::is_none);
        if services.iter().all(|of| of.stuck.is_none()) && holds_none_up(&memory.roots) {
            return;
        }
        let roots = blocks::roots(plan, &memory.views, services);
        let before = std::mem::replace(&mut memory.roots, roots);
        let changed: Vec<bool> = memory
            .roots
            .iter()
            .zip(before)
            .map(|(root, before)| *root != before || root.is_some_and(|root| self.turned.is_marked[root]))
            .collect();
        for (id, service) in plan.services.iter().enumerate() {
            if changed[id] || memory.views[service.unit].unmet.iter().any(|&d| changed[d]) {
                self.untold.insert(id);
            }
        }
    }

    /// Tells who holds a service up, sets its conditions, and says whether that is written.
    fn finish(&mut self) -> Vec<ServiceDecided> {
        let (plan, seen) = (self.plan, self.seen);
        let mut decided = Vec::new();
        let mut again = std::mem::take(&mut self.next).into_iter().peekable();
        for id in self.untold.sorted() {
            let before = &seen.services[id];
            if before.busy {
                self.memory.wake_at.set(id, None);
                self.count(id, &before.status);
                decided.push(ServiceDecided {
                    service: id,
                    write: None,
                    effect: None,
                    ask: phases(before.status.stage).to_vec(),
                    observe_step: None,
                    health: conditions::health_of(plan, seen, id),
                });
                continue;
            }
            let memory = &self.memory;
            let next = again.next_if(|(of, _)| *of == id).map(|(_, next)| next);
            let mut next = next.unwrap_or_else(|| one(plan, seen, &memory.views, id));
            blocks::fill_blocks(plan, seen, &memory.views, &memory.services, &memory.roots, id, &mut next);
            conditions::set_all(plan, seen, id, &mut next);
            let write = must_write(before, &mut next, seen.now);
            let wake_at = next.wake.iter().copied().filter(|&at| at > seen.now).min();
            self.memory.wake_at.set(id, wake_at);
            self.count(id, &next.status);
            let Next { status, effect, ask, observe_step, health, .. } = next;
            let write = write.then(|| Box::new(status));
            decided.push(ServiceDecided { service: id, write, effect, ask, observe_step, health });
        }
        decided
    }

    /// Counts a service as it will be.
    fn count(&mut self, id: ServiceId, next: &ServiceRecoveryStatus) {
        let waits_for_none = self.memory.views[self.plan.services[id].unit].unmet.is_empty();
        let now =
            Tally::new(&self.seen.services[id].status, next, waits_for_none, self.plan.services[id].impact);
        let before = std::mem::replace(&mut self.memory.tallies[id], now);
        self.memory.totals.replace(&before, &self.memory.tallies[id]);
    }
}

/// Takes one service as far as one look allows, and says what is wrong with it and around it.
fn one(plan: &Plan, seen: &Observation, units: &[UnitView], id: ServiceId) -> Next {
    let of = &seen.services[id];
    let context = ServiceContext { plan, observed: seen, unit: &units[plan.services[id].unit], id, of };
    let mut next = if let Some(adopted) = adopt(of, seen.now) {
        adopted
    } else if let Some(ordered) = decisions::orders::take(plan, id, of, seen.now) {
        ordered
    } else if let Some(isolating) = &of.status.isolating {
        context.isolate_again(isolating)
    } else if let Some(begun) = decisions::end_attempt(of, seen.now) {
        begun
    } else {
        let mut next = advance(plan, seen, units, id);
        context.follow_deadline(&mut next);
        decisions::answer(&context, &mut next);
        room::follow(plan, seen, id, &mut next);
        quarantines::make(plan, seen, id, &mut next);
        resumes::resume(plan, seen, units, id, &mut next);
        next
    };
    if of.exists && of.other_plan.is_none() {
        decisions::orders::publish(plan, id, &mut next);
        decisions::applied::begin(&mut next, seen.now);
    }
    blocks::add_external_blocks(plan, seen, units, id, &mut next);
    next
}
