//! The plan, parsed independently of the operator: services, namespaces and dependencies.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_yaml::Value;

use crate::CannotJudge;
use crate::gates::{Gate, gates};

pub(crate) use crate::gates::Phase;

/// A RecoveryPlan, with the fields that the rules need.
#[derive(Debug)]
pub(crate) struct Plan {
    pub name: String,
    pub namespace: String,
    /// User name of the plan's ServiceAccount, which writes for steps and reads for gates.
    pub account: Option<String>,
    pub max_parallel: usize,
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// Nodes of the graph: a group with its members, or a service without a group.
    pub nodes: BTreeMap<String, Node>,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub namespaces: Vec<String>,
    /// Name of its group, or its own.
    pub node: String,
    /// Gates, including the plan's defaults.
    pub gates: Vec<Gate>,
    /// Whether it may have no gates.
    pub ungated: bool,
    /// Whether it isolates itself when a continuous gate fails.
    pub contains: bool,
    depends_on: Vec<String>,
    tier: Option<i64>,
}

/// A node of the graph.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub members: BTreeSet<String>,
    /// Dependencies outside the node: the union over its members.
    pub depends_on: BTreeSet<String>,
}

impl Plan {
    /// Parses the one RecoveryPlan among the documents of `text`.
    pub(crate) fn parse(text: &str) -> Result<Self, CannotJudge> {
        let wrong = |reason: String| CannotJudge::Plan(reason);
        let mut found = None;
        for document in serde_yaml::Deserializer::from_str(text) {
            let value = Value::deserialize(document).map_err(|error| wrong(error.to_string()))?;
            if text_of(&value, "kind") == Some("RecoveryPlan") && found.replace(value).is_some() {
                return Err(wrong("there is more than one RecoveryPlan in the file".to_owned()));
            }
        }
        let value = found.ok_or_else(|| wrong("there is no RecoveryPlan in the file".to_owned()))?;
        let metadata = value.get("metadata").unwrap_or(&Value::Null);
        let named = |key: &str| {
            text_of(metadata, key)
                .map(str::to_owned)
                .ok_or_else(|| wrong(format!("metadata.{key} is missing")))
        };
        let spec = value.get("spec").unwrap_or(&Value::Null);
        let list = spec.get("services").and_then(Value::as_sequence);
        let defaults = spec.get("defaults").and_then(|defaults| defaults.get("gates"));
        let mut services = BTreeMap::new();
        for (index, item) in list.into_iter().flatten().enumerate() {
            let name = text_of(item, "name").ok_or_else(|| wrong(format!("service {index} has no name")))?;
            if services.insert(name.to_owned(), service(name, item, defaults)?).is_some() {
                return Err(wrong(format!("service {name} is there twice")));
            }
        }
        if services.is_empty() {
            return Err(wrong("it has no services".to_owned()));
        }
        if text_of(spec, "order") == Some("Tiers") {
            add_tier_edges(&mut services);
        }
        let max_parallel = spec.get("maxParallel").and_then(Value::as_u64).unwrap_or(6);
        let nodes = nodes(&services);
        let namespace = named("namespace")?;
        let account = text_of(spec, "serviceAccountName");
        Ok(Self {
            name: named("name")?,
            account: account.map(|name| format!("system:serviceaccount:{namespace}:{name}")),
            namespace,
            max_parallel: usize::try_from(max_parallel).unwrap_or(usize::MAX),
            services,
            nodes,
        })
    }

    /// Returns the service of a namespace.
    pub(crate) fn service_of(&self, namespace: &str) -> Option<(&str, &Service)> {
        let mine = |(_, service): &(&String, &Service)| service.namespaces.iter().any(|n| n == namespace);
        self.services.iter().find(mine).map(|(name, service)| (name.as_str(), service))
    }

