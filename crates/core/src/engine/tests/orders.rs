//! `Hold`, `Unhold` and `Abort`: what people order without being asked.

use super::look_at;
use super::story::story;
use crate::api::{Action, Isolation, Phase, Stage, Verdict};

#[test]
fn held_service_stays_where_it_is_until_unhold() {
    let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    story.run(1);
    story.orders("web", Action::Hold);
    story.run(30);
    assert_eq!((story.stage("db"), story.stage("web")), (Stage::Recovered, Stage::Isolated));
    assert_eq!(story.needs("web"), Some("OnHold"));
    insta::assert_snapshot!(story.question("web"), @"web: on hold by wren since 1970-01-01T00:00:01Z (Decision d0): put back the approved version. A recovery lead can clear it with a Decision: Unhold");
    story.answers("web", Action::Unhold);
    story.run(30);
    assert_eq!(story.stage("web"), Stage::Recovered);
    assert_eq!(story.needs("web"), None);
    // The same Decision does not hold it again.
    story.run(60);
    assert_eq!(story.status("web").standing_orders.as_ref().unwrap().number, 1);
}

#[test]
fn hold_in_the_clean_room_starts_and_opens_nothing() {
    let mut story = story("- {name: db}");
    story.says("db", Phase::BeforeRelease, Verdict::Unknown);
    story.run(20);
    assert_eq!(story.stage("db"), Stage::PostChecks);
    story.orders("db", Action::Hold);
    story.says("db", Phase::BeforeRelease, Verdict::Pass);
    story.run(60);
    assert_eq!((story.stage("db"), story.isolation("db")), (Stage::PostChecks, Isolation::CleanRoom));
    story.answers("db", Action::Unhold);
    story.run(30);
    assert_eq!(story.stage("db"), Stage::Recovered);
}

#[test]
fn held_recovered_service_keeps_serving_its_dependents() {
    let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    story.says("web", Phase::BeforeRestore, Verdict::Unknown);
    story.run(20);
    story.orders("db", Action::Hold);
    story.run(10);
    assert_eq!((story.stage("db"), story.needs("db")), (Stage::Recovered, Some("OnHold")));
    story.says("web", Phase::BeforeRestore, Verdict::Pass);
    story.run(30);
    assert_eq!(story.stage("web"), Stage::Recovered);
}

#[test]
fn abort_isolates_at_once_whatever_the_service_is_doing() {
    for (stage, seconds) in [(Stage::PostChecks, 20), (Stage::Recovered, 20)] {
        let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
        if stage == Stage::PostChecks {
            story.says("db", Phase::BeforeRelease, Verdict::Unknown);
        }
        story.run(seconds);
        assert_eq!(story.stage("db"), stage);
        story.orders("db", Action::Abort);
        story.run(1);
        assert_eq!(story.condition("db", "Recovered").0, "False", "{stage:?}");
        story.run(5);
        assert_eq!(story.isolation("db"), Isolation::Sealed, "{stage:?}");
        let status = story.status("db").clone();
        assert_eq!((status.stage, status.attempt), (Stage::Isolated, 2));
        assert_eq!(story.needs("db"), Some("OnHold"));
        assert_eq!(status.history[0].reason, "Aborted");
        story.run(120);
        assert_eq!(story.isolation("db"), Isolation::Sealed, "it stays so until somebody decides");
        story.says("db", Phase::BeforeRelease, Verdict::Pass);
        story.answers("db", Action::Unhold);
        story.run(60);
        assert_eq!(story.stage("db"), Stage::Recovered);
    }
}

#[test]
fn abort_takes_back_a_clean_room_on_its_way() {
    let mut story = story("- {name: db}");
    story.run(2);
    assert_eq!(story.asked("db"), [Isolation::Sealed, Isolation::CleanRoom]);
    assert_eq!(story.isolation("db"), Isolation::Sealed, "it is on its way");
    story.orders("db", Action::Abort);
    story.run(60);
    assert_eq!(story.asked("db"), [Isolation::Sealed, Isolation::CleanRoom, Isolation::Sealed]);
    assert_eq!((story.isolation("db"), story.status("db").attempt), (Isolation::Sealed, 2));
}

