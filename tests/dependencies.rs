//! Every direct dependency has its reason in `docs/dependencies.md`.

use std::collections::BTreeSet;
use std::path::Path;

/// The package names in the dependency tables of a manifest, by the keys they bear there.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut within = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            within = matches!(table, "dependencies" | "dev-dependencies" | "build-dependencies");
            // A table of its own: `[dependencies.kube]`. No manifest of ours has one; were there one, it would count.
            if let Some((_, name)) =
                table.split_once("dependencies.").filter(|_| !table.starts_with("workspace"))
            {
                found.insert(name.to_owned());
            }
        } else if within && !line.is_empty() && !line.starts_with('#') {
            let key = line.split(['=', '.']).next().unwrap_or_default().trim();
            found.insert(key.to_owned());
        }
    }
    found
}

/// The first cells of the rows of a table of two columns, with whether the second says anything.
fn rows(table: &str) -> Vec<(String, bool)> {
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells);
    rows.map(|cells| (cells[1].clone(), !cells[2].is_empty())).collect()
}

#[test]
fn every_direct_dependency_has_its_reason_written_down_once_and_nothing_else_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read =
        |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let main = read("Cargo.toml");
    let members = main.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let members: Vec<&str> =
        members.trim_end_matches(']').split(',').map(|m| m.trim().trim_matches('"')).collect();
    let mut wanted = dependencies(&main);
    for member in &members {
        wanted.extend(dependencies(&read(&format!("{member}/Cargo.toml"))));
    }
    wanted.retain(|name| name != "resurgam" && !members.contains(&name.as_str()));
    assert!(
        wanted.contains("kube") && wanted.contains("rustix"),
        "the manifests were not understood: {wanted:?}"
    );

    let written = rows(&read("docs/dependencies.md"));
    let mute: Vec<&String> = written.iter().filter(|(_, says)| !says).map(|(name, _)| name).collect();
    assert!(mute.is_empty(), "these have no reason: {mute:?}");
    let names: BTreeSet<String> = written.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), written.len(), "something is there twice: {written:?}");
    assert_eq!(names, wanted, "left: docs/dependencies.md, right: the manifests");
}
