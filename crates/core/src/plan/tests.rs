//! What is wrong with a plan is named, with its culprit; what is right is folded and ordered as stated.

use std::time::Duration;

use super::{Plan, Problem, checks, graph};
use crate::api::Reason;
use crate::api::{Phase, RecoveryPlanSpec};

/// A plan from its spec, with gates that satisfy every check for those who state none.
fn plan(services: &str) -> Plan {
    with("", services)
}

fn with(top: &str, services: &str) -> Plan {
    let digest = format!("sha256:{}", "a".repeat(64));
    let yaml = format!(
        "serviceAccountName: recovery\n{top}\ndefaults:\n  gates:\n    beforeRestore: [{{name: images, imageDigests: \
         {{approved: ['{digest}']}}}}]\n    beforeRelease: [{{name: up, workloads: {{}}}}]\nservices:\n{services}"
    );
    compile(&yaml)
}

fn compile(yaml: &str) -> Plan {
    let spec: RecoveryPlanSpec = serde_yaml::from_str(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    Plan::compile("recovery", "p", "uid-1", &spec)
}

fn problems<'a>(plan: &'a Plan, service: &str) -> Vec<&'a Problem> {
    plan.services[plan.index[service]].problems.iter().collect()
}

fn names(plan: &Plan, ids: &[usize]) -> Vec<String> {
    ids.iter().map(|&id| plan.services[id].name.clone()).collect()
}

/// Each row: what is stated, who has the problem, its reason, and what its message must name.
#[test]
fn every_mistake_is_named_with_its_culprit() {
    let rows: &[(&str, &str, &str, &str, &[&str])] = &[
        (
            "unknown service, near",
            "- {name: a, dependsOn: [identty]}\n- {name: identity}",
            "a",
            "UnknownService",
            &["'identty'", "did you mean 'identity'?"],
        ),
        (
            "unknown service, far",
            "- {name: a, dependsOn: [warehouse]}\n- {name: identity}",
            "a",
            "UnknownService",
            &["'warehouse'", "add it to the plan"],
        ),
        ("itself", "- {name: a, dependsOn: [a]}", "a", "Cycle", &["a depends on itself"]),
        (
            "itself, in a group",
            "- {name: a, together: g, dependsOn: [a, b]}\n- {name: b, together: g}",
            "a",
            "Cycle",
            &["a depends on itself"],
        ),
        (
            "a cycle, cut from the lowest tier to the highest",
            "- {name: identity, tier: 1, dependsOn: [web]}\n- {name: api, tier: 3, dependsOn: [identity]}\n- {name: web, \
             tier: 6, dependsOn: [api]}",
            "api",
            "Cycle",
            &["identity → web → api → identity", "such as identity → web", "'together'"],
        ),
        (
            "a cycle through a group, cut between services",
            "- {name: dns, tier: 1, together: core}\n- {name: idp, together: core, tier: 1, dependsOn: [web]}\n- {name: web, tier: 6, \
             dependsOn: [dns]}",
            "dns",
            "Cycle",
            &["core → web → core", "such as idp → web"],
        ),
        (
            "kube-system",
            "- {name: a, namespaces: [kube-system]}",
            "a",
            "ProtectedNamespace",
            &["kube-system"],
        ),
        (
            "the operator's own",
            "- {name: a, namespaces: [resurgam-system]}",
            "a",
            "ProtectedNamespace",
            &["resurgam-system"],
        ),
        (
            "a shared namespace",
            "- {name: a, namespaces: [x]}\n- {name: b, namespaces: [x, y]}",
            "b",
            "NamespaceShared",
            &["namespace x", "a, b"],
        ),
        (
            "steps for nothing",
            "- {name: a, namespaces: [], ungated: {reason: external}, restore: [{name: s, scale: {}}]}",
            "a",
            "NothingToRestore",
            &["no namespaces"],
        ),
        (
            "a step twice",
            "- {name: a, restore: [{name: s, scale: {}}, {name: s, scale: {}}]}",
            "a",
            "DuplicateStep",
            &["'s'"],
        ),
        ("a step without an action", "- {name: a, restore: [{name: s}]}", "a", "MalformedStep", &["'s'"]),
        (
            "a gate twice",
            "- {name: a, gates: {beforeRelease: [{name: it, workloads: {}}, {name: it, http: {url: 'http://x'}}]}}",
            "a",
            "DuplicateGate",
            &["'it'", "beforeRelease"],
        ),
        (
            "a default gate that the plan does not have",
            "- {name: a, omitDefaultGates: [upp]}",
            "a",
            "UnknownGate",
            &["'upp'"],
        ),
        (
            "a service that leaves out its only integrity gate",
            "- {name: a, omitDefaultGates: [images]}",
            "a",
            "Ungated",
            &["no integrity gate"],
        ),
        (
            "a gate that asks nothing",
            "- {name: a, gates: {beforeRestore: [{name: odd}]}}",
            "a",
            "MalformedGate",
            &["'odd'"],
        ),
        (
            "a gate that asks two things",
            "- {name: a, gates: {continuous: [{name: odd, workloads: {}, http: {url: 'http://x'}}]}}",
            "a",
            "MalformedGate",
            &["'odd'"],
        ),
        (
            "tiers within a group",
            "- {name: a, together: g, tier: 1}\n- {name: b, together: g, tier: 2}",
            "b",
            "GroupTiersDiffer",
            &["'g'"],
        ),
    ];
    for (what, services, whose, reason, mentions) in rows {
        let plan = plan(services);
        let found = problems(&plan, whose);
        let problem = found
            .iter()
            .find(|p| p.reason.as_str() == *reason)
            .unwrap_or_else(|| panic!("{what}: {found:?}"));
        for mention in *mentions {
            assert!(problem.message.contains(mention), "{what}: {}", problem.message);
        }
        assert!(plan.problems.contains(problem), "{what}: the plan itself does not tell");
    }
}

