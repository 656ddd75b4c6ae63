//! What was recovered and is not healthy now: it holds whoever waits for it, and isolates nobody.

use super::story::{Story, story};
use super::{Look, look_at};
use crate::api::Reason;
use crate::api::conditions::{HEALTHY, READY, RECOVERED, find};
use crate::api::service_recovery::StepState;
use crate::api::{Health, Isolation, Phase, Stage, Verdict};
use crate::engine::{ClaimState, Effect, GateKey, GateState, QuarantineState};

/// `db` is recovered; `web`, which waits for it, is held by its Quarantine until the test lets it go.
fn recovered() -> (Story, QuarantineState) {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    let quarantine = s.seen("web").quarantines[0].found.take().unwrap();
    s.run(60);
    assert_eq!((s.stage("db"), s.stage("web")), (Stage::Recovered, Stage::Isolated));
    (s, quarantine)
}

#[test]
fn a_regression_is_fail_past_the_limit_and_holds_dependants() {
    let (mut s, quarantine) = recovered();
    s.says("db", Phase::Continuous, Verdict::Fail);
    s.run(60);
    assert_eq!(s.needs("db"), Some("Regressed"));
    assert_eq!(
        (s.condition("db", RECOVERED).0.as_str(), s.condition("db", HEALTHY).0.as_str()),
        ("True", "False")
    );
    assert_eq!(s.condition("db", READY).0, "False");
    assert_eq!(s.isolation("db"), Isolation::Open, "Hold: it stays open");
    s.seen("web").quarantines[0].found = Some(quarantine);
    s.run(600);
    assert_eq!((s.stage("web"), s.done("web").len()), (Stage::Isolated, 1));
    assert_eq!(s.status("web").waiting_for.as_deref(), Some("db"));
    s.says("db", Phase::Continuous, Verdict::Pass);
    s.run(60);
    assert_eq!(
        (s.needs("db"), s.stage("web")),
        (None, Stage::Recovered),
        "it clears when the gate passes again"
    );
}

#[test]
fn single_fail_or_unknown_holds_dependents_only() {
    for (verdict, reason) in [(Verdict::Fail, "GateFailing"), (Verdict::Unknown, "GateUnknown")] {
        let (mut s, quarantine) = recovered();
        assert_eq!(s.status("web").blocked_by[0].reason, Reason::QuarantineMissing);
        s.says("db", Phase::Continuous, verdict);
        s.run(15);
        let (healthy, why, _) = s.condition("db", HEALTHY);
        assert_eq!((s.needs("db"), healthy.as_str(), why.as_str()), (None, "Unknown", reason));
        s.seen("web").quarantines[0].found = Some(quarantine);
        s.run(5);
        assert_eq!(s.done("web").len(), 1, "{verdict:?}");
        let told = &s.status("web").blocked_by.iter().find(|block| block.name == "db").unwrap().message;
        assert_eq!(told, "recovered, but its continuous gates do not pass just now");
        s.says("db", Phase::Continuous, Verdict::Pass);
        s.run(60);
        assert_eq!(s.stage("web"), Stage::Recovered, "{verdict:?}");
    }
}

/// What the leader before heard counts no more. A gate that has answered says more than one that has not.
#[test]
fn unevaluated_gate_is_distinguished_from_unknown() {
    let gates = "{continuous: [{name: beat, workloads: {}}, {name: pulse, workloads: {}}]}";
    let mut s = story(&format!("- {{name: db, gates: {gates}}}"));
    s.run(60);
    let [beat, pulse] = ["beat", "pulse"].map(|name| GateKey { phase: Phase::Continuous, name: name.into() });
    let passes = s.seen("db").gates[&beat].clone();
    let unknown = |reason: &'static str| {
        let unsettled = [Reason::NotAsked, Reason::Stabilising].into_iter().find(|r| r.as_str() == reason);
        let verdict = Verdict::Unknown;
        Some(GateState { verdict, unsettled, reason, ..passes.clone() })
    };
    let passed = Some(passes.clone());
    let failed = |failed| Some(GateState { verdict: Verdict::Fail, failed, ..passes.clone() });
    for (of_beat, of_pulse, told, health) in [
        (passed.clone(), passed.clone(), ("True", "GatesPass"), Health::Healthy),
        (None, passed.clone(), ("Unknown", "NotAsked"), Health::Unknown),
        (unknown("NotAsked"), passed.clone(), ("Unknown", "NotAsked"), Health::Unknown),
        (passed.clone(), unknown("Stabilising"), ("Unknown", "Stabilising"), Health::Unknown),
        (None, unknown("TimedOut"), ("Unknown", "GateUnknown"), Health::Unhealthy),
        (unknown("Stabilising"), failed(false), ("Unknown", "GateFailing"), Health::Unhealthy),
        (None, failed(true), ("False", "GateFailed"), Health::Unhealthy),
    ] {
        let gates = [(&beat, of_beat), (&pulse, of_pulse)];
        let answered = gates.into_iter().filter_map(|(key, state)| Some((key.clone(), state?)));
        s.seen("db").gates = answered.collect();
        for busy in [true, false] {
            s.seen("db").busy = busy;
            let decided = look_at(&s.world.plan, &s.world.seen, 0);
            assert_eq!(decided.health, health, "{told:?}, busy: {busy}");
            let healthy = find(&decided.status.conditions, HEALTHY).unwrap();
            assert!(busy || (healthy.status.as_str(), healthy.reason.as_str()) == told, "{healthy:?}");
        }
    }
}

