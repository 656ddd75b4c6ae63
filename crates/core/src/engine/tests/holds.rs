//! Somebody on call holds a namespace: no recovery moves it, none goes on where it stood, and dependents wait.

use super::story::{Story, story};
use super::{Look, look_at};
use crate::api::Reason;
use crate::api::conditions::{NEEDS_DECISION, RECOVERED};
use crate::api::{Isolation, Phase, Stage, Verdict};
use crate::engine::QuarantineState;

/// As the Quarantine controller does: at the level held, and the claim overruled.
fn hold(s: &mut Story, service: &str, level: Isolation) {
    let quarantine = s.quarantine(service);
    (quarantine.hold, quarantine.isolation, quarantine.overruled) = (Some(level), Some(level), true);
}

/// `db` is recovered, and held.
fn held() -> Story {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.quarantine("web").ready = false;
    s.run(60);
    assert_eq!((s.stage("db"), s.stage("web")), (Stage::Recovered, Stage::Isolated));
    hold(&mut s, "db", Isolation::Contained);
    s.quarantine("web").ready = true;
    s.run(60);
    s
}

#[test]
fn held_service_names_who_can_end_the_hold() {
    let mut s = held();
    assert_eq!((s.needs("db"), s.stage("db")), (Some("Held"), Stage::Recovered));
    assert_eq!((s.stage("web"), s.status("web").waiting_for.as_deref()), (Stage::Isolated, Some("db")));
    assert_eq!(s.condition("db", RECOVERED).0, "False");
    let (_, reason, message) = s.condition("db", NEEDS_DECISION);
    assert_eq!(reason, "Held");
    assert!(
        message.contains("who may release quarantines/db ends that by taking spec.hold away"),
        "{message}"
    );
    assert!(!message.contains("Decision"), "none would help: {message}");
    s.retry("db");
    s.run(60);
    assert_eq!((s.status("db").attempt, s.needs("db")), (1, Some("Held")), "no Decision moves it");
}

#[test]
fn once_a_hold_ends_a_retry_leads_through_a_whole_new_attempt() {
    let mut s = held();
    s.quarantine("db").hold = None;
    s.run(600);
    assert_eq!((s.needs("db"), s.isolation("db")), (Some("IsolatedAgain"), Isolation::Contained));
    assert_eq!(s.stage("web"), Stage::Isolated);
    s.says("db", Phase::BeforeRestore, Verdict::Unknown);
    s.retry("db");
    s.quarantine("db").overruled = false;
    s.run(60);
    assert_eq!((s.stage("db"), s.isolation("db")), (Stage::PreChecks, Isolation::Contained), "asked afresh");
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.run(60);
    assert_eq!(
        (s.stage("db"), s.stage("web"), s.status("db").attempt),
        (Stage::Recovered, Stage::Recovered, 2)
    );
    let way = [Isolation::Sealed, Isolation::CleanRoom, Isolation::Open];
    assert_eq!(s.asked("db"), [way, way].concat());
}

#[test]
fn held_attempt_starts_over() {
    let mut s = story("- {name: db}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(20);
    assert_eq!((s.stage("db"), s.isolation("db")), (Stage::PostChecks, Isolation::CleanRoom));
    hold(&mut s, "db", Isolation::Sealed);
    s.says("db", Phase::BeforeRelease, Verdict::Pass);
    s.run(60);
    assert_eq!((s.needs("db"), s.stage("db")), (Some("Held"), Stage::PostChecks));
    s.quarantine("db").hold = None;
    s.run(600);
    assert_eq!(s.needs("db"), Some("IsolatedAgain"));
    assert!(!s.asked("db").contains(&Isolation::Open));
    s.retry("db");
    s.quarantine("db").overruled = false;
    s.run(60);
    assert_eq!((s.stage("db"), s.status("db").attempt, s.steps_begun("db")), (Stage::Recovered, 2, 2));
}

#[test]
fn nothing_begins_in_what_is_held_and_it_begins_by_itself_after() {
    let mut s = story("- {name: db}");
    s.quarantine("db").hold = Some(Isolation::Contained);
    s.run(60);
    assert_eq!((s.needs("db"), s.stage("db"), s.asked("db").len()), (Some("Held"), Stage::Isolated, 0));
    s.quarantine("db").hold = None;
    s.run(60);
    assert_eq!((s.stage("db"), s.status("db").attempt), (Stage::Recovered, 1));
}

/// One look at a service at this stage, whose Quarantine was changed so.
fn at(stage: Stage, change: impl FnOnce(&mut QuarantineState)) -> Look {
    let mut s = story("- {name: db}");
    s.run(60);
    s.seen("db").status.stage = stage;
    change(s.quarantine("db"));
    look_at(&s.world.plan, &s.world.seen, 0)
}

#[test]
fn held_service_evaluates_gates_only_once_recovered() {
    for (stage, asks) in [(Stage::PreChecks, false), (Stage::PostChecks, false), (Stage::Recovered, true)] {
        let decided = at(stage, |found| found.hold = Some(Isolation::Sealed));
        assert_eq!(decided.status.decision.map(|decision| decision.reason), Some(Reason::Held), "{stage:?}");
        assert_eq!(!decided.ask.is_empty(), asks, "{stage:?}");
    }
}

#[test]
fn a_hold_that_has_ended_counts_only_for_what_was_under_way() {
    for (stage, asked) in [
        (Stage::Isolated, None),
        (Stage::PreChecks, Some(Reason::IsolatedAgain)),
        (Stage::PostChecks, Some(Reason::IsolatedAgain)),
        (Stage::Recovered, None),
    ] {
        let decided = at(stage, |found| found.overruled = true);
        // Open, it is asked about for another reason where it has not begun.
        let reason = decided
            .status
            .decision
            .map(|decision| decision.reason)
            .filter(|reason| *reason != Reason::AlreadyOpen);
        assert_eq!(reason, asked, "{stage:?}");
    }
}
