//! Checks of a plan. Each problem names its culprit and a fix.

use std::collections::{BTreeMap, BTreeSet};

use super::{Gate, Plan, Problem, ServiceId, graph};
use crate::api::gate::ImageTags;
use crate::api::{Class, GATE_TYPES, Phase, Reason, protected_namespace};
use crate::steps;

/// Returns the name that somebody may have meant by one that does not exist.
pub(crate) fn nearest<'a>(missing: &str, names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    names.filter(|name| distance(name, missing) <= 2).min_by_key(|name| distance(name, missing))
}

/// Returns the problem of a dependency that is not in the plan.
pub(super) fn unknown_service<'a>(
    service: &str,
    missing: &str,
    names: impl Iterator<Item = &'a String>,
) -> Problem {
    let hint = nearest(missing, names).map_or_else(
        || "add it to the plan, or take the dependency away".to_owned(),
        |n| format!("did you mean '{n}'?"),
    );
    Problem::new(
        Reason::UnknownService,
        missing,
        format!("{service} depends on '{missing}', which the plan does not have: {hint}"),
    )
}

/// Returns the problem of a service without a tier under `order: Tiers`.
pub(super) fn no_tier(service: &str) -> Problem {
    Problem::new(Reason::TierMissing, service, format!("{service} has no tier, which order: Tiers needs"))
}

/// Returns the problem of a service that leaves out a default gate that the plan does not have.
pub(super) fn unknown_gate(service: &str, gate: &str) -> Problem {
    let message = format!("{service} leaves out the default gate '{gate}', which the plan does not have");
    Problem::new(Reason::UnknownGate, gate, message)
}

/// Returns the problem of an entry under `resume` that names no object.
pub(super) fn resume_of_nothing(service: &str) -> Problem {
    let message = format!("{service} is to resume something that is neither a cronJob nor a job, or both");
    Problem::new(Reason::MalformedResume, service, message)
}

/// Returns the problem of an entry under `resume` whose namespace is not the service's.
pub(super) fn resume_elsewhere(service: &str, name: &str, namespace: Option<&str>) -> Problem {
    let message = match namespace {
        Some(namespace) => {
            format!("{service} is to resume {name} in {namespace}, which is no namespace of it")
        }
        None => format!("{service} is to resume {name}, and does not say in which of its namespaces"),
    };
    Problem::new(Reason::ResumeElsewhere, name, message)
}

/// Returns the problem of an object that is under `resume` twice: the entries may differ about missed runs.
pub(super) fn resume_twice(service: &str, name: &str) -> Problem {
    Problem::new(Reason::DuplicateResume, name, format!("{service} is to resume {name} twice"))
}

/// Adds the problems of single services, and of two services that share something.
pub(super) fn services(plan: &mut Plan) {
    let mut owners: BTreeMap<&str, Vec<ServiceId>> = BTreeMap::new();
    for (id, service) in plan.services.iter().enumerate() {
        for namespace in &service.namespaces {
            owners.entry(namespace).or_default().push(id);
        }
    }
    let mut found: Vec<(ServiceId, Problem)> = Vec::new();
    for (namespace, of) in owners {
        if let Some(why) = protected_namespace(namespace) {
            let message = format!("namespace {namespace} is never isolated or recovered: {why}");
            found.extend(
                of.iter()
                    .map(|&id| (id, Problem::new(Reason::ProtectedNamespace, namespace, message.clone()))),
            );
        }
        if of.len() > 1 {
            let names: Vec<&str> = of.iter().map(|&id| plan.services[id].name.as_str()).collect();
            let message =
                format!("namespace {namespace} belongs to more than one service: {}", names.join(", "));
            found.extend(
                of.iter().map(|&id| (id, Problem::new(Reason::NamespaceShared, namespace, message.clone()))),
            );
        }
    }
    let recovered: BTreeSet<&String> = plan.services.iter().flat_map(|service| &service.namespaces).collect();
    for (id, service) in plan.services.iter().enumerate() {
        for original in service.replaces.iter().filter(|original| recovered.contains(original)) {
            let message = format!(
                "{} is to be rebuilt beside namespace {original}, which a service of the plan recovers: the original stays isolated",
                service.name
            );
            found.push((id, Problem::new(Reason::ReplacesRecovered, original, message)));
        }
        if plan.index.get(&service.name) != Some(&id) {
            let message = format!("the plan has more than one service named {}", service.name);
            found.push((id, Problem::new(Reason::DuplicateService, &service.name, message)));
        }
        if service.namespaces.is_empty() && !service.steps.is_empty() {
            let message = format!(
                "{} has no namespaces, so there is nothing that its steps could restore",
                service.name
            );
            found.push((id, Problem::new(Reason::NothingToRestore, &service.name, message)));
        }
        found.extend(gate_problems(service).into_iter().map(|problem| (id, problem)));
        found.extend(step_problems(service).into_iter().map(|problem| (id, problem)));
    }
    for (id, problem) in found {
        plan.services[id].problems.push(problem);
    }
}

