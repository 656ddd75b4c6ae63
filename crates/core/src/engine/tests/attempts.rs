//! Decisions, failed steps, and plans made anew: what begins another attempt, and what does not.

use super::story::{Story, story};
use crate::api::Reason;
use crate::api::service_recovery::StepState;
use crate::api::{Isolation, Phase, Stage, Verdict};
use crate::engine::{ClaimState, Effect, Refusal, StepProgress};

fn failed_before_restore() -> Story {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.says("db", Phase::BeforeRestore, Verdict::Fail);
    s.run(60);
    assert_eq!(s.needs("db"), Some("GateFailed"));
    s
}

#[test]
fn matching_retry_starts_an_attempt_that_proves_all_again() {
    let mut s = failed_before_restore();
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.retry("db");
    s.run(120);
    assert_eq!(
        (s.stage("db"), s.stage("web"), s.status("db").attempt),
        (Stage::Recovered, Stage::Recovered, 2)
    );
    let past = &s.status("db").history[0];
    assert_eq!((past.attempt, past.stage, past.reason.as_str()), (1, Stage::PreChecks, "GateFailed"));
    assert!(past.message.contains("wren") && past.message.contains("put back the approved version"));
    let claims: Vec<_> = s.done("db").into_iter().filter(|e| matches!(e, Effect::Claim { .. })).collect();
    assert_eq!(claims, [Effect::Claim { attempt: 1 }, Effect::Claim { attempt: 2 }]);
}

#[test]
fn next_attempt_starts_without_the_previous_blockers() {
    let mut s = failed_before_restore();
    s.says("db", Phase::BeforeRestore, Verdict::Unknown);
    s.retry("db");
    s.run(30);
    assert_eq!((s.status("db").attempt, s.blocks("db")), (2, vec!["GateUnknown: images".to_owned()]));
}

#[test]
fn retry_that_fails_again_needs_another_decision() {
    let mut s = failed_before_restore();
    let first = s.status("db").decision.clone().unwrap().digest;
    s.retry("db");
    s.run(60);
    assert_eq!((s.status("db").attempt, s.needs("db")), (2, Some("GateFailed")));
    assert_ne!(s.status("db").decision.clone().unwrap().digest, first, "it would be cleared for ever after");
    s.run(600);
    assert_eq!(s.status("db").attempt, 2);
}

#[test]
fn a_decision_on_something_else_has_no_effect() {
    let mut s = failed_before_restore();
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.decide_on("db", &format!("sha256:{}", "0".repeat(64)));
    s.run(600);
    assert_eq!((s.status("db").attempt, s.needs("db")), (1, Some("GateFailed")));
}

#[test]
fn failed_step_needs_a_decision_and_its_retry_seals_again() {
    let mut s = story("- {name: db}");
    s.steps_end("db", StepProgress::Failed("recovery may not patch deployments/scale in db".to_owned()));
    s.run(60);
    assert_eq!(
        (s.needs("db"), s.stage("db"), s.isolation("db")),
        (Some("StepFailed"), Stage::Restoring, Isolation::CleanRoom)
    );
    let step = &s.status("db").steps[0];
    assert_eq!(step.state, StepState::Failed);
    assert!(s.status("db").blocked_by[0].message.contains("may not patch deployments/scale"));
    s.steps_end("db", StepProgress::Succeeded);
    s.run(600);
    assert_eq!(s.steps_begun("db"), 1, "nothing is tried before somebody decides");
    s.retry("db");
    s.run(60);
    assert_eq!((s.stage("db"), s.status("db").attempt), (Stage::Recovered, 2));
    assert_eq!(
        s.asked("db"),
        [Isolation::Sealed, Isolation::CleanRoom, Isolation::Sealed, Isolation::CleanRoom, Isolation::Open]
    );
}

#[test]
fn step_is_retried_at_its_retry_time_and_not_earlier() {
    let mut s = story("- {name: db}");
    let at = s.world.seen.now.checked_add(k8s_openapi::jiff::SignedDuration::from_secs(40)).unwrap();
    s.steps_end(
        "db",
        StepProgress::Retry {
            message: "deployment db is not there yet".to_owned(),
            at,
            since: at,
            denied: false,
        },
    );
    s.run(30);
    assert_eq!((s.steps_begun("db"), s.blocks("db")), (1, vec!["StepPending: start".to_owned()]));
    assert_eq!(s.needs("db"), None);
    s.steps_end("db", StepProgress::Succeeded);
    s.run(60);
    assert_eq!((s.steps_begun("db"), s.stage("db")), (2, Stage::Recovered));
    let second =
        s.timed("db").into_iter().filter(|(_, e)| matches!(e, Effect::Step { .. })).nth(1).unwrap().0;
    assert!(second >= at);
}

