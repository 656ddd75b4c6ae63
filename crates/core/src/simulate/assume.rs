//! Simulates a recovery without failures: its duration, and what limits it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{HEALTHY, RECOVERED, is_true};
use crate::api::step::ScaleSpec;
use crate::api::{Phase, ServiceRecoveryStatus, Stage, Verdict};
use crate::engine::StepProgress;
use crate::plan::{Plan, Service, UnitId};

use super::world::{Limits, RanAway, Script, Takes, World};

/// Assumed durations. Every gate passes when it is evaluated, people approve when they are asked, and writes take no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// Duration of a step.
    pub step: Duration,
    /// Duration of each change of isolation.
    pub isolation: Duration,
}

/// Result of a simulated recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// One result per service, in the plan's order.
    pub services: Vec<ServiceRun>,
    /// Time until the last service that can recover is recovered and healthy.
    pub makespan: Duration,
}

/// Result of one service. Times count from the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRun {
    /// When it was claimed. `None`: it never starts.
    pub started: Option<Duration>,
    /// Stages after `Isolated`, with the time of each.
    pub stages: Vec<(Duration, Stage)>,
    /// When it was recovered and healthy.
    pub finished: Option<Duration>,
}

impl Script<'_> {
    /// Returns a script in which nothing fails.
    #[must_use]
    pub fn calm(assumed: Assumed) -> Self {
        Self {
            gate: Box::new(|_| Verdict::Pass),
            latency: Box::new(move |takes, _| match takes {
                Takes::Step(_) => assumed.step,
                Takes::Isolation => assumed.isolation,
                Takes::Write | Takes::Claim | Takes::Answer => Duration::ZERO,
            }),
            step: Box::new(|_, _, _| StepProgress::Succeeded),
        }
    }
}

/// Longer than any recovery: a continuous gate that passed is not evaluated again.
const NEVER: Duration = Duration::from_secs(1_000 * 365 * 86_400);
/// Simulations end at this time.
const HORIZON: SignedDuration = SignedDuration::from_secs(100 * 365 * 86_400);

/// Maximum number of passes per service. Some 15 suffice, a few more with many steps.
const LOOKS_PER_SERVICE: usize = 200;

/// Simulates a plan as if it were armed and not suspended, with this `maxParallel`.
///
/// # Errors
///
/// [`RanAway`] if the simulation does not end, which would be a bug of the engine.
pub fn play(plan: &Plan, assumed: Assumed, max_parallel: usize) -> Result<Run, RanAway> {
    let mut plan = plan.clone();
    plan.incident.get_or_insert_with(|| "simulated".to_owned());
    plan.suspend = false;
    plan.max_parallel = max_parallel.max(1);
    for gate in plan.services.iter_mut().flat_map(|s| &mut s.gates) {
        if gate.phase == Phase::Continuous {
            gate.policy.interval = NEVER;
        }
    }
    plan.services.iter_mut().for_each(agree);
    let script = Script::calm(assumed);
    let looks = LOOKS_PER_SERVICE.saturating_mul(plan.services.len() + 1);
    let start = Timestamp::UNIX_EPOCH;
    let mut world = World::new(plan, script, Limits { looks }, start).without_facts();
    world.run(start.checked_add(HORIZON).unwrap_or(Timestamp::MAX))?;
    let makespan = world.runs.iter().filter_map(|run| run.finished).max().unwrap_or_default();
    Ok(Run { services: world.runs, makespan })
}

/// Takes people out of a service: they approve as soon as they are asked, and a manual step takes as long as any other.
fn agree(service: &mut Service) {
    let phases = [Phase::BeforeRestore, Phase::BeforeRelease];
    let has_gates = |service: &Service| phases.map(|phase| service.gates_of(phase).next().is_some());
    let before = has_gates(service);
    service.gates.retain(|gate| gate.spec.approval.is_none());
    if has_gates(service) != before {
        service.ungated.get_or_insert_with(|| "people approve".to_owned());
    }
    for step in service.steps.iter_mut().filter(|step| step.manual.is_some()) {
        (step.manual, step.scale) = (None, Some(ScaleSpec::default()));
    }
}

impl ServiceRun {
    /// Records a status of the service. `at`: time since the start.
    pub(super) fn follow(&mut self, at: Duration, status: &ServiceRecoveryStatus) {
        if status.stage != Stage::Isolated && self.stages.last().is_none_or(|(_, s)| *s != status.stage) {
            self.stages.push((at, status.stage));
            self.started.get_or_insert(at);
        }
        if self.finished.is_none()
            && is_true(&status.conditions, RECOVERED)
            && is_true(&status.conditions, HEALTHY)
        {
            self.finished = Some(at);
        }
    }
}

