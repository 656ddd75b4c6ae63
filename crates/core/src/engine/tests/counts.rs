//! What a plan's status says of all its services together.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::story::{Story, plan_with, story};
use crate::api::conditions::{READY, RECONCILING, STALLED, find};
use crate::api::{Phase, RecoveryPlanStatus, Stage, Verdict};
use crate::engine::{is_news, keep_times};

/// `a` is recovered and so was `e`, which regressed; `b` is under way and `d` needs a decision; `c` waits, and `f`, which was under way.
fn all_kinds() -> Story {
    let services = "- {name: a}\n- {name: b}\n- {name: c, dependsOn: [b]}\n- {name: d}\n- {name: e}\n- {name: f, dependsOn: [e]}";
    let mut s = Story::of(plan_with("incidentRef: {name: nov}\nmaxParallel: 6", services));
    s.world.plan.generation = Some(7);
    s.says("b", Phase::BeforeRestore, Verdict::Unknown);
    s.says("d", Phase::BeforeRestore, Verdict::Fail);
    s.says("f", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    s.says("e", Phase::Continuous, Verdict::Fail);
    s.run(60);
    assert_eq!((s.stage("f"), s.needs("f"), s.needs("e")), (Stage::PostChecks, None, Some("Regressed")));
    s
}

fn message(s: &Story, type_: &str) -> String {
    find(&s.world.status.conditions, type_).unwrap().message.clone()
}

#[test]
fn each_service_is_counted_as_what_it_is() {
    let s = all_kinds();
    let status = &s.world.status;
    let counts = (status.total, status.recovered, status.running, status.waiting, status.needs_decision);
    assert_eq!(counts, (6, 2, 1, 2, 2));
    assert_eq!(status.progress.as_deref(), Some("2/6"));
    let progress = "2/6 services recovered, 1 running, 2 waiting, 2 need a decision";
    assert_eq!(message(&s, RECONCILING), progress);
    assert_eq!((&status.recovered_at, status.observed_generation), (&None, Some(7)));
}

#[test]
fn plan_is_stalled_once_nothing_runs_and_names_the_decision() {
    let mut s = all_kinds();
    assert_eq!(s.plan_condition(READY), ("False", "NeedsDecision"));
    assert!(message(&s, READY).starts_with("2 services need a decision: e ("), "{}", message(&s, READY));
    assert_eq!(s.plan_condition(STALLED).0, "");
    s.says("b", Phase::BeforeRestore, Verdict::Fail);
    s.run(60);
    assert_eq!(s.plan_condition(STALLED), ("True", "NeedsDecision"));
    assert!(message(&s, STALLED).starts_with("3 services need a decision: "));
    let mut one = story("- {name: a}");
    one.says("a", Phase::BeforeRestore, Verdict::Fail);
    one.run(60);
    assert!(
        message(&one, READY).starts_with("1 service needs a decision: a (images"),
        "{}",
        message(&one, READY)
    );
}

#[test]
fn root_blockers_are_ordered_by_the_services_they_hold_up() {
    let s = all_kinds();
    let told: Vec<_> =
        s.world.status.blocked_by.iter().map(|b| (b.name.as_str(), b.reason.as_str(), b.holds)).collect();
    assert_eq!(told, [("e", "Regressed", 1), ("d", "GateFailed", 0)]);
    assert!(s.world.status.blocked_by.iter().all(|blocker| blocker.since.is_some()));
}

#[test]
fn plan_starts_with_its_first_claim_and_ends_with_last_service() {
    let mut s = story("- {name: a}\n- {name: b, dependsOn: [a]}");
    s.run(120);
    let claimed = s.status("a").claimed_at.clone().unwrap();
    let recovered = s.status("b").recovered_at.clone();
    assert!(recovered.as_ref().unwrap().0 > s.status("a").recovered_at.as_ref().unwrap().0);
    assert_eq!(
        (s.world.status.started_at.as_ref(), &s.world.status.recovered_at),
        (Some(&claimed), &recovered)
    );
    // The next attempt of one of them does not begin the plan anew.
    s.says("a", Phase::Continuous, Verdict::Fail);
    s.run(60);
    s.says("a", Phase::BeforeRestore, Verdict::Unknown);
    s.retry("a");
    s.run(60);
    assert!(s.status("a").claimed_at.as_ref().unwrap().0 > claimed.0);
    assert_eq!((s.world.status.started_at.as_ref(), &s.world.status.recovered_at), (Some(&claimed), &None));
}

#[test]
fn transition_time_changes_only_with_the_status() {
    let mut before = all_kinds().world.status.clone();
    for condition in &mut before.conditions {
        condition.last_transition_time = Time(Timestamp::UNIX_EPOCH);
    }
    let mut now = all_kinds().world.status.clone();
    let at =
        |status: &RecoveryPlanStatus, type_| find(&status.conditions, type_).unwrap().last_transition_time.0;
    now.conditions.iter_mut().find(|condition| condition.type_ == READY).unwrap().status =
        "Unknown".to_owned();
    let ready = at(&now, READY);
    keep_times(&mut now, &before);
    assert_eq!((at(&now, RECONCILING), at(&now, READY)), (Timestamp::UNIX_EPOCH, ready));
    assert!(ready > Timestamp::UNIX_EPOCH);
}

#[test]
fn new_counts_are_no_news_and_what_a_condition_says_is() {
    let before = all_kinds().world.status.clone();
    let news = |change: fn(&mut RecoveryPlanStatus)| {
        let mut now = before.clone();
        change(&mut now);
        is_news(&before, &now)
    };
    assert!(!news(|_| {}));
    assert!(!news(|now| (now.running, now.conditions[0].message) = (5, "5 running".to_owned())));
    assert!(news(|now| now.conditions[0].reason = "Other".to_owned()));
    assert!(news(|now| now.conditions[0].status = "Unknown".to_owned()));
    assert!(news(|now| now.observed_generation = Some(8)));
}
