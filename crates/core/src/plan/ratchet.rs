//! What a plan requires of a service, and what a change of that would lose. Pure.
//!
//! The ratchet: the requirements last accepted are kept for each namespace, whatever plan or service names it. A short list of
//! changes tightens; every other difference is a loosening, which a person has to accept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration as StdDuration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Gate, Plan, ServiceId};
use crate::api::gate_types::COMMON_FIELDS;
use crate::api::recovery_plan::MissedRun;
use crate::api::{ClusterService, Duration};

/// Version of the form in which requirements are kept. Another one cannot be compared.
pub const VERSION: u32 = 1;

/// All that must be proved of a service before anything of it is loosened. Steps are none of it: gates judge what they start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirements {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the Incident whose `compromisedSince` its gates go by.
    pub incident: String,
    /// Namespace of the plan, in which its gates look up what they name.
    pub plan_namespace: String,
    /// By `phase/name`.
    pub gates: BTreeMap<String, GateRequirement>,
    /// What has to be recovered first: `namespace NAME`, or `external system NAMESPACE/NAME`. A service's name proves nothing.
    pub depends_on: BTreeSet<String>,
    /// What its steps come after, in its own group.
    pub steps_after: BTreeSet<String>,
    /// What goes in and out together with it: all namespaces and external systems of its unit.
    pub together: BTreeSet<String>,
    /// Why it goes without some gates, if it does.
    pub ungated: Option<String>,
    /// What its clean room may connect to in the cluster itself.
    pub allow_egress: BTreeSet<ClusterService>,
    /// Why its pods may use what Pod Security `baseline` forbids, if they may.
    pub host_access: Option<String>,
    /// What starts by itself once it is recovered, and whether a missed run starts at once: by `kind namespace/name`.
    pub resume: BTreeMap<String, bool>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GateRequirement {
    /// The question, as the plan states it.
    pub asks: Value,
    /// Milliseconds for which it has to pass without a break.
    pub stable_for: u64,
    /// Milliseconds between two answers, at most.
    pub interval: u64,
    /// Milliseconds that an answer may take.
    pub timeout: u64,
    /// So many Fails in a row are a failure.
    pub failure_limit: u32,
}

/// For what requirements are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A namespace, whatever plan names it.
    Namespace(String),
    /// A service without namespaces, whatever plan of that namespace has it.
    External {
        /// Namespace of the plan.
        plan_namespace: String,
        /// Name of the service.
        service: String,
    },
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::External { plan_namespace, service } => {
                write!(f, "external system {plan_namespace}/{service}")
            }
        }
    }
}

impl Plan {
    /// For what the requirements of a service are kept: each of its namespaces, or itself where it has none.
    #[must_use]
    pub fn scopes(&self, id: ServiceId) -> Vec<Scope> {
        let service = &self.services[id];
        if service.namespaces.is_empty() {
            let (plan_namespace, service) = (self.namespace.clone(), service.name.clone());
            return vec![Scope::External { plan_namespace, service }];
        }
        service.namespaces.iter().cloned().map(Scope::Namespace).collect()
    }
}

impl Requirements {
    /// What a plan requires of one of its services.
    #[must_use]
    pub fn of(plan: &Plan, id: ServiceId) -> Self {
        let service = &plan.services[id];
        let scopes = |ids: &[ServiceId]| -> BTreeSet<String> {
            ids.iter().flat_map(|&id| plan.scopes(id)).map(|scope| scope.to_string()).collect()
        };
        let resume = |r: &super::Resume| {
            (format!("{} {}/{}", r.kind.as_str(), r.namespace, r.name), r.missed_run == MissedRun::Fire)
        };
        Self {
            version: VERSION,
            incident: plan.incident.clone().unwrap_or_default(),
            plan_namespace: plan.namespace.clone(),
            gates: service.gates.iter().map(|gate| (key(gate), GateRequirement::of(gate))).collect(),
            depends_on: scopes(&plan.dependencies_of(id)),
            steps_after: scopes(&service.steps_after),
            together: scopes(&plan.units[service.unit].members),
            ungated: service.ungated.clone(),
            allow_egress: service.allow_egress.iter().copied().collect(),
            host_access: service.host_access.clone(),
            resume: service.resume.iter().map(resume).collect(),
        }
    }

    /// The same without what always takes a person to accept.
    #[must_use]
    pub fn baseline(&self) -> Self {
        Self { host_access: None, ..self.clone() }
    }
}

fn key(gate: &Gate) -> String {
    format!("{}/{}", gate.phase.as_str(), gate.spec.name)
}