#[test]
fn names_are_as_far_apart_as_it_takes_edits() {
    for (a, b, edits) in [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("identity", "identty", 1),
        ("identty", "identity", 1),
        ("abcd", "bcde", 2),
        ("flaw", "lawn", 2),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(checks::distance(a, b), edits, "{a} {b}");
    }
}

#[test]
fn duplicate_name_is_a_problem_of_the_second_service() {
    let plan =
        plan("- {name: a, namespaces: [x]}\n- {name: a, namespaces: [y]}\n- {name: b, dependsOn: [a]}");
    assert!(plan.services[0].problems.is_empty());
    assert_eq!(plan.services[1].problems[0].reason, Reason::DuplicateService);
    assert_eq!(plan.services[2].dependencies, [0]);
}

#[test]
fn a_sound_plan_has_no_problems() {
    let plan = plan(
        "- {name: a}\n- {name: b, dependsOn: [a]}\n- {name: c, together: g}\n- {name: d, together: g, dependsOn: [c, b]}",
    );
    assert_eq!(plan.problems, []);
}

#[test]
fn problems_are_kept_beside_the_service_and_spare_the_others() {
    let plan = plan(
        "- {name: a, dependsOn: [b]}\n- {name: b, dependsOn: [a]}\n- {name: behind, dependsOn: [a]}\n- {name: c}",
    );
    for (service, count) in [("a", 1), ("b", 1), ("behind", 0), ("c", 0)] {
        assert_eq!(problems(&plan, service).len(), count, "{service}");
    }
    assert_eq!(plan.problems.len(), 1, "one cycle is told once");
}

#[test]
fn two_cycles_are_two_problems() {
    let plan = plan(
        "- {name: a, dependsOn: [b]}\n- {name: b, dependsOn: [a]}\n- {name: c, dependsOn: [d]}\n- {name: d, dependsOn: [c]}",
    );
    assert_eq!(plan.problems.len(), 2);
    assert!(problems(&plan, "c")[0].message.contains("c → d → c"));
}

