//! Plays a plan through with everything going well: how long it takes, and what bounds it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{HEALTHY, RECOVERED, is_true};
use crate::api::{Phase, ServiceRecoveryStatus, Stage, Verdict};
use crate::engine::StepProgress;
use crate::plan::{Plan, UnitId};

use super::world::{Limits, RanAway, Script, Takes, World};

/// What is assumed of the world; besides, every gate passes when asked, and writes take no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// How long a step takes.
    pub step: Duration,
    /// How long each change of isolation takes.
    pub isolation: Duration,
}

/// How a plan went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// One for each service, in the plan's order.
    pub services: Vec<ServiceRun>,
    /// From the beginning until the last service that can recover is recovered and healthy.
    pub makespan: Duration,
}

/// How a service went. Times count from the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRun {
    /// When it was claimed. `None`: it never starts.
    pub started: Option<Duration>,
    /// Each stage that it reached after `Isolated`, and when.
    pub stages: Vec<(Duration, Stage)>,
    /// When it was recovered and healthy.
    pub finished: Option<Duration>,
}

impl Script<'_> {
    /// Everything goes well, as assumed.
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

/// Longer than any recovery: a continuous gate that passed is not asked again.
const NEVER: Duration = Duration::from_secs(1_000 * 365 * 86_400);
/// A plan that has not come to rest by then is not simulated.
const HORIZON: SignedDuration = SignedDuration::from_secs(100 * 365 * 86_400);

/// Looks at the plan that one service may cost: some 15 do, a few more with many steps.
const LOOKS_PER_SERVICE: usize = 200;

/// Plays a plan as if it were armed and not suspended, with so many units at once.
///
/// # Errors
///
/// [`RanAway`] if it does not come to rest, which would be a bug of the engine.
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
    let script = Script::calm(assumed);
    let looks = LOOKS_PER_SERVICE.saturating_mul(plan.services.len() + 1);
    let start = Timestamp::UNIX_EPOCH;
    let mut world = World::new(plan, script, Limits { looks }, start).without_facts();
    world.run(start.checked_add(HORIZON).unwrap_or(Timestamp::MAX))?;
    let makespan = world.runs.iter().filter_map(|run| run.finished).max().unwrap_or_default();
    Ok(Run { services: world.runs, makespan })
}

impl ServiceRun {
    /// Takes in what was written of the service. `at`: since the beginning.
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
    /// How many units were under way at once, at the most.
    fn most_at_once(&self, plan: &Plan) -> usize {
        let mut changes: Vec<(Duration, i64)> = Vec::new();
        for unit in &plan.units {
            let members = || unit.members.iter().map(|&member| &self.services[member]);
            let Some(start) = members().filter_map(|of| of.started).min() else { continue };
            let end = members().map(|of| of.finished.unwrap_or(Duration::MAX)).max().unwrap_or(Duration::MAX);
            changes.extend([(start, 1), (end, -1)]);
        }
        // One that starts as another ends may have waited for its slot: counted together, to be safe.
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

    /// From when a unit was claimed until all of it was recovered and healthy; nothing if it never was.
    #[must_use]
    pub fn duration(&self, plan: &Plan, unit: UnitId) -> Duration {
        let members = || plan.units[unit].members.iter().map(|&m| &self.services[m]);
        let start = members().filter_map(|s| s.started).min();
        let end = members().filter_map(|s| s.finished).max();
        start.zip(end).map_or(Duration::ZERO, |(start, end)| end.saturating_sub(start))
    }
}

/// A plan, played with several values of `maxParallel`.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// With the plan's own.
    pub own: Run,
    /// Without any limit.
    pub unlimited: Run,
    /// Makespans for one unit at once, two, and so on until more bring nothing. Of long lists some are left out; the plan's own and the
    /// last never are.
    pub rows: Vec<(usize, Duration)>,
}

/// Plays a plan with its own `maxParallel` and with others.
///
/// # Errors
///
/// As [`play`].
pub fn sweep(plan: &Plan, assumed: Assumed) -> Result<Sweep, RanAway> {
    let most = plan.units.len().max(1);
    let [own, unlimited] = both(|| play(plan, assumed, plan.max_parallel), || play(plan, assumed, most));
    let (own, unlimited) = (own?, unlimited?);
    // With as many slots as it took without a limit, nothing goes otherwise.
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

/// Does two things at the same time.
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

/// Does something for each item, on as many threads as the machine has cores. Results are in the items' order.
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

/// Every number up to 12, then ever fewer; of a large plan fewer from the start, as each costs a run.
fn is_shown(n: usize, most: usize) -> bool {
    let every = if most <= 120 { 12 } else { 2 };
    n <= every || n.is_power_of_two() || (most <= 120 && n.is_multiple_of(8))
}
