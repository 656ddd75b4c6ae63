//! A [`Report`] for people and for programs.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::{CATEGORIES, Outcome, Report, Severity, Verdict};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// The page with a section for each check.
const PAGE: &str = "docs/checks.md";

/// Writing to a String cannot fail.
macro_rules! line {
    ($page:expr, $($arguments:tt)*) => {{ let _ = writeln!($page, $($arguments)*); }};
}

/// Renders a page with colours that [`anstream`] removes if there is no terminal. Messages are wrapped at `width` columns.
#[must_use]
pub fn text(report: &Report, width: usize) -> String {
    let mut page = String::new();
    for category in CATEGORIES {
        let of = |outcome: &&Outcome| category.checks.contains(&outcome.check);
        let outcomes: Vec<&Outcome> = report.outcomes.iter().filter(of).collect();
        if outcomes.is_empty() {
            continue;
        }
        line!(page, "{BOLD}{}{BOLD:#}", category.title);
        for outcome in outcomes {
            outcome_line(&mut page, outcome, width.max(60));
        }
        page.push('\n');
    }
    summary(&mut page, report);
    page
}

/// Sign and colour.
fn sign(outcome: &Outcome) -> (&'static str, Style) {
    match outcome.verdict {
        Verdict::NotApplicable => ("-", DIM),
        Verdict::Passed => ("√", GOOD),
        Verdict::Warning => ("‼", WARNING),
        Verdict::Unknown if outcome.check.severity == Severity::Warning => ("?", WARNING),
        Verdict::Unknown => ("?", BAD),
        Verdict::Failed => ("×", BAD),
    }
}

fn outcome_line(page: &mut String, outcome: &Outcome, width: usize) {
    let (sign, style) = sign(outcome);
    let title = outcome.check.title;
    match outcome.verdict {
        Verdict::Passed => return with_detail(page, (sign, style, title), &outcome.message, width),
        // The title only holds if the check applies.
        Verdict::NotApplicable => {
            let text = format!("{}: {}", outcome.check.id, outcome.message);
            for (index, row) in wrapped(&text, width - 4).iter().enumerate() {
                let sign = if index == 0 { sign } else { "   " };
                line!(page, "{style}{sign} {row}{style:#}");
            }
            return;
        }
        Verdict::Warning | Verdict::Unknown | Verdict::Failed => {}
    }
    line!(page, "{style}{sign} {title}{style:#}");
    for paragraph in outcome.message.lines() {
        for row in wrapped(paragraph, width - 4) {
            line!(page, "    {row}");
        }
    }
    line!(page, "    {DIM}{}{DIM:#}", hint(outcome));
}

/// Title and detail on one line if they fit.
fn with_detail(page: &mut String, (sign, style, title): (&str, Style, &str), message: &str, width: usize) {
    if message.is_empty() {
        line!(page, "{style}{sign}{style:#} {title}");
    } else if 4 + title.chars().count() + message.chars().count() <= width {
        line!(page, "{style}{sign}{style:#} {title}  {DIM}{message}{DIM:#}");
    } else {
        line!(page, "{style}{sign}{style:#} {title}");
        for row in wrapped(message, width - 4) {
            line!(page, "    {DIM}{row}{DIM:#}");
        }
    }
}

fn hint(outcome: &Outcome) -> String {
    format!("{PAGE}#{}", outcome.check.id)
}

/// Wraps at word boundaries. A word longer than a line gets its own line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match rows.last_mut() {
            Some(row) if row.chars().count() + 1 + word.chars().count() <= width => {
                row.push(' ');
                row.push_str(word);
            }
            _ => rows.push(word.to_owned()),
        }
    }
    rows
}

fn summary(page: &mut String, report: &Report) {
    let count = |verdict| report.count(verdict);
    let counts = [
        (count(Verdict::Failed), "failed"),
        (count(Verdict::Unknown), "not known"),
        (count(Verdict::Warning), if count(Verdict::Warning) == 1 { "warning" } else { "warnings" }),
        (count(Verdict::Passed), "passed"),
        (count(Verdict::NotApplicable), "not applicable"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let (style, result) = match (report.verdict(), report.pre) {
        (Verdict::NotApplicable | Verdict::Passed | Verdict::Warning, true) => {
            (GOOD, "No blockers found: Resurgam can be installed here.")
        }
        (Verdict::Unknown, true) => (BAD, "Whether Resurgam can be installed here is not known."),
        (Verdict::Failed, true) => (BAD, "Resurgam would not work here."),
        (Verdict::NotApplicable | Verdict::Passed | Verdict::Warning, false) => {
            (GOOD, "No blockers found: isolating and recovering will work.")
        }
        (Verdict::Unknown, false) => (BAD, "Whether isolating and recovering work is not known."),
        (Verdict::Failed, false) => (BAD, "Isolating or recovering will not work."),
    };
    line!(page, "{style}{result}{style:#} {} checks: {}.", report.outcomes.len(), counts.join(", "));
    let blocking: Vec<&str> = report.blocking().map(|outcome| outcome.check.id).collect();
    if !blocking.is_empty() {
        line!(page, "See to these first: {}.", blocking.join(", "));
    }
}

/// Renders JSON.
#[must_use]
pub fn json(report: &Report) -> Value {
    let category = |outcome: &Outcome| {
        let found = CATEGORIES.iter().find(|category| category.checks.contains(&outcome.check));
        found.map_or("", |category| category.title)
    };
    let checks = report.outcomes.iter().map(|outcome| {
        json!({
            "category": category(outcome),
            "id": outcome.check.id,
            "title": outcome.check.title,
            "fatal": outcome.check.severity == Severity::Fatal,
            "result": outcome.verdict,
            "message": outcome.message,
            "hint": hint(outcome),
        })
    });
    json!({"result": report.verdict(), "checks": checks.collect::<Vec<_>>()})
}