/// Returns the problems of a service's gates. A phase without gates does not pass.
fn gate_problems(service: &super::Service) -> Vec<Problem> {
    let mut problems = Vec::new();
    let name = &service.name;
    for phase in [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous] {
        let mut seen = BTreeSet::new();
        for gate in service.gates_of(phase) {
            if !seen.insert(&gate.spec.name) {
                let message = format!("{name} has two {} gates named '{}'", phase.as_str(), gate.spec.name);
                problems.push(Problem::new(Reason::DuplicateGate, &gate.spec.name, message));
            }
            if phase == Phase::Continuous && gate.spec.approval.is_some() {
                let message = format!(
                    "gate '{}' of {name} asks people continuously: put the approval under beforeRestore or beforeRelease",
                    gate.spec.name
                );
                problems.push(Problem::new(Reason::MalformedGate, &gate.spec.name, message));
            }
            if gate.spec.gate_type().is_none() {
                let message =
                    format!("gate '{}' of {name} does not ask exactly one question", gate.spec.name);
                problems.push(Problem::new(Reason::MalformedGate, &gate.spec.name, message));
            }
        }
    }
    problems.extend(unproved_tags(service));
    if service.ungated.is_none() {
        let mut lacks = Vec::new();
        for phase in [Phase::BeforeRestore, Phase::BeforeRelease] {
            if service.gates_of(phase).next().is_none() {
                lacks.push(format!("no {} gate", phase.as_str()));
            }
        }
        let of = |gate: &Gate| gate.spec.gate_type().map(|of| of.class);
        if !service.gates.iter().any(|gate| of(gate) == Some(Class::Integrity)) {
            let names = GATE_TYPES.iter().filter(|of| of.class == Class::Integrity).map(|of| of.name);
            lacks.push(format!("no integrity gate ({})", names.collect::<Vec<_>>().join(", ")));
        }
        if !lacks.is_empty() {
            let message = format!(
                "{name} has {}: empty is not passed. Add one, or say why not in 'ungated: {{reason: …}}'",
                lacks.join(", ")
            );
            problems.push(Problem::new(Reason::Ungated, name, message));
        }
    }
    problems
}

/// Returns the problem of a gate that lets tags pass before restore, while nothing proves them before release.
fn unproved_tags(service: &super::Service) -> Option<Problem> {
    let of = |phase: Phase| {
        service.gates_of(phase).filter_map(|gate| Some((&gate.spec.name, gate.spec.image_digests.as_ref()?)))
    };
    let (gate, _) =
        of(Phase::BeforeRestore).find(|(_, images)| images.tags == ImageTags::ProveWhenRunning)?;
    if of(Phase::BeforeRelease).next().is_some() {
        return None;
    }
    let message = format!(
        "gate '{gate}' of {} lets images pass by tag before restore, and no beforeRelease gate asks imageDigests, which would prove \
         them: add one, or take 'tags: ProveWhenRunning' away",
        service.name
    );
    Some(Problem::new(Reason::TagsNotProved, gate, message))
}

