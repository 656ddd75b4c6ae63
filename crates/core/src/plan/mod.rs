//! From a plan's spec to a validated plan: graph, groups, cycles by name, critical path. Pure.
//!
//! [`Plan::compile`] never fails. What is wrong with a service is kept beside it as a [`Problem`], so that it, and whoever
//! depends on it, waits, and the rest goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration as StdDuration;

use crate::api::recovery_plan::MissedRun;
use crate::api::service_recovery::ResumeKind;
use crate::api::{ClusterService, GateSpec, Phase, Reason, ServiceKey, StepSpec};

mod checks;
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

/// A plan after which building and deciding cannot fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The generation of the spec that this was made from.
    pub generation: Option<i64>,
    /// The incident that arms it. `None`: Dormant.
    pub incident: Option<String>,
    /// The service account, in its namespace, as which it acts.
    pub account: String,
    /// Make Quarantines that are missing.
    pub creates_quarantines: bool,
    /// Start nothing new.
    pub suspend: bool,
    /// So many units at once.
    pub max_parallel: usize,
    /// Its services, in the order of the spec.
    pub services: Vec<Service>,
    /// Its services by name.
    pub index: BTreeMap<String, ServiceId>,
    /// The nodes of the graph: a service, or a `together` group.
    pub units: Vec<Unit>,
    /// What is wrong with it: the same problems as the services', for the plan's own condition.
    pub problems: Vec<Problem>,
}

/// One service, with all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Who can clear what blocks it.
    pub owner: Option<String>,
    /// Its tier.
    pub tier: Option<i32>,
    /// Its namespaces, sorted: claims are taken in this order. Empty: an external system.
    pub namespaces: Vec<String>,
    /// The unit it goes with.
    pub unit: UnitId,
    /// Services outside its unit that it waits for, edges of `order: Tiers` included.
    pub dependencies: Vec<ServiceId>,
    /// Services of its own unit whose steps come before its own.
    pub steps_after: Vec<ServiceId>,
    /// Its gates, defaults included.
    pub gates: Vec<Gate>,
    /// Its steps.
    pub steps: Vec<StepSpec>,
    /// CronJobs and Jobs that are resumed once it is recovered.
    pub resume: Vec<Resume>,
    /// Services of the cluster itself that its clean room may talk to, sorted.
    pub allow_egress: Vec<ClusterService>,
    /// Why its pods may use what Pod Security `baseline` forbids, if the plan says so.
    pub host_access: Option<String>,
    /// Why it goes without some gates, if it may.
    pub ungated: Option<String>,
    /// All that the plan requires of it, for comparison with what was last accepted.
    pub requirements: Arc<ratchet::Requirements>,
    /// What is wrong with it. Not empty: it does not start.
    pub problems: Vec<Problem>,
}

/// A CronJob or Job that is resumed once its service is recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Which kind.
    pub kind: ResumeKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What to do about a missed run.
    pub missed_run: MissedRun,
}

/// A gate and how it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// When it is asked.
    pub phase: Phase,
    /// Which gate of its service it is.
    pub key: GateKey,
    /// The question.
    pub spec: GateSpec,
    /// How often and how strictly.
    pub policy: GatePolicy,
}

/// Which gate of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateKey {
    /// In which phase.
    pub phase: Phase,
    /// Its name.
    pub name: String,
}

/// How often and how strictly a gate is asked, defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatePolicy {
    /// It passes once it has passed without a break for this long.
    pub stable_for: StdDuration,
    /// It is asked at least this often.
    pub interval: StdDuration,
    /// An answer that takes longer is Unknown.
    pub timeout: StdDuration,
    /// So many Fails in a row are a failure.
    pub failure_limit: u32,
    /// Unknown for longer asks for a person.
    pub unknown_deadline: StdDuration,
}

impl GatePolicy {
    /// The gate's own numbers, or the defaults.
    #[must_use]
    pub fn of(spec: &GateSpec) -> Self {
        let or = |given: Option<crate::api::Duration>, seconds| {
            given.map_or(StdDuration::from_secs(seconds), |d| d.0)
        };
        Self {
            stable_for: or(spec.stable_for, 0),
            // A gate that is asked without a pause would be a load test.
            interval: or(spec.interval, 10).max(StdDuration::from_millis(100)),
            timeout: or(spec.timeout, 10).max(StdDuration::from_millis(100)),
            failure_limit: spec.failure_limit.unwrap_or(3).max(1),
            unknown_deadline: or(spec.unknown_deadline, 15 * 60),
        }
    }

    /// How long an answer may be relied on: two missed askings, and no less than half a minute.
    #[must_use]
    pub fn freshness(&self) -> StdDuration {
        (self.interval * 3 + self.timeout).max(StdDuration::from_secs(30))
    }
}

/// A node of the graph: one service, or a group whose members go in and out together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The group's name, for a group.
    pub group: Option<String>,
    /// Its members.
    pub members: Vec<ServiceId>,
    /// Services outside that all of it waits for: the union over its members.
    pub dependencies: Vec<ServiceId>,
    /// Units that wait for it.
    pub dependents: Vec<UnitId>,
    /// Its tier, for ties; none sorts last.
    pub tier: Option<i32>,
    /// Units on the longest chain of dependents that hangs on it, for ties.
    pub height: usize,
}

/// What is wrong with a plan or a service, in the words of a condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// One word for it.
    pub reason: Reason,
    /// The culprit's name.
    pub culprit: String,
    /// What is the matter, and what would mend it.
    pub message: String,
}

impl Plan {
    /// The services that, directly or not, wait for this one.
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

    /// The units that this one waits for.
    pub fn dependency_units(&self, unit: UnitId) -> impl Iterator<Item = UnitId> + '_ {
        let units: BTreeSet<UnitId> =
            self.units[unit].dependencies.iter().map(|&s| self.services[s].unit).collect();
        units.into_iter()
    }

    /// The services outside its unit that a service, as a member of it, waits for.
    #[must_use]
    pub fn dependencies_of(&self, service: ServiceId) -> Vec<ServiceId> {
        self.units[self.services[service].unit].dependencies.clone()
    }

    /// How a service is addressed.
    #[must_use]
    pub fn key(&self, service: ServiceId) -> ServiceKey {
        ServiceKey {
            namespace: self.namespace.clone(),
            plan: self.name.clone(),
            service: self.services[service].name.clone(),
        }
    }

    /// How the services are addressed that a service waits for ([`Plan::dependencies_of`]).
    #[must_use]
    pub fn dependency_keys(&self, service: ServiceId) -> Vec<ServiceKey> {
        self.units[self.services[service].unit].dependencies.iter().map(|&id| self.key(id)).collect()
    }

    /// How a unit is called: its group's name, or its service's.
    #[must_use]
    pub fn unit_name(&self, unit: UnitId) -> &str {
        let unit = &self.units[unit];
        match (&unit.group, unit.members.first()) {
            (Some(group), _) => group,
            (None, Some(&service)) => &self.services[service].name,
            (None, None) => "",
        }
    }

    /// The longest chain of units by their durations, and how long it takes: no order is faster. Units on a cycle have
    /// no end, and are left out.
    #[must_use]
    pub fn critical_path(&self, duration: impl Fn(UnitId) -> StdDuration) -> (StdDuration, Vec<UnitId>) {
        graph::longest_path(self.units.len(), |unit| self.dependency_units(unit).collect(), duration)
    }
}

impl Service {
    /// The gates of one phase.
    pub fn gates_of(&self, phase: Phase) -> impl Iterator<Item = &Gate> {
        self.gates.iter().filter(move |gate| gate.phase == phase)
    }
}