impl GateRequirement {
    fn of(gate: &Gate) -> Self {
        // Specs of gates always serialise; one that did not would differ from every other.
        let mut asks = serde_json::to_value(&gate.spec).unwrap_or(Value::Null);
        if let Value::Object(fields) = &mut asks {
            COMMON_FIELDS.iter().for_each(|field| drop(fields.remove(*field)));
        }
        let millis = |duration: StdDuration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            asks,
            stable_for: millis(gate.policy.stable_for),
            interval: millis(gate.policy.interval),
            timeout: millis(gate.policy.timeout),
            failure_limit: gate.policy.failure_limit,
        }
    }
}

/// What would be lost by going from one to the other, in plain words. Empty: they are equal, or only tightened.
#[must_use]
pub fn loosenings(accepted: &Requirements, now: &Requirements) -> Vec<String> {
    // Taken apart in full: whoever adds a field has to say what loosens it.
    let Requirements {
        version,
        incident,
        plan_namespace,
        gates,
        depends_on,
        steps_after,
        together,
        ungated,
        allow_egress,
        host_access,
        resume,
    } = accepted;
    if *version != now.version {
        return vec![format!(
            "what was accepted is kept in form {version}, which this version of the operator cannot compare"
        )];
    }
    let mut lost = Vec::new();
    if *incident != now.incident {
        lost.push(format!("the plan names Incident {} instead of {incident}", now.incident));
    }
    if *plan_namespace != now.plan_namespace {
        lost.push(format!(
            "the plan is in namespace {} instead of {plan_namespace}: its gates look up their lists there",
            now.plan_namespace
        ));
    }
    for (key, before) in gates {
        let (phase, name) = key.split_once('/').unwrap_or(("", key));
        let gate = format!("{phase} gate '{name}'");
        match now.gates.get(key) {
            None => lost.push(format!("{gate} is gone")),
            Some(after) => lost.extend(weaker(before, after).map(|how| format!("{gate} {how}"))),
        }
    }
    let gone = |before: &BTreeSet<String>, after: &BTreeSet<String>| -> Vec<String> {
        before.difference(after).cloned().collect()
    };
    lost.extend(
        gone(depends_on, &now.depends_on).iter().map(|what| format!("it no longer waits for {what}")),
    );
    let before = gone(steps_after, &now.steps_after);
    lost.extend(before.iter().map(|what| format!("its steps no longer come after those of {what}")));
    let apart = gone(together, &now.together);
    lost.extend(apart.iter().map(|what| format!("it no longer goes together with {what}")));
    let joined = gone(&now.together, together);
    lost.extend(
        joined.iter().map(|what| format!("it goes together with {what}, which its clean room reaches")),
    );
    if let Some(reason) = now.ungated.as_ref().filter(|reason| ungated.as_ref() != Some(reason)) {
        lost.push(format!("it is ungated: {reason}"));
    }
    let added = now.allow_egress.difference(allow_egress);
    lost.extend(added.map(|service| format!("its clean room may connect to {}", service.as_str())));
    if let Some(reason) = now.host_access.as_ref().filter(|reason| host_access.as_ref() != Some(reason)) {
        lost.push(format!("its pods may use what Pod Security baseline forbids: {reason}"));
    }
    for (what, fires) in &now.resume {
        match (resume.get(what), fires) {
            (None, _) => lost.push(format!("{what} starts once it is recovered")),
            (Some(false), true) => lost.push(format!("a run that {what} missed starts at once")),
            (Some(true), _) | (Some(false), false) => {}
        }
    }
    lost
}

/// How a gate asks for less than it did.
fn weaker(before: &GateRequirement, after: &GateRequirement) -> impl Iterator<Item = String> {
    let GateRequirement { asks, stable_for, interval, timeout, failure_limit } = before;
    let shown = |millis: u64| Duration(StdDuration::from_millis(millis)).to_string();
    let changed = (*asks != after.asks).then(|| "asks something else".to_owned());
    let longer = |what: &str, before: u64, after: u64| {
        (after > before).then(|| format!("{what} {} instead of {}", shown(after), shown(before)))
    };
    let stable = (after.stable_for < *stable_for)
        .then(|| format!("passes after {} instead of {}", shown(after.stable_for), shown(*stable_for)));
    let limit = (after.failure_limit > *failure_limit)
        .then(|| format!("fails after {} answers instead of {failure_limit}", after.failure_limit));
    let interval = longer("is asked every", *interval, after.interval);
    let timeout = longer("may take", *timeout, after.timeout);
    [changed, stable, limit, interval, timeout].into_iter().flatten()
}

#[cfg(test)]
#[path = "ratchet_tests.rs"]
mod tests;
