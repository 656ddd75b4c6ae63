//! I2: no clean room and no opening before every gate has passed, in this attempt.

use judge::{Options, Rule};
use serde_json::{Value, json};

use crate::maker::{Maker, OPERATOR, PLAN, time};

/// What is amiss, where, and what makes it so.
type Case = (&'static str, &'static str, fn(&mut Value));

/// Changes what is written of gates, wherever it is.
fn said(log: &mut Maker, phase: &'static str, change: impl Fn(&mut Vec<Value>)) {
    for (_, event) in &mut log.events {
        let gates = event.pointer_mut("/responseObject/status/gates").and_then(Value::as_array_mut);
        if let Some(gates) = gates.filter(|gates| gates.iter().any(|gate| gate["phase"] == phase)) {
            change(gates);
        }
    }
}

#[test]
fn every_gate_of_a_phase_passes_before_anything_is_loosened() {
    let cases: [Case; 8] = [
        ("BeforeRestore", "images does not pass", |gate| gate["verdict"] = json!("Unknown")),
        ("BeforeRestore", "images does not pass", |gate| gate["verdict"] = json!("Fail")),
        ("BeforeRestore", "nothing is written of images", |gate| gate["name"] = json!("another")),
        ("BeforeRestore", "images passed before this attempt", |gate| gate["since"] = json!(time(9_999))),
        ("BeforeRelease", "up does not pass", |gate| gate["verdict"] = json!("Unknown")),
        ("BeforeRelease", "up does not pass", |gate| gate["verdict"] = json!("Fail")),
        ("BeforeRelease", "nothing is written of up", |gate| gate["phase"] = json!("Continuous")),
        ("BeforeRelease", "up passed before this attempt", |gate| gate["since"] = json!(time(9_999))),
    ];
    for (phase, problems, mutant) in cases {
        let mut log = Maker::sealed();
        log.recover("dns", 10_000, 11_000);
        assert_eq!(log.messages(), "");
        said(&mut log, phase, |gates| {
            gates.iter_mut().filter(|gate| gate["phase"] == phase).for_each(mutant)
        });
        let messages = log.messages();
        assert!(messages.contains(problems), "{phase}: {problems}: {messages}");
        // Once where it is asked for, and once where it is Recovered.
        assert_eq!(log.rules(), [Rule::Gates, Rule::Gates], "{messages}");
    }
}

#[test]
fn gates_that_passed_in_another_attempt_open_nothing() {
    let mut log = Maker::sealed();
    log.at(10_000).begin("dns", 1).enter("dns");
    let ask = |event: &mut Value| event["responseObject"]["spec"]["attempt"] = json!(2);
    log.change("dns asks for CleanRoom", ask);
    let messages = log.messages();
    assert!(
        messages
            .starts_with("I2 gates: dns asks for clean-room in attempt 2, and its gates passed in attempt 1"),
        "{messages}"
    );
}

#[test]
fn a_gate_that_has_not_looked_lately_opens_nothing() {
    for (looks, gate) in [("dns looks before restore", "images"), ("dns looks before release", "up")] {
        let mut log = Maker::sealed();
        log.recover("dns", 10_000, 11_000).without(looks);
        // Another's look, or one of long ago, is none.
        log.at(11_000).list("other", "on-call", "pods", "dns");
        let messages = log.messages();
        // What looked before restore still counts a second later.
        let expected: &[Rule] = if gate == "images" { &[Rule::Gates] } else { &[] };
        assert_eq!(log.rules(), expected, "{messages}");
    }
    let mut log = Maker::sealed();
    log.at(10_000)
        .begin("dns", 1)
        .enter("dns")
        .step("dns")
        .at(55_000)
        .open("dns")
        .without("dns looks before release");
    assert_eq!(
        log.messages(),
        "I2 gates: dns asks for open, and its gate up had not looked into dns lately\n"
    );
}

#[test]
fn no_gate_is_no_pass_but_where_the_plan_says_so() {
    let log = Maker::clean();
    let judged = |plan: &str| {
        let report = log.judge_with(plan, &Options::default()).unwrap();
        report.violations.iter().map(|v| v.message.clone()).collect::<Vec<_>>()
    };
    let bare = PLAN.replace("beforeRestore: [{name: images, imageDigests: {}}]", "beforeRestore: []");
    assert_eq!(judged(&bare).len(), 6);
    assert!(
        judged(&bare)[0].ends_with("it has none, and the plan does not say that it may"),
        "{:?}",
        judged(&bare)
    );
    assert_eq!(judged(&bare.replace("- {name:", "- {ungated: {reason: x}, name:")), Vec::<String>::new());
    let more = PLAN
        .replace("- {name: web,", "- {name: web, gates: {beforeRelease: [{name: login, http: {url: x}}]},");
    assert_eq!(judged(&more).len(), 2, "web asks for open, and is Recovered, without its own gate");
}

