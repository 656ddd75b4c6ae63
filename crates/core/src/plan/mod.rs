//! A validated plan: graph, groups, cycles by name, critical path. Pure.
//!
//! [`Plan::compile`] never fails. Problems of a service are kept with it as [`Problem`]s: the service and its dependents wait, and the
//! rest of the plan proceeds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration as StdDuration;

use crate::api::recovery_plan::GateOverride;
use crate::api::recovery_plan::{EgressBlock, Impact, MissedRun, OnRegression};
use crate::api::service_recovery::ResumeKind;
use crate::api::step::ScaleSpec;
use crate::api::{
    Aspect, Class, ClusterService, GateSpec, Phase, Reason, ServiceKey, StepPhase, StepSpec, USUAL_PACE,
};

pub(crate) mod checks;
mod compile;
pub mod graph;
pub mod loosening;
pub mod ratchet;

#[cfg(test)]
mod tests;

/// Index of a service in [`Plan::services`].
pub type ServiceId = usize;
/// Index of a unit in [`Plan::units`].
pub type UnitId = usize;

/// A compiled plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Generation of the spec that it was compiled from.
    pub generation: Option<i64>,
    /// Name of the Incident. `None`: the plan is Dormant.
    pub incident: Option<String>,
    /// ServiceAccount in its namespace with which it acts.
    pub account: String,
    /// Whether it creates missing Quarantines.
    pub creates_quarantines: bool,
    /// Whether it starts nothing new.
    pub suspend: bool,
    /// Maximum number of units that are recovered at the same time.
    pub max_parallel: usize,
    /// Services, in the order of the spec.
    pub services: Vec<Service>,
    /// Services by name.
    pub index: BTreeMap<String, ServiceId>,
    /// Nodes of the graph: a service, or a `together` group.
    pub units: Vec<Unit>,
    /// Problems of all services, for the plan's own condition.
    pub problems: Vec<Problem>,
}

/// A service, with all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Person or team that can clear its blockers.
    pub owner: Option<String>,
    /// Tier.
    pub tier: Option<i32>,
    /// Namespaces, sorted: claims are taken in this order. Empty: an external system.
    pub namespaces: Vec<String>,
    /// Unit of the service.
    pub unit: UnitId,
    /// Dependencies outside its unit, including edges of `order: Tiers`.
    pub dependencies: Vec<ServiceId>,
    /// Services of its unit whose steps run before its own.
    pub steps_after: Vec<ServiceId>,
    /// Gates, including defaults.
    pub gates: Vec<Gate>,
    /// Default gates that it leaves out or replaces.
    pub gate_overrides: Vec<GateOverride>,
    /// Steps. One with `undo` comes right after the step that undoes it.
    pub steps: Vec<StepSpec>,
    /// How long something may fail before a person is asked.
    pub step_deadline: StdDuration,
    /// CronJobs and Jobs to resume once it is recovered.
    pub resume: Vec<Resume>,
    /// Cluster services that its clean room may connect to, sorted.
    pub allow_egress: Vec<ClusterService>,
    /// Addresses that its clean room may connect to, sorted.
    pub allow_egress_to: Vec<EgressBlock>,
    /// Why its pods may use what Pod Security `baseline` forbids, if the plan permits it.
    pub host_access: Option<String>,
    /// Why it has no gates in some phase, if the plan permits it.
    pub ungated: Option<String>,
    /// Everything that the plan requires of it, for comparison with the accepted requirements.
    pub requirements: Arc<ratchet::Requirements>,
    /// Whether the plan counts as recovered without it.
    pub impact: Impact,
    /// What happens when a continuous gate fails.
    pub on_regression: OnRegression,
    /// Namespaces of the original that it is rebuilt beside, sorted.
    pub replaces: Vec<String>,
    /// Dependencies that it goes on without if they are held up: a part of `dependencies`.
    pub optional: Vec<ServiceId>,
    /// Problems. A service with any does not start.
    pub problems: Vec<Problem>,
}

/// A CronJob or Job to resume once its service is recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Kind.
    pub kind: ResumeKind,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What to do about a missed run.
    pub missed_run: MissedRun,
}

/// A gate of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Phase.
    pub phase: Phase,
    /// Key of the gate in its service.
    pub key: GateKey,
    /// The gate in the plan.
    pub spec: GateSpec,
    /// How often and how strictly it is evaluated.
    pub policy: GatePolicy,
    /// What of the service it proves.
    pub looks_at: Vec<Aspect>,
}

/// Key of a gate in its service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateKey {
    /// Phase.
    pub phase: Phase,
    /// Name.
    pub name: String,
}

/// How often and how strictly a gate is evaluated, with defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatePolicy {
    /// How long it must pass without interruption.
    pub stable_for: StdDuration,
    /// Longest time between two evaluations.
    pub interval: StdDuration,
    /// Longest time of an evaluation. The verdict is Unknown after it.
    pub timeout: StdDuration,
    /// Consecutive Fails after which it counts as failed.
    pub failure_limit: u32,
    /// How long after the first evaluation a Fail does not count: a service may warm up.
    pub startup_grace: StdDuration,
    /// How long it may be Unknown before a person is needed.
    pub unknown_deadline: StdDuration,
}

