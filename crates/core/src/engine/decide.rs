//! [`Engine`]: decides for a whole plan, and again only what a change can have altered.
//!
//! What becomes of a service follows from what is observed of it, of the members of its unit and of its dependencies, from its
//! unit's slot, and from the time. Each look decides again for those of whom one of these has changed, and for no others. What is
//! said of those who hold others up goes through the whole graph, and follows in a second pass.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::attempts::{adopt, retry};
use super::next::Next;
use super::slots::{self, UnitState, UnitView};
use super::stages::advance;
use super::summary::{self, Tally};
use super::write::must_write;
use super::{Decided, Presence, Seen, ServiceDecided, blocks, conditions, quarantines, resumes, room};
use crate::plan::{Plan, ServiceId};

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
    pub fn decide(&mut self, seen: &Seen) -> Decided {
        look(&self.plan, seen, &mut self.memory)
    }
}

/// Decides for a whole plan, from nothing but what is observed. `seen.services` follows `plan.services`; if it does not, nothing is
/// decided.
#[must_use]
pub fn decide(plan: &Plan, seen: &Seen) -> Decided {
    look(plan, seen, &mut None)
}

/// What was decided at the last look, and on what.
#[derive(Debug)]
struct Memory {
    now: Timestamp,
    incident: Presence,
    account: Presence,
    services: Vec<ServiceMemory>,
    units: Vec<UnitState>,
    views: Vec<UnitView>,
    roots: Vec<Option<ServiceId>>,
}

/// What was decided for a service.
#[derive(Debug)]
struct ServiceMemory {
    revision: u64,
    standing: Standing,
    /// As decided, before it is told who holds it up.
    next: Next,
    is_stuck: bool,
    wake_at: Option<Timestamp>,
    tally: Tally,
}

/// What those who depend on a service go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// It satisfies its dependents.
    pub satisfies: bool,
    /// A clean room may talk to it.
    pub is_reachable: bool,
    /// Its stage is `Recovered`.
    pub is_recovered: bool,
}

fn look(plan: &Plan, seen: &Seen, memory: &mut Option<Memory>) -> Decided {
    if seen.services.len() != plan.services.len() || plan.incident.is_none() {
        *memory = None;
        return Decided { services: Vec::new(), plan: summary::dormant(plan, seen), wake_at: None };
    }
    let before = memory.take().filter(|before| {
        before.incident == seen.incident && before.account == seen.account && before.now <= seen.now
    });
    let mut pass = Pass::new(plan, seen, before);
    pass.observe();
    pass.allot_slots();
    pass.advance();
    pass.find_roots();
    let services = pass.finish();
    let memory = memory.insert(pass.memory);
    let next = |id: ServiceId| &memory.services[id].next;
    let stuck: Vec<ServiceId> = (0..plan.services.len()).filter(|&id| memory.services[id].is_stuck).collect();
    let tallies = memory.services.iter().map(|of| &of.tally);
    let status = summary::plan_status(plan, seen, tallies, &memory.views, &stuck, next);
    Decided { services, plan: status, wake_at: memory.services.iter().filter_map(|of| of.wake_at).min() }
}

/// One look.
struct Pass<'a> {
    plan: &'a Plan,
    seen: &'a Seen,
    /// Nothing is remembered: everything is decided.
    is_first: bool,
    memory: Memory,
    /// Services to decide again.
    dirty: Vec<bool>,
    /// Services of which something has to be told again.
    untold: Vec<bool>,
    /// Units to look at again.
    units: Vec<bool>,
}

impl<'a> Pass<'a> {
    fn new(plan: &'a Plan, seen: &'a Seen, before: Option<Memory>) -> Self {
        let is_first = before.is_none();
        let mut memory = before.unwrap_or_else(|| Memory {
            now: seen.now,
            incident: seen.incident.clone(),
            account: seen.account.clone(),
            services: Vec::with_capacity(plan.services.len()),
            units: Vec::new(),
            views: Vec::new(),
            roots: Vec::new(),
        });
        memory.now = seen.now;
        let (services, units) = (plan.services.len(), plan.units.len());
        Self {
            plan,
            seen,
            is_first,
            memory,
            dirty: vec![is_first; services],
            untold: vec![false; services],
            units: vec![is_first; units],
        }
    }

    /// Which services have changed, or have to be looked at because time has passed; and whom that concerns.
    fn observe(&mut self) {
        let (plan, seen) = (self.plan, self.seen);
        for id in 0..plan.services.len() {
            let revision = seen.services.revision(id);
            let Some(of) = self.memory.services.get_mut(id) else {
                self.memory.services.push(ServiceMemory {
                    revision,
                    standing: slots::standing(plan, seen, id),
                    next: Next::unchanged(&seen.services[id]),
                    is_stuck: false,
                    wake_at: None,
                    tally: Tally::default(),
                });
                continue;
            };
            if of.wake_at.is_some_and(|at| at <= seen.now) {
                self.dirty[id] = true;
            }
            if of.revision == revision {
                continue;
            }
            of.revision = revision;
            let standing = slots::standing(plan, seen, id);
            let falls_or_rises = standing != of.standing;
            of.standing = standing;
            let unit = plan.services[id].unit;
            self.concern(unit);
            if falls_or_rises {
                plan.units[unit].dependants.iter().for_each(|&dependant| self.concern(dependant));
            }
        }
    }

