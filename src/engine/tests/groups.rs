//! `together`: in together, out together, one failure holds all.

use k8s_openapi::jiff::Timestamp;

use super::story::{Story, plan_with, story};
use crate::api::{Isolation, Phase, Stage, Verdict};
use crate::engine::{Effect, Presence, Refusal, StepOutcome};

const CORE: &str = "- {name: dns, together: core}\n- {name: idp, together: core}";

#[test]
fn members_enter_the_clean_room_only_when_all_pass() {
    let mut s = story(CORE);
    s.says("idp", Phase::BeforeRestore, Verdict::Unknown);
    s.run(300);
    assert_eq!((s.stage("dns"), s.asked("dns")), (Stage::PreChecks, vec![]));
    assert_eq!(s.blocks("dns"), ["Together: idp"]);
    s.says("idp", Phase::BeforeRestore, Verdict::Pass);
    s.run(60);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::Recovered, Stage::Recovered));
}

#[test]
fn members_open_only_when_all_pass() {
    let mut s = story(CORE);
    s.says("idp", Phase::BeforeRelease, Verdict::Unknown);
    s.run(300);
    for service in ["dns", "idp"] {
        assert_eq!(
            (s.stage(service), s.isolation(service)),
            (Stage::PostChecks, Isolation::CleanRoom),
            "{service}"
        );
    }
    assert_eq!(s.blocks("dns"), ["Together: idp"]);
    s.says("idp", Phase::BeforeRelease, Verdict::Pass);
    s.run(60);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::Recovered, Stage::Recovered));
}

#[test]
fn one_failure_holds_all_and_each_says_whose() {
    let mut s = story(CORE);
    s.says("idp", Phase::BeforeRelease, Verdict::Fail);
    s.run(300);
    assert_eq!((s.needs("idp"), s.needs("dns")), (Some("GateFailed"), None));
    assert_eq!(s.isolation("dns"), Isolation::CleanRoom);
    assert_eq!(s.status("dns").waiting_for.as_deref(), Some("Together: idp"));
    s.says("idp", Phase::BeforeRelease, Verdict::Pass);
    s.retry("idp");
    s.run(120);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::Recovered, Stage::Recovered));
    assert_eq!((s.status("dns").attempt, s.status("idp").attempt), (1, 2), "only who failed begins again");
}

#[test]
fn no_member_is_claimed_while_another_cannot_be() {
    let mut s = story(CORE);
    let found = s.seen("idp").quarantines[0].found.take();
    s.run(300);
    assert_eq!(s.done("dns"), [Effect::Adopt]);
    assert_eq!(
        (s.blocks("idp"), s.blocks("dns")),
        (vec!["QuarantineMissing: idp".to_owned()], vec!["Together: idp".to_owned()])
    );
    s.seen("idp").quarantines[0].found = found;
    s.run(60);
    assert_eq!(s.stage("dns"), Stage::Recovered);
}

#[test]
fn a_group_waits_for_what_any_member_waits_for_and_takes_one_slot() {
    let top = "incidentRef: {name: nov}\nmaxParallel: 1";
    let mut s = Story::of(plan_with(
        top,
        "- {name: base}\n- {name: dns, together: core}\n- {name: idp, together: core, dependsOn: [base]}",
    ));
    s.run(5);
    assert_eq!(s.blocks("dns"), ["Dependency: base"]);
    s.run(120);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::Recovered, Stage::Recovered));
    assert_eq!(s.reached("dns", Stage::PreChecks), s.reached("idp", Stage::PreChecks));
}

#[test]
fn inner_edges_order_steps_and_nothing_else() {
    let mut s = story("- {name: web, together: core, dependsOn: [db]}\n- {name: db, together: core}");
    s.run(120);
    let step = |s: &Story, service: &str| {
        s.timed(service).into_iter().find(|(_, e)| matches!(e, Effect::Step { .. })).unwrap().0
    };
    assert!(step(&s, "web") >= s.reached("db", Stage::PostChecks));
    assert_eq!(s.reached("web", Stage::Restoring), s.reached("db", Stage::Restoring));
    assert_eq!((s.stage("web"), s.stage("db")), (Stage::Recovered, Stage::Recovered));
}

#[test]
fn members_reach_each_other_in_the_clean_room() {
    let mut s = story(CORE);
    s.run(60);
    let rooms: Vec<Vec<String>> = s
        .done("dns")
        .into_iter()
        .filter_map(|e| match e {
            Effect::Ask { isolation: Isolation::CleanRoom, reachable, .. } => Some(reachable),
            _ => None,
        })
        .collect();
    assert_eq!(rooms, [vec!["dns".to_owned(), "idp".to_owned()]]);
}

#[test]
fn whoever_depends_on_a_member_learns_which_mate_holds_it_up() {
    let mut s = story(&format!("{CORE}\n- {{name: web, dependsOn: [dns]}}"));
    s.says("idp", Phase::BeforeRestore, Verdict::Fail);
    s.run(300);
    let told = &s.status("web").blocked_by[0];
    assert_eq!(told.name, "dns");
    assert!(told.message.starts_with("held up by idp (GateFailed"), "{}", told.message);
}

#[test]
fn a_mate_whose_steps_come_first_and_fail_is_told_as_both() {
    let mut s = story("- {name: web, together: core, dependsOn: [db]}\n- {name: db, together: core}");
    s.steps_end("db", StepOutcome::Failed("no such Deployment".to_owned()));
    s.run(300);
    assert_eq!(s.blocks("web"), ["Steps: db", "Together: db"]);
}

#[test]
fn recovered_members_that_regress_each_say_what_they_are_asked_about_and_no_more() {
    let mut s = story(CORE);
    s.run(60);
    for service in ["dns", "idp"] {
        s.says(service, Phase::Continuous, Verdict::Fail);
    }
    s.world.seen.incident = Presence::Missing;
    s.run(300);
    for service in ["dns", "idp"] {
        assert_eq!(s.blocks(service), ["Regressed: up"], "{service}");
    }
}

#[test]
fn a_mate_that_is_behind_and_refused_is_told_once() {
    let mut s = story(CORE);
    while s.stage("idp") != Stage::Restoring {
        s.run(1);
    }
    let (reason, message) = ("RecoverNotGranted".to_owned(), "may not".to_owned());
    s.seen("idp").refused = Some(Refusal { reason, message, again_at: Timestamp::MAX });
    s.run(60);
    assert_eq!((s.stage("dns"), s.stage("idp")), (Stage::PostChecks, Stage::Restoring));
    assert_eq!(s.blocks("dns"), ["Together: idp"]);
}