fn step_problems(service: &super::Service) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for step in &service.steps {
        if !seen.insert(&step.name) {
            let message = format!("{} has two steps named '{}'", service.name, step.name);
            problems.push(Problem::new(Reason::DuplicateStep, &step.name, message));
        }
        if let Some(problem) = steps::problem(step, &service.namespaces) {
            let message = format!("step '{}' of {} {problem}", step.name, service.name);
            problems.push(Problem::new(Reason::MalformedStep, &step.name, message));
        }
    }
    problems
}

/// Adds the problems of groups: all members must have the same tier.
pub(super) fn groups(plan: &mut Plan) {
    for unit in &plan.units {
        let Some(group) = &unit.group else { continue };
        let tiers: BTreeSet<Option<i32>> = unit.members.iter().map(|&m| plan.services[m].tier).collect();
        if tiers.len() > 1 {
            let message = format!(
                "the members of group '{group}' are of different tiers: they go as one, so they share one"
            );
            for &member in &unit.members {
                plan.services[member].problems.push(Problem::new(
                    Reason::GroupTiersDiffer,
                    group,
                    message.clone(),
                ));
            }
        }
    }
}

/// Returns the problem of a service that depends on itself. It is not an edge between units.
pub(super) fn itself(name: &str) -> Problem {
    Problem::new(
        Reason::Cycle,
        name,
        format!("{name} depends on itself: take {name} out of its own dependsOn"),
    )
}

/// Adds the problems of cycles, each with its path and the edge to cut.
pub(super) fn cycles(plan: &mut Plan) {
    let edges = |unit: usize| plan.dependency_units(unit).collect::<Vec<_>>();
    let mut found = Vec::new();
    for component in graph::cyclic_components(plan.units.len(), edges) {
        let path = graph::shortest_cycle(&component, edges);
        found.push((component, describe(plan, &path)));
    }
    for (component, (culprit, message)) in found {
        for unit in component {
            for member in plan.units[unit].members.clone() {
                plan.services[member].problems.push(Problem::new(Reason::Cycle, &culprit, message.clone()));
            }
        }
    }
}

/// Describes a cycle: its path, and the edge that is most likely a mistake, which is the one from the lowest tier to the highest.
fn describe(plan: &Plan, path: &[usize]) -> (String, String) {
    let names: Vec<&str> = path.iter().map(|&unit| plan.unit_name(unit)).collect();
    let tier = |unit: usize| plan.units[unit].tier.unwrap_or(i32::MAX);
    let edge = (0..path.len())
        .max_by_key(|&i| {
            let (from, to) = (path[i], path[(i + 1) % path.len()]);
            (i64::from(tier(to)) - i64::from(tier(from)), i)
        })
        .unwrap_or(0);
    let (from, to) = stated_edge(plan, path[edge], path[(edge + 1) % path.len()]);
    let shown = names.iter().chain(names.first()).copied().collect::<Vec<_>>().join(" → ");
    let message = format!(
        "these depend on each other: {shown}. Cut an edge, such as {from} → {to}, or put them in one 'together' group"
    );
    (names.join(","), message)
}

/// Returns the services that make one unit depend on another: a group itself has no dependencies.
fn stated_edge(plan: &Plan, from: usize, to: usize) -> (&str, &str) {
    let edges = plan.units[from].members.iter().flat_map(|&member| {
        plan.services[member].dependencies.iter().map(move |&dependency| (member, dependency))
    });
    let edge = edges.into_iter().find(|&(_, dependency)| plan.services[dependency].unit == to);
    edge.map_or((plan.unit_name(from), plan.unit_name(to)), |(member, dependency)| {
        (&plan.services[member].name, &plan.services[dependency].name)
    })
}

/// Returns the edit distance between two names, for suggestions.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let next = (diagonal + usize::from(from != *to)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
