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
fn every_gate_of_the_phase_is_passed_in_this_attempt_before_anything_is_loosened() {
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
    for (phase, amiss, mutant) in cases {
        let mut log = Maker::sealed();
        log.recover("dns", 10_000, 11_000);
        assert_eq!(log.messages(), "");
        said(&mut log, phase, |gates| {
            gates.iter_mut().filter(|gate| gate["phase"] == phase).for_each(mutant)
        });
        let messages = log.messages();
        assert!(messages.contains(amiss), "{phase}: {amiss}: {messages}");
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
fn a_service_without_namespaces_is_not_recovered_without_its_gates() {
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
fn the_next_attempt_is_asked_about_anew() {
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

#[test]
fn a_clock_that_was_ahead_at_the_claim_and_was_set_since_accuses_nobody_and_hides_no_earlier_pass() {
    let claimed = |log: &mut Maker, attempt: u64, at: u64| {
        for (_, event) in &mut log.events {
            if let Some(status) = event.pointer_mut("/responseObject/status")
                && status["attempt"] == attempt
                && status["claimedAt"].is_string()
            {
                status["claimedAt"] = json!(time(at));
            }
        }
    };
    let mut log = Maker::sealed();
    log.recover("dns", 10_000, 11_000);
    claimed(&mut log, 1, 1_210_000);
    assert_eq!(log.messages(), "");

    log.status("asks", "dns", |s| s["decision"] = json!({"digest": "sha256:1"}));
    log.write("retry", "lead", "decisions/recovery/d", |o| {
        o["spec"] = json!({"action": "Retry", "plan": "p", "service": "dns", "decidedOn": "sha256:1"});
    });
    log.label("sealed again", OPERATOR, "dns", "sealed").at(20_000);
    log.begin("dns", 2).enter("dns");
    claimed(&mut log, 2, 1_220_000);
    assert_eq!(log.messages(), "");
    // What the attempt before had passed by.
    said(&mut log, "BeforeRestore", |gates| {
        gates
            .iter_mut()
            .filter(|gate| gate["phase"] == "BeforeRestore")
            .for_each(|gate| gate["since"] = json!(time(10_500)));
    });
    assert!(log.messages().contains("images passed before this attempt"), "{}", log.messages());
}
