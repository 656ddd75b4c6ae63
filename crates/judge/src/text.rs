//! Text of the report.

use std::fmt;

use crate::report::{Report, Rule, Unanswered, WriteOutcome};

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Order => "I1 order",
            Self::Gates => "I2 gates",
            Self::Opener => "I4 opener",
            Self::Pods => "I4 pods",
            Self::Once => "I5 once",
            Self::Quiet => "I8 quiet",
        })
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} (line {}, by {}) was never answered: ",
            self.time, self.object, self.line, self.user
        )?;
        match (self.came, self.revision) {
            (WriteOutcome::Happened, Some(revision)) => {
                write!(f, "it took effect, as revision {revision} shows")
            }
            (WriteOutcome::Happened, None) => write!(f, "it took effect, as what came later shows"),
            (WriteOutcome::DidNot, _) => write!(f, "it did not take effect, as what came next shows"),
            (WriteOutcome::Unknown, _) if self.matters => {
                write!(f, "nobody knows whether it took effect, and that matters")
            }
            (WriteOutcome::Unknown, _) => write!(f, "nobody knows whether it took effect"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.violations.len() {
            0 if !self.is_clean() => "no violation that can be told".to_owned(),
            0 => "no violation".to_owned(),
            n => count(n, "violation"),
        };
        writeln!(
            f,
            "{}: {verdict} in {}: {} ({} asked for), {} of steps, {} under isolation",
            self.plan,
            count(self.events, "event"),
            count(self.loosenings, "loosening"),
            self.asks,
            count(self.steps, "write"),
            count(self.pods, "pod")
        )?;
        match &self.quiet {
            Some(quiet) => {
                writeln!(
                    f,
                    "quiet window: {:.0} s, {} of the operator",
                    quiet.seconds,
                    count(quiet.requests, "request")
                )?;
            }
            None => writeln!(f, "quiet window: none given, so I8 quiet was not judged")?,
        }
        for v in &self.violations {
            writeln!(
                f,
                "  {} {} {} (line {}, by {}): {}",
                v.time, v.rule, v.object, v.line, v.user, v.message
            )?;
        }
        for s in &self.slipped {
            writeln!(
                f,
                "  {} {} by {} slipped in, {} ms after the label",
                s.time, s.object, s.user, s.after_ms
            )?;
        }
        for unanswered in &self.unanswered {
            writeln!(f, "  {unanswered}")?;
        }
        self.figures(f)
    }
}

/// Formats a count: `1 event`, `2 events`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

impl Report {
    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        writeln!(f, "recovered: {}/{} services", figures.recovered, figures.total)?;
        if figures.recovered == 0 {
            return Ok(());
        }
        let seconds = |ms: f64| format!("{:.2} s", ms / 1_000.0);
        writeln!(
            f,
            "makespan: {} (by the clock {}, of which {} waiting for a person)",
            seconds(figures.makespan_ms),
            seconds(figures.wall_ms),
            seconds(figures.human_ms)
        )?;
        let path = figures.critical_path.join(" → ");
        writeln!(f, "critical path: {} ({path})", seconds(figures.critical_path_ms))?;
        writeln!(f, "ratio: {:.3}", figures.ratio)?;
        match (figures.edge_p50_ms, figures.edge_p99_ms) {
            (Some(p50), Some(p99)) => {
                write!(f, "edge latency: p50 {p50:.1} ms, p99 {p99:.1} ms over {} edges", figures.edges)?
            }
            _ => write!(f, "edge latency: no edge was free to go at once")?,
        }
        writeln!(f, " ({} more waited for a slot or a person)", figures.edges_waited)
    }
}
