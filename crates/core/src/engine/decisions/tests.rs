use std::collections::BTreeSet;
use std::path::Path;

use strum::VariantArray;

use super::*;

/// All places that a new action needs: what is missing is named.
#[test]
fn every_action_is_in_all_its_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let mut missing = Vec::new();
    let mut want = |is_there: bool, action: Action, place: &str| {
        if !is_there {
            missing.push(format!("{}: {place}", action.as_str()));
        }
    };
    for &action in Action::VARIANTS {
        let (name, verb) = (action.as_str(), action.verb());
        let rows = TABLE.iter().filter(|row| row.action == action).count();
        want(rows == 1, action, "its row in TABLE, in crates/core/src/engine/decisions/mod.rs");
        let is_offered = Reason::VARIANTS.iter().any(|&reason| offered(reason).contains(&action));
        want(
            is_offered || action.is_standing_order(),
            action,
            "a question that it answers: `answers` in its row",
        );
        let people = read("charts/resurgam/templates/rbac/people.yaml");
        let verbs: BTreeSet<&str> = people.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        want(verbs.contains(verb), action, "its verb in charts/resurgam/templates/rbac/people.yaml");
        let documented = read("docs/conditions.md").contains(&format!("`{name}`"));
        want(documented, action, "what it does, in docs/conditions.md");
        let tests = root.join("crates/core/src/engine/tests");
        let is_tested = std::fs::read_dir(tests).unwrap().any(|file| {
            let path = file.unwrap().path();
            path.is_file() && std::fs::read_to_string(path).unwrap().contains(&format!("Action::{name}"))
        });
        want(is_tested, action, "a test of it in crates/core/src/engine/tests/");
    }
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
}

/// What asks a person without any action is only what the Quarantine itself holds.
#[test]
fn every_question_but_a_hold_has_an_answer() {
    for &reason in Reason::VARIANTS {
        assert_eq!(offered(reason).is_empty(), reason == Reason::Held, "{reason}");
    }
}
