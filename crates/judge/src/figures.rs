//! Figures, measured from the audit log alone. Times are those at which the API server had answered (`stageTimestamp`).
//!
//! - A service's time runs from the first write that shows it out of the stage `Isolated` (claimed; PreChecks) to the first
//!   later one with `Recovered=True`. A `together` group is one: first claim to last Recovered of its members.
//! - A person is waited for from the write with `NeedsDecision=True` to the Decision (retry) for that service, or to the
//!   write that shows it no longer True. Such spans are taken out of the service's (group's) time.
//! - **Critical path**: the longest chain of such times along the plan's edges.
//! - **Makespan**: the run replayed as if every person had answered at once. Each service starts its own measured gap after
//!   the last of its dependencies, and takes its own measured time. The gap is what was measured between the last
//!   dependency's Recovered and the claim (waiting for a slot included), and for a service without dependencies between
//!   the first claim of all and its own; people's time is taken out of it too. So a person's delay goes out where it
//!   arose and for everything it held up, and nothing else goes out. `wall` is what the clock says, nothing taken out.
//! - **Edge**: from the last dependency's write with `Recovered=True` to the dependent's claim, answer to answer. Not counted
//!   where, between the two, all `maxParallel` slots were taken or a person was waited for; how many is told.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::change::{Change, Record};
use crate::log::Log;
use crate::plan::{Node, Plan};

/// Measured figures of one recovery, all of them absolute.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Services of the plan.
    pub total: usize,
    /// Services that were written as Recovered.
    pub recovered: usize,
    /// First claim to last Recovered, by the clock, in milliseconds.
    pub wall_ms: f64,
    /// Time within `wall_ms` in which at least one person was waited for.
    pub human_ms: f64,
    /// The same run with the waits for people taken out: see the module's text.
    pub makespan_ms: f64,
    /// The longest chain of the measured times along the plan's edges.
    pub critical_path_ms: f64,
    /// The services (or groups) on it, the first first.
    pub critical_path: Vec<String>,
    /// Makespan divided by critical path; 0 when nothing recovered.
    pub ratio: f64,
    /// Edges measured.
    pub edges: usize,
    /// Edges that are not counted, as there was a wait for a slot or a person.
    pub edges_waited: usize,
    /// Median latency of an edge, in milliseconds.
    pub edge_p50_ms: Option<f64>,
    /// 99th percentile (nearest rank) of the latency of an edge, in milliseconds.
    pub edge_p99_ms: Option<f64>,
    /// Each service that recovered.
    pub services: BTreeMap<String, ServiceFigures>,
}

/// Measured times of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFigures {
    /// Claimed to Recovered, without the time in which a person was waited for.
    pub recovery_ms: f64,
    /// The time in which a person was waited for, between the two.
    pub human_ms: f64,
}

/// Half-open spans of time, in nanoseconds, sorted and disjoint.
type Spans = Vec<(i128, i128)>;

/// What the log says of one service or group.
#[derive(Clone, Debug, Default)]
struct Times {
    /// The first write made for it: a claim on a Quarantine, or its own first stage.
    touched: Option<i128>,
    claimed: Option<i128>,
    recovered: Option<i128>,
    waiting_since: Option<i128>,
    /// A person has answered, and the operator has not yet written so: what it still says of waiting is its own time.
    answered: bool,
    human: Spans,
}

/// A service or group that recovered.
struct Run<'a> {
    node: &'a Node,
    touched: i128,
    claimed: i128,
    recovered: i128,
    human: Spans,
}

impl Run<'_> {
    fn duration(&self) -> i128 {
        let span = (self.claimed, self.recovered);
        span.1 - span.0 - overlap(&self.human, span)
    }
}

