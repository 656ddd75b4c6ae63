//! A model checker for the engine: every order of everything that can happen to a small plan, up to a number of adversities.
//!
//! The state is what the operator observes, what it has under way, and what a judge saw ([`state`]). An action is something that the
//! environment does: a write lands or conflicts, an effect takes place or is refused, the Quarantine controller brings a namespace to its
//! target (by the real [`target`](crate::isolation::target)), a gate turns, a step ends, the operator crashes, the plan is amended,
//! `compromisedSince` moves, on-call holds a Quarantine, a person makes any Decision that is offered, or orders `Hold` or `Abort`. After
//! each the engine decides about everything from nothing, as after each event in the operator; what it decides is then under way.
//!
//! Progress and people's answers are free; each adversity takes one of a few, so that the states are finitely many, and all of them are
//! explored. Time stands still: what time would bring (a gate that is overdue, an effect that has failed for too long) is an adversity.
//! States with the same observation are one state, whatever led to them.

mod environment;
mod judge;
mod plans;
mod quarantine;
mod shell;
mod state;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model as _};

use environment::RECOVERS;
use judge::Invariant;
use plans::Example;
use shell::Model;

use crate::api::{Isolation, Stage};
use crate::engine::{ClaimState, Effect};

/// What one exploration came to.
struct Explored {
    /// In some state, all services are recovered.
    recovers: bool,
    /// Invariants that do not hold, each with the way to the first state that breaks it.
    broken: Vec<(&'static str, String)>,
}

fn explore(model: Model, depth: Option<usize>) -> Explored {
    let began = Instant::now();
    let name = model.name.clone();
    let mut checker = model.checker().finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = depth {
        checker = checker.target_max_depth(depth);
    }
    let checker = checker.spawn_bfs().join();
    let mut broken: Vec<(&'static str, String)> = Vec::new();
    let mut recovers = false;
    for (property, path) in checker.discoveries() {
        recovers |= property == RECOVERS;
        if property == RECOVERS {
            continue;
        }
        broken.push((property, checker.model().told(&path.into_vec())));
    }
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let services = checker.model().store.len();
    eprintln!(
        "{name}: {states} states ({} transitions, {services} states of single services), depth {depth}, in {:.1} s",
        checker.state_count(),
        began.elapsed().as_secs_f64()
    );
    Explored { recovers, broken }
}

/// Explores an example wholly, or to a depth; panics with the shortest way to the first state that breaks an invariant.
fn keeps_all_invariants(example: Example, adversities: u8, depth: Option<usize>) {
    let explored = explore(Model::new(example, adversities), depth);
    let told: Vec<String> = explored.broken.iter().map(|(what, way)| format!("{what}\n{way}")).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    assert!(explored.recovers || depth.is_some(), "nothing was explored");
}

#[test]
fn chain_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::chain(), adversities(1), None);
}

#[test]
fn fork_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::fork(), adversities(1), None);
}

#[test]
fn join_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::join(), adversities(1), None);
}

#[test]
fn together_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::together(), adversities(1), None);
}

#[test]
fn optional_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::optional(), adversities(1), None);
}

#[test]
fn people_keep_all_invariants_in_every_state() {
    keeps_all_invariants(plans::people(), adversities(1), None);
}

#[test]
fn five_services_keep_all_invariants_to_a_depth() {
    let depth = std::env::var("DEPTH").map_or(12, |n| n.parse().unwrap());
    keeps_all_invariants(plans::five(), adversities(1), Some(depth));
}

fn adversities(at_least: u8) -> u8 {
    std::env::var("ADV").map_or(at_least, |n| n.parse().unwrap())
}

/// Explores two services under an engine that is altered, and returns what that breaks.
fn broken_by(distort: shell::Distort) -> Vec<&'static str> {
    let explored = explore(Model::new(plans::pair(), 1).distorted(distort), None);
    explored.broken.iter().map(|(what, _)| *what).collect()
}

#[test]
fn engine_that_opens_on_unknown_gates_is_found() {
    let broken = broken_by(|_, seen, decided| {
        for of in &mut decided.services {
            let observed = &seen.services[of.service];
            let is_sealed = observed.quarantines[0].found.as_ref().unwrap().isolation == Some(Isolation::Sealed);
            let waits = of.effect.is_none() && of.write.is_none() && !observed.busy;
            if waits && is_sealed && observed.status.stage == Stage::Restoring {
                of.effect = Some(Effect::Ask {
                    isolation: Isolation::CleanRoom,
                    attempt: observed.status.attempt,
                    reachable: Vec::new(),
                    dependencies: Vec::new(),
                });
            }
        }
    });
    assert!(broken.contains(&Invariant::Gates.name()) || broken.contains(&Invariant::Unknown.name()), "{broken:?}");
}

#[test]
fn engine_that_waits_for_no_dependency_is_found() {
    let broken = broken_by(|_, seen, decided| {
        for of in &mut decided.services {
            let observed = &seen.services[of.service];
            let found = observed.quarantines[0].found.as_ref().unwrap();
            if of.effect.is_none() && !observed.busy && found.claim == ClaimState::Free {
                of.effect = Some(Effect::Claim { attempt: observed.status.attempt });
            }
        }
    });
    assert_eq!(broken, [Invariant::Order.name()]);
}

#[test]
fn engine_that_starts_a_running_step_again_is_found() {
    let broken = broken_by(|_, seen, decided| {
        for of in &mut decided.services {
            let attempt = seen.services[of.service].status.attempt;
            if let Some(index) = of.observe_step {
                of.effect = Some(Effect::Step { index, attempt, dependencies: Vec::new() });
            }
        }
    });
    assert_eq!(broken, [Invariant::Once.name()]);
}

#[test]
fn engine_that_asks_nobody_is_found() {
    let broken = broken_by(|_, seen, decided| {
        for of in &mut decided.services {
            if let Some(write) = &mut of.write {
                write.decision = None;
                write.held_up_by = None;
                write.blocked_by.clear();
            }
            of.write = of.write.take().filter(|write| **write != seen.services[of.service].status);
        }
    });
    assert_eq!(broken, [Invariant::Reported.name()]);
}
