//! [`Plan::compile`]: fills in defaults, resolves names, folds groups into units, and collects problems.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration as StdDuration;

use super::ratchet::Requirements;
use super::{Gate, GateKey, GatePolicy, Plan, Problem, Resume, Service, ServiceId, Unit, checks, graph};
use crate::api::gate::GatesSpec;
use crate::api::recovery_plan::{Defaults, GateChange, GateOverride, Order, QuarantinePolicy};
use crate::api::service_recovery::ResumeKind;
use crate::api::step::ScaleSpec;
use crate::api::{GateSpec, Phase, Reason, RecoveryPlan, RecoveryPlanSpec, ServiceSpec, StepSpec};

impl Plan {
    /// Compiles a plan object.
    #[must_use]
    pub fn from_object(object: &RecoveryPlan) -> Self {
        let meta = &object.metadata;
        let mut plan = Self::compile(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default(),
            &object.spec,
        );
        plan.generation = meta.generation;
        plan
    }

    /// Compiles a plan's spec. Problems of a service are kept in its [`Problem`]s.
    #[must_use]
    pub fn compile(namespace: &str, name: &str, uid: &str, spec: &RecoveryPlanSpec) -> Self {
        let index = index(&spec.services);
        let mut services: Vec<Service> =
            spec.services.iter().map(|s| service(s, spec.defaults.as_ref())).collect();
        let units = fold(&spec.services, &mut services);
        let mut plan = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            generation: None,
            incident: spec.incident_ref.as_ref().map(|r| r.name.clone()),
            account: spec.service_account_name.0.clone(),
            creates_quarantines: spec.quarantine_policy == QuarantinePolicy::Create,
            suspend: spec.suspend,
            max_parallel: usize::try_from(spec.max_parallel).unwrap_or(1).max(1),
            services,
            index,
            units,
            problems: Vec::new(),
        };
        plan.resolve_edges(spec);
        plan.order_steps();
        checks::services(&mut plan);
        checks::groups(&mut plan);
        checks::cycles(&mut plan);
        plan.finish_units();
        for id in 0..plan.services.len() {
            plan.services[id].requirements = Arc::new(Requirements::of(&plan, id));
        }
        plan.problems = plan.services.iter().flat_map(|s| s.problems.clone()).collect();
        plan.problems.sort();
        plan.problems.dedup();
        plan
    }

    /// Resolves `dependsOn` and, under `order: Tiers`, the edges to the nearest lower tier.
    fn resolve_edges(&mut self, spec: &RecoveryPlanSpec) {
        let tiers: BTreeSet<i32> = spec.services.iter().filter_map(|s| s.tier).collect();
        for (id, stated) in spec.services.iter().enumerate() {
            let (mut wanted, mut optional) = (BTreeSet::new(), BTreeSet::new());
            let required = stated.depends_on.iter().map(|name| (name, false));
            for (dependency, is_optional) in
                required.chain(stated.optional_dependencies.iter().map(|name| (name, true)))
            {
                match self.index.get(&dependency.0) {
                    Some(&found) if is_optional => {
                        optional.insert(found);
                    }
                    Some(&found) => {
                        wanted.insert(found);
                    }
                    None => {
                        let problem = checks::unknown_service(&stated.name, &dependency.0, self.index.keys());
                        self.services[id].problems.push(problem);
                    }
                }
            }
            if spec.order == Order::Tiers {
                match stated.tier {
                    Some(tier) => {
                        if let Some(&below) = tiers.range(..tier).next_back() {
                            wanted.extend(
                                (0..spec.services.len()).filter(|&s| spec.services[s].tier == Some(below)),
                            );
                        }
                    }
                    None => self.services[id].problems.push(checks::no_tier(&stated.name)),
                }
            }
            // Who names a service in both lists requires it.
            optional.retain(|found| !wanted.contains(found));
            wanted.extend(&optional);
            if wanted.remove(&id) {
                self.services[id].problems.push(checks::itself(&stated.name));
            }
            let unit = self.services[id].unit;
            let (inner, outer): (Vec<ServiceId>, Vec<ServiceId>) =
                wanted.into_iter().partition(|&s| self.services[s].unit == unit);
            self.services[id].optional = outer.iter().copied().filter(|s| optional.contains(s)).collect();
            self.services[id].dependencies = outer;
            self.services[id].steps_after = inner;
        }
        for unit in &mut self.units {
            let union: BTreeSet<ServiceId> =
                unit.members.iter().flat_map(|&m| self.services[m].dependencies.iter().copied()).collect();
            let is_required = |id: &ServiceId| {
                let mut members = unit.members.iter().map(|&member| &self.services[member]);
                members.any(|member| member.dependencies.contains(id) && !member.optional.contains(id))
            };
            unit.optional = union.iter().copied().filter(|id| !is_required(id)).collect();
            unit.dependencies = union.into_iter().collect();
        }
    }

    /// Orders the steps of a group's members by their dependencies. Members that depend on each other run their steps at the same time.
    fn order_steps(&mut self) {
        let edges = |s: ServiceId| self.services[s].steps_after.clone();
        let circles = graph::cyclic_components(self.services.len(), edges);
        for circle in circles {
            for &member in &circle {
                if self.units[self.services[member].unit].group.is_some() {
                    self.services[member].steps_after.retain(|other| !circle.contains(other));
                }
            }
        }
    }

    /// Computes reverse edges and heights, once the edges are known.
    fn finish_units(&mut self) {
        let needs: Vec<Vec<usize>> =
            (0..self.units.len()).map(|u| self.dependency_units(u).collect()).collect();
        for (unit, of) in needs.iter().enumerate() {
            for &dependency in of {
                self.units[dependency].dependents.push(unit);
            }
        }
        for unit in graph::topological(self.units.len(), |u| needs[u].clone()).into_iter().rev() {
            self.units[unit].height =
                self.units[unit].dependents.iter().map(|&d| self.units[d].height + 1).max().unwrap_or(0);
        }
    }
}