/// A failover is no mending.
#[test]
fn failed_gate_is_unhealthy_until_evaluated_again() {
    let (mut s, _) = recovered();
    s.says("db", Phase::Continuous, Verdict::Fail);
    s.run(60);
    let failed = s.condition("db", HEALTHY);
    let gates = std::mem::take(&mut s.seen("db").gates);
    let decided = look_at(&s.world.plan, &s.world.seen, 0);
    let healthy = find(&decided.status.conditions, HEALTHY).unwrap();
    assert_eq!((healthy.status.clone(), healthy.reason.clone(), healthy.message.clone()), failed);
    assert_eq!((failed.0.as_str(), decided.health), ("False", Health::Unhealthy));
    s.seen("db").gates = gates;
    s.says("db", Phase::Continuous, Verdict::Pass);
    s.run(60);
    assert_eq!(s.condition("db", HEALTHY).0, "True");
}

#[test]
fn unknown_never_isolates_a_service_and_asks_once_overdue() {
    let (mut s, _) = recovered();
    s.says("db", Phase::Continuous, Verdict::Unknown);
    s.run(14 * 60);
    assert_eq!(s.needs("db"), None);
    s.run(2 * 60);
    let open = (Stage::Recovered, Isolation::Open);
    assert_eq!((s.needs("db"), s.stage("db"), s.isolation("db")), (Some("GateUnknown"), open.0, open.1));
    s.says("db", Phase::Continuous, Verdict::Pass);
    s.run(60);
    assert_eq!((s.needs("db"), s.condition("db", HEALTHY).0.as_str()), (None, "True"), "it clears by itself");
}

/// I1 half-way: whatever is under way goes no further, and goes on when the dependency is back.
#[test]
fn regressed_dependency_stops_the_next_step_and_loosening() {
    let services = "- {name: db, gates: {continuous: [{name: beat, workloads: {}, interval: 1s}]}}\n- {name: web, dependsOn: \
                    [db], restore: [{name: one, scale: {}}, {name: two, scale: {}}]}";
    let mut s = story(services);
    while s.steps_begun("web") == 0 {
        s.run(1);
    }
    s.says("db", Phase::Continuous, Verdict::Fail);
    s.run(600);
    assert_eq!(
        (s.steps_begun("web"), s.stage("web"), s.isolation("web")),
        (1, Stage::Restoring, Isolation::CleanRoom)
    );
    assert_eq!(s.status("web").waiting_for.as_deref(), Some("db"));
    s.says("db", Phase::Continuous, Verdict::Pass);
    s.run(60);
    assert_eq!((s.steps_begun("web"), s.stage("web")), (2, Stage::Recovered));

    let mut s = story(services);
    while s.stage("web") != Stage::Restoring {
        s.run(1);
    }
    s.says("db", Phase::Continuous, Verdict::Unknown);
    let asked = s.asked("web");
    s.run(600);
    assert!(s.isolation("web") < Isolation::Open && s.asked("web").len() <= asked.len() + 1);
    assert_eq!(s.steps_begun("web"), 0, "no step without a healthy dependency");
}

#[test]
fn dependants_that_are_recovered_are_not_taken_back() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.run(60);
    s.says("db", Phase::Continuous, Verdict::Fail);
    s.run(600);
    assert_eq!(
        (s.stage("web"), s.isolation("web"), s.needs("web")),
        (Stage::Recovered, Isolation::Open, None)
    );
}

#[test]
fn a_retry_after_a_regression_takes_it_through_its_gates_again() {
    let (mut s, _) = recovered();
    s.says("db", Phase::Continuous, Verdict::Fail);
    s.run(60);
    s.retry("db");
    s.says("db", Phase::Continuous, Verdict::Pass);
    s.run(60);
    assert_eq!((s.stage("db"), s.status("db").attempt), (Stage::Recovered, 2));
    assert_eq!(s.asked("db")[3..], [Isolation::Sealed, Isolation::CleanRoom, Isolation::Open]);
}