/// The plan is deleted and made again: its UID is another, and so claims of the old one are free.
fn made_anew(s: &mut Story, service: &str) {
    s.world.plan.uid = "uid-2".to_owned();
    s.seen(service).other_plan = Some("uid-1".to_owned());
    s.quarantine(service).claim = ClaimState::Free;
}

#[test]
fn recreated_plan_starts_the_next_attempt_at_the_same_isolation() {
    let mut s = story("- {name: db}");
    s.run(4);
    assert_eq!((s.stage("db"), s.isolation("db")), (Stage::Restoring, Isolation::CleanRoom));
    let before = s.isolation("db");
    made_anew(&mut s, "db");
    s.run(4);
    assert_eq!((s.status("db").attempt, s.status("db").history[0].reason.as_str()), (2, "PlanReplaced"));
    assert!(s.isolation("db") <= before);
    s.run(60);
    assert_eq!((s.stage("db"), s.status("db").attempt), (Stage::Recovered, 2));
}

#[test]
fn recreated_plan_starts_an_attempt_of_waiting_services_too() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(30);
    assert_eq!((s.stage("web"), s.status("web").attempt), (Stage::Isolated, 1));
    made_anew(&mut s, "web");
    s.run(4);
    assert_eq!((s.stage("web"), s.status("web").attempt), (Stage::Isolated, 2));
}

#[test]
fn every_recreated_plan_begins_its_own_attempt() {
    let mut s = story("- {name: db}");
    s.run(4);
    for attempt in [2, 3] {
        assert_ne!(s.stage("db"), Stage::Isolated, "it has been begun");
        made_anew(&mut s, "db");
        s.run(4);
        let status = s.status("db");
        assert_eq!((status.attempt, status.history[0].reason.as_str()), (attempt, "PlanReplaced"));
    }
}

#[test]
fn adoption_that_is_denied_repeatedly_begins_one_attempt() {
    let mut s = story("- {name: db}");
    s.run(4);
    made_anew(&mut s, "db");
    for _ in 0..5 {
        let again_at =
            s.world.seen.now.checked_add(k8s_openapi::jiff::SignedDuration::from_secs(10)).unwrap();
        s.seen("db").busy = false;
        s.seen("db").other_plan = Some("uid-1".to_owned());
        s.seen("db").refused = Some(Refusal {
            reason: Reason::Conflict,
            message: "written by another".into(),
            again_at,
            since: None,
        });
        s.run(5);
    }
    assert_eq!(s.status("db").attempt, 2);
    assert!(s.blocks("db").contains(&"Conflict: db".to_owned()));
}

#[test]
fn recreated_plan_leaves_recovered_services_unchanged() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.run(60);
    made_anew(&mut s, "db");
    s.run(60);
    assert_eq!(
        (s.stage("db"), s.status("db").attempt, s.isolation("db")),
        (Stage::Recovered, 1, Isolation::Open)
    );
    assert_eq!(s.done("db").last(), Some(&Effect::Adopt));
}

#[test]
fn history_is_bounded() {
    let mut s = failed_before_restore();
    for _ in 0..25 {
        s.retry("db");
        s.run(60);
    }
    assert_eq!((s.status("db").attempt, s.status("db").history.len()), (26, 20));
    assert_eq!(s.status("db").history[0].attempt, 25);
}

/// Unknown never seals anything: an open namespace of which this plan knows nothing is sealed only when somebody says so.
#[test]
fn open_service_is_not_stopped_without_a_decision() {
    let mut s = story("- {name: db}");
    s.quarantine("db").isolation = Some(Isolation::Open);
    s.run(600);
    assert_eq!(
        (s.needs("db"), s.stage("db"), s.asked("db").len()),
        (Some("AlreadyOpen"), Stage::Isolated, 0)
    );
    s.retry("db");
    s.run(60);
    assert_eq!((s.stage("db"), s.status("db").attempt), (Stage::Recovered, 2));
    assert_eq!(s.asked("db"), [Isolation::Sealed, Isolation::CleanRoom, Isolation::Open]);
}