/// Empty is not passed.
#[test]
fn a_service_without_gates_says_what_it_lacks() {
    let only = |services: &str| compile(&format!("serviceAccountName: r\nservices:\n{services}"));
    let images = "imageDigests: {approvedFrom: {configMap: {name: x}}}";
    for (gates, lacks) in [
        ("{}", vec!["no beforeRestore gate", "no beforeRelease gate", "no integrity gate"]),
        ("{beforeRestore: [{name: u, workloads: {}}]}", vec!["no beforeRelease gate", "no integrity gate"]),
        (&format!("{{beforeRestore: [{{name: i, {images}}}]}}"), vec!["no beforeRelease gate"]),
        (&format!("{{beforeRelease: [{{name: i, {images}}}]}}"), vec!["no beforeRestore gate"]),
        (
            "{beforeRestore: [{name: u, workloads: {}}], beforeRelease: [{name: u, workloads: {}}]}",
            vec!["no integrity gate"],
        ),
    ] {
        let plan = only(&format!("- {{name: a, gates: {gates}}}"));
        let found = problems(&plan, "a");
        assert_eq!(found.iter().map(|p| p.reason).collect::<Vec<_>>(), [Reason::Ungated], "{gates}");
        for phrase in ["no beforeRestore gate", "no beforeRelease gate", "no integrity gate"] {
            assert_eq!(found[0].message.contains(phrase), lacks.contains(&phrase), "{gates}: {phrase}");
        }
    }
    let spoken = only("- {name: a, ungated: {reason: archive without users}}");
    assert_eq!(spoken.problems, []);
    assert_eq!(spoken.services[0].ungated.as_deref(), Some("archive without users"));
}

#[test]
fn tags_that_pass_before_restore_must_be_proved_before_release() {
    let images = |name: &str, tags: &str| {
        format!("{{name: {name}, imageDigests: {{approvedFrom: {{configMap: {{name: list}}}}{tags}}}}}")
    };
    let prove = images("own", ", tags: ProveWhenRunning");
    for (restore, release, ungated, is_problem) in [
        (images("own", ""), String::new(), "", false),
        (prove.clone(), String::new(), "", true),
        (prove.clone(), String::new(), ", ungated: {reason: a cache}", true),
        (prove.clone(), "{name: login, http: {url: 'http://login'}}".to_owned(), "", true),
        (prove.clone(), images("running", ""), "", false),
        (prove.clone(), prove.clone(), "", false),
        (images("own", ""), prove.clone(), "", false),
    ] {
        let gates = format!("{{beforeRestore: [{restore}], beforeRelease: [{release}]}}");
        let plan = plan(&format!("- {{name: a, gates: {gates}{ungated}}}"));
        let found: Vec<_> = problems(&plan, "a").iter().map(|problem| problem.reason).collect();
        let expected = if is_problem { vec![Reason::TagsNotProved] } else { Vec::new() };
        assert_eq!(found, expected, "{gates}");
    }
}

#[test]
fn group_is_one_unit_with_all_members_dependencies() {
    let plan = plan(
        "- {name: a}\n- {name: b}\n- {name: x, together: g, dependsOn: [a, y]}\n- {name: y, together: g, dependsOn: [b]}\n- \
         {name: after, dependsOn: [y]}",
    );
    let unit = plan.services[plan.index["x"]].unit;
    assert_eq!(plan.services[plan.index["y"]].unit, unit);
    assert_eq!(names(&plan, &plan.units[unit].dependencies), ["a", "b"]);
    assert_eq!(
        names(&plan, &plan.services[plan.index["x"]].steps_after),
        ["y"],
        "inner edges order steps only"
    );
    assert_eq!(plan.unit_name(unit), "g");
    let after = plan.services[plan.index["after"]].unit;
    assert_eq!(plan.units[unit].dependents, [after]);
    assert_eq!((plan.units[unit].height, plan.units[after].height), (1, 0));
    assert_eq!(plan.problems, []);
}

#[test]
fn members_may_depend_on_each_other_and_run_steps_together() {
    let plan = plan(
        "- {name: x, together: g, dependsOn: [y]}\n- {name: y, together: g, dependsOn: [x]}\n- {name: z, together: g, \
         dependsOn: [x]}",
    );
    assert_eq!(plan.problems, []);
    let after = |s: &str| names(&plan, &plan.services[plan.index[s]].steps_after);
    assert_eq!((after("x"), after("y"), after("z")), (vec![], vec![], vec!["x".to_owned()]));
}