/// Measures a log.
pub(crate) fn measure(plan: &Plan, log: &Log) -> Figures {
    let services = times(plan, log);
    let mut figures = Figures { total: plan.services.len(), ..Figures::default() };
    for (name, times) in &services {
        if let (Some(claimed), Some(recovered)) = (times.claimed, times.recovered) {
            let human = overlap(&times.human, (claimed, recovered));
            let recovery_ms = ms(recovered - claimed - human);
            figures.services.insert((*name).to_owned(), ServiceFigures { recovery_ms, human_ms: ms(human) });
        }
    }
    figures.recovered = figures.services.len();
    let runs = runs(plan, &services);
    let Some(start) = runs.values().map(|run| run.claimed).min() else { return figures };
    let end = runs.values().map(|run| run.recovered).max().unwrap_or(start);
    figures.wall_ms = ms(end - start);
    let human = union(services.values().flat_map(|times| times.human.iter().copied()));
    figures.human_ms = ms(overlap(&human, (start, end)));

    let (mut longest, mut replayed) = (BTreeMap::new(), BTreeMap::new());
    for name in in_order(plan, &runs) {
        let run = &runs[name];
        let upstream: Vec<&str> = plan.upstream(run.node).filter(|on| replayed.contains_key(on)).collect();
        let best = upstream.iter().copied().max_by_key(|on| longest.get(on).map_or(0, |(length, _)| *length));
        let before = best.and_then(|on| longest.get(on)).map_or(0, |(length, _)| *length);
        longest.insert(name, (before + run.duration(), best));

        let ready =
            upstream.iter().filter_map(|on| runs.get(on)).map(|run| run.recovered).max().unwrap_or(start);
        let gap = (run.claimed - ready - overlap(&run.human, (ready, run.claimed))).max(0);
        let from = upstream.iter().filter_map(|on| replayed.get(on)).copied().max().unwrap_or(0);
        replayed.insert(name, from + gap + run.duration());
    }
    figures.makespan_ms = ms(replayed.values().copied().max().unwrap_or(0));
    if let Some((last, (length, _))) = longest.iter().max_by_key(|(_, (length, _))| *length) {
        figures.critical_path_ms = ms(*length);
        let mut at = Some(*last);
        while let Some(name) = at {
            figures.critical_path.insert(0, name.to_owned());
            at = longest.get(name).and_then(|(_, before)| *before);
        }
    }
    if figures.critical_path_ms > 0.0 {
        figures.ratio = figures.makespan_ms / figures.critical_path_ms;
    }
    edges(plan.max_parallel, &services, &runs, &mut figures);
    figures
}

/// Reads each service's times off the log.
fn times<'a>(plan: &Plan, log: &'a Log) -> BTreeMap<&'a str, Times> {
    let mut services: BTreeMap<&str, Times> = BTreeMap::new();
    for write in &log.writes {
        let at = nanoseconds(write.completed);
        match &write.change {
            Change::Quarantine { quarantine: Some(quarantine), .. } => {
                if let Some(claim) = quarantine.claim.as_ref().filter(|claim| claim.is_of(plan)) {
                    services.entry(&claim.service).or_default().touched.get_or_insert(at);
                }
            }
            Change::Service { name, record } => {
                let times = services.entry(name).or_default();
                let is = |what: fn(&Record) -> bool| record.as_deref().is_some_and(what);
                if is(Record::claimed) {
                    times.touched.get_or_insert(at);
                    times.claimed.get_or_insert(at);
                }
                if is(|record| record.recovered) && times.claimed.is_some() {
                    times.recovered.get_or_insert(at);
                }
                if !is(|record| record.needs_decision) {
                    answered(times, at);
                    times.answered = false;
                } else if !times.answered {
                    times.waiting_since.get_or_insert(at);
                }
            }
            Change::Decision { service, action, .. } if action != "Hold" && action != "Abort" => {
                let times = services.entry(service).or_default();
                answered(times, at);
                times.answered = true;
            }
            Change::Namespace { .. }
            | Change::NamespaceDeleted { .. }
            | Change::Pod { .. }
            | Change::Quarantine { quarantine: None, .. }
            | Change::Workload { .. }
            | Change::Restored { .. }
            | Change::Carried { .. }
            | Change::Plan { .. }
            | Change::Decision { .. } => {}
        }
    }
    services
}

/// Nobody is waited for any more.
fn answered(times: &mut Times, at: i128) {
    if let Some(since) = times.waiting_since.take() {
        times.human = union(times.human.iter().copied().chain([(since, at)]));
    }
}

