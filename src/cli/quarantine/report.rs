//! The result of `quarantine`: one document, and its text for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::api::QuarantineLevel;
use crate::isolation::ensure::{EnsuredPolicy, PolicyState};
use crate::isolation::impact::Impact;
use crate::isolation::offline;
use crate::isolation::preflight::{Finding, Kind, Severity};
use crate::text::count;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Outcome of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Outcome {
    /// All namespaces are isolated and verified.
    Isolated,
    /// Some namespaces are not.
    Incomplete,
    /// The preflight found a blocker, and nothing was changed.
    Stopped,
    /// Dry-run: it could be done.
    Possible,
}

/// Everything known at the end.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) outcome: Outcome,
    pub(super) incident: String,
    pub(super) reason: String,
    pub(super) isolation: QuarantineLevel,
    pub(super) by: String,
    /// An operator leads, and adopts the result.
    pub(super) operator: bool,
    pub(super) dry_run: bool,
    pub(super) targets: Vec<String>,
    pub(super) left_out: Vec<LeftOut>,
    pub(super) findings: Vec<Finding>,
    pub(super) accepted: Vec<Kind>,
    /// Why nothing was done, if not because of the findings.
    pub(super) stopped_by: Option<String>,
    pub(super) policies: Vec<EnsuredPolicy>,
    pub(super) impacts: Vec<Impact>,
    pub(super) namespaces: Vec<offline::Outcome>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct LeftOut {
    pub(super) namespace: String,
    pub(super) why: String,
}

/// Writing to a String cannot fail.
macro_rules! line {
    ($page:expr, $($arguments:tt)*) => {{ let _ = writeln!($page, $($arguments)*); }};
}

/// Renders the namespaces to isolate.
pub(super) fn targets(report: &Report) -> String {
    let mut page = String::new();
    let many = count(report.targets.len(), "namespace");
    line!(page, "{BOLD}{many} to isolate{BOLD:#}: {}", report.targets.join(", "));
    for left in &report.left_out {
        line!(page, "{DIM}  left out: {}: {}{DIM:#}", left.namespace, left.why);
    }
    page
}

/// Renders the findings of the preflight.
pub(super) fn findings(report: &Report) -> String {
    let mut page = String::new();
    if report.findings.iter().all(|finding| finding.kind.severity() == Severity::Note) {
        line!(page, "{GOOD}Preflight{GOOD:#}: no blockers found.");
    } else {
        line!(page, "{BOLD}Preflight{BOLD:#}");
    }
    for finding in &report.findings {
        let (style, word) = match finding.kind.severity() {
            Severity::Refusal => (BAD, "refused "),
            Severity::Risk if finding.stops(&report.accepted) => (WARN, "risk    "),
            Severity::Risk => (DIM, "accepted"),
            Severity::Note => (DIM, "note    "),
        };
        let at = finding.namespace.as_deref().unwrap_or("any");
        line!(page, "  {style}{word}{style:#} {at}  {}: {}", finding.kind, finding.message);
    }
    page
}

/// Renders the impacts found by the dry-run.
pub(super) fn impacts(report: &Report) -> String {
    let mut page = String::new();
    for impact in &report.impacts {
        line!(page, "\n{BOLD}{}{BOLD:#}", impact.namespace);
        if let Some(level) = &impact.already {
            line!(page, "  isolated already ({level})");
        }
        let running = if report.isolation == QuarantineLevel::Sealed {
            "stops"
        } else {
            "stays alive, cut off; a pod that ends is not replaced"
        };
        let what =
            if impact.workloads.is_empty() { "nothing".to_owned() } else { impact.workloads.join(", ") };
        line!(page, "  {running}: {what} ({})", count(impact.pods, "pod"));
        for (what, list) in [
            ("loses outside connectivity", &impact.loses_connectivity),
            ("nothing brings back, once stopped", &impact.unmanaged_pods),
            ("not cut off by network policies, as it uses its node's network", &impact.host_network_pods),
            ("network policies made to select nothing", &impact.policies),
            ("referred to by", &impact.referrers),
        ] {
            if !list.is_empty() {
                line!(page, "  {what}: {}", list.join(", "));
            }
        }
        for refused in &impact.refused {
            line!(page, "  {BAD}would be refused{BAD:#}: {refused}");
        }
        for unread in &impact.unread {
            line!(page, "  {WARN}not known{WARN:#}: {unread}");
        }
    }
    page
}

