//! What came of it, for people and for programs.

use anyhow::Result;
use serde::Serialize;

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Output {
    Text,
    Json,
}

/// What came of one.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) trial: String,
    /// To play it again, where that is chosen by a seed.
    pub(super) seed: Option<u64>,
    pub(super) seconds: f64,
    /// What befell it.
    pub(super) told: String,
    /// How many faults struck.
    pub(super) faults: u64,
    pub(super) violation: Option<String>,
}

/// Nothing is played after one that failed.
pub(super) fn failed(rows: &[Row]) -> bool {
    rows.last().is_some_and(|row| row.violation.is_some())
}

#[derive(Serialize)]
pub(super) struct Outcome {
    trials: usize,
    faults: u64,
    violations: usize,
    /// Effects of a small recovery without faults: at each the operator can be killed on two sides.
    effects: u64,
    rows: Vec<Row>,
}

impl Outcome {
    pub(super) fn of(rows: Vec<Row>, effects: u64) -> Self {
        let violations = rows.iter().filter(|row| row.violation.is_some()).count();
        let faults = rows.iter().map(|row| row.faults).sum();
        Self { trials: rows.len(), faults, violations, effects, rows }
    }
}

pub(super) fn tell(outcome: &Outcome, output: Output) -> Result<()> {
    match output {
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(outcome)?),
        Output::Text => {
            anstream::println!("{:<52} {:>8}  WHAT CAME OF IT", "TRIAL", "SECONDS");
            for row in &outcome.rows {
                let came = if row.violation.is_some() { "VIOLATION" } else { &row.told };
                anstream::println!("{:<52} {:>8.1}  {came}", row.trial, row.seconds);
            }
            let Outcome { trials, faults, violations, .. } = outcome;
            anstream::println!("{trials} trials, {faults} faults, {violations} violations");
        }
    }
    Ok(())
}