    /// All of a unit is decided again.
    fn concern(&mut self, unit: usize) {
        if !self.units[unit] {
            self.units[unit] = true;
            self.plan.units[unit].members.iter().for_each(|&member| self.dirty[member] = true);
        }
    }

    fn allot_slots(&mut self) {
        let (plan, seen) = (self.plan, self.seen);
        let satisfies = |id: ServiceId| self.memory.services[id].standing.satisfies;
        let mut views = std::mem::take(&mut self.memory.views);
        let mut states = std::mem::take(&mut self.memory.units);
        if self.is_first {
            (states, views) =
                (0..plan.units.len()).map(|unit| slots::unit_state(plan, seen, &satisfies, unit)).unzip();
        } else {
            for unit in (0..plan.units.len()).filter(|&unit| self.units[unit]) {
                (states[unit], views[unit]) = slots::unit_state(plan, seen, &satisfies, unit);
            }
        }
        let went: Vec<bool> = views.iter().map(|view| view.go).collect();
        slots::allot(plan, &states, &mut views);
        for (unit, (view, went)) in views.iter().zip(went).enumerate() {
            if view.go != went {
                plan.units[unit].members.iter().for_each(|&member| self.dirty[member] = true);
            }
        }
        (self.memory.views, self.memory.units) = (views, states);
    }

    /// Takes each service as far as one look allows, and says what is wrong around it.
    fn advance(&mut self) {
        let (plan, seen) = (self.plan, self.seen);
        for id in 0..plan.services.len() {
            if !self.dirty[id] {
                continue;
            }
            let units = &self.memory.views;
            let of = &seen.services[id];
            let mut next = if of.busy {
                Next::unchanged(of)
            } else if let Some(adopted) = adopt(of, seen.now) {
                adopted
            } else if let Some(begun) = retry(of, seen.now) {
                begun
            } else {
                let mut next = advance(plan, seen, units, id);
                room::follow(plan, seen, id, &mut next);
                quarantines::make(plan, seen, id, &mut next);
                resumes::resume(plan, seen, units, id, &mut next);
                next
            };
            blocks::outer(plan, seen, units, id, &mut next);
            let is_stuck = blocks::is_stuck(seen, &next, id);
            let of = &mut self.memory.services[id];
            self.untold[id] = true;
            if is_stuck || of.is_stuck {
                let unit = plan.services[id].unit;
                plan.units[unit].members.iter().for_each(|&mate| self.untold[mate] = true);
            }
            (of.next, of.is_stuck) = (next, is_stuck);
        }
    }

    /// Who holds whom up. Whoever waits for one that is stuck, or was, is told again where that says something else now.
    fn find_roots(&mut self) {
        let plan = self.plan;
        let (none, some) =
            (vec![None; plan.services.len()], self.memory.services.iter().any(|of| of.is_stuck));
        let roots = if some { self.roots() } else { none };
        let before = std::mem::replace(&mut self.memory.roots, roots);
        if self.is_first {
            return;
        }
        let roots = &self.memory.roots;
        let changed: Vec<bool> = (0..plan.services.len())
            .map(|id| before[id] != roots[id] || roots[id].is_some_and(|root| self.dirty[root]))
            .collect();
        if !changed.contains(&true) {
            return;
        }
        for (id, service) in plan.services.iter().enumerate() {
            if changed[id] || self.memory.views[service.unit].unmet.iter().any(|&d| changed[d]) {
                self.untold[id] = true;
            }
        }
    }

    fn roots(&self) -> Vec<Option<ServiceId>> {
        let services = &self.memory.services;
        let stuck: Vec<bool> = services.iter().map(|of| of.is_stuck).collect();
        let satisfies = |id: ServiceId| services[id].standing.satisfies;
        let is_recovered = |id: ServiceId| services[id].next.status.stage == crate::api::Stage::Recovered;
        blocks::roots(self.plan, &self.memory.views, &stuck, satisfies, is_recovered)
    }

    /// Tells who holds a service up, sets its conditions, and says whether that is written.
    fn finish(&mut self) -> Vec<ServiceDecided> {
        let (plan, seen) = (self.plan, self.seen);
        let mut decided = Vec::new();
        for id in 0..plan.services.len() {
            if !self.untold[id] {
                continue;
            }
            let services = &self.memory.services;
            let before = &seen.services[id];
            let mut next = services[id].next.clone();
            if !before.busy {
                let held = blocks::Held {
                    roots: &self.memory.roots,
                    is_stuck: &|id| services[id].is_stuck,
                    next: &|id| &services[id].next,
                };
                blocks::tell(plan, seen, &self.memory.views, &held, id, &mut next);
            }
            conditions::set_all(plan, seen, id, &mut next);
            let write = must_write(before, &mut next, seen.now) && !before.busy;
            let of = &mut self.memory.services[id];
            of.wake_at = next.wake.iter().copied().filter(|&at| at > seen.now).min();
            of.tally = Tally::new(&before.status, &next);
            let Next { status, effect, ask, health, .. } = next;
            let status = if write { status } else { before.status.clone() };
            decided.push(ServiceDecided { service: id, status, write, effect, ask, health });
        }
        decided
    }
}
