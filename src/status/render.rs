//! Text of a [`View`]: a page for a terminal, or a line for each change.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use k8s_openapi::jiff::Timestamp;

use super::remedies::sentence;
use super::{HeldUp, OperatorView, PlanView, QuarantineView, QuarantinesView, ServiceView, View};
use crate::api::conditions::shorten;
use crate::api::service_recovery::{ResumeState, Stage};
use crate::api::{Duration, Reason};
use crate::text::count;

use lists::{exceptions, left_for_people, not_looked_at};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BUSY: Style = AnsiColor::Cyan.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Writing to a String cannot fail.
macro_rules! line {
    ($page:expr, $($arguments:tt)*) => {{ let _ = writeln!($page, $($arguments)*); }};
}

// After the macro that it uses.
mod lists;

/// Renders a page `width` columns wide, with colours that [`anstream`] removes if there is no terminal.
#[must_use]
pub fn render(view: &View, now: Timestamp, width: usize) -> String {
    let mut page = String::new();
    // First, as a terminal may be too short for the rest.
    failing_quarantines(&mut page, &view.quarantines, now);
    for plan in &view.plans {
        plan_page(&mut page, plan, now, width.max(60));
        page.push('\n');
    }
    if view.plans.is_empty() {
        page.push_str("No RecoveryPlan here.\n\n");
    }
    left_for_people(&mut page, &view.left);
    quarantines(&mut page, &view.quarantines);
    operator(&mut page, &view.operator, now);
    page
}

/// Maximum number of failing Quarantines, and of controls of one, on a page.
const SHOWN: (usize, usize) = (10, 3);

fn failing_quarantines(page: &mut String, view: &QuarantinesView, now: Timestamp) {
    if let Some(why) = &view.unreadable {
        line!(page, "{BAD}Which namespaces are isolated is not known.{BAD:#} {}\n", brief(why, 400));
    }
    let failing = view.failing.len();
    if failing == 0 {
        return;
    }
    let verb = if failing == 1 { "is" } else { "are" };
    line!(page, "{BAD}{failing} of {} {verb} failing{BAD:#}", count(view.total, "Quarantine"));
    for quarantine in view.failing.iter().take(SHOWN.0) {
        failing_quarantine(page, quarantine, now);
    }
    if failing > SHOWN.0 {
        line!(page, "\nand {} more", failing - SHOWN.0);
    }
    line!(page, "\n{DIM}Each control: kubectl get quarantine NAMESPACE -o yaml{DIM:#}\n");
}

fn failing_quarantine(page: &mut String, quarantine: &QuarantineView, now: Timestamp) {
    let level = |level: Option<crate::api::Isolation>, none| level.map_or(none, |level| level.as_str());
    let since = quarantine.since.map_or_else(String::new, |since| format!(" for {}", ago(since, now)));
    line!(
        page,
        "\n{BAD}{}{BAD:#}  {}{since}  {DIM}asked: {}, enforced: {}{DIM:#}",
        quarantine.namespace,
        quarantine.reason,
        level(quarantine.asked, "?"),
        level(quarantine.enforced, "nothing"),
    );
    line!(page, "  {}", brief(&quarantine.message, 600));
    for control in quarantine.controls.iter().take(SHOWN.1) {
        line!(page, "  {}: {}", control.name, brief(&control.message, 300));
    }
    if quarantine.controls.len() > SHOWN.1 {
        line!(page, "  and {} more controls", quarantine.controls.len() - SHOWN.1);
    }
}

fn quarantines(page: &mut String, view: &QuarantinesView) {
    if view.total == 0 {
        return;
    }
    let mut parts = vec![format!("{} Ready", view.ready)];
    for (count, what) in [(view.under_way(), "under way"), (view.failing.len(), "failing")] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let mut levels = vec![format!("{} isolated", count(view.isolated, "namespace"))];
    let neither = view.total.saturating_sub(view.isolated + view.open);
    for (count, what) in [(view.open, "open"), (neither, "not confirmed isolated yet")] {
        if count > 0 {
            levels.push(format!("{count} {what}"));
        }
    }
    line!(page, "{DIM}Isolation: {} · Quarantines: {}{DIM:#}", levels.join(", "), parts.join(", "));
    for (namespace, incidents) in view.several_incidents.iter().take(SHOWN.0) {
        line!(page, "{DIM}{namespace} is isolated for several incidents: {}{DIM:#}", incidents.join(", "));
    }
    let more = view.several_incidents.len().saturating_sub(SHOWN.0);
    if more > 0 {
        line!(page, "{DIM}and {more} more namespaces are{DIM:#}");
    }
}