/// Renders the result.
pub(super) fn end(report: &Report) -> String {
    let mut page = String::new();
    policies(&mut page, &report.policies);
    for laid in &report.namespaces {
        let (style, word) = match laid {
            offline::Outcome { isolated: true, .. } => (GOOD, "isolated"),
            offline::Outcome { contained: true, .. } => (WARN, "isolated, with problems"),
            _ => (BAD, "NOT isolated"),
        };
        line!(page, "{style}{word}{style:#}  {BOLD}{}{BOLD:#}", laid.namespace);
        for (what, how) in [
            ("quarantine", &laid.quarantine),
            ("network", &laid.network),
            ("fence", &laid.fence),
            ("lock", &laid.lock),
        ] {
            if !how.is_empty() {
                line!(page, "  {DIM}{what:<10}{DIM:#} {how}");
            }
        }
        for problem in &laid.problems {
            line!(page, "  {BAD}problem{BAD:#}    {problem}");
        }
        for note in &laid.notes {
            line!(page, "  {DIM}note{DIM:#}       {note}");
        }
    }
    if let Some(why) = &report.stopped_by {
        line!(page, "{BAD}Nothing was done{BAD:#}: {why}");
    }
    match report.outcome {
        Outcome::Isolated => {
            let next = match (report.operator, report.isolation) {
                (true, _) => "The operator maintains it: kubectl get quar",
                (false, QuarantineLevel::Contained) => {
                    "No operator is running. Isolation stays in force; the operator adopts it on start."
                }
                (false, QuarantineLevel::Sealed) => {
                    "No operator is running: workloads are cut off, but not stopped. The operator captures evidence and stops them on start."
                }
            };
            line!(page, "{GOOD}All namespaces isolated{GOOD:#}; verified with your account. {next}");
        }
        Outcome::Incomplete => {
            let all = report.targets.len();
            let count = |is: fn(&&offline::Outcome) -> bool| report.namespaces.iter().filter(is).count();
            let left = all - count(|laid| laid.contained);
            let partly = count(|laid| laid.contained && !laid.isolated);
            if left > 0 {
                line!(
                    page,
                    "{BAD}{left} of {all} not isolated.{BAD:#} Run this again; it is safe to repeat."
                );
            }
            if partly > 0 {
                line!(
                    page,
                    "{WARN}{partly} of {all} isolated, with problems{WARN:#}: network cut and fence verified, but not every control \
                     is in place. Clear the problems above and run this again."
                );
            }
        }
        Outcome::Stopped if report.stopped_by.is_none() => stopped(&mut page, report),
        Outcome::Stopped => {}
        Outcome::Possible => line!(page, "\nA dry-run: nothing was changed."),
    }
    page
}

/// Renders the policies that were created or are not as wanted.
fn policies(page: &mut String, found: &[EnsuredPolicy]) {
    let of = |state| {
        let mut names: Vec<_> = found.iter().filter(|f| f.state == state).map(EnsuredPolicy::name).collect();
        names.dedup();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = of(PolicyState::Made) {
        line!(page, "{DIM}Admission policies created: {names}{DIM:#}");
    }
    if let Some(names) = of(PolicyState::Missing) {
        line!(page, "{DIM}Admission policies that would be created: {names}{DIM:#}");
    }
    if let Some(names) = of(PolicyState::Differs) {
        line!(
            page,
            "{WARN}Admission policies that are not as this version writes them{WARN:#}, and were left as they are: {names}. \
             They belong to another version or were modified."
        );
    }
    if let Some(names) = of(PolicyState::NotMade) {
        line!(
            page,
            "{WARN}Admission policies that are missing{WARN:#}, and you may not create them: {names}. What these namespaces' accounts \
             do elsewhere is not guarded. The operator or an administrator creates them: \
             resurgam fence | kubectl apply --server-side -f -"
        );
    }
}

fn stopped(page: &mut String, report: &Report) {
    let stopping: Vec<_> = report.findings.iter().filter(|f| f.stops(&report.accepted)).collect();
    let of = |severity| {
        let mut all: Vec<_> = stopping.iter().filter(|f| f.kind.severity() == severity).collect();
        all.dedup_by_key(|f| (f.namespace.clone(), f.kind));
        all
    };
    line!(page, "{BAD}Nothing was done.{BAD:#}");
    let mut never: Vec<_> = of(Severity::Refusal).iter().filter_map(|f| f.namespace.clone()).collect();
    never.dedup();
    never.sort();
    never.dedup();
    if !never.is_empty() {
        line!(page, "  Leave out: {}. What runs there, the whole cluster needs.", never.join(", "));
    }
    let mut kinds: Vec<_> = of(Severity::Risk).iter().map(|f| f.kind.to_string()).collect();
    kinds.sort();
    kinds.dedup();
    if !kinds.is_empty() {
        line!(page, "  If you know, and want it all the same: --accept-risk {}", kinds.join(","));
    }
}
