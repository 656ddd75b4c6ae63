//! The result of `release`: one document, and its text for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use resurgam_core::release::{Held, ReleaseForecast};
use serde::Serialize;

use super::Args;
use super::namespace::NamespaceRelease;
use super::start::Started;
use crate::text::count;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Outcome of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Outcome {
    /// All namespaces are released, and started if that was asked for.
    Released,
    /// Some are not.
    Incomplete,
    /// Nothing was changed.
    Stopped,
    /// Dry-run: it could be done.
    Possible,
}

/// Everything known at the end.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) outcome: Outcome,
    pub(super) reason: String,
    pub(super) by: String,
    pub(super) start: bool,
    pub(super) dry_run: bool,
    /// Why nothing was done, if not because of a namespace.
    pub(super) stopped_by: Option<String>,
    pub(super) namespaces: Vec<NamespaceReport>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamespaceReport {
    namespace: String,
    /// It was released before the command began.
    already: bool,
    released: bool,
    refused: Option<String>,
    forecast: ReleaseForecast,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Started>,
}

impl Report {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            outcome: Outcome::Stopped,
            reason: args.reason.clone(),
            by: String::new(),
            start: args.start,
            dry_run: args.dry_run,
            stopped_by: None,
            namespaces: Vec::new(),
        }
    }

    /// Takes over the state of the namespaces.
    pub(super) fn update(&mut self, all: &[NamespaceRelease]) {
        let of = |one: &NamespaceRelease| NamespaceReport {
            namespace: one.name.clone(),
            already: !one.had_quarantine() && one.refused.is_none(),
            released: one.is_released() && one.refused.is_none(),
            refused: one.refused.clone(),
            forecast: one.forecast.clone(),
            result: one.started.clone(),
        };
        self.namespaces = all.iter().map(of).collect();
    }
}

/// Writing to a String cannot fail.
macro_rules! line {
    ($page:expr, $($arguments:tt)*) => {{ let _ = writeln!($page, $($arguments)*); }};
}

/// Renders what releasing the namespaces does.
pub(super) fn forecasts(report: &Report) -> String {
    let mut page = String::new();
    for one in report.namespaces.iter().filter(|one| one.refused.is_none()) {
        let told = &one.forecast;
        let level = told.level.map_or("not isolated yet", |level| level.as_str());
        if one.already {
            line!(page, "{BOLD}{}{BOLD:#}  already released", one.namespace);
        } else {
            line!(page, "{BOLD}{}{BOLD:#}  {level}: {}", one.namespace, told.reason);
        }
        let starts: Vec<_> = told.starts.starts.iter().filter(|start| start.fires.is_empty()).collect();
        let starts: Vec<_> = starts.iter().map(|start| start.what.as_str()).collect();
        let resumes = told.starts.starts.iter().filter(|start| !start.fires.is_empty());
        let resumes: Vec<_> = resumes.map(|start| format!("{}: {}", start.what, start.fires)).collect();
        let (starting, resuming) =
            if report.start { ("starts", "resumes") } else { ("stays stopped", "stays suspended") };
        if !starts.is_empty() {
            line!(page, "  {starting}: {}", starts.join(", "));
        }
        for resumed in resumes {
            line!(page, "  {resuming}: {resumed}");
        }
        for held in told.starts.held.iter().filter(|held| held.by_choice) {
            line!(page, "  {WARN}stays suspended{WARN:#}: {}: {}", held.what, held.why);
        }
        for held in told.starts.held.iter().filter(|held| !held.by_choice) {
            line!(page, "  {BAD}cannot be started{BAD:#}: {}: {}", held.what, held.why);
        }
        for fires in &told.fires {
            line!(page, "  {WARN}fires{WARN:#}: {fires}");
        }
        if !told.restores.is_empty() {
            line!(page, "  network policies restored: {}", told.restores.join(", "));
        }
        for lost in &told.lost {
            line!(page, "  {BAD}lost for good{BAD:#}: {lost}");
        }
        for unread in &told.unread {
            line!(page, "  {WARN}not known{WARN:#}: {unread}");
        }
    }
    page
}

/// Renders the result.
pub(super) fn end(report: &Report) -> String {
    let mut page = String::new();
    for one in &report.namespaces {
        if let Some(why) = &one.refused {
            line!(page, "{BAD}NOT released{BAD:#}  {BOLD}{}{BOLD:#}: {why}", one.namespace);
            continue;
        }
        if matches!(report.outcome, Outcome::Stopped | Outcome::Possible) {
            continue;
        }
        let word = if one.already { "already released" } else { "released" };
        line!(page, "{GOOD}{word}{GOOD:#}  {BOLD}{}{BOLD:#}", one.namespace);
        let Some(result) = &one.result else { continue };
        for started in &result.started {
            line!(page, "  {DIM}started{DIM:#}  {started}");
        }
        result.held.iter().for_each(|each| held(&mut page, each));
        for note in &result.notes {
            line!(page, "  {DIM}note{DIM:#}  {note}");
        }
    }
    let stopped = report.namespaces.iter().filter(|one| one.refused.is_some()).count();
    match report.outcome {
        Outcome::Stopped => {
            let why = report.stopped_by.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            line!(page, "{BAD}Nothing was done{BAD:#}{why}");
        }
        Outcome::Possible => line!(page, "\nA dry-run: nothing was changed."),
        Outcome::Incomplete if stopped > 0 => {
            line!(
                page,
                "{BAD}{} not released.{BAD:#} Run this again; it is safe to repeat.",
                count(stopped, "namespace")
            );
        }
        Outcome::Incomplete => line!(page, "{WARN}Released, but not everything is started.{WARN:#}"),
        Outcome::Released if report.start => {}
        Outcome::Released => line!(
            page,
            "Nothing was started. What was stopped keeps its record: run this again with --start."
        ),
    }
    page
}

fn held(page: &mut String, held: &Held) {
    let (style, word) = if held.by_choice { (WARN, "suspended") } else { (BAD, "NOT started") };
    line!(page, "  {style}{word}{style:#}  {}: {}. {}", held.what, held.why, held.command);
}
