use proptest::prelude::*;

use super::*;
use crate::api::RecoveryPlanSpec;

fn plan_in(namespace: &str, services: &str) -> Plan {
    let yaml = format!("serviceAccountName: recovery\nincidentRef: {{name: nov}}\nservices:\n{services}");
    let spec: RecoveryPlanSpec = serde_yaml::from_str(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    Plan::compile(namespace, "p", "uid-1", &spec)
}

fn required(plan: &Plan, service: &str) -> Requirements {
    Requirements::of(plan, plan.index[service])
}

const IMAGES: &str = "{name: images, imageDigests: {approvedFrom: {configMap: {name: approved}}}, stableFor: 5m, failureLimit: 3, interval: 10s, timeout: 10s}";

/// Service `web` with one gate in each phase, and these fields beside; `db` and `idp` before it.
fn web(gate: &str, fields: &str) -> Plan {
    plan_in(
        "recovery",
        &format!(
            "- {{name: db}}\n- {{name: idp, namespaces: []}}\n- {{name: mq}}\n- {{name: cache, together: g}}\n- name: web\n  together: g\n  \
             gates: {{beforeRestore: [{gate}], beforeRelease: [{{name: up, workloads: {{}}}}], continuous: [{{name: up, workloads: {{}}}}]}}\n  {fields}"
        ),
    )
}

const DEPENDS: &str = "dependsOn: [db, idp, cache]";

#[test]
fn every_change_that_is_no_tightening_names_what_is_lost() {
    let before = required(
        &web(
            IMAGES,
            &format!("{DEPENDS}\n  cleanRoom: {{allowEgress: [DNS]}}\n  resume: [{{cronJob: nightly}}]"),
        ),
        "web",
    );
    let same = format!("{DEPENDS}\n  cleanRoom: {{allowEgress: [DNS]}}\n  resume: [{{cronJob: nightly}}]");
    for (gate, fields, expected) in [
        (IMAGES.replace("name: images", "name: other"), same.clone(), "beforeRestore gate 'images' is gone"),
        (
            IMAGES.replace("approved}", "evil}"),
            same.clone(),
            "beforeRestore gate 'images' asks something else",
        ),
        (
            IMAGES.replace("imageDigests: {", "imageDigests: {tags: ProveWhenRunning, "),
            same.clone(),
            "beforeRestore gate 'images' lets images pass by tag",
        ),
        (
            IMAGES.replace("approved}}", "evil}}, tags: ProveWhenRunning"),
            same.clone(),
            "beforeRestore gate 'images' asks something else",
        ),
        (
            IMAGES.replace("5m", "1s"),
            same.clone(),
            "beforeRestore gate 'images' passes after 1s instead of 5m",
        ),
        (
            IMAGES.replace("failureLimit: 3", "failureLimit: 9"),
            same.clone(),
            "beforeRestore gate 'images' fails after 9 answers instead of 3",
        ),
        (
            IMAGES.replace("interval: 10s", "interval: 1h"),
            same.clone(),
            "beforeRestore gate 'images' is asked every 1h instead of 10s",
        ),
        (
            IMAGES.replace("timeout: 10s", "timeout: 1h"),
            same.clone(),
            "beforeRestore gate 'images' may take 1h instead of 10s",
        ),
        (IMAGES.to_owned(), same.replace("[db, ", "["), "it no longer waits for namespace db"),
        (IMAGES.to_owned(), same.replace("idp, ", ""), "it no longer waits for external system recovery/idp"),
        (
            IMAGES.to_owned(),
            same.replace(", cache]", "]"),
            "its steps no longer come after those of namespace cache",
        ),
        (IMAGES.to_owned(), format!("{same}\n  ungated: {{reason: hurry}}"), "it is ungated: hurry"),
        (
            IMAGES.to_owned(),
            same.replace("[DNS]", "[DNS, APIServer]"),
            "its clean room may connect to APIServer",
        ),
        (
            IMAGES.to_owned(),
            same.replace("allowEgress: [DNS]", "allowEgress: [DNS], hostAccess: {reason: storage}"),
            "its pods may use what Pod Security baseline forbids: storage",
        ),
        (
            IMAGES.to_owned(),
            same.replace("{cronJob: nightly}", "{cronJob: nightly}, {cronJob: evil}"),
            "CronJob web/evil starts once it is recovered",
        ),
        (
            IMAGES.to_owned(),
            same.replace("{cronJob: nightly}", "{cronJob: nightly, missedRun: Fire}"),
            "a run that CronJob web/nightly missed starts at once",
        ),
    ] {
        let now = required(&web(&gate, &fields), "web");
        assert_eq!(loosenings(&before, &now), [expected], "{fields}");
    }
}

#[test]
fn forbidding_tags_again_is_no_loosening() {
    let of = |tags: &str| {
        let gate = IMAGES.replace("imageDigests: {", &format!("imageDigests: {{{tags}"));
        required(&web(&gate, DEPENDS), "web")
    };
    let (absent, forbid, prove) = (of(""), of("tags: Forbid, "), of("tags: ProveWhenRunning, "));
    assert_eq!(absent, forbid, "Forbid is the default");
    assert_eq!(loosenings(&prove, &absent), [""; 0]);
    assert_eq!(loosenings(&prove, &prove), [""; 0]);
    assert_eq!(loosenings(&absent, &prove), ["beforeRestore gate 'images' lets images pass by tag"]);
}

#[test]
fn tightenings_lose_nothing() {
    let before = required(
        &web(
            IMAGES,
            &format!(
                "{DEPENDS}\n  ungated: {{reason: hurry}}\n  cleanRoom: {{allowEgress: [DNS], hostAccess: {{reason: x}}}}\n  resume: [{{cronJob: nightly, missedRun: Fire}}]"
            ),
        ),
        "web",
    );
    let more = format!("{IMAGES}, {{name: login, http: {{url: 'http://login'}}}}");
    for gate in [
        IMAGES.to_owned(),
        more,
        IMAGES.replace("5m", "10m"),
        IMAGES.replace("failureLimit: 3", "failureLimit: 1"),
        IMAGES.replace("interval: 10s", "interval: 1s"),
        IMAGES.replace("timeout: 10s", "timeout: 1s"),
        IMAGES.replace("stableFor: 5m", "stableFor: 5m, unknownDeadline: 9h"),
    ] {
        for fields in [
            DEPENDS.to_owned(),
            DEPENDS.replace("db", "db, mq"),
            format!(
                "{DEPENDS}\n  restore: [{{name: other, scale: {{replicas: 9}}}}]\n  owner: somebody\n  title: Web"
            ),
            format!("{DEPENDS}\n  resume: [{{cronJob: nightly}}]"),
        ] {
            let now = required(&web(&gate, &fields), "web");
            assert_eq!(loosenings(&before, &now), Vec::<String>::new(), "{gate} {fields}");
        }
    }
}

#[test]
fn renaming_a_service_neither_changes_nor_evades_requirements() {
    let services = |db: &str, web: &str| {
        format!("- {{name: {db}, namespaces: [db]}}\n- {{name: {web}, namespaces: [web], dependsOn: [{db}]}}")
    };
    let before = required(&plan_in("recovery", &services("db", "web")), "web");
    let renamed = required(&plan_in("recovery", &services("base", "front")), "front");
    assert_eq!(before, renamed);
    // A dummy of the same name carries nothing.
    let dummy =
        "- {name: db, namespaces: []}\n- {name: real, namespaces: [db]}\n- {name: web, dependsOn: [db]}";
    let dummy = required(&plan_in("recovery", dummy), "web");
    assert_eq!(loosenings(&before, &dummy), ["it no longer waits for namespace db"]);
    // Lists of approved images are looked up beside the plan.
    let elsewhere = required(&plan_in("eve", &services("db", "web")), "web");
    let lost = loosenings(&before, &elsewhere);
    assert_eq!(
        lost,
        ["the plan is in namespace eve instead of recovery: its gates look up their lists there"]
    );
    let other = Requirements { incident: "minor".to_owned(), ..before.clone() };
    assert_eq!(loosenings(&before, &other), ["the plan names Incident minor instead of nov"]);
}

#[test]
fn together_requirement_lists_all_namespaces_of_the_unit() {
    let both = plan_in("recovery", "- {name: web, namespaces: [web, worker]}");
    let apart = plan_in("recovery", "- {name: web}\n- {name: worker}");
    let grouped = plan_in("recovery", "- {name: web, together: g}\n- {name: worker, together: g}");
    let lost = loosenings(&required(&both, "web"), &required(&apart, "web"));
    assert_eq!(lost, ["it no longer goes together with namespace worker"]);
    assert_eq!(required(&both, "web").together, required(&grouped, "web").together);
    let joined = loosenings(&required(&apart, "web"), &required(&both, "web"));
    assert_eq!(joined, ["it goes together with namespace worker, which its clean room reaches"]);
}

#[test]
fn a_record_of_another_form_is_never_equal_or_tighter() {
    let now = required(&plan_in("recovery", "- {name: web}"), "web");
    let newer = Requirements { version: VERSION + 1, ..now.clone() };
    assert_eq!(loosenings(&newer, &now).len(), 1);
    let text = serde_json::to_string(&now).unwrap();
    assert_eq!(serde_json::from_str::<Requirements>(&text).unwrap(), now);
    assert!(serde_json::from_str::<Requirements>(&text.replace("\"gates\"", "\"doors\"")).is_err());
    assert!(serde_json::from_str::<Requirements>("{}").is_err());
}

#[test]
fn scope_is_the_namespace_or_the_external_systems_name() {
    let plan = plan_in("recovery", "- {name: web, namespaces: [b, a]}\n- {name: idp, namespaces: []}");
    let shown: Vec<String> = (0..2).flat_map(|id| plan.scopes(id)).map(|scope| scope.to_string()).collect();
    assert_eq!(shown, ["namespace a", "namespace b", "external system recovery/idp"]);
}

fn names() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set("[a-e]", 0..4)
}

