//! The plans that are explored, and their amendments.

use crate::api::RecoveryPlanSpec;
use crate::plan::Plan;

/// A plan, as stated and compiled.
#[derive(Clone)]
pub(super) struct Stated {
    pub spec: RecoveryPlanSpec,
    pub plan: Plan,
}

/// A plan with its amendments.
#[derive(Clone)]
pub(super) struct Example {
    pub name: &'static str,
    /// The plan, and then each amendment of it.
    pub plans: Vec<Stated>,
}

fn stated(generation: usize, top: &str, services: &str) -> Stated {
    let yaml = format!(
        "serviceAccountName: recovery\nincidentRef: {{name: nov}}\n{top}\ndefaults:\n  gates:\n    beforeRestore: \
         [{{name: images, imageDigests: {{approvedFrom: {{configMap: {{name: images}}}}}}}}]\n    beforeRelease: [{{name: up, \
         workloads: {{}}, startupGrace: 0s}}]\nservices:\n{services}"
    );
    let spec: RecoveryPlanSpec = serde_yaml::from_str(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    let mut plan = Plan::compile("recovery", "p", "uid-1", &spec);
    plan.generation = Some(i64::try_from(generation).unwrap());
    assert!(plan.problems.is_empty(), "{:?}", plan.problems);
    Stated { spec, plan }
}

/// Lists of services; the first is the plan.
fn example(name: &'static str, top: &str, services: &[impl AsRef<str>]) -> Example {
    let plans = services.iter().enumerate().map(|(at, services)| stated(at + 1, top, services.as_ref()));
    Example { name, plans: plans.collect() }
}

/// `web` waits for `db`.
pub(super) fn pair() -> Example {
    example("pair", "", &["- {name: db}\n- {name: web, dependsOn: [db]}"])
}

/// Steps of every kind, and people who have to agree.
pub(super) fn people() -> Example {
    let db = "- name: db\n  restore: [{name: cable, manual: {instructions: plug it in}}, {name: load, retries: 1, backoff: 0s, \
              scale: {}}, {name: resume, phase: AfterRelease, timeout: 0s, scale: {}}]\n  gates:\n    beforeRelease: [{name: councils, \
              approval: {parties: [{name: council, group: leads}]}}]\n";
    let web = "- {name: web, dependsOn: [db]}";
    example("people", "", &[&format!("{db}{web}")])
}

pub(super) fn chain() -> Example {
    let without_a_gate = "- {name: db, omitDefaultGates: [images], ungated: {reason: it is urgent}}\n- {name: api, dependsOn: [db]}\n\
                          - {name: web, dependsOn: [api]}";
    let plans = [
        "- {name: db}\n- {name: api, dependsOn: [db]}\n- {name: web, dependsOn: [api]}",
        "- {name: db}\n- {name: api, dependsOn: [db]}\n- {name: web}",
        without_a_gate,
    ];
    example("chain", "", &plans)
}

pub(super) fn fork() -> Example {
    let services = "- {name: db}\n- {name: api, dependsOn: [db]}\n- {name: web, dependsOn: [db]}";
    example("fork", "maxParallel: 1", &[services])
}

pub(super) fn join() -> Example {
    example("join", "", &["- {name: db}\n- {name: dns}\n- {name: web, dependsOn: [db, dns]}"])
}

pub(super) fn together() -> Example {
    let services =
        "- {name: db, together: core}\n- {name: dns, together: core}\n- {name: web, dependsOn: [db]}";
    example("together", "", &[services])
}

/// `db` goes on without `dns` where that is held up, and is contained where it regresses.
pub(super) fn optional() -> Example {
    let services = "- {name: dns}\n- {name: db, onRegression: Contain, optionalDependencies: [dns]}\n\
                    - {name: web, dependsOn: [db]}";
    example("optional", "", &[services])
}

/// All of that in one plan.
pub(super) fn five() -> Example {
    let services = "- {name: dns}\n- {name: db, together: core}\n- {name: id, together: core, optionalDependencies: [dns]}\n\
                    - {name: api, dependsOn: [db], onRegression: Contain}\n";
    let plans = ["- {name: web, dependsOn: [api, dns]}", "- {name: web, dependsOn: [api]}"];
    example("five", "maxParallel: 2", &plans.map(|web| format!("{services}{web}")))
}

/// All plans of so many services.
pub(super) fn of_size(services: u64) -> Vec<Example> {
    match services {
        2 => vec![pair(), people()],
        3 => vec![chain(), fork(), join(), together(), optional()],
        _ => vec![five()],
    }
}
