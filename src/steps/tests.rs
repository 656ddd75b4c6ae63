use std::path::Path;

use schemars::schema_for;

use super::*;

/// The fields of a step that are no action.
const COMMON: [&str; 6] = ["name", "phase", "timeout", "retries", "backoff", "undo"];

/// The YAML of an action's example in docs/steps.md.
fn documented(action: &str, docs: &str) -> Option<StepSpec> {
    let (_, section) = docs.split_once(&format!("\n## `{action}`\n"))?;
    let (_, yaml) = section.split("\n## ").next()?.split_once("```yaml\n")?;
    serde_yaml::from_str(yaml.split_once("```")?.0).ok()
}

/// All places that a new step needs: what is missing is named.
#[test]
fn every_step_is_in_all_its_places() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (docs, crd) = (read("docs/steps.md"), read("charts/resurgam/files/crds/recoveryplans.yaml"));
    let schema = serde_json::to_value(schema_for!(StepSpec)).unwrap();
    let fields = schema["properties"].as_object().unwrap();
    let mut missing = Vec::new();
    let mut want = |is_there: bool, action: &str, place: &str| {
        if !is_there {
            missing.push(format!("{action}: {place}"));
        }
    };
    for action in fields.keys().filter(|field| !COMMON.contains(&field.as_str())) {
        let file: String = action
            .chars()
            .flat_map(|c| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] })
            .collect();
        want(crd.contains(&format!("has(self.{action})")), action, "the CEL rule in crates/api/src/step.rs");
        let decides = read(&format!("crates/core/src/steps/{file}.rs"));
        want(!decides.is_empty(), action, &format!("crates/core/src/steps/{file}.rs"));
        want(
            decides.contains("#[cfg(test)]"),
            action,
            &format!("tests of it in crates/core/src/steps/{file}.rs"),
        );
        want(
            !read(&format!("src/steps/{file}.rs")).is_empty(),
            action,
            &format!("src/steps/{file}.rs, and its line in `step`"),
        );
        let example = documented(action, &docs);
        want(example.is_some(), action, "its section in docs/steps.md, with an example that can be read");
        let Some(example) = example else { continue };
        let type_name = example.action().map(StepAction::type_name);
        want(type_name == Some(action), action, "`type_name` in crates/api/src/step.rs");
        let namespaces = ["benefits-db".to_owned()];
        let problem = resurgam_core::steps::problem(&example, &namespaces);
        want(problem.is_none(), action, "an example in docs/steps.md that works");
        let context = StepContext {
            plan_namespace: "recovery".to_owned(),
            step: example.name.clone(),
            namespaces: namespaces.into(),
            ..StepContext::default()
        };
        // A manual step does nothing in the cluster.
        want(!rights(&example, &context).is_empty() || action == "manual", action, "`rights`");
    }
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
}