impl GatePolicy {
    /// Returns the policy of a gate in a phase, with defaults filled in.
    #[must_use]
    pub fn of(spec: &GateSpec, phase: Phase) -> Self {
        let is_health = spec.gate_type().is_some_and(|of| of.class == Class::Health);
        let warms_up = is_health && phase == Phase::BeforeRelease;
        let or = |given: Option<crate::api::Duration>, seconds| {
            given.map_or(StdDuration::from_secs(seconds), |d| d.0)
        };
        let (interval, timeout) = spec.gate_type().map_or(USUAL_PACE, |of| (of.pace)(phase));
        Self {
            stable_for: or(spec.stable_for, 0),
            // Evaluating a gate without a pause would be a load test.
            interval: or(spec.interval, interval).max(StdDuration::from_millis(100)),
            timeout: or(spec.timeout, timeout).max(StdDuration::from_millis(100)),
            failure_limit: spec.failure_limit.unwrap_or(3).max(1),
            startup_grace: if warms_up { or(spec.startup_grace, 5 * 60) } else { StdDuration::ZERO },
            unknown_deadline: or(spec.unknown_deadline, 15 * 60),
        }
    }

    /// Returns how long an answer is fresh: two missed evaluations, and at least 30 seconds.
    #[must_use]
    pub fn freshness(&self) -> StdDuration {
        (self.interval * 3 + self.timeout).max(StdDuration::from_secs(30))
    }
}

/// A node of the graph: one service, or a group that is restored and opened together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Name of the group, for a group.
    pub group: Option<String>,
    /// Members.
    pub members: Vec<ServiceId>,
    /// Dependencies outside the unit: the union over its members.
    pub dependencies: Vec<ServiceId>,
    /// Those of the dependencies that no member requires.
    pub optional: Vec<ServiceId>,
    /// Units that depend on it.
    pub dependents: Vec<UnitId>,
    /// Tier, to break ties. Units without one come last.
    pub tier: Option<i32>,
    /// Length of the longest chain of dependents, to break ties.
    pub height: usize,
}

/// A problem of a plan or a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Reason.
    pub reason: Reason,
    /// Name of the culprit.
    pub culprit: String,
    /// What is wrong, and how to fix it.
    pub message: String,
}

impl Plan {
    /// Returns the units that depend on this one, directly or indirectly.
    #[must_use]
    pub fn dependents_of(&self, unit: UnitId) -> BTreeSet<UnitId> {
        let mut seen = BTreeSet::new();
        let mut stack = vec![unit];
        while let Some(at) = stack.pop() {
            for &next in &self.units[at].dependents {
                if seen.insert(next) {
                    stack.push(next);
                }
            }
        }
        seen
    }

    /// Returns the units that this one depends on.
    pub fn dependency_units(&self, unit: UnitId) -> impl Iterator<Item = UnitId> + '_ {
        let units: BTreeSet<UnitId> =
            self.units[unit].dependencies.iter().map(|&s| self.services[s].unit).collect();
        units.into_iter()
    }

    /// Returns the services outside its unit that a service, as a member of the unit, depends on.
    #[must_use]
    pub fn dependencies_of(&self, service: ServiceId) -> Vec<ServiceId> {
        self.units[self.services[service].unit].dependencies.clone()
    }

    /// Returns the key of a service.
    #[must_use]
    pub fn key(&self, service: ServiceId) -> ServiceKey {
        ServiceKey {
            namespace: self.namespace.clone(),
            plan: self.name.clone(),
            service: self.services[service].name.clone(),
        }
    }

    /// Returns the dependencies that a service does not go on without.
    #[must_use]
    pub fn required_dependencies(&self, service: ServiceId) -> Vec<ServiceId> {
        let Unit { dependencies, optional, .. } = &self.units[self.services[service].unit];
        dependencies.iter().copied().filter(|id| !optional.contains(id)).collect()
    }

    /// Returns the keys of a service's required dependencies. Each is read live before the service is loosened.
    #[must_use]
    pub fn dependency_keys(&self, service: ServiceId) -> Vec<ServiceKey> {
        self.required_dependencies(service).into_iter().map(|id| self.key(id)).collect()
    }

    /// Returns the name of a unit: that of its group, or of its service.
    #[must_use]
    pub fn unit_name(&self, unit: UnitId) -> &str {
        let unit = &self.units[unit];
        match (&unit.group, unit.members.first()) {
            (Some(group), _) => group,
            (None, Some(&service)) => &self.services[service].name,
            (None, None) => "",
        }
    }

    /// Returns the longest chain of units by their durations, and its duration: no order is faster. Units on a cycle are left out.
    #[must_use]
    pub fn critical_path(&self, duration: impl Fn(UnitId) -> StdDuration) -> (StdDuration, Vec<UnitId>) {
        graph::longest_path(self.units.len(), |unit| self.dependency_units(unit).collect(), duration)
    }
}

impl Service {
    /// Returns the scaling steps of the clean room.
    pub fn scaling_steps(&self) -> impl Iterator<Item = &ScaleSpec> {
        self.steps
            .iter()
            .filter(|step| step.phase == StepPhase::CleanRoom)
            .filter_map(|step| step.scale.as_ref())
    }

    /// Returns whether the plan creates missing Quarantines of the service: always where it is rebuilt in namespaces that may not exist.
    #[must_use]
    pub fn creates_quarantines(&self, plan: &Plan) -> bool {
        plan.creates_quarantines || !self.replaces.is_empty()
    }

    /// Returns the gates of one phase.
    pub fn gates_of(&self, phase: Phase) -> impl Iterator<Item = &Gate> {
        self.gates.iter().filter(move |gate| gate.phase == phase)
    }
}
