//! What gates let through, and what they hold.

use super::look_at;
use super::story::{Story, plan, plan_with, story};
use crate::api::conditions::{NEEDS_DECISION, READY, RECONCILING, RECOVERED, STALLED};
use crate::api::{Isolation, Phase, Stage, Verdict};
use crate::plan::GateKey;

/// I2 and I3, for both phases.
#[test]
fn a_gate_that_does_not_pass_holds_the_service_before_its_door() {
    for verdict in [Verdict::Unknown, Verdict::Fail] {
        let mut s = story("- {name: db}");
        s.says("db", Phase::BeforeRestore, verdict);
        s.run(7_200);
        assert_eq!(
            (s.stage("db"), s.isolation("db")),
            (Stage::PreChecks, Isolation::Contained),
            "{verdict:?}"
        );

        let mut s = story("- {name: db}");
        s.says("db", Phase::BeforeRelease, verdict);
        s.run(7_200);
        assert_eq!(
            (s.stage("db"), s.isolation("db")),
            (Stage::PostChecks, Isolation::CleanRoom),
            "{verdict:?}"
        );
    }
}

#[test]
fn gate_failed_past_its_limit_needs_a_decision_even_if_passing() {
    let mut s = story("- {name: db, owner: dba@example.org}");
    s.says("db", Phase::BeforeRestore, Verdict::Fail);
    s.run(15);
    assert_eq!((s.needs("db"), s.blocks("db")), (None, vec!["GateFailing: images".to_owned()]));
    s.run(30);
    assert_eq!(s.needs("db"), Some("GateFailed"));
    let (state, reason, message) = s.condition("db", NEEDS_DECISION);
    assert_eq!((state.as_str(), reason.as_str()), ("True", "GateFailed"));
    assert!(message.contains("images") && message.contains("dba@example.org") && message.contains("Retry"));
    assert_eq!(s.condition("db", READY).0, "False");
    assert_eq!(
        (s.condition("db", STALLED).0.as_str(), s.condition("db", RECONCILING).0.as_str()),
        ("True", "")
    );
    assert_eq!(s.plan_condition(READY), ("False", "NeedsDecision"));
    assert_eq!(s.world.status.blocked_by[0].name, "db");
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.run(600);
    assert_eq!((s.needs("db"), s.stage("db")), (Some("GateFailed"), Stage::PreChecks));
}

#[test]
fn gate_that_fails_below_its_limit_needs_no_decision() {
    let mut s = story("- {name: db}");
    s.says("db", Phase::BeforeRestore, Verdict::Fail);
    s.run(15);
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.run(60);
    assert_eq!((s.needs("db"), s.stage("db")), (None, Stage::Recovered));
}

#[test]
fn overdue_unknown_needs_a_person_and_clears_by_itself() {
    let mut s = story("- {name: db}");
    s.says("db", Phase::BeforeRestore, Verdict::Unknown);
    s.run(890);
    assert_eq!((s.needs("db"), s.blocks("db")), (None, vec!["GateUnknown: images".to_owned()]));
    s.run(30);
    assert_eq!(s.needs("db"), Some("GateUnknown"));
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.run(60);
    assert_eq!((s.needs("db"), s.stage("db")), (None, Stage::Recovered));
}

#[test]
fn service_that_waits_for_a_person_gives_its_slot_back() {
    for (verdict, reason) in [(Verdict::Fail, "GateFailed"), (Verdict::Unknown, "GateUnknown")] {
        let top = "incidentRef: {name: nov}\nmaxParallel: 1";
        let mut s = Story::of(plan_with(top, "- {name: first, tier: 0}\n- {name: second, tier: 1}"));
        s.says("first", Phase::BeforeRestore, verdict);
        s.run(10);
        assert_eq!(s.blocks("second"), ["Slot: maxParallel"]);
        s.run(1_200);
        assert_eq!((s.needs("first"), s.stage("second")), (Some(reason), Stage::Recovered));
    }
}

#[test]
fn a_gate_opens_only_when_it_has_been_stable() {
    let gates = "{beforeRestore: [{name: steady, workloads: {}, stableFor: 45s}]}";
    let mut s = story(&format!("- {{name: db, gates: {gates}}}"));
    s.run(44);
    assert_eq!(s.stage("db"), Stage::PreChecks);
    s.run(5);
    assert_eq!(s.stage("db"), Stage::Restoring);
}

#[test]
fn a_service_without_gates_never_starts() {
    let mut plan = plan("- {name: db}\n- {name: other}");
    plan.services[0].gates.clear();
    let mut s = Story::of(plan);
    s.run(600);
    assert_eq!(
        (s.stage("db"), s.isolation("db")),
        (Stage::PreChecks, Isolation::Contained),
        "empty is not passed"
    );
    assert_eq!(s.stage("other"), Stage::Recovered);
}

#[test]
fn gate_that_no_longer_passes_keeps_the_service_sealed() {
    for verdict in [Verdict::Unknown, Verdict::Fail] {
        let gates = "{beforeRestore: [{name: quick, workloads: {}, interval: 100ms}]}";
        let mut s = story(&format!("- {{name: db, gates: {gates}}}"));
        s.run(1);
        assert_eq!((s.stage("db"), s.asked("db")), (Stage::Restoring, vec![Isolation::Sealed]));
        s.says("db", Phase::BeforeRestore, verdict);
        s.run(60);
        assert_eq!(
            (s.isolation("db"), s.asked("db")),
            (Isolation::Sealed, vec![Isolation::Sealed]),
            "{verdict:?}"
        );
        assert_eq!(s.steps_begun("db"), 0);
    }
}

#[test]
fn exceptions_of_gates_that_passed_end_in_the_recovery() {
    let mut s = story("- {name: db}");
    let key = GateKey { phase: Phase::BeforeRelease, name: "up".into() };
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    assert_eq!(s.stage("db"), Stage::PostChecks);
    let mut state = s.seen("db").gates[&key].clone();
    state.exceptions = vec!["Deployment db/db, container c: by tag".to_owned(), "x".repeat(700)];
    s.seen("db").gates.insert(key.clone(), state.clone());
    let held = look_at(&s.world.plan, &s.world.seen, 0);
    assert_eq!((held.status.stage, held.status.exceptions.len()), (Stage::PostChecks, 0), "not passed yet");
    (state.verdict, state.unsettled) = (Verdict::Pass, None);
    s.seen("db").gates.insert(key, state.clone());
    let passed = look_at(&s.world.plan, &s.world.seen, 0);
    assert_eq!(passed.status.stage, Stage::Reconnecting);
    assert_eq!(passed.status.exceptions[0], state.exceptions[0]);
    assert!((590..=600).contains(&passed.status.exceptions[1].len()), "bounded as in the schema");
    // They stay with the attempt, and it ends with them.
    s.seen("db").status.exceptions = passed.status.exceptions;
    s.says("db", Phase::BeforeRelease, Verdict::Pass);
    s.run(60);
    assert_eq!(s.condition("db", RECOVERED).1, "WithExceptions");
    assert!(s.condition("db", RECOVERED).2.contains("by tag"));
}
