//! Requirements of a plan, and the loosenings in a change of them. Pure.
//!
//! The ratchet: the requirements last accepted are kept per namespace, whatever plan or service names it. A short list of changes counts
//! as tightening; every other difference is a loosening, which a person has to accept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration as StdDuration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Gate, Plan, ServiceId};
use crate::api::gate_types::COMMON_FIELDS;
use crate::api::recovery_plan::MissedRun;
use crate::api::{ClusterService, Duration};

/// Version of the record's format. Records of another version cannot be compared.
pub const VERSION: u32 = 1;

/// Everything that must be proved before a service is loosened. Steps are not included: gates check what they start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requirements {
    /// [`VERSION`].
    pub version: u32,
    /// Name of the Incident whose `compromisedSince` the gates use.
    pub incident: String,
    /// Namespace of the plan, in which gates look up the objects they name.
    pub plan_namespace: String,
    /// Gates, by `phase/name`.
    pub gates: BTreeMap<String, GateRequirement>,
    /// Dependencies: `namespace NAME`, or `external system NAMESPACE/NAME`. A service's name proves nothing.
    pub depends_on: BTreeSet<String>,
    /// Members of the group whose steps run first.
    pub steps_after: BTreeSet<String>,
    /// Namespaces and external systems of the unit.
    pub together: BTreeSet<String>,
    /// Why it has no gates in some phase, if the plan permits it.
    pub ungated: Option<String>,
    /// Egress exceptions of the clean room.
    pub allow_egress: BTreeSet<ClusterService>,
    /// Addresses that the clean room may connect to, as messages. Absent in records of versions that did not know them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allow_egress_to: BTreeSet<String>,
    /// Why its pods may use what Pod Security `baseline` forbids, if the plan permits it.
    pub host_access: Option<String>,
    /// Objects to resume by `kind namespace/name`, and whether a missed run starts at once.
    pub resume: BTreeMap<String, bool>,
}

/// Requirements of one gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GateRequirement {
    /// The check, as in the plan.
    pub asks: Value,
    /// `stableFor` in milliseconds.
    pub stable_for: u64,
    /// `interval` in milliseconds.
    pub interval: u64,
    /// `timeout` in milliseconds.
    pub timeout: u64,
    /// `failureLimit`.
    pub failure_limit: u32,
}

/// Scope of accepted requirements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A namespace, whatever plan names it.
    Namespace(String),
    /// A service without namespaces, in whatever plan of the namespace.
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
    /// Returns the scopes of a service: each of its namespaces, or the service itself if it has none.
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
    /// Returns what a plan requires of one of its services.
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
            depends_on: scopes(&plan.required_dependencies(id)),
            steps_after: scopes(&service.steps_after),
            together: scopes(&plan.units[service.unit].members),
            ungated: service.ungated.clone(),
            allow_egress: service.allow_egress.iter().copied().collect(),
            allow_egress_to: service.allow_egress_to.iter().map(ToString::to_string).collect(),
            host_access: service.host_access.clone(),
            resume: service.resume.iter().map(resume).collect(),
        }
    }

    /// Returns the requirements without those that a person always has to accept.
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
        // Gate specs always serialise. One that did not would differ from every other.
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

/// Returns what a change of requirements loosens, as messages. Empty: they are equal, or only tightened.
#[must_use]
pub fn loosenings(accepted: &Requirements, now: &Requirements) -> Vec<String> {
    // Destructured in full, so that a new field does not compile before its loosening is defined.
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
        allow_egress_to,
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
    let added = now.allow_egress_to.difference(allow_egress_to);
    lost.extend(added.map(|block| format!("its clean room may connect to {block}")));
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

/// Returns how a gate became weaker.
fn weaker(before: &GateRequirement, after: &GateRequirement) -> impl Iterator<Item = String> {
    let GateRequirement { asks, stable_for, interval, timeout, failure_limit } = before;
    let shown = |millis: u64| Duration(StdDuration::from_millis(millis)).to_string();
    let changed = change(asks, &after.asks);
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

/// Returns how a gate's question became weaker. Any difference counts, except that images may no longer pass by tag.
fn change(before: &Value, after: &Value) -> Option<String> {
    if before == after {
        return None;
    }
    let without_tags = |asks: &Value| {
        let mut asks = asks.clone();
        if let Some(Value::Object(images)) = asks.get_mut("imageDigests") {
            images.remove("tags");
        }
        asks
    };
    let tags = |asks: &Value| asks.get("imageDigests").and_then(|images| images.get("tags")).cloned();
    if without_tags(before) != without_tags(after) {
        Some("asks something else".to_owned())
    } else {
        // Absent is Forbid.
        tags(after).map(|_| "lets images pass by tag".to_owned())
    }
}

#[cfg(test)]
#[path = "ratchet_tests.rs"]
mod tests;