#[test]
fn under_tiers_each_service_waits_for_the_nearest_lower_tier() {
    let services = "- {name: a, tier: 0}\n- {name: b, tier: 0}\n- {name: c, tier: 3}\n- {name: d, tier: 7, dependsOn: [a]}";
    let tiered = with("order: Tiers", services);
    let needs = |plan: &Plan, s: &str| names(plan, &plan.services[plan.index[s]].dependencies);
    assert_eq!(needs(&tiered, "c"), ["a", "b"]);
    assert_eq!(needs(&tiered, "d"), ["a", "c"]);
    assert!(needs(&tiered, "a").is_empty());
    let stated = with("order: Dependencies", services);
    assert!(needs(&stated, "c").is_empty(), "a tier alone makes nobody wait");
}

#[test]
fn tiers_report_missing_tiers_and_edges_against_the_order() {
    let plan = with("order: Tiers", "- {name: a, tier: 0}\n- {name: b}");
    assert_eq!(problems(&plan, "b")[0].reason, Reason::TierMissing);
    assert!(problems(&plan, "a").is_empty());
    let upside_down = with("order: Tiers", "- {name: a, tier: 0, dependsOn: [b]}\n- {name: b, tier: 1}");
    let problem = problems(&upside_down, "a")[0];
    assert_eq!(problem.reason, Reason::Cycle);
    assert!(problem.message.contains("such as a → b"), "{}", problem.message);
}

#[test]
fn external_service_gets_no_step_and_no_namespace_gate() {
    let plan = plan(
        "- {name: partner, namespaces: [], ungated: {reason: run by others}, gates: {beforeRelease: [{name: answers, http: \
         {url: 'https://partner.example'}}]}}",
    );
    let service = &plan.services[0];
    assert!(service.namespaces.is_empty() && service.steps.is_empty());
    let gates: Vec<_> = service.gates.iter().map(|g| (g.phase, g.spec.name.as_str())).collect();
    assert_eq!(gates, [(Phase::BeforeRelease, "answers"), (Phase::Continuous, "answers")]);
    assert_eq!(plan.problems, []);
}

