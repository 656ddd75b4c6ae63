//! Report of `resurgam simulate`: data for JSON, and text for people.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::api::Stage;
use crate::plan::{Plan, UnitId, graph};

use super::assume::{Assumed, Run, Sweep, sweep};
use super::world::RanAway;

mod text;

pub use text::text;

/// Report of a simulated plan.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the plan.
    pub plan: String,
    /// Namespace of the plan. Empty if the file has none.
    pub namespace: String,
    /// Whether the plan is Dormant. It was simulated as if it were armed.
    pub dormant: bool,
    /// Whether the plan is suspended. It was simulated as if it were not.
    pub suspended: bool,
    /// Assumed duration of a step, in seconds.
    pub step_seconds: f64,
    /// Assumed duration of a change of isolation, in seconds.
    pub isolation_seconds: f64,
    /// Problems of the plan.
    pub problems: Vec<Problem>,
    /// Services that never start, and why.
    pub never_start: Vec<NeverStarts>,
    /// Units by the longest chain of dependencies below them: each layer depends only on those before it.
    pub layers: Vec<Vec<Unit>>,
    /// `maxParallel` of the plan.
    pub max_parallel: usize,
    /// Services, in the order in which they start.
    pub services: Vec<Service>,
    /// The longest chain of units: no order is faster.
    pub critical_path: Chain,
    /// Time until the last service that can recover is recovered and healthy, in seconds.
    pub makespan_seconds: f64,
    /// Results for other values of `maxParallel`.
    pub sweep: Vec<Row>,
}

/// A problem of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Reason.
    pub reason: String,
    /// What is wrong, and how to fix it.
    pub message: String,
    /// Services with this problem.
    pub services: Vec<String>,
}

/// A service that never starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NeverStarts {
    /// Name of the service.
    pub service: String,
    /// Why: its own problems, or the services that it waits for.
    pub because: String,
}

/// A service, or a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// Name of the group, for a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Services of the unit.
    pub services: Vec<String>,
}

/// Timeline of one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Name.
    pub name: String,
    /// Tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<i32>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether it is on the critical path.
    pub critical: bool,
    /// When it is claimed, in seconds from the start.
    pub start_seconds: f64,
    /// When it is recovered and healthy, in seconds from the start.
    pub end_seconds: f64,
    /// Stages, with the time of each in seconds from the start.
    pub stages: Vec<StageReached>,
}

/// A stage that a service reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageReached {
    /// The stage.
    pub stage: Stage,
    /// When, in seconds from the start.
    pub at_seconds: f64,
}

/// A chain of units, each of which depends on the one before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chain {
    /// Units, first to start first.
    pub units: Vec<Unit>,
    /// Sum of their durations, in seconds.
    pub seconds: f64,
}

/// Result for one value of `maxParallel`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Value of `maxParallel`.
    pub max_parallel: usize,
    /// Duration of the recovery, in seconds.
    pub makespan_seconds: f64,
    /// Duration divided by the critical path. 1: no order is faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

impl Report {
    /// Simulates a plan with its own `maxParallel` and with others.
    ///
    /// # Errors
    ///
    /// [`RanAway`] if the simulation does not end, which would be a bug of the engine.
    pub fn of(plan: &Plan, assumed: Assumed) -> Result<Self, RanAway> {
        let Sweep { own: run, unlimited, rows } = sweep(plan, assumed)?;
        let (length, chain) = plan.critical_path(|unit| unlimited.duration(plan, unit));
        let chain: Vec<UnitId> =
            chain.into_iter().filter(|&u| !unlimited.duration(plan, u).is_zero()).collect();
        let row = |(max_parallel, makespan): (usize, Duration)| Row {
            max_parallel,
            makespan_seconds: makespan.as_secs_f64(),
            ratio: (!length.is_zero()).then(|| makespan.as_secs_f64() / length.as_secs_f64()),
        };
        Ok(Self {
            plan: plan.name.clone(),
            namespace: plan.namespace.clone(),
            dormant: plan.incident.is_none(),
            suspended: plan.suspend,
            step_seconds: assumed.step.as_secs_f64(),
            isolation_seconds: assumed.isolation.as_secs_f64(),
            problems: problems(plan),
            never_start: never_start(plan, &run),
            layers: layers(plan, &run)
                .into_iter()
                .map(|l| l.into_iter().map(|u| unit(plan, u)).collect())
                .collect(),
            max_parallel: plan.max_parallel,
            services: services(plan, &run, &chain),
            critical_path: Chain {
                units: chain.iter().map(|&u| unit(plan, u)).collect(),
                seconds: length.as_secs_f64(),
            },
            makespan_seconds: run.makespan.as_secs_f64(),
            sweep: rows.into_iter().map(row).collect(),
        })
    }
}

