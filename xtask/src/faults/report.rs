//! Report of the trials, as text and JSON.

use anyhow::Result;
use serde::Serialize;

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Output {
    Text,
    Json,
}

/// Result of one trial.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) trial: String,
    /// Seed that repeats the trial, if a seed chose it.
    pub(super) seed: Option<u64>,
    pub(super) seconds: f64,
    /// Message about the result.
    pub(super) told: String,
    /// Number of faults.
    pub(super) faults: u64,
    pub(super) violation: Option<String>,
}

/// Returns whether the last trial failed. No further trial is run then.
pub(super) fn has_failed(rows: &[Row]) -> bool {
    rows.last().is_some_and(|row| row.violation.is_some())
}

#[derive(Serialize)]
pub(super) struct Report {
    trials: usize,
    faults: u64,
    violations: usize,
    /// Number of effects of a small recovery without faults. The operator can be killed on two sides of each.
    effects: u64,
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn of(rows: Vec<Row>, effects: u64) -> Self {
        let violations = rows.iter().filter(|row| row.violation.is_some()).count();
        let faults = rows.iter().map(|row| row.faults).sum();
        Self { trials: rows.len(), faults, violations, effects, rows }
    }
}

pub(super) fn print(report: &Report, output: Output) -> Result<()> {
    match output {
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(report)?),
        Output::Text => {
            anstream::println!("{:<52} {:>8}  RESULT", "TRIAL", "SECONDS");
            for row in &report.rows {
                let result = if row.violation.is_some() { "VIOLATION" } else { &row.told };
                anstream::println!("{:<52} {:>8.1}  {result}", row.trial, row.seconds);
            }
            let Report { trials, faults, violations, .. } = report;
            anstream::println!("{trials} trials, {faults} faults, {violations} violations");
        }
    }
    Ok(())
}