fn gate() -> impl Strategy<Value = GateRequirement> {
    (0..3_u8, 0..9_u64, 0..9_u64, 0..9_u64, 0..9_u32).prop_map(
        |(asks, stable_for, interval, timeout, failure_limit)| GateRequirement {
            asks: serde_json::json!({"question": asks}),
            stable_for,
            interval,
            timeout,
            failure_limit,
        },
    )
}

fn requirements() -> impl Strategy<Value = Requirements> {
    let gates = prop::collection::btree_map("beforeRestore/[a-c]", gate(), 0..4);
    let egress = prop::collection::btree_set(
        prop_oneof![Just(ClusterService::Dns), Just(ClusterService::ApiServer)],
        0..3,
    );
    let reason = || prop::option::of("[a-b]");
    let resume = prop::collection::btree_map("[a-c]", any::<bool>(), 0..3);
    (gates, names(), names(), names(), (reason(), reason()), (egress, names()), resume).prop_map(
        |(gates, depends_on, steps_after, together, (ungated, host_access), egress, resume)| {
            let (allow_egress, allow_egress_to) = egress;
            Requirements {
                version: VERSION,
                incident: "nov".to_owned(),
                plan_namespace: "recovery".to_owned(),
                gates,
                depends_on,
                steps_after,
                together,
                ungated,
                allow_egress,
                allow_egress_to,
                host_access,
                resume,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(14), ..ProptestConfig::default() })]

    #[test]
    fn equal_requirements_lose_nothing(of in requirements()) {
        prop_assert_eq!(loosenings(&of, &of), Vec::<String>::new());
    }

    /// Whatever is taken away is lost, and put back on top of that it is no loss.
    #[test]
    fn removing_a_requirement_loosens_and_adding_one_does_not(of in requirements()) {
        for key in of.gates.keys() {
            let mut less = of.clone();
            less.gates.remove(key);
            prop_assert_eq!(loosenings(&of, &less).len(), 1);
            prop_assert!(loosenings(&less, &of).is_empty());
        }
        for name in &of.depends_on {
            let mut less = of.clone();
            less.depends_on.remove(name);
            prop_assert_eq!(loosenings(&of, &less).len(), 1);
            prop_assert!(loosenings(&less, &of).is_empty());
        }
        for name in &of.steps_after {
            let mut less = of.clone();
            less.steps_after.remove(name);
            prop_assert_eq!(loosenings(&of, &less).len(), 1);
            prop_assert!(loosenings(&less, &of).is_empty());
        }
        for name in &of.together {
            let mut less = of.clone();
            less.together.remove(name);
            prop_assert_eq!(loosenings(&of, &less).len(), 1);
            prop_assert_eq!(loosenings(&less, &of).len(), 1);
        }
    }

    /// No two steps that each lose nothing lose anything together: nothing can be worn down bit by bit.
    #[test]
    fn tightening_twice_is_tightening(a in requirements(), b in requirements(), c in requirements()) {
        if loosenings(&a, &b).is_empty() && loosenings(&b, &c).is_empty() {
            prop_assert!(loosenings(&a, &c).is_empty());
        }
    }

    /// Going there and back loses something on the one way or the other, unless nothing differs.
    #[test]
    fn what_differs_is_lost_one_way_or_the_other(a in requirements(), b in requirements()) {
        if a != b {
            prop_assert!(!loosenings(&a, &b).is_empty() || !loosenings(&b, &a).is_empty());
        }
    }
}
