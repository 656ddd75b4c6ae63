//! A model checker for the engine: every order of everything that can happen to a small plan, up to a number of adversities.
//!
//! The state is what the operator observes, what it has under way, and what a judge saw ([`state`]). An action is something that the
//! environment does: a write lands or conflicts, an effect takes place or is refused, the Quarantine controller brings a namespace to its
//! target (by the real [`target`](crate::isolation::target)), a gate turns, a step ends, the operator crashes, the plan is amended,
//! `compromisedSince` moves, on-call holds a Quarantine, a person makes any Decision that is offered, or orders `Hold` or `Abort`. After
//! each the engine decides about everything from nothing, as after each event in the operator; what it decides is then under way.
//!
//! Progress and people's answers are free; of adversities only so many come, so that the states are finitely many, and all of them are
//! explored. In the tests, one comes, at any moment; after it each service takes one more step in any order, and then they go on one after
//! another, while people decide in every way. `cargo xtask model` explores more adversities, in every order.
//!
//! Left out: Quarantines that are missing, deleted or not enforced, resumed CronJobs, adoption, a plan that is replaced, time (it stands
//! still: a gate that is overdue or an effect that has failed for too long is an adversity), and messages of the API server that are lost.

mod environment;
mod judge;
mod plans;
mod quarantine;
mod service;
mod shell;
mod state;

use std::time::{Duration, Instant};

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

/// Where an exploration ends.
struct Limits {
    depth: Option<usize>,
    time: Option<Duration>,
    threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: None, time: None, threads: 1 }
    }
}

/// How many events from the beginning five services are explored in the tests.
const FIVE_DEPTH: usize = 12;

/// Explores, and prints how many states there are.
fn explore(model: Model, limits: &Limits) -> Explored {
    let began = Instant::now();
    let name = model.name.clone();
    let mut checker = model.checker().finish_when(HasDiscoveries::AnyFailures).threads(limits.threads);
    if let Some(depth) = limits.depth {
        checker = checker.target_max_depth(depth);
    }
    if let Some(time) = limits.time {
        checker = checker.timeout(time);
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
    let seconds = began.elapsed().as_secs_f64();
    let is_whole = limits.depth.is_none() && limits.time.is_none_or(|time| began.elapsed() < time);
    eprintln!(
        "{name}: {} states, {} transitions, depth {}, {}, in {seconds:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        if is_whole { "all" } else { "not all" },
    );
    Explored { recovers, broken }
}

/// Panics with the shortest way to the first state that breaks an invariant.
fn assert_sound(explored: &Explored) {
    let told: Vec<String> = explored.broken.iter().map(|(what, way)| format!("{what}\n{way}")).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// Explores an example wholly, with one adversity.
fn keeps_all_invariants(example: Example) {
    let explored = explore(Model::new(example, 1), &Limits::default());
    assert_sound(&explored);
    assert!(explored.recovers, "nothing was explored");
}

#[test]
fn chain_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::chain());
}

#[test]
fn fork_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::fork());
}

#[test]
fn join_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::join());
}

#[test]
fn together_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::together());
}

#[test]
fn optional_keeps_all_invariants_in_every_state() {
    keeps_all_invariants(plans::optional());
}

#[test]
fn people_keep_all_invariants_in_every_state() {
    keeps_all_invariants(plans::people());
}

#[test]
fn five_services_keep_all_invariants_to_a_depth() {
    let limits = Limits { depth: Some(FIVE_DEPTH), ..Limits::default() };
    assert_sound(&explore(Model::new(plans::five(), 1), &limits));
}

#[test]
#[ignore = "as long as you like: cargo xtask model"]
fn explores_as_far_as_told() {
    let told = |name: &str| std::env::var(format!("RESURGAM_MODEL_{name}")).ok()?.parse::<u64>().ok();
    let adversities = u8::try_from(told("ADVERSITIES").unwrap_or(2)).unwrap();
    let limits = Limits {
        depth: told("DEPTH").map(|depth| usize::try_from(depth).unwrap()),
        time: told("MINUTES").map(|minutes| Duration::from_secs(60 * minutes)),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    for example in plans::of_size(told("SERVICES").unwrap_or(3)) {
        assert_sound(&explore(Model::new(example, adversities).in_every_order(), &limits));
    }
}

/// Explores two services under an engine that is altered, and returns what that breaks.
fn broken_by(distort: shell::Distort) -> Vec<&'static str> {
    let explored = explore(Model::new(plans::pair(), 1).distorted(distort), &Limits::default());
    explored.broken.iter().map(|(what, _)| *what).collect()
}

#[test]
fn engine_that_opens_on_unknown_gates_is_found() {
    let broken = broken_by(|_, seen, decided| {
        for of in &mut decided.services {
            let observed = &seen.services[of.service];
            let is_sealed =
                observed.quarantines[0].found.as_ref().unwrap().isolation == Some(Isolation::Sealed);
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
    assert!(
        broken.contains(&Invariant::Gates.name()) || broken.contains(&Invariant::Unknown.name()),
        "{broken:?}"
    );
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
