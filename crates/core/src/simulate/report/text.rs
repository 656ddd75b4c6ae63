//! Text of the report: fits the terminal's width, and is complete without colours.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::{Report, Service, Unit};
use crate::api::{Stage, conditions::shorten};
use crate::text::count;

const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const CRITICAL: Style = AnsiColor::Yellow.on_default();

/// Longest service name that is not truncated in the timeline.
const NAME_LIMIT: usize = 32;
/// Minimum width of a bar.
const BAR_LEAST: usize = 20;

/// Renders a report for a terminal of this width, with ANSI styles.
#[must_use]
pub fn text(report: &Report, width: usize) -> String {
    let mut out = String::new();
    heading(&mut out, report, width);
    problems(&mut out, report, width);
    layers(&mut out, report, width);
    if !report.services.is_empty() {
        timeline(&mut out, report, width);
        critical_path(&mut out, report, width);
        sweep(&mut out, report);
    }
    out
}

fn heading(out: &mut String, report: &Report, width: usize) {
    let groups = report.layers.iter().flatten().filter(|u| u.group.is_some()).count();
    let services = report.services.len() + report.never_start.len();
    let title = if report.namespace.is_empty() {
        report.plan.clone()
    } else {
        format!("{}/{}", report.namespace, report.plan)
    };
    let mut counts = vec![count(services, "service")];
    if groups > 0 {
        counts.push(count(groups, "group"));
    }
    counts.push(count(report.layers.len(), "layer"));
    line(out, &format!("{TITLE}{title}{TITLE:#}: {}", counts.join(", ")));
    let mut notes = Vec::new();
    if report.dormant {
        notes.push("Dormant, as it names no incident: played as if it were armed.".to_owned());
    }
    if report.suspended {
        notes.push("Suspended: played as if it were not.".to_owned());
    }
    notes.push(format!(
        "Assumed: every gate passes when asked, a step takes {}, a change of isolation {}.",
        span(report.step_seconds),
        span(report.isolation_seconds)
    ));
    for note in notes {
        wrapped(out, note.split(' ').map(str::to_owned), " ", 0, width, FAINT);
    }
}

fn problems(out: &mut String, report: &Report, width: usize) {
    if report.problems.is_empty() {
        return;
    }
    section(out, "Problems");
    for problem in &report.problems {
        line(out, &format!("  {BAD}{}{BAD:#}", problem.reason));
        wrapped(out, problem.message.split(' ').map(str::to_owned), " ", 4, width, Style::new());
    }
    section(out, "Never starts");
    let names = report.never_start.iter().map(|h| h.service.chars().count()).max().unwrap_or(0);
    for held in &report.never_start {
        let indent = names + 4;
        let mut because = String::new();
        wrapped(&mut because, held.because.split(' ').map(str::to_owned), " ", indent, width, Style::new());
        line(out, &format!("  {:<names$}  {}", held.service, because.trim()));
    }
}

fn layers(out: &mut String, report: &Report, width: usize) {
    if report.layers.is_empty() {
        return;
    }
    section(out, "Layers");
    for (number, layer) in report.layers.iter().enumerate() {
        let names: Vec<String> = layer.iter().map(name).collect();
        let mut text = String::new();
        wrapped(&mut text, names.into_iter(), ", ", 5, width, Style::new());
        line(out, &format!(" {:>2}  {}", number + 1, text.trim()));
    }
}

/// Formats a group as `name(a + b)`, a service as its name.
fn name(unit: &Unit) -> String {
    match &unit.group {
        Some(group) => format!("{group}({})", unit.services.join(" + ")),
        None => unit.services.join(" + "),
    }
}

fn timeline(out: &mut String, report: &Report, width: usize) {
    let total = report.makespan_seconds;
    section(out, "Timeline");
    let slots = count(report.max_parallel, "unit");
    let tiers = report.services.iter().any(|s| s.tier.is_some());
    let grouped = report.services.iter().any(|s| s.group.is_some());
    let names = report.services.iter().map(|s| s.name.chars().count()).max().unwrap_or(0).min(NAME_LIMIT);
    let ends = report.services.iter().map(|s| span(s.end_seconds).len()).max().unwrap_or(0);
    // Mark, tier, bracket, name, bar, end; each with its space.
    let left = 2 + if tiers { 3 } else { 0 } + if grouped { 2 } else { 0 } + names + 1;
    let bar = width.saturating_sub(left + ends + 2).max(BAR_LEAST);
    wrapped(
        out,
        format!(
            "{slots} at once, {} in all. ▒ gates, █ isolation and steps, ◆ on the critical path.",
            span(total)
        )
        .split(' ')
        .map(str::to_owned),
        " ",
        2,
        width,
        FAINT,
    );
    line(out, &format!("{FAINT}{}{}{FAINT:#}", " ".repeat(left), axis(total, bar)));
    for (index, service) in report.services.iter().enumerate() {
        let mark = if service.critical { format!("{CRITICAL}◆{CRITICAL:#} ") } else { "  ".to_owned() };
        let tier = match (tiers, service.tier) {
            (false, _) => String::new(),
            (true, None) => " - ".to_owned(),
            (true, Some(tier)) => format!("{tier:>2} "),
        };
        let bracket = if grouped { format!("{} ", bracket(report, index)) } else { String::new() };
        let shown = shorten(&service.name, NAME_LIMIT);
        let style = if service.critical { CRITICAL } else { GOOD };
        let cells = cells(service, total, bar);
        let row = format!(
            "{mark}{FAINT}{tier}{FAINT:#}{bracket}{shown:<names$} {style}{cells}{style:#} {:>ends$}",
            span(service.end_seconds)
        );
        line(out, &row);
    }
}