#[test]
fn service_isolated_again_reports_it_and_holds_dependents() {
    let (mut s, quarantine) = recovered();
    let of = s.quarantine("db");
    (of.isolation, of.claim) = (Some(Isolation::Contained), ClaimState::Free);
    s.run(1);
    assert_eq!((s.needs("db"), s.condition("db", RECOVERED).0.as_str()), (Some("IsolatedAgain"), "False"));
    s.seen("web").quarantines[0].found = Some(quarantine);
    s.run(600);
    assert_eq!(s.stage("web"), Stage::Isolated);
    assert_eq!(s.isolation("db"), Isolation::Contained, "nothing loosens it without a Decision");
    s.retry("db");
    s.run(120);
    assert_eq!((s.stage("db"), s.stage("web")), (Stage::Recovered, Stage::Recovered));
}

/// I1: by what is seen now, before anybody has written that the dependency is recovered no more.
#[test]
fn dependency_isolated_again_satisfies_no_dependent() {
    let (mut s, quarantine) = recovered();
    s.seen("web").quarantines[0].found = Some(quarantine);
    s.quarantine("db").isolation = Some(Isolation::Contained);
    let web = look_at(&s.world.plan, &s.world.seen, s.id("web"));
    // What is required of it is put on record, as its Quarantine is there since now. Nothing else is begun.
    assert_eq!(web.status.stage, Stage::Isolated);
    assert!(matches!(web.effect, Some(crate::engine::Effect::Accept { .. })), "{:?}", web.effect);
    assert_eq!(s.condition("db", RECOVERED).0, "True", "as written");
}

/// The Quarantine is deleted and made anew half-way: nothing goes on with one that nobody claimed, and a retry claims it.
#[test]
fn claim_lost_during_recovery_needs_a_decision() {
    let mut s = story("- {name: db}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    assert_eq!(s.stage("db"), Stage::PostChecks);
    s.says("db", Phase::BeforeRelease, Verdict::Pass);
    let quarantine = s.quarantine("db");
    (quarantine.claim, quarantine.isolation) = (ClaimState::Free, Some(Isolation::Contained));
    s.run(60);
    assert_eq!((s.needs("db"), s.stage("db")), (Some("ClaimLost"), Stage::PostChecks));
    assert!(!s.asked("db").contains(&Isolation::Open));
    s.retry("db");
    s.run(60);
    assert_eq!((s.stage("db"), s.status("db").attempt), (Stage::Recovered, 2));
}

/// Steps are told apart by their place: one that came in between must neither pass for done nor be left out.
#[test]
fn steps_that_change_while_they_are_carried_out_need_a_decision() {
    let mut s = story("- {name: db, restore: [{name: one, scale: {}}, {name: two, scale: {}}]}");
    while s.steps_begun("db") == 0 {
        s.run(1);
    }
    let added = s.world.plan.services[0].steps[0].clone();
    s.world.plan.services[0].steps.insert(0, crate::api::StepSpec { name: "zero".to_owned(), ..added });
    s.run(60);
    assert_eq!((s.needs("db"), s.stage("db")), (Some("StepsChanged"), Stage::Restoring));
    s.retry("db");
    s.run(60);
    let names: Vec<_> = s.status("db").steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!((s.stage("db"), names), (Stage::Recovered, vec!["zero", "one", "two"]));
}

/// One look at `web` under way, while `db`, which it stands on, is in doubt or not.
fn under_way(stage: Stage, step: StepState, in_doubt: bool) -> Look {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.says("web", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    let of = s.seen("web");
    (of.status.stage, of.status.steps[0].state) = (stage, step);
    of.steps.clear();
    of.gates.values_mut().for_each(|state| state.verdict = Verdict::Pass);
    let verdict = if in_doubt { Verdict::Unknown } else { Verdict::Pass };
    s.seen("db").gates.values_mut().for_each(|state| state.verdict = verdict);
    let id = s.id("web");
    look_at(&s.world.plan, &s.world.seen, id)
}

/// I1: by the engine alone, before anybody reads anything live.
#[test]
fn nothing_advances_while_a_dependency_is_not_healthy() {
    for step in [StepState::Pending, StepState::Running] {
        let decided = under_way(Stage::Restoring, step, false);
        assert!(matches!(decided.effect, Some(Effect::Step { .. })), "{step:?}: {:?}", decided.effect);
        let decided = under_way(Stage::Restoring, step, true);
        assert_eq!((decided.effect, decided.status.steps[0].state), (None, step));
    }
    for (in_doubt, stage) in [(false, Stage::Reconnecting), (true, Stage::PostChecks)] {
        let decided = under_way(Stage::PostChecks, StepState::Done, in_doubt);
        assert_eq!(decided.status.stage, stage);
    }
    let opens = |in_doubt| under_way(Stage::Reconnecting, StepState::Done, in_doubt).effect;
    assert!(matches!(opens(false), Some(Effect::Ask { isolation: Isolation::Open, .. })));
    assert_eq!(opens(true), None);
}
