//! Lists of a page: what was let pass, what no gate looked at, and what is left for people.

use std::fmt::Write;

use super::super::{LeftView, PlanView};
use super::{BOLD, brief, names};
use crate::api::AspectState;
use crate::api::recovery_plan::GateChange;
use crate::api::service_recovery::Stage;
use crate::status::remedies::sentence;

/// Maximum number of entries of a list on a page.
const LISTED: usize = 20;

/// Renders a heading and each entry of a list on a line of its own.
fn list(page: &mut String, heading: &str, entries: &[String]) {
    if entries.is_empty() {
        return;
    }
    line!(page, "\n{BOLD}{heading}{BOLD:#}");
    for entry in entries.iter().take(LISTED) {
        line!(page, "  {entry}");
    }
    if entries.len() > LISTED {
        line!(page, "  and {} more: resurgam status --output json", entries.len() - LISTED);
    }
}

/// Renders what was let pass: accepted exceptions, and gates that differ from the plan's defaults.
pub(super) fn exceptions(page: &mut String, plan: &PlanView) {
    let mut entries = Vec::new();
    for service in &plan.services {
        let name = &service.name;
        entries
            .extend(service.exceptions.iter().map(|exception| format!("{name}: {}", brief(exception, 600))));
        let is_said = |rollout: &&String| service.exceptions.iter().any(|e| e.starts_with(rollout.as_str()));
        let rollouts = service.accepted_rollouts.iter().filter(|rollout| !is_said(rollout));
        entries.extend(rollouts.map(|rollout| {
            format!("{name}: {} runs the specified revision, not the one that served", brief(rollout, 300))
        }));
    }
    entries.extend(plan.gate_overrides.iter().map(|of| {
        let (service, gate, phase) = (&of.service, &of.gate, of.phase.as_str());
        match of.change {
            GateChange::Omitted => {
                format!("{service}: goes without the plan's default gate {gate} ({phase})")
            }
            GateChange::Replaced => {
                format!(
                    "{service}: has a gate of its own instead of the plan's default gate {gate} ({phase})"
                )
            }
        }
    }));
    list(page, "Exceptions", &entries);
}

pub(super) fn left_for_people(page: &mut String, left: &[LeftView]) {
    if left.is_empty() {
        return;
    }
    // A blank line ends the plans above, and begins a list.
    if page.ends_with("\n\n") {
        page.pop();
    }
    let entry =
        |of: &LeftView| format!("{}: {}", of.object, sentence(&brief(&of.message, 400), &of.next, 400));
    list(page, "Left for people", &left.iter().map(entry).collect::<Vec<_>>());
    page.push('\n');
}

/// Renders what no integrity gate has looked at, of services that are open: a recovered service is no more than what was proved.
pub(super) fn not_looked_at(page: &mut String, plan: &PlanView) {
    let mut groups: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for service in plan.services.iter().filter(|service| service.stage == Stage::Recovered.as_str()) {
        let missing = service.integrity.iter().filter(|of| of.state == AspectState::NotLookedAt);
        let missing: Vec<&str> = missing.map(|of| of.aspect.describe()).collect();
        if missing.is_empty() {
            continue;
        }
        match groups.iter_mut().find(|(aspects, _)| *aspects == missing) {
            Some((_, services)) => services.push(&service.name),
            None => groups.push((missing, vec![&service.name])),
        }
    }
    let entry =
        |(aspects, services): &(Vec<&str>, Vec<&str>)| format!("{}: {}", names(services), aspects.join(", "));
    list(page, "Recovered, but no gate looked at", &groups.iter().map(entry).collect::<Vec<_>>());
}