impl Run {
    /// Returns the maximum number of units under way at the same time.
    fn most_at_once(&self, plan: &Plan) -> usize {
        let mut changes: Vec<(Duration, i64)> = Vec::new();
        for unit in &plan.units {
            let members = || unit.members.iter().map(|&member| &self.services[member]);
            let Some(start) = members().filter_map(|of| of.started).min() else { continue };
            let end = members().map(|of| of.finished.unwrap_or(Duration::MAX)).max().unwrap_or(Duration::MAX);
            changes.extend([(start, 1), (end, -1)]);
        }
        // A unit that starts as another ends may have waited for its slot, so both are counted.
        changes.sort_by_key(|&(at, change)| (at, -change));
        let mut at_once = 0;
        let most = changes
            .iter()
            .map(|(_, change)| {
                at_once += change;
                at_once
            })
            .max()
            .unwrap_or(0);
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Returns the time from a unit's claim until all its members were recovered and healthy. Zero if it was never claimed.
    #[must_use]
    pub fn duration(&self, plan: &Plan, unit: UnitId) -> Duration {
        let members = || plan.units[unit].members.iter().map(|&m| &self.services[m]);
        let start = members().filter_map(|s| s.started).min();
        let end = members().filter_map(|s| s.finished).max();
        start.zip(end).map_or(Duration::ZERO, |(start, end)| end.saturating_sub(start))
    }
}

/// Results of a plan for several values of `maxParallel`.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Result with the plan's own value.
    pub own: Run,
    /// Result without a limit.
    pub unlimited: Run,
    /// Durations for one unit at a time, two, and so on until a higher value has no effect. Some rows of long lists are left out, but
    /// never the plan's own value nor the last.
    pub rows: Vec<(usize, Duration)>,
}

/// Simulates a plan with its own `maxParallel` and with others.
///
/// # Errors
///
/// As [`play`].
pub fn sweep(plan: &Plan, assumed: Assumed) -> Result<Sweep, RanAway> {
    let most = plan.units.len().max(1);
    let [own, unlimited] = both(|| play(plan, assumed, plan.max_parallel), || play(plan, assumed, most));
    let (own, unlimited) = (own?, unlimited?);
    // More slots than the unlimited run used change nothing.
    let enough = unlimited.most_at_once(plan).max(1);
    let numbers: BTreeSet<usize> =
        (1..=most).filter(|&n| is_shown(n, most)).chain([plan.max_parallel, most]).collect();
    let wanted: Vec<usize> =
        numbers.iter().copied().filter(|&n| n < enough && n != plan.max_parallel).collect();
    let played = side_by_side(&wanted, |&n| play(plan, assumed, n).map(|run| run.makespan));
    let mut played = played.into_iter();
    let mut rows: Vec<(usize, Duration)> = Vec::new();
    for n in numbers {
        let makespan = if n == plan.max_parallel {
            own.makespan
        } else if n < enough {
            played.next().transpose()?.unwrap_or_default()
        } else {
            unlimited.makespan
        };
        let done = rows.last().is_some_and(|&(_, before)| before <= unlimited.makespan);
        if n == plan.max_parallel || !done {
            rows.push((n, makespan));
        }
    }
    Ok(Sweep { own, unlimited, rows })
}

/// Runs two functions at the same time.
fn both<R: Send>(one: impl FnOnce() -> R + Send, other: impl FnOnce() -> R) -> [R; 2] {
    std::thread::scope(|scope| {
        let thread = scope.spawn(one);
        let other = other();
        match thread.join() {
            Ok(one) => [one, other],
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Maps items on as many threads as the machine has cores. Results are in the items' order.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let worker = || {
            let mut mine = Vec::new();
            while let Some((at, item)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)))
            {
                mine.push((at, work(item)));
            }
            mine
        };
        let threads: Vec<_> = (1..cores.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let mut all = worker();
        for thread in threads {
            match thread.join() {
                Ok(mine) => all.extend(mine),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Returns whether a row is shown: every number up to 12, then ever fewer. For a large plan fewer from the start, as each costs a run.
fn is_shown(n: usize, most: usize) -> bool {
    let every = if most <= 120 { 12 } else { 2 };
    n <= every || n.is_power_of_two() || (most <= 120 && n.is_multiple_of(8))
}
