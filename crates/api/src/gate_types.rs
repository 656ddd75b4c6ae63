//! The registry of gates: one row for each type, from which whatever differs between them is read.

use kube::core::{Message, Rule};

use crate::GateSpec;

/// What a gate proves. A service without any integrity gate does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// That it works.
    Health,
    /// That it is what was approved.
    Integrity,
}

/// What a gate is to a plan, by the question that it asks.
#[derive(Debug)]
pub struct GateType {
    /// The field of a gate that holds the question.
    pub name: &'static str,
    /// What it proves.
    pub class: Class,
    /// Returns whether its answer is found in the service's namespaces. Such a gate has no answer for an external system.
    pub looks_into_namespaces: bool,
    is_asked_by: fn(&GateSpec) -> bool,
}

/// All types of gates, in the order in which messages name them.
pub static GATE_TYPES: [GateType; 3] = [
    GateType {
        name: "imageDigests",
        class: Class::Integrity,
        looks_into_namespaces: true,
        is_asked_by: |gate| gate.image_digests.is_some(),
    },
    GateType {
        name: "workloads",
        class: Class::Health,
        looks_into_namespaces: true,
        is_asked_by: |gate| gate.workloads.is_some(),
    },
    GateType {
        name: "http",
        class: Class::Health,
        looks_into_namespaces: false,
        is_asked_by: |gate| gate.http.is_some(),
    },
];

/// The fields of a gate that every type has: its name, and how often and how strictly it is asked.
pub const COMMON_FIELDS: [&str; 6] =
    ["name", "stableFor", "interval", "timeout", "failureLimit", "unknownDeadline"];

impl GateSpec {
    /// Returns the type of this gate. `None`: it does not ask exactly one question, so it proves nothing.
    #[must_use]
    pub fn gate_type(&self) -> Option<&'static GateType> {
        let mut types = GATE_TYPES.iter().filter(|of| (of.is_asked_by)(self));
        types.next().filter(|_| types.next().is_none())
    }

    /// Returns the name of its type, for people and metrics.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.gate_type().map_or("malformed", |of| of.name)
    }
}

/// Returns the rule that a gate asks exactly one question.
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