    /// Returns the dependencies of a service: those of its group, without the members.
    pub(crate) fn dependencies(&self, service: &Service) -> impl Iterator<Item = &str> {
        self.nodes.get(&service.node).into_iter().flat_map(|node| node.depends_on.iter().map(String::as_str))
    }

    /// Returns the nodes that a node depends on.
    pub(crate) fn upstream<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a str> {
        node.depends_on.iter().filter_map(|name| self.services.get(name)).map(|service| service.node.as_str())
    }
}

fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn texts(item: &Value, key: &str, name: &str) -> Result<Option<Vec<String>>, CannotJudge> {
    let wrong = || CannotJudge::Plan(format!("service {name}: {key} is no list of names"));
    let Some(value) = item.get(key) else { return Ok(None) };
    let list = value.as_sequence().ok_or_else(wrong)?;
    list.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
}

fn service(name: &str, item: &Value, defaults: Option<&Value>) -> Result<Service, CannotJudge> {
    let namespaces = texts(item, "namespaces", name)?.unwrap_or_else(|| vec![name.to_owned()]);
    let gates = gates(item.get("gates"), defaults, namespaces.is_empty())
        .map_err(|reason| CannotJudge::Plan(format!("service {name}: {reason}")))?;
    Ok(Service {
        namespaces,
        gates,
        ungated: item.get("ungated").is_some(),
        contains: text_of(item, "onRegression") == Some("Contain"),
        // A group may have a service's name. The blank, which no name contains, distinguishes the two.
        node: text_of(item, "together").map_or_else(|| name.to_owned(), |group| format!("group {group}")),
        depends_on: texts(item, "dependsOn", name)?.unwrap_or_default(),
        tier: item.get("tier").and_then(Value::as_i64),
    })
}

/// Adds the edges of `order: Tiers`: each service depends on all services of the nearest lower tier with any.
fn add_tier_edges(services: &mut BTreeMap<String, Service>) {
    let mut tiers: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (name, service) in services.iter() {
        if let Some(tier) = service.tier {
            tiers.entry(tier).or_default().push(name.clone());
        }
    }
    for service in services.values_mut() {
        let lower = service.tier.and_then(|tier| tiers.range(..tier).next_back());
        service.depends_on.extend(lower.into_iter().flat_map(|(_, names)| names.iter().cloned()));
    }
}

fn nodes(services: &BTreeMap<String, Service>) -> BTreeMap<String, Node> {
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    for (name, service) in services {
        let node = nodes.entry(service.node.clone()).or_default();
        node.members.insert(name.clone());
        node.depends_on.extend(service.depends_on.iter().cloned());
    }
    for node in nodes.values_mut() {
        node.depends_on.retain(|name| !node.members.contains(name));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "
kind: Namespace
---
kind: RecoveryPlan
metadata: {name: p, namespace: recovery}
spec:
  order: Tiers
  services:
  - {name: a, tier: 0}
  - {name: b, tier: 2, together: core, dependsOn: [c]}
  - {name: c, tier: 2, together: core, namespaces: [x, y], dependsOn: [z]}
  - {name: d, tier: 5, namespaces: []}
";

    #[test]
    fn group_waits_for_dependencies_of_members_and_for_lower_tiers() {
        let plan = Plan::parse(PLAN).unwrap();
        let on = |name: &str| plan.dependencies(&plan.services[name]).collect::<Vec<_>>();
        assert_eq!(on("b"), ["a", "z"]);
        assert_eq!(on("c"), ["a", "z"]);
        assert_eq!(on("d"), ["b", "c"]);
        assert_eq!(plan.service_of("y").unwrap().0, "c");
        assert_eq!(plan.service_of("b").unwrap().0, "b");
        assert!(plan.service_of("d").is_none());
    }

    #[test]
    fn a_file_without_exactly_one_plan_is_refused() {
        for text in ["kind: Namespace", &format!("{PLAN}\n---{PLAN}"), "kind: RecoveryPlan", "a: ["] {
            assert!(Plan::parse(text).is_err(), "{text}");
        }
    }
}
