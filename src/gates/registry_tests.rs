//! What a type of gate has besides its row in the registry: all of it, or the test names the places that lack it.

use std::path::{Path, PathBuf};

use super::*;
use crate::api::GATE_TYPES;
use crate::api::gate_types::COMMON_FIELDS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// `imageDigests` as a file is named: `image_digests`.
fn snake_case(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, letter| {
        if letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
        text
    })
}

/// All YAML files of the examples.
fn examples(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let nested = entries.flat_map(|path| if path.is_dir() { examples(&path) } else { vec![path] });
    nested.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

fn is_in_an_example(name: &str) -> bool {
    let question = format!("{name}: {{");
    let shows = |path: PathBuf| std::fs::read_to_string(path).unwrap().contains(&question);
    examples(&root().join("examples")).into_iter().any(shows)
        || read("tests/cluster/schema.rs").contains(&format!("\"{name}\":"))
}

/// The places that a type of gate lacks.
fn missing(name: &str) -> Vec<String> {
    let file = snake_case(name);
    let judge = format!("crates/core/src/gates/{file}.rs");
    let tests = [judge.clone(), format!("crates/core/src/gates/{file}/tests.rs")];
    let gatherer = format!("src/gates/{file}.rs");
    let page = read("docs/conditions.md");
    let docs = page.split_once("## What a gate says").map_or("", |(_, section)| section);
    let of_type = GATE_TYPES.iter().any(|of| of.name == name);
    [
        (of_type, "crates/api/src/gate_types.rs: its row in GATE_TYPES".to_owned()),
        (read(&judge).contains("pub fn judge("), format!("{judge}: its judge")),
        (tests.iter().any(|path| read(path).contains("#[test]")), format!("{judge}: tests of its judge")),
        (!read(&gatherer).is_empty(), format!("{gatherer}: what it gathers")),
        (GATHERERS.iter().any(|(of, _)| *of == name), "src/gates/mod.rs: its row in GATHERERS".to_owned()),
        (docs.contains(&format!("\n| `{name}` |")), "docs/conditions.md: its row of reasons".to_owned()),
        (is_in_an_example(name), "examples/ or tests/cluster/schema.rs: a gate that asks it".to_owned()),
    ]
    .into_iter()
    .filter_map(|(is_there, place)| (!is_there).then_some(place))
    .collect()
}

#[test]
fn every_type_of_gate_has_all_its_places() {
    let schema = serde_json::to_value(schemars::schema_for!(GateSpec)).unwrap();
    let fields = schema["properties"].as_object().unwrap().keys();
    let questions: Vec<&String> = fields.filter(|field| !COMMON_FIELDS.contains(&field.as_str())).collect();
    let lacking: Vec<String> = questions
        .iter()
        .flat_map(|name| missing(name).into_iter().map(move |place| format!("{name} lacks {place}")))
        .collect();
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    // A row of what is no field is of no gate.
    assert_eq!(questions.len(), GATE_TYPES.len());
    assert_eq!(GATHERERS.len(), GATE_TYPES.len());
}

#[test]
fn missing_parts_of_a_gate_type_are_named() {
    let lacking = missing("prometheus");
    assert_eq!(lacking.len(), 7, "{lacking:?}");
    assert!(lacking[1].starts_with("crates/core/src/gates/prometheus.rs"), "{lacking:?}");
}