fn operator(page: &mut String, operator: &OperatorView, now: Timestamp) {
    match operator {
        OperatorView::Leading { holder } => line!(page, "{DIM}Operator: {holder} leads.{DIM:#}"),
        OperatorView::Silent { since } => {
            let since = match since {
                Some(at) => {
                    format!("has been silent for {}, since {}", ago(*at, now), at.strftime("%F %H:%M:%S UTC"))
                }
                None => "has never run here".to_owned(),
            };
            line!(
                page,
                "{BAD}The operator {since}.{BAD:#} Nothing will move until it is back; what is isolated stays isolated."
            );
        }
    }
}

fn plan_page(page: &mut String, plan: &PlanView, now: Timestamp, width: usize) {
    let style = match plan.ready.as_str() {
        "True" => GOOD,
        "False" => BAD,
        _ => BUSY,
    };
    let mut title =
        format!("{BOLD}{}/{}{BOLD:#}  {style}{}{style:#}", plan.namespace, plan.name, plan.reason);
    if let Some(started) = plan.started_at {
        let end = plan.recovered_at.unwrap_or(now);
        let _ = write!(title, "  {DIM}{}{DIM:#}", ago(started, end));
    }
    line!(page, "{title}");
    if plan.total > 0 {
        let counts = format!(
            "{}/{} recovered · {} running · {} waiting · {} need a decision",
            plan.recovered, plan.total, plan.running, plan.waiting, plan.needs_decision
        );
        line!(page, "{} {counts}", bar(plan, 20));
    }
    if plan.stalled || plan.next.is_some() || (plan.services.is_empty() && !plan.message.is_empty()) {
        match &plan.next {
            Some(next) => line!(page, "{}", sentence(&brief(&plan.message, 600), next, 600)),
            None => line!(page, "{}", brief(&plan.message, 600)),
        }
    }
    prepared(page, plan);
    for service in plan.services.iter().filter(|s| s.decision.is_some()) {
        decision(page, plan, service, now);
    }
    held_up(page, plan);
    unhealthy(page, plan);
    if plan.services.is_empty() {
        return;
    }
    let longest = plan.services.iter().map(|s| s.name.chars().count()).max().unwrap_or(7).max(7);
    line!(page, "\n{DIM}TIER  {:<longest$}  STAGE             ISOLATION  WAITING FOR{DIM:#}", "SERVICE");
    for service in &plan.services {
        let tier = service.tier.map_or_else(|| "-".to_owned(), |t| t.to_string());
        let waiting = service.waiting_for.as_deref().unwrap_or_default();
        let room = width.saturating_sub(6 + longest + 2 + 18 + 11).max(12);
        let style = stage_style(service);
        let stage = if service.attempt > 1 {
            format!("{} ({})", service.stage, service.attempt)
        } else {
            service.stage.clone()
        };
        line!(
            page,
            "{tier:<4}  {:<longest$}  {style}{stage:<16}{style:#}  {:<9}  {}",
            service.name,
            service.isolation.as_deref().unwrap_or("-"),
            cut(&brief(waiting, 256), room),
        );
    }
    for service in plan.services.iter().filter(|s| !s.holes.is_empty()) {
        let holes = service.holes.join(" and ");
        line!(
            page,
            "{BUSY}{}{BUSY:#}: its clean room may talk to {holes}, by the plan's cleanRoom",
            service.name
        );
    }
    resumes(page, plan);
    exceptions(page, plan);
    not_looked_at(page, plan);
}

/// Renders the CronJobs and Jobs that are resumed without a person. The others are left for people.
fn resumes(page: &mut String, plan: &PlanView) {
    for (service, entry) in plan.services.iter().flat_map(|s| s.resumes.iter().map(move |entry| (s, entry))) {
        let is_for_people = matches!(entry.state, ResumeState::Suspended | ResumeState::Held);
        if is_for_people && service.stage == Stage::Recovered.as_str() {
            continue;
        }
        let details = [&entry.fires, &entry.message].into_iter().filter(|text| !text.is_empty());
        let details: Vec<&str> = details.map(String::as_str).collect();
        line!(
            page,
            "{BUSY}{}{BUSY:#}: {} {}/{}: {}{}{}",
            service.name,
            entry.kind.as_str(),
            entry.namespace,
            entry.name,
            entry.state.as_str(),
            if details.is_empty() { "" } else { ": " },
            brief(&details.join("; "), 800)
        );
    }
}

/// Renders whether a Dormant plan is prepared, and what an armed plan lacks until it is recovered.
fn prepared(page: &mut String, plan: &PlanView) {
    let Some(prepared) = &plan.prepared else { return };
    let is_dormant = plan.reason == Reason::Dormant.as_str();
    let (style, word) = match prepared.status.as_str() {
        "True" if is_dormant => (GOOD, "Prepared"),
        "False" if plan.ready != "True" || is_dormant => (BAD, "Not prepared"),
        "Unknown" if is_dormant => (BUSY, "Not known whether it is prepared"),
        _ => return,
    };
    line!(page, "{style}{word}{style:#}: {}", prepared.message);
}