fn index(services: &[ServiceSpec]) -> BTreeMap<String, ServiceId> {
    // The API server keeps names unique, but a file for `simulate` may not: the first service keeps the name.
    let mut index = BTreeMap::new();
    for (id, service) in services.iter().enumerate() {
        index.entry(service.name.clone()).or_insert(id);
    }
    index
}

/// Default of `stepDeadline`.
const STEP_DEADLINE: StdDuration = StdDuration::from_secs(10 * 60);

fn service(spec: &ServiceSpec, defaults: Option<&Defaults>) -> Service {
    let mut namespaces: Vec<String> = match &spec.namespaces {
        Some(given) => given.iter().map(|n| n.0.clone()).collect(),
        None => vec![spec.name.clone()],
    };
    namespaces.sort();
    namespaces.dedup();
    let external = namespaces.is_empty();
    let steps =
        spec.restore.clone().unwrap_or_else(|| if external { Vec::new() } else { vec![scale_step()] });
    let steps = steps.into_iter().flat_map(|step| step.undo_step().into_iter().chain([step])).collect();
    let (resume, mut problems) = resumes(spec, &namespaces);
    let default_gates = defaults.map(|defaults| &defaults.gates);
    let (gates, gate_overrides) = gates(spec, default_gates, external);
    let unknown = spec.omit_default_gates.iter().filter(|name| !has_default(default_gates, name));
    problems.extend(unknown.map(|name| checks::unknown_gate(&spec.name, name)));
    let step_deadline = spec.step_deadline.or_else(|| defaults.and_then(|defaults| defaults.step_deadline));
    Service {
        name: spec.name.clone(),
        owner: spec.owner.clone(),
        tier: spec.tier,
        unit: 0,
        dependencies: Vec::new(),
        steps_after: Vec::new(),
        gates,
        gate_overrides,
        steps,
        step_deadline: step_deadline.map_or(STEP_DEADLINE, |deadline| deadline.0),
        allow_egress: spec
            .clean_room
            .iter()
            .flat_map(|r| &r.allow_egress)
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        allow_egress_to: spec
            .clean_room
            .iter()
            .flat_map(|r| r.allow_egress_to.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        host_access: spec
            .clean_room
            .as_ref()
            .and_then(|room| room.host_access.as_ref())
            .map(|access| access.reason.clone()),
        ungated: spec.ungated.as_ref().map(|u| u.reason.clone()),
        impact: spec.impact,
        on_regression: spec.on_regression,
        replaces: spec.replaces.iter().map(|n| n.0.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
        optional: Vec::new(),
        requirements: Arc::default(),
        resume,
        problems,
        namespaces,
    }
}

/// Returns the objects that the plan resumes, each in its namespace, and the problems of the other entries.
fn resumes(spec: &ServiceSpec, namespaces: &[String]) -> (Vec<Resume>, Vec<Problem>) {
    let (mut resume, mut problems): (Vec<Resume>, Vec<Problem>) = (Vec::new(), Vec::new());
    for stated in &spec.resume {
        let (kind, name) = match (&stated.cron_job, &stated.job) {
            (Some(name), None) => (ResumeKind::CronJob, name),
            (None, Some(name)) => (ResumeKind::Job, name),
            (None, None) | (Some(_), Some(_)) => {
                problems.push(checks::resume_of_nothing(&spec.name));
                continue;
            }
        };
        let namespace = match (&stated.namespace, namespaces) {
            (None, [only]) => only.clone(),
            (Some(given), all) if all.contains(&given.0) => given.0.clone(),
            (given, _) => {
                problems.push(checks::resume_elsewhere(
                    &spec.name,
                    name,
                    given.as_ref().map(|n| n.0.as_str()),
                ));
                continue;
            }
        };
        let wanted = Resume { kind, namespace, name: name.clone(), missed_run: stated.missed_run };
        if resume
            .iter()
            .any(|r| (r.kind, &r.namespace, &r.name) == (wanted.kind, &wanted.namespace, &wanted.name))
        {
            problems.push(checks::resume_twice(&spec.name, name));
        } else {
            resume.push(wanted);
        }
    }
    (resume, problems)
}

/// Returns the default step of a service without `restore`.
fn scale_step() -> StepSpec {
    StepSpec { name: "start".to_owned(), scale: Some(ScaleSpec::default()), ..StepSpec::default() }
}

/// Returns the gates of a service: the plan's defaults that it does not leave out or replace, and its own. Without continuous gates, the
/// gates before release are evaluated continuously. Returns the differences from the defaults, too.
fn gates(spec: &ServiceSpec, defaults: Option<&GatesSpec>, external: bool) -> (Vec<Gate>, Vec<GateOverride>) {
    let mut overrides = Vec::new();
    let mut of = |phase: Phase| -> Vec<Gate> {
        let inherited = defaults.map_or(&[][..], |d| d.of(phase));
        let own = spec.gates.as_ref().map_or(&[][..], |own| own.of(phase));
        // A default gate that reads namespaces does not apply to an external system.
        let looks = |gate: &GateSpec| gate.gate_type().is_some_and(|of| of.looks_into_namespaces);
        let mut all: Vec<&GateSpec> = Vec::new();
        for gate in inherited.iter().filter(|gate| !(external && looks(gate))) {
            let change = if spec.omit_default_gates.contains(&gate.name) {
                GateChange::Omitted
            } else if own.iter().any(|own| own.name == gate.name) {
                GateChange::Replaced
            } else {
                all.push(gate);
                continue;
            };
            let (service, gate) = (spec.name.clone(), gate.name.clone());
            overrides.push(GateOverride { service, phase, gate, change });
        }
        let gate = |spec: &GateSpec| Gate {
            phase,
            key: GateKey { phase, name: spec.name.clone() },
            policy: GatePolicy::of(spec, phase),
            looks_at: spec.gate_type().map_or_else(Vec::new, |of| (of.looks_at)(spec)),
            spec: spec.clone(),
        };
        all.into_iter().chain(own).map(gate).collect()
    };
    let (before_restore, before_release, mut continuous) =
        (of(Phase::BeforeRestore), of(Phase::BeforeRelease), of(Phase::Continuous));
    if continuous.is_empty() {
        // People agree once.
        let asked_again = before_release.iter().filter(|gate| gate.spec.approval.is_none());
        continuous = asked_again.cloned().map(continuously).collect();
    }
    ([before_restore, before_release, continuous].concat(), overrides)
}

/// Returns whether the plan has a default gate of this name.
fn has_default(defaults: Option<&GatesSpec>, name: &str) -> bool {
    let phases = [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous];
    defaults
        .is_some_and(|gates| phases.iter().any(|&phase| gates.of(phase).iter().any(|gate| gate.name == name)))
}

/// Folds `together` groups into units.
fn fold(specs: &[ServiceSpec], services: &mut [Service]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, spec) in specs.iter().enumerate() {
        let group = spec.together.as_ref().map(|g| g.0.as_str());
        let unit = match group {
            Some(name) => *groups.entry(name).or_insert(units.len()),
            None => units.len(),
        };
        if unit == units.len() {
            units.push(Unit {
                group: group.map(str::to_owned),
                members: Vec::new(),
                dependencies: Vec::new(),
                optional: Vec::new(),
                dependents: Vec::new(),
                tier: spec.tier,
                height: 0,
            });
        }
        units[unit].members.push(id);
        services[id].unit = unit;
    }
    units
}

impl Problem {
    /// Returns a problem.
    pub(super) fn new(reason: Reason, culprit: &str, message: String) -> Self {
        Self { reason, culprit: culprit.to_owned(), message }
    }
}

/// Returns the gate as a continuous one.
fn continuously(gate: Gate) -> Gate {
    let phase = Phase::Continuous;
    Gate { phase, key: GateKey { phase, ..gate.key }, policy: GatePolicy::of(&gate.spec, phase), ..gate }
}
