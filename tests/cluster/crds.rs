//! The chart's kinds and `resurgam crds` say what the types say.

use std::path::Path;
use std::process::Command;

/// Where the chart has them.
const FOLDER: &str = "charts/resurgam/files/crds";

#[test]
fn the_crds_in_the_repository_are_what_the_types_generate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let mut wanted = Vec::new();
    for crd in resurgam::api::crds() {
        let file = format!("{}.yaml", crd.spec.names.plural);
        let found = std::fs::read_to_string(folder.join(&file)).unwrap();
        let generated = serde_yaml::to_string(&crd).unwrap();
        // Not assert_eq: the message would be two thousand lines.
        assert!(found == generated, "{FOLDER}/{file} is stale: run `cargo xtask crds`");
        wanted.push(file);
    }
    let mut there: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    wanted.sort();
    assert_eq!(there, wanted, "one file for each kind, and no other");
}

#[test]
fn resurgam_crds_prints_the_crds_in_the_repository() {
    let output = Command::new(env!("CARGO_BIN_EXE_resurgam")).arg("crds").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut printed = rehearsal::documents(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let mut kept = rehearsal::read(FOLDER).unwrap();
    for documents in [&mut printed, &mut kept] {
        documents.sort_by_key(|crd| crd["metadata"]["name"].as_str().unwrap().to_owned());
    }
    assert!(printed == kept, "resurgam crds prints something else than {FOLDER} holds");
}

#[test]
fn schemas_use_only_number_formats_that_api_servers_know() {
    fn formats(at: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
        if let Some(format) = at.get("format").and_then(serde_json::Value::as_str) {
            found.insert(format.to_owned());
        }
        for inner in at.as_object().into_iter().flat_map(serde_json::Map::values) {
            formats(inner, found);
        }
        for inner in at.as_array().into_iter().flatten() {
            formats(inner, found);
        }
    }
    let mut found = std::collections::BTreeSet::new();
    for crd in rehearsal::read(FOLDER).unwrap() {
        formats(&crd, &mut found);
    }
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["date-time", "int32", "int64"]);
}