#[test]
fn omitted_fields_have_defaults() {
    let plan = plan(
        "- {name: a}\n- {name: b, namespaces: [z, y, z], gates: {continuous: [{name: own, workloads: {}}]}}",
    );
    let a = &plan.services[0];
    assert_eq!(a.namespaces, ["a"]);
    assert_eq!(a.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["start"]);
    let continuous = |id: usize| {
        plan.services[id].gates_of(Phase::Continuous).map(|g| g.spec.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(continuous(0), ["up"], "without continuous gates, those before release go on being asked");
    assert_eq!(continuous(1), ["own"]);
    assert_eq!(plan.services[1].namespaces, ["y", "z"], "claims are taken in name order");
    assert_eq!(plan.max_parallel, 6);
    assert_eq!(plan.incident, None);
    let policy = a.gates[0].policy;
    assert_eq!(
        (policy.stable_for, policy.interval, policy.timeout, policy.failure_limit, policy.unknown_deadline),
        (Duration::ZERO, Duration::from_secs(10), Duration::from_secs(10), 3, Duration::from_secs(900))
    );
}

#[test]
fn answer_is_fresh_for_two_intervals_and_at_least_30_seconds() {
    for (interval, timeout, expected) in [("1s", "2s", 30), ("20s", "7s", 67)] {
        let gates = format!(
            "{{beforeRelease: [{{name: own, workloads: {{}}, interval: {interval}, timeout: {timeout}}}]}}"
        );
        let p = plan(&format!("- {{name: a, gates: {gates}}}"));
        let gate = p.services[0].gates_of(Phase::BeforeRelease).find(|gate| gate.spec.name == "own").unwrap();
        assert_eq!(gate.policy.freshness(), Duration::from_secs(expected));
    }
}

#[test]
fn the_critical_path_is_the_longest_by_time_not_by_count() {
    let plan = plan(
        "- {name: a}\n- {name: b, dependsOn: [a]}\n- {name: c, dependsOn: [b]}\n- {name: slow}\n- {name: d, dependsOn: [slow]}",
    );
    let seconds = |unit: usize| Duration::from_secs(if plan.unit_name(unit) == "slow" { 10 } else { 1 });
    let (length, path) = plan.critical_path(seconds);
    let path: Vec<&str> = path.iter().map(|&u| plan.unit_name(u)).collect();
    assert_eq!((length, path), (Duration::from_secs(11), vec!["slow", "d"]));
}

#[test]
fn a_critical_path_leaves_out_what_is_on_or_behind_a_cycle() {
    let plan = plan(
        "- {name: a, dependsOn: [b]}\n- {name: b, dependsOn: [a]}\n- {name: c, dependsOn: [a]}\n- {name: d}",
    );
    let (length, path) = plan.critical_path(|_| Duration::from_secs(1));
    assert_eq!((length, path.len()), (Duration::from_secs(1), 1));
    assert_eq!(plan.unit_name(path[0]), "d");
}

#[test]
fn cycle_is_reported_without_inner_cycles() {
    let edges = [vec![1], vec![2], vec![1, 3], vec![0]];
    assert_eq!(graph::shortest_cycle(&[0, 1, 2, 3], |node| edges[node].clone()), [0, 1, 2, 3]);
}

#[test]
fn a_chain_of_5000_and_a_cycle_of_5000_overflow_no_stack() {
    use std::fmt::Write as _;
    let mut chain = String::new();
    for i in 0..5_000 {
        let needs = if i == 0 { String::new() } else { format!(", dependsOn: [s{}]", i - 1) };
        let _ = writeln!(chain, "- {{name: s{i}{needs}}}");
    }
    let straight = plan(&chain);
    assert_eq!(straight.problems, []);
    assert_eq!(straight.units[0].height, 4_999);
    assert_eq!(straight.dependents_of(0).len(), 4_999);
    assert_eq!(straight.critical_path(|_| Duration::from_secs(1)).0, Duration::from_secs(5_000));

    let nodes = 5_000;
    let next = |n: usize| vec![(n + 1) % nodes];
    let components = graph::cyclic_components(nodes, next);
    assert_eq!(components.iter().map(Vec::len).collect::<Vec<_>>(), [nodes]);
    assert_eq!(graph::shortest_cycle(&components[0], next).len(), nodes);
    assert_eq!(graph::topological(nodes, next), [] as [usize; 0]);
}

/// What is resumed is named without a doubt: which kind, where, and once.
#[test]
fn resume_entry_is_unique_and_in_a_namespace_of_the_service() {
    let found = |resume: &str| {
        let plan = plan(&format!("- {{name: a}}\n- {{name: b, namespaces: [b1, b2], resume: [{resume}]}}"));
        let reasons: Vec<_> = problems(&plan, "b").iter().map(|problem| problem.reason).collect();
        (reasons, plan.services[1].resume.len())
    };
    assert_eq!(found("{cronJob: nightly, namespace: b2}, {job: nightly, namespace: b2}"), (vec![], 2));
    assert_eq!(found("{cronJob: nightly}"), (vec![Reason::ResumeElsewhere], 0));
    assert_eq!(found("{cronJob: nightly, namespace: a}"), (vec![Reason::ResumeElsewhere], 0));
    assert_eq!(found("{cronJob: nightly, job: nightly, namespace: b1}"), (vec![Reason::MalformedResume], 0));
    assert_eq!(found("{namespace: b1}"), (vec![Reason::MalformedResume], 0));
    let twice = "{cronJob: nightly, namespace: b1}, {cronJob: nightly, namespace: b1, missedRun: Fire}";
    assert_eq!(found(twice), (vec![Reason::DuplicateResume], 1));
    assert_eq!(plan("- {name: a, resume: [{cronJob: nightly}]}").services[0].resume[0].namespace, "a");
}