/// Maximum number of blocked services on a page.
const HELD_UP: usize = 10;

/// Renders blocks that a person has to clear. Services with the same block share a line.
fn held_up(page: &mut String, plan: &PlanView) {
    let mut groups: Vec<(&HeldUp, Vec<&str>)> = Vec::new();
    for (service, held) in plan.services.iter().filter_map(|s| Some((s.name.as_str(), s.held_up.as_ref()?))) {
        match groups.iter_mut().find(|(of, _)| *of == held) {
            Some((_, services)) => services.push(service),
            None => groups.push((held, vec![service])),
        }
    }
    for (held, services) in groups.iter().take(HELD_UP) {
        let verb = if services.len() == 1 { "is" } else { "are" };
        let what = sentence(&brief(&held.message, 700), &held.next, 700);
        line!(page, "\n{BAD}{} {verb} held up{BAD:#}: {}: {what}", names(services), held.reason);
    }
    if groups.len() > HELD_UP {
        let more: usize = groups.iter().skip(HELD_UP).map(|(_, services)| services.len()).sum();
        line!(
            page,
            "\nand {} held up for other reasons: resurgam status --output json",
            count(more, "service")
        );
    }
}

/// Returns the first names, and how many more there are.
fn names(all: &[&str]) -> String {
    match all {
        [one] => (*one).to_owned(),
        [first, second] => format!("{first} and {second}"),
        [first, second, third] => format!("{first}, {second} and {third}"),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more services", rest.len()),
        [] => String::new(),
    }
}

/// Renders the continuous gates that recovered services do not pass, but for those that a required Decision is about.
fn unhealthy(page: &mut String, plan: &PlanView) {
    for service in plan.services.iter().filter(|service| !service.unhealthy.is_empty()) {
        let asked = service.decision.as_ref().map_or("", |decision| decision.message.as_str());
        let gates: Vec<_> = service
            .unhealthy
            .iter()
            .filter(|gate| gate.message.is_empty() || !asked.contains(&gate.message))
            .collect();
        if gates.is_empty() {
            continue;
        }
        line!(
            page,
            "\n{BAD}{} is unhealthy{BAD:#}: recovered, and not all of its continuous gates pass",
            service.name
        );
        for gate in gates {
            let name = if gate.name.is_empty() { String::new() } else { format!("{}: ", gate.name) };
            line!(page, "  {name}{} {}: {}", gate.verdict, gate.reason, brief(&gate.message, 600));
        }
    }
}

fn stage_style(service: &ServiceView) -> Style {
    if service.orphaned {
        DIM
    } else if service.decision.is_some() || service.held_up.is_some() {
        BAD
    } else if service.ready {
        GOOD
    } else if service.stage == "Isolated" {
        DIM
    } else {
        BUSY
    }
}

fn bar(plan: &PlanView, width: usize) -> String {
    let part =
        |n: i32| usize::try_from(n).unwrap_or(0) * width / usize::try_from(plan.total.max(1)).unwrap_or(1);
    let (done, busy) = (part(plan.recovered), part(plan.running));
    let rest = width.saturating_sub(done + busy);
    format!(
        "{GOOD}{}{GOOD:#}{BUSY}{}{BUSY:#}{DIM}{}{DIM:#}",
        "█".repeat(done),
        "▒".repeat(busy),
        "░".repeat(rest)
    )
}

fn decision(page: &mut String, plan: &PlanView, service: &ServiceView, now: Timestamp) {
    let Some(decision) = &service.decision else { return };
    let what = sentence(&brief(&decision.message, 700), &decision.next, 700);
    line!(page, "\n{BAD}{} needs a decision{BAD:#}: {}: {what}", service.name, decision.reason);
    let mut details = vec![format!("for {}", ago(decision.since, now))];
    let held = plan.blocked_by.iter().find(|b| b.name == service.name).map_or(0, |b| b.holds);
    if held > 0 {
        let verb = if held == 1 { "waits" } else { "wait" };
        details.push(format!("{} {verb} for it", count(usize::try_from(held).unwrap_or(0), "service")));
    }
    if decision.by_decision {
        details.push(format!("decidedOn {}", decision.digest));
    }
    line!(page, "  {DIM}{}{DIM:#}", details.join(" · "));
}

/// Returns a message without control characters, which could draw over the page, and not longer than this many bytes.
pub(super) fn brief(text: &str, limit: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shorten(&plain, limit)
}

fn ago(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0).unsigned_abs();
    Duration::from_secs(seconds).to_string()
}

fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(columns.saturating_sub(1)).collect();
    short.push('…');
    short
}