#[test]
fn abort_isolates_what_an_earlier_attempt_has_opened() {
    let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    story.run(60);
    story.says("db", Phase::Continuous, Verdict::Fail);
    story.says("web", Phase::Continuous, Verdict::Fail);
    story.run(120);
    story.answers("web", Action::Retry);
    story.run(30);
    assert_eq!((story.stage("web"), story.isolation("web")), (Stage::Isolated, Isolation::Open));
    story.orders("web", Action::Abort);
    story.run(30);
    assert_eq!((story.isolation("web"), story.status("web").attempt), (Isolation::Sealed, 3));
}

#[test]
fn abort_of_what_nobody_claimed_says_that_it_is_open() {
    let mut story = story("- {name: db}");
    story.quarantine("db").isolation = Some(Isolation::Open);
    story.run(10);
    assert_eq!(story.needs("db"), Some("AlreadyOpen"));
    story.orders("db", Action::Abort);
    story.run(60);
    assert_eq!((story.status("db").attempt, story.blocks("db")), (1, vec!["ClaimLost: db".to_owned()]));
    insta::assert_snapshot!(story.status("db").blocked_by[0].message, @"namespace db is open, and not claimed by this service: isolate it by spec.hold of its Quarantine, with resurgam quarantine db");
    // On-call isolates it.
    story.quarantine("db").isolation = Some(Isolation::Contained);
    story.run(10);
    assert_eq!((story.status("db").attempt, story.needs("db")), (2, Some("OnHold")));
}

#[test]
fn held_recovered_member_is_named_by_those_who_wait_for_it() {
    let mut story = story("- {name: db, together: core}\n- {name: dns, together: core}");
    story.says("dns", Phase::BeforeRelease, Verdict::Unknown);
    story.run(30);
    story.seen("db").status.stage = Stage::Recovered;
    story.quarantine("db").isolation = Some(Isolation::Open);
    story.run(10);
    story.orders("db", Action::Hold);
    story.run(30);
    assert_eq!((story.stage("db"), story.needs("db")), (Stage::Recovered, Some("OnHold")));
    assert!(story.blocks("dns").contains(&"WaitingForGroup: db".to_owned()), "{:?}", story.blocks("dns"));
    assert_eq!(story.status("dns").held_up_by.as_deref(), Some("db"));
}

#[test]
fn gates_of_a_recovered_service_are_asked_while_it_is_held() {
    let mut story = story("- {name: db}");
    story.run(60);
    story.orders("db", Action::Hold);
    let look = look_at(&story.world.plan, &story.world.seen, 0);
    assert!(look.write && look.ask.contains(&Phase::Continuous), "{:?}", look.ask);
    story.orders("db", Action::Abort);
    let look = look_at(&story.world.plan, &story.world.seen, 0);
    assert!(look.status.isolating.is_some() && look.ask.is_empty(), "{:?}", look.ask);
}

#[test]
fn abort_takes_precedence_over_a_question_and_needs_no_slot() {
    let mut story = super::story::Story::of(super::story::plan_with(
        "incidentRef: {name: nov}\nmaxParallel: 1",
        "- {name: db}\n- {name: web}",
    ));
    story.says("db", Phase::BeforeRelease, Verdict::Fail);
    story.says("web", Phase::BeforeRelease, Verdict::Unknown);
    story.run(120);
    assert_eq!(story.needs("db"), Some("GateFailed"));
    assert_eq!(story.isolation("db"), Isolation::CleanRoom);
    story.orders("db", Action::Abort);
    story.run(5);
    assert_eq!(story.isolation("db"), Isolation::Sealed);
}

#[test]
fn order_with_an_outdated_digest_has_no_effect() {
    let mut story = story("- {name: db}");
    story.says("db", Phase::BeforeRestore, Verdict::Unknown);
    story.run(5);
    let digest = story.status("db").standing_orders.as_ref().unwrap().digest.clone();
    story.decide("db", Action::Hold, &digest);
    story.run(5);
    story.answers("db", Action::Unhold);
    story.run(5);
    assert_eq!(story.needs("db"), None);
    story.decide("db", Action::Abort, &digest);
    story.run(20);
    assert_eq!((story.needs("db"), story.status("db").attempt), (None, 1));
}
