//! The judge, tried on logs made here: a clean one, one for each thing that a rule forbids, and some that prove nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod figures;
mod gates;
mod log;
mod maker;
mod once;
mod opener;
mod order;
mod pods;
mod quiet;
mod unanswered;

use maker::Maker;

#[test]
fn a_run_in_order_is_clean_and_measured() {
    let report = Maker::clean().judge().unwrap();
    insta::assert_snapshot!("clean", report);
    assert!(report.is_clean());
    insta::assert_snapshot!("clean_json", serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn order_is_by_revision_not_by_line_or_clock() {
    // The log's lines are in the order of the answers: here each pair of neighbours has changed places.
    let mut log = Maker::clean();
    for pair in log.events.chunks_mut(2) {
        pair.reverse();
    }
    assert_eq!(log.messages(), "");
}

#[test]
fn the_judge_shares_no_code_with_what_it_judges() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("resurgam"), "no dependency on the operator");
    for folder in [folder.join("src"), folder.join("src/rules")] {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            assert!(!text.contains("resurgam::") && !text.contains("use resurgam"), "{}", path.display());
        }
    }
}
