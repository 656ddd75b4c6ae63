//! Text output of `evidence`.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use crate::isolation::evidence::{Finding, Problem, Sealing, Verified};
use crate::text::count;

const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Renders the sealings, one per line.
pub(super) fn list(sealings: &[Sealing]) -> String {
    if sealings.is_empty() {
        return "no sealing is in the evidence store\n".to_owned();
    }
    let head = [
        "NAMESPACE",
        "CAPTURED AT",
        "OBJECTS",
        "LOGS",
        "SNAPSHOTS",
        "UNCAPTURED",
        "SIZE",
        "DIGEST OF THE INDEX",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(sealings.iter().map(|sealing| {
        let Sealing { object, index, .. } = sealing;
        let digest = if sealing.is_intact() {
            sealing.digest.clone()
        } else {
            format!("CHANGED since it was {}", object.digest().unwrap_or_else(|| object.name.clone()))
        };
        [
            object.namespace.clone(),
            // Seconds are precise enough for people.
            index.at.split('.').next().unwrap_or_default().trim_end_matches('Z').to_owned() + "Z",
            index.objects.to_string(),
            index.logs().to_string(),
            index.snapshots().count().to_string(),
            index.missing.len().to_string(),
            bytes(index.size()),
            digest,
        ]
    }));
    table(&rows)
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn bytes(size: u64) -> String {
    let mut unit = 0;
    let mut whole = size;
    while whole >= 10 << 10 && unit < UNITS.len() - 1 {
        whole >>= 10;
        unit += 1;
    }
    format!("{whole} {}", UNITS.get(unit).unwrap_or(&"B"))
}

const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];

/// Returns one sealing as JSON, with everything that its index lists.
pub(super) fn sealing(sealing: &Sealing) -> Value {
    let Sealing { object, digest, index } = sealing;
    json!({
        "namespace": object.namespace, "quarantine": index.quarantine, "at": index.at,
        "index": {"object": object.to_string(), "digest": digest, "size": object.size, "intact": sealing.is_intact()},
        "objects": index.objects, "kept": index.listed(), "missing": index.missing,
        "snapshots": index.snapshots().collect::<Vec<_>>(),
    })
}

/// Renders the result of the verification.
pub(super) fn verified(all: &[Verified], with_cluster: bool) -> String {
    let mut text = String::new();
    if all.is_empty() {
        text.push_str("nothing is in the evidence store: nothing is verified\n");
    }
    for verified in all {
        let Verified { namespace, sealings, objects, findings } = verified;
        let (style, verdict) = if verified.is_sound() { (GOOD, "intact") } else { (BAD, "NOT INTACT") };
        let counted = format!("{}, {}", count(*sealings, "sealing"), count(*objects, "object"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{namespace}: {style}{verdict}{style:#} ({counted})");
        for Finding { problem, object, why } in findings {
            let (style, word) = match problem {
                Problem::Missing => (BAD, "missing"),
                Problem::Changed => (BAD, "changed"),
                Problem::Extra => (WARN, "extra"),
            };
            let _ = writeln!(text, "  {style}{word:7}{style:#}  {object}\n           {why}");
        }
    }
    if all.iter().flat_map(|verified| &verified.findings).any(|finding| finding.problem == Problem::Extra) {
        text.push_str("Extra objects are no failure: a capture that was tried again leaves some.\n");
    }
    if !with_cluster {
        text.push_str("Not compared with what the Quarantines say: a sealing that was taken away as a whole is noticed with --cluster only.\n");
    }
    text
}