#[test]
fn service_without_namespaces_needs_its_gates_to_recover() {
    let plan = format!(
        "{PLAN}  - {{name: outside, namespaces: [], gates: {{beforeRestore: [{{name: a, http: {{url: x}}}}], beforeRelease: [{{name: b, http: {{url: x}}}}]}}}}\n"
    );
    let judged = |passed: &[(&str, &str)]| {
        let mut log = Maker::clean();
        let gates: Vec<Value> =
            passed.iter().map(|(phase, name)| json!({"phase": phase, "name": name, "verdict": "Pass", "since": time(17_500)})).collect();
        log.at(17_000)
            .begin("outside", 1)
            .at(18_000)
            .status("gates", "outside", |status| status["gates"] = json!(gates));
        log.recovered("outside");
        let report = log.judge_with(&plan, &Options::default()).unwrap();
        report.violations.iter().map(|v| v.rule).collect::<Vec<_>>()
    };
    assert_eq!(judged(&[("BeforeRestore", "a"), ("BeforeRelease", "b")]), []);
    assert_eq!(judged(&[("BeforeRestore", "a")]), [Rule::Gates]);
    assert_eq!(judged(&[]), [Rule::Gates, Rule::Gates]);
}

#[test]
fn next_attempt_is_judged_from_scratch() {
    let mut log = Maker::sealed();
    log.recover("dns", 10_000, 11_000)
        .status("asks", "dns", |s| s["decision"] = json!({"digest": "sha256:1"}));
    log.write("retry", "lead", "decisions/recovery/d", |o| {
        o["spec"] = json!({"action": "Retry", "plan": "p", "service": "dns", "decidedOn": "sha256:1"});
    });
    log.label("sealed again", OPERATOR, "dns", "sealed").at(20_000).begin("dns", 2).enter("dns");
    let report = log.judge().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.asks, 3, "what the attempt before was given counts for nothing");
}

/// Every time of this key in the records' statuses is told anew, by how it was told.
fn told(log: &mut Maker, key: &str, tell: impl Fn(&str) -> Option<u64>) {
    for (_, event) in &mut log.events {
        let Some(status) = event.pointer_mut("/responseObject/status") else { continue };
        let tell = |value: &mut Value| {
            if let Some(ms) = value.as_str().and_then(&tell) {
                *value = json!(time(ms));
            }
        };
        status.get_mut(key).into_iter().for_each(tell);
        let gates = status.get_mut("gates").and_then(Value::as_array_mut);
        gates.into_iter().flatten().filter_map(|gate| gate.get_mut(key)).for_each(tell);
    }
}

/// The clock that tells the time `claim` at a claim in the second 1000, and `pass` at gates that pass a little later, by Leases.
fn by_clocks((claim, pass): (u64, u64), leases: [(&str, u64); 2]) -> Maker {
    let mut log = Maker::sealed();
    let [(first, at_claim), (then, at_pass)] = leases;
    log.at(1_000_000).lease(first, at_claim).begin("dns", 1).at(1_001_000).lease(then, at_pass);
    log.enter("dns").step("dns").open("dns").recovered("dns");
    told(&mut log, "claimedAt", |_| Some(claim));
    told(&mut log, "since", |_| Some(pass));
    log
}

#[test]
fn clock_change_between_claim_and_pass_is_no_violation() {
    let (right, ahead, behind) = (1_000_000, 1_600_000, 400_000);
    for (claim, pass) in [(ahead, right), (right, behind), (ahead, behind)] {
        let log = by_clocks((claim, pass), [("a", claim), ("b", pass)]);
        assert_eq!(log.messages(), "", "claimed at {claim}, passed since {pass}");
    }
}

#[test]
fn gates_and_claim_are_compared_by_one_clock() {
    // What is renewed late tells of a slow request, and of no clock.
    for leases in [
        [("a", 1_000_000), ("a", 1_001_000)],
        [("a", 1_600_000), ("a", 1_601_000)],
        [("a", 1_000_000), ("a", 990_000)],
        [("a", 1_000_000), ("b", 1_002_000)],
    ] {
        let claim = leases[0].1;
        assert_eq!(by_clocks((claim, claim + 500), leases).messages(), "", "{leases:?}");
        let messages = by_clocks((claim, claim - 500), leases).messages();
        assert!(messages.contains("images passed before this attempt"), "{leases:?}: {messages}");
    }
}

#[test]
fn pass_written_before_the_claim_is_earlier_whatever_clocks_say() {
    let mut log = Maker::sealed();
    log.lease("a", 5_000).recover("dns", 10_000, 11_000);
    log.status("asks", "dns", |s| s["decision"] = json!({"digest": "sha256:1"}));
    log.write("retry", "lead", "decisions/recovery/d", |o| {
        o["spec"] = json!({"action": "Retry", "plan": "p", "service": "dns", "decidedOn": "sha256:1"});
    });
    log.label("sealed again", OPERATOR, "dns", "sealed").at(20_000).lease("b", 1_220_000).begin("dns", 2);
    told(&mut log, "claimedAt", |was| (was == time(20_000)).then_some(1_220_000));
    log.at(21_000).lease("c", 21_000).enter("dns");
    told(&mut log, "claimedAt", |was| (was == time(20_000)).then_some(1_220_000));
    assert_eq!(log.messages(), "");
    // What the attempt before had passed by.
    let images = |event: &Value| event.pointer("/responseObject/status/gates/0/since").cloned();
    let before = log.events.iter().find_map(|(_, event)| images(event)).unwrap();
    said(&mut log, "BeforeRestore", |gates| gates[0]["since"] = before.clone());
    assert!(log.messages().contains("images passed before this attempt"), "{}", log.messages());
}
