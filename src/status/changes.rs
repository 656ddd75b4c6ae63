//! A line for each change of a [`View`], for output that is no terminal. Pure.

use std::collections::BTreeMap;

use super::remedies::sentence;
use super::render::brief;
use super::{OperatorView, QuarantineView, QuarantinesView, ServiceView, View};

/// Renders a line for each service whose stage changed, for output that is no terminal.
#[must_use]
pub fn changes(before: Option<&View>, now: &View) -> Vec<String> {
    let mut known: BTreeMap<(&str, &str, &str), &ServiceView> = BTreeMap::new();
    for plan in before.map_or(&[][..], |b| &b.plans) {
        known.extend(
            plan.services.iter().map(|s| ((plan.namespace.as_str(), plan.name.as_str(), s.name.as_str()), s)),
        );
    }
    let mut lines = Vec::new();
    for plan in &now.plans {
        for service in &plan.services {
            let old = known.get(&(plan.namespace.as_str(), plan.name.as_str(), service.name.as_str()));
            let news = match &service.decision {
                Some(decision)
                    if old
                        .is_none_or(|o| o.decision.as_ref().map(|d| &d.digest) != Some(&decision.digest)) =>
                {
                    Some(format!(
                        "needs a decision: {}: {}",
                        decision.reason,
                        sentence(&brief(&decision.message, 300), &decision.next, 300)
                    ))
                }
                None if service.held_up.is_some() && old.is_none_or(|o| o.held_up != service.held_up) => {
                    service.held_up.as_ref().map(|held| {
                        let what = sentence(&brief(&held.message, 300), &held.next, 300);
                        format!("held up: {}: {what}", held.reason)
                    })
                }
                // The initial isolation is no change.
                _ if old.is_none() && service.stage == "Isolated" && service.attempt == 1 => None,
                _ if old.is_none_or(|o| (&o.stage, o.attempt) != (&service.stage, service.attempt)) => {
                    let attempt = if service.attempt > 1 {
                        format!(" (attempt {})", service.attempt)
                    } else {
                        String::new()
                    };
                    Some(format!("{}{attempt}", service.stage))
                }
                _ => None,
            };
            if let Some(news) = news {
                lines.push(format!(
                    "{} {}/{} {}: {news}",
                    plan.name, plan.recovered, plan.total, service.name
                ));
            }
        }
    }
    lines.extend(quarantine_changes(before.map(|view| &view.quarantines), &now.quarantines));
    if before.is_none_or(|b| b.operator != now.operator)
        && let OperatorView::Silent { .. } = now.operator
    {
        lines.push(
            "the operator is silent: nothing will move until it is back; what is isolated stays isolated"
                .to_owned(),
        );
    }
    lines
}

fn quarantine_changes(before: Option<&QuarantinesView>, now: &QuarantinesView) -> Vec<String> {
    let earlier = before.map_or(&[][..], |view| &view.failing);
    let mut lines = Vec::new();
    for quarantine in &now.failing {
        let QuarantineView { namespace, reason, message, .. } = quarantine;
        let old = earlier.iter().find(|old| old.namespace == *namespace);
        if old.is_none_or(|old| (&old.reason, &old.message) != (reason, message)) {
            lines.push(format!("quarantine {namespace} is failing: {reason}: {}", brief(message, 300)));
        }
    }
    for old in earlier.iter().filter(|old| now.failing.iter().all(|new| new.namespace != old.namespace)) {
        if now.unreadable.is_none() {
            lines.push(format!("quarantine {} is failing no more", old.namespace));
        }
    }
    if let Some(why) = &now.unreadable
        && before.is_none_or(|view| view.unreadable.is_none())
    {
        lines.push(format!("which namespaces are isolated is not known: {}", brief(why, 300)));
    }
    lines
}