fn unit(plan: &Plan, id: UnitId) -> Unit {
    let unit = &plan.units[id];
    let name = |&m: &usize| plan.services[m].name.clone();
    Unit { group: unit.group.clone(), services: unit.members.iter().map(name).collect() }
}

/// Returns one problem per reason and message, with all services that have it.
fn problems(plan: &Plan) -> Vec<Problem> {
    let mut services: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for service in &plan.services {
        for problem in &service.problems {
            let of = services.entry((problem.reason.as_str(), &problem.message)).or_default();
            if !of.contains(&service.name) {
                of.push(service.name.clone());
            }
        }
    }
    let problem = |((reason, message), services): ((&str, &str), Vec<String>)| Problem {
        reason: reason.to_owned(),
        message: message.to_owned(),
        services,
    };
    services.into_iter().map(problem).collect()
}

fn never_start(plan: &Plan, run: &Run) -> Vec<NeverStarts> {
    let finished = |id: usize| run.services[id].finished.is_some();
    let held = |id: usize| {
        let service = &plan.services[id];
        let own: BTreeSet<&str> = service.problems.iter().map(|p| p.reason.as_str()).collect();
        let mates = plan.units[service.unit].members.iter().filter(|&&m| m != id);
        let waits: BTreeSet<&str> = plan.units[service.unit]
            .dependencies
            .iter()
            .filter(|&&d| !finished(d))
            .chain(mates.filter(|&&m| !plan.services[m].problems.is_empty()))
            .map(|&s| plan.services[s].name.as_str())
            .collect();
        let because = if own.is_empty() {
            format!("waits for {}", waits.into_iter().collect::<Vec<_>>().join(", "))
        } else {
            own.into_iter().collect::<Vec<_>>().join(", ")
        };
        NeverStarts { service: service.name.clone(), because }
    };
    (0..plan.services.len()).filter(|&id| !finished(id)).map(held).collect()
}

/// Returns units by the longest chain of dependencies below them, without those that never start.
fn layers(plan: &Plan, run: &Run) -> Vec<Vec<UnitId>> {
    let mut depth: BTreeMap<UnitId, usize> = BTreeMap::new();
    let mut layers: Vec<Vec<UnitId>> = Vec::new();
    for unit in graph::topological(plan.units.len(), |u| plan.dependency_units(u).collect()) {
        if plan.units[unit].members.iter().any(|&m| run.services[m].started.is_none()) {
            continue;
        }
        let below = plan.dependency_units(unit).filter_map(|d| depth.get(&d)).max();
        let layer = below.map_or(0, |d| d + 1);
        depth.insert(unit, layer);
        if layers.len() <= layer {
            layers.resize_with(layer + 1, Vec::new);
        }
        layers[layer].push(unit);
    }
    for layer in &mut layers {
        layer.sort_by_key(|&u| (plan.units[u].tier.unwrap_or(i32::MAX), u));
    }
    layers
}

fn services(plan: &Plan, run: &Run, chain: &[UnitId]) -> Vec<Service> {
    let start = |unit: UnitId| plan.units[unit].members.iter().filter_map(|&m| run.services[m].started).min();
    let mut order: Vec<UnitId> = (0..plan.units.len()).filter(|&u| start(u).is_some()).collect();
    order.sort_by_key(|&u| (start(u), plan.units[u].tier.unwrap_or(i32::MAX), u));
    let ids = order.iter().flat_map(|&u| &plan.units[u].members);
    ids.filter_map(|&id| {
        let (service, of) = (&plan.services[id], &run.services[id]);
        let reached = |&(at, stage): &(Duration, Stage)| StageReached { stage, at_seconds: at.as_secs_f64() };
        Some(Service {
            name: service.name.clone(),
            tier: service.tier,
            group: plan.units[service.unit].group.clone(),
            critical: chain.contains(&service.unit),
            start_seconds: of.started?.as_secs_f64(),
            end_seconds: of.finished?.as_secs_f64(),
            stages: of.stages.iter().map(reached).collect(),
        })
    })
    .collect()
}