/// Returns the character that connects the members of a group.
fn bracket(report: &Report, index: usize) -> char {
    let group = |at: Option<usize>| at.and_then(|at| report.services.get(at)).and_then(|s| s.group.as_ref());
    let own = group(Some(index));
    if own.is_none() {
        return ' ';
    }
    match (group(index.checked_sub(1)) == own, group(Some(index + 1)) == own) {
        (false, true) => '┌',
        (true, true) => '│',
        (true, false) => '└',
        (false, false) => '╶',
    }
}

/// Returns a service's bar: each cell shows the stage in its middle. A bar has at least one cell.
fn cells(service: &Service, total: f64, bar: usize) -> String {
    let cell = total / as_f64(bar);
    let at = |index: usize| (as_f64(index) + 0.5) * cell;
    let shows = |index: usize| {
        let stage = service.stages.iter().rev().find(|r| r.at_seconds <= at(index)).map(|r| r.stage);
        match stage {
            Some(_) if at(index) >= service.end_seconds => ' ',
            None | Some(Stage::Isolated) => '·',
            Some(Stage::Restoring | Stage::Reconnecting) => '█',
            Some(Stage::PreChecks | Stage::PostChecks | Stage::Recovered) => '▒',
        }
    };
    let mut text: Vec<char> = (0..bar).map(shows).collect();
    if !text.iter().any(|&c| c == '█' || c == '▒') {
        let first = (0..bar).find(|&index| at(index) >= service.start_seconds).unwrap_or(bar - 1);
        text[first] = '█';
    }
    text.into_iter().collect()
}

/// Returns the time axis, with ticks at round steps.
fn axis(total: f64, bar: usize) -> String {
    const STEPS: [f64; 22] = [
        1.0,
        2.0,
        5.0,
        10.0,
        15.0,
        30.0,
        60.0,
        120.0,
        300.0,
        600.0,
        900.0,
        1_800.0,
        3_600.0,
        7_200.0,
        14_400.0,
        21_600.0,
        43_200.0,
        86_400.0,
        172_800.0,
        604_800.0,
        1_209_600.0,
        2_419_200.0,
    ];
    let mut row = vec![' '; bar];
    let room = 10.0;
    let step = STEPS.into_iter().find(|step| step / total * as_f64(bar) >= room).unwrap_or(total.max(1.0));
    let mut at = 0.0;
    let mut tick = 0_u32;
    while at < total {
        let label = if tick == 0 { "0".to_owned() } else { span(at) };
        let column = (0..bar).find(|&c| as_f64(c) * total >= at * as_f64(bar)).unwrap_or(bar);
        let text: Vec<char> = format!("╷{label}").chars().collect();
        if column + text.len() <= bar {
            row[column..column + text.len()].copy_from_slice(&text);
        }
        tick += 1;
        at = f64::from(tick) * step;
    }
    row.into_iter().collect::<String>().trim_end().to_owned()
}

fn critical_path(out: &mut String, report: &Report, width: usize) {
    section(out, "Critical path");
    let units = report.critical_path.units.iter().map(name).collect::<Vec<_>>();
    line(
        out,
        &format!(
            "  {} in {}: no order is faster.",
            count(units.len(), "unit"),
            span(report.critical_path.seconds)
        ),
    );
    wrapped(out, units.into_iter(), " → ", 2, width, CRITICAL);
}

fn sweep(out: &mut String, report: &Report) {
    section(out, "How many at once");
    line(out, &format!("  {FAINT}maxParallel    makespan   × critical path{FAINT:#}"));
    for row in &report.sweep {
        let own = row.max_parallel == report.max_parallel;
        let ratio = row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let (mark, style) = if own { ("  ← as planned", TITLE) } else { ("", Style::new()) };
        let text =
            format!("  {:>11}  {:>10}  {ratio:>16}{mark}", row.max_parallel, span(row.makespan_seconds));
        line(out, &format!("{style}{text}{style:#}"));
    }
    if let Some(best) = report.sweep.iter().min_by(|a, b| {
        a.makespan_seconds.total_cmp(&b.makespan_seconds).then(a.max_parallel.cmp(&b.max_parallel))
    }) {
        line(out, &format!("  {FAINT}More than {} at once bring nothing.{FAINT:#}", best.max_parallel));
    }
}

fn section(out: &mut String, title: &str) {
    line(out, "");
    line(out, &format!("{TITLE}{title}{TITLE:#}"));
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

/// Joins words with a separator, wrapped and indented.
fn wrapped(
    out: &mut String,
    words: impl Iterator<Item = String>,
    separator: &str,
    indent: usize,
    width: usize,
    style: Style,
) {
    let pad = " ".repeat(indent);
    let mut row = String::new();
    let mut flush = |row: &str| {
        let _ = writeln!(out, "{pad}{style}{}{style:#}", row.trim_end());
    };
    for word in words {
        if row.is_empty() {
            row = word;
        } else if indent + (row.chars().count() + separator.chars().count() + word.chars().count()) < width {
            row.push_str(separator);
            row.push_str(&word);
        } else {
            row.push_str(separator);
            flush(&row);
            row = word;
        }
    }
    flush(&row);
}

/// Formats seconds as a duration.
fn span(seconds: f64) -> String {
    crate::api::Duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()).to_string()
}

/// Converts a number of columns, which is small.
fn as_f64(columns: usize) -> f64 {
    f64::from(u32::try_from(columns).unwrap_or(u32::MAX))
}
