//! Registry of gate types: one row per type with everything that differs between them.

use kube::core::{Message, Rule};

use crate::gate::{BaselineSpec, Outside};
use crate::{Aspect, GateSpec, Phase};

/// What a gate proves. A service needs at least one integrity gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The service works.
    Health,
    /// The service is what was approved.
    Integrity,
    /// People agree.
    Approval,
}

/// One type of gate.
#[derive(Debug)]
pub struct GateType {
    /// Name of the field of `GateSpec` that selects this type.
    pub name: &'static str,
    /// What the gate proves.
    pub class: Class,
    /// Whether the gate reads objects in the service's namespaces. Such a gate cannot be evaluated for an external system.
    pub looks_into_namespaces: bool,
    /// Default `interval` and `timeout` in a phase, in seconds.
    pub pace: fn(Phase) -> (u64, u64),
    /// What of a service the gate proves. Empty for health gates.
    pub looks_at: fn(&GateSpec) -> Vec<Aspect>,
    is_asked_by: fn(&GateSpec) -> bool,
}

/// Default `interval` and `timeout` of most types.
fn usual(_: Phase) -> (u64, u64) {
    USUAL_PACE
}

/// Default `interval` and `timeout` of most types, in seconds.
pub const USUAL_PACE: (u64, u64) = (10, 10);

/// All gate types, in the order in which messages list them.
pub static GATE_TYPES: [GateType; 9] = [
    GateType {
        name: "imageDigests",
        class: Class::Integrity,
        looks_into_namespaces: true,
        pace: usual,
        looks_at: |_| vec![Aspect::Images],
        is_asked_by: |gate| gate.image_digests.is_some(),
    },
    GateType {
        name: "baseline",
        class: Class::Integrity,
        looks_into_namespaces: true,
        // It takes as many lists as there are kinds.
        pace: |phase| if phase == Phase::Continuous { (5 * 60, 60) } else { (30, 60) },
        looks_at: |gate| gate.baseline.as_ref().map_or_else(Vec::new, aspects_of_baseline),
        is_asked_by: |gate| gate.baseline.is_some(),
    },
    GateType {
        name: "credentialsRotated",
        class: Class::Integrity,
        looks_into_namespaces: true,
        pace: usual,
        looks_at: |_| vec![Aspect::Secrets],
        is_asked_by: |gate| gate.credentials_rotated.is_some(),
    },
    GateType {
        name: "backupBefore",
        class: Class::Integrity,
        looks_into_namespaces: false,
        pace: usual,
        looks_at: |_| vec![Aspect::Backups],
        is_asked_by: |gate| gate.backup_before.is_some(),
    },
    GateType {
        name: "jobResult",
        class: Class::Integrity,
        looks_into_namespaces: false,
        pace: usual,
        looks_at: |gate| gate.job_result.iter().flat_map(|spec| spec.looks_at.clone()).collect(),
        is_asked_by: |gate| gate.job_result.is_some(),
    },
    GateType {
        name: "workloads",
        class: Class::Health,
        looks_into_namespaces: true,
        pace: usual,
        looks_at: |_| Vec::new(),
        is_asked_by: |gate| gate.workloads.is_some(),
    },
    GateType {
        name: "http",
        class: Class::Health,
        looks_into_namespaces: false,
        pace: usual,
        looks_at: |_| Vec::new(),
        is_asked_by: |gate| gate.http.is_some(),
    },
    GateType {
        name: "condition",
        class: Class::Health,
        looks_into_namespaces: false,
        pace: usual,
        looks_at: |_| Vec::new(),
        is_asked_by: |gate| gate.condition.is_some(),
    },
    GateType {
        name: "approval",
        class: Class::Approval,
        looks_into_namespaces: false,
        pace: usual,
        looks_at: |_| Vec::new(),
        is_asked_by: |gate| gate.approval.is_some(),
    },
];

/// Images are compared by name only: which ones run, gate `imageDigests` proves.
fn aspects_of_baseline(spec: &BaselineSpec) -> Vec<Aspect> {
    let mut aspects = vec![Aspect::PodTemplates, Aspect::Configuration];
    if spec.secret_key_from.is_some() {
        aspects.push(Aspect::Secrets);
    }
    if spec.outside == Outside::Compare {
        aspects.extend([Aspect::Rbac, Aspect::Webhooks]);
    }
    aspects
}

/// Fields of `GateSpec` that every type has.
pub const COMMON_FIELDS: [&str; 7] =
    ["name", "stableFor", "interval", "timeout", "failureLimit", "startupGrace", "unknownDeadline"];

impl GateSpec {
    /// Returns the type of this gate, or `None` unless exactly one type is set. Such a gate proves nothing.
    #[must_use]
    pub fn gate_type(&self) -> Option<&'static GateType> {
        let mut types = GATE_TYPES.iter().filter(|of| (of.is_asked_by)(self));
        types.next().filter(|_| types.next().is_none())
    }

    /// Returns the name of the gate's type, for messages and metrics.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.gate_type().map_or("malformed", |of| of.name)
    }
}

/// Returns the CEL rule that a gate sets exactly one type.
pub(crate) fn exactly_one() -> Rule {
    let names: Vec<&str> = GATE_TYPES.iter().map(|of| of.name).collect();
    let asked: Vec<String> = names.iter().map(|name| format!("has(self.{name})")).collect();
    Rule::new(format!("[{}].filter(x, x).size() == 1", asked.join(", ")))
        .message(Message::Message(format!("a gate asks exactly one of {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{HttpSpec, WorkloadsSpec};

    #[test]
    fn a_gate_is_of_one_type_or_malformed() {
        let workloads = GateSpec { workloads: Some(WorkloadsSpec::default()), ..GateSpec::default() };
        let both = GateSpec { http: Some(HttpSpec::default()), ..workloads.clone() };
        assert_eq!(workloads.gate_type().map(|of| of.class), Some(Class::Health));
        assert_eq!(["workloads", "malformed"], [workloads.type_name(), both.type_name()]);
        assert!(GateSpec::default().gate_type().is_none());
    }
}