/// The services and groups of which everything has recovered.
fn runs<'a>(plan: &'a Plan, services: &BTreeMap<&str, Times>) -> BTreeMap<&'a str, Run<'a>> {
    let run = |node: &'a Node| {
        let members: Option<Vec<&Times>> =
            node.members.iter().map(|name| services.get(name.as_str())).collect();
        let members = members?;
        let recovered: Option<Vec<i128>> = members.iter().map(|times| times.recovered).collect();
        Some(Run {
            node,
            touched: members.iter().filter_map(|times| times.touched).min()?,
            claimed: members.iter().filter_map(|times| times.claimed).min()?,
            recovered: recovered?.into_iter().max()?,
            human: union(members.iter().flat_map(|times| times.human.iter().copied())),
        })
    };
    plan.nodes.iter().filter_map(|(name, node)| Some((name.as_str(), run(node)?))).collect()
}

/// Dependencies before their dependents. What is in a cycle, or waits for one, is left out.
fn in_order<'a>(plan: &'a Plan, runs: &BTreeMap<&'a str, Run<'a>>) -> Vec<&'a str> {
    let mut waits: BTreeMap<&str, BTreeSet<&str>> = runs
        .iter()
        .map(|(name, run)| (*name, plan.upstream(run.node).filter(|on| runs.contains_key(on)).collect()))
        .collect();
    let mut order = Vec::new();
    while let Some(next) = waits.iter().find(|(_, on)| on.is_empty()).map(|(name, _)| *name) {
        waits.remove(next);
        waits.values_mut().for_each(|on| {
            on.remove(next);
        });
        order.push(next);
    }
    order
}

/// The latency of each edge that was free to go.
fn edges(
    slots: usize,
    services: &BTreeMap<&str, Times>,
    runs: &BTreeMap<&str, Run<'_>>,
    figures: &mut Figures,
) {
    let mut latencies = Vec::new();
    for (name, run) in runs {
        let recovered = |on: &String| services.get(on.as_str()).and_then(|times| times.recovered);
        let Some(ready) = run.node.depends_on.iter().filter_map(recovered).max() else { continue };
        let span = (ready, run.touched);
        let others: Vec<&Run<'_>> =
            runs.iter().filter(|(other, _)| *other != name).map(|(_, run)| run).collect();
        let taken = |at: i128| {
            let takes = |run: &&&Run<'_>| {
                run.touched <= at && at < run.recovered && overlap(&run.human, (at, at + 1)) == 0
            };
            others.iter().filter(takes).count()
        };
        // The number of used slots rises at claims and after Decisions only, so its maximum is at one of these.
        let moments = others
            .iter()
            .flat_map(|run| [run.touched].into_iter().chain(run.human.iter().map(|(_, answered)| *answered)));
        let moments = [ready].into_iter().chain(moments.filter(|at| span.0 < *at && *at < span.1));
        let waited = moments.into_iter().any(|at| taken(at) >= slots);
        if waited || overlap(&run.human, span) > 0 {
            figures.edges_waited += 1;
        } else {
            latencies.push(span.1 - span.0);
        }
    }
    latencies.sort_unstable();
    figures.edges = latencies.len();
    figures.edge_p50_ms = percentile(&latencies, 50).map(ms);
    figures.edge_p99_ms = percentile(&latencies, 99).map(ms);
}

/// Nearest rank: the smallest value that so many per cent of all do not exceed.
fn percentile(sorted: &[i128], per_cent: usize) -> Option<i128> {
    let rank = (sorted.len() * per_cent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn union(spans: impl Iterator<Item = (i128, i128)>) -> Spans {
    let mut sorted: Spans = spans.collect();
    sorted.sort_unstable();
    let mut merged: Spans = Vec::new();
    for (from, to) in sorted {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// How much of a span is covered by others.
fn overlap(spans: &Spans, (from, to): (i128, i128)) -> i128 {
    spans.iter().map(|span| (span.1.min(to) - span.0.max(from)).max(0)).sum()
}

fn nanoseconds(time: Timestamp) -> i128 {
    time.as_nanosecond()
}

/// Milliseconds, to the microsecond that the log has.
#[expect(clippy::cast_precision_loss, reason = "microseconds of a few weeks are far below 2^52")]
fn ms(nanoseconds: i128) -> f64 {
    (nanoseconds / 1_000) as f64 / 1_000.0
}
