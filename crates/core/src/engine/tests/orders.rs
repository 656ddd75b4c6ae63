//! `Hold`, `Unhold` and `Abort`: what people order without being asked.

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
