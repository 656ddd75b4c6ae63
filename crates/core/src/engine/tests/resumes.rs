//! CronJobs and Jobs that come back with their service.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::story::{Story, story};
use super::{Look, look_at};
use crate::api::Reason;
use crate::api::service_recovery::ResumeState;
use crate::api::{Isolation, Phase, Stage, Verdict};
use crate::engine::{Asked, Effect, GateKey, Refusal, Room, ServiceObservation};

const ONE: &str = "- {name: db, resume: [{cronJob: nightly}, {job: import}]}\n- {name: web, dependsOn: [db]}";

fn states(s: &Story, service: &str) -> Vec<ResumeState> {
    s.status(service).resumes.iter().map(|entry| entry.state).collect()
}

fn count(s: &Story, service: &str, is: impl Fn(&Effect) -> bool) -> usize {
    s.done(service).iter().filter(|effect| is(effect)).count()
}

fn resumed(s: &Story, service: &str) -> usize {
    count(s, service, |effect| matches!(effect, Effect::Resume { .. }))
}

fn looked(s: &Story, service: &str) -> usize {
    count(s, service, |effect| matches!(effect, Effect::LookAtSuspended { .. }))
}

#[test]
fn clean_room_shows_the_forecast_and_resumes_nothing() {
    let mut s = story(ONE);
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(600);
    assert_eq!((s.stage("db"), s.isolation("db")), (Stage::PostChecks, Isolation::CleanRoom));
    assert_eq!(states(&s, "db"), [ResumeState::Due, ResumeState::Due]);
    assert_eq!((looked(&s, "db"), resumed(&s, "db")), (1, 0), "looked at once");
}

#[test]
fn named_jobs_are_resumed_once_and_read_only_if_named() {
    let mut s = story(ONE);
    s.run(600);
    assert_eq!(states(&s, "db"), [ResumeState::Resumed, ResumeState::Resumed]);
    assert_eq!(resumed(&s, "db"), 1);
    let at = |of: fn(&Effect) -> bool| s.timed("db").into_iter().find(|(_, effect)| of(effect)).unwrap().0;
    let opened = at(|e| matches!(e, Effect::Ask { isolation: Isolation::Open, .. }));
    assert!(at(|e| matches!(e, Effect::LookAtSuspended { .. })) < opened, "shown before it opens");
    assert!(at(|e| matches!(e, Effect::Resume { .. })) > opened);
    assert_eq!((looked(&s, "web"), resumed(&s, "web")), (0, 0));
}

#[test]
fn service_opens_only_after_the_forecast_was_read() {
    let mut s = story("- {name: db, resume: [{cronJob: nightly}]}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    // The operator was restarted: it has looked at nothing.
    s.seen("db").resumes = None;
    s.says("db", Phase::BeforeRelease, Verdict::Pass);
    s.run(600);
    let all = s.done("db");
    let last_look = all.iter().rposition(|e| matches!(e, Effect::LookAtSuspended { .. })).unwrap();
    let open = all.iter().position(|e| matches!(e, Effect::Ask { isolation: Isolation::Open, .. })).unwrap();
    assert!(last_look < open, "{all:?}");
}

#[test]
fn a_crash_in_the_middle_resumes_what_was_intended_and_no_more() {
    let mut s = story("- {name: db, resume: [{cronJob: nightly}]}");
    s.run(600);
    assert_eq!(resumed(&s, "db"), 1);
    // The intent is written, and nobody knows whether it was carried out.
    s.seen("db").status.resumes[0].state = ResumeState::Resuming;
    s.seen("db").resumes.as_mut().unwrap()[0].status.state = ResumeState::Due;
    s.run(60);
    assert_eq!((resumed(&s, "db"), states(&s, "db")), (2, vec![ResumeState::Resumed]));
    // Nothing is resumed just now: the intent stands all the same.
    s.world.plan.suspend = true;
    s.seen("db").status.resumes[0].state = ResumeState::Resuming;
    s.seen("db").resumes.as_mut().unwrap()[0].status.state = ResumeState::Due;
    s.run(60);
    assert_eq!((resumed(&s, "db"), states(&s, "db")), (2, vec![ResumeState::Resuming]));
    s.world.plan.suspend = false;
    s.seen("db").resumes.as_mut().unwrap()[0].status.state = ResumeState::Resumed;
    s.run(60);
    // It was: looking finds it resumed, and nothing is done again.
    s.seen("db").status.resumes[0].state = ResumeState::Resuming;
    s.run(60);
    assert_eq!((resumed(&s, "db"), states(&s, "db")), (2, vec![ResumeState::Resumed]));
}

#[test]
fn nothing_is_resumed_while_service_or_dependency_is_unhealthy() {
    let services = "- {name: dns}\n- {name: db, dependsOn: [dns], resume: [{cronJob: nightly}]}";
    for spoil in ["dns", "db"] {
        let mut s = story(services);
        // Suspended, the plan starts nothing new: time to spoil something once it is open.
        s.says("db", Phase::BeforeRelease, Verdict::Unknown);
        s.run(60);
        s.world.plan.suspend = true;
        s.says("db", Phase::BeforeRelease, Verdict::Pass);
        s.run(120);
        assert_eq!((s.stage("db"), resumed(&s, "db")), (Stage::Recovered, 0), "suspended");
        s.says(spoil, Phase::Continuous, Verdict::Unknown);
        s.run(60);
        s.world.plan.suspend = false;
        s.run(60);
        assert_eq!(resumed(&s, "db"), 0, "{spoil}");
        s.says(spoil, Phase::Continuous, Verdict::Pass);
        s.run(60);
        assert_eq!(resumed(&s, "db"), 1, "{spoil}");
    }
}

#[test]
fn held_job_is_read_again_when_its_forecast_expires() {
    let mut s = story("- {name: db, resume: [{cronJob: nightly}]}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    let due = s.world.seen.now.checked_add(SignedDuration::from_secs(100)).unwrap();
    let seen = &mut s.seen("db").resumes.as_mut().unwrap()[0];
    (seen.status.state, seen.changes_at) = (ResumeState::Held, Some(due));
    s.run(50);
    assert_eq!(looked(&s, "db"), 1);
    s.seen("db").resumes.as_mut().unwrap()[0].changes_at = None;
    s.says("db", Phase::BeforeRelease, Verdict::Pass);
    s.run(600);
    assert_eq!(
        (s.stage("db"), states(&s, "db"), resumed(&s, "db")),
        (Stage::Recovered, vec![ResumeState::Held], 0)
    );
}

#[test]
fn the_next_attempt_knows_nothing_of_the_one_before() {
    let mut s = story("- {name: db, resume: [{cronJob: nightly}]}");
    s.run(600);
    s.quarantine("db").isolation = Some(Isolation::Contained);
    s.run(60);
    assert_eq!(s.needs("db"), Some("IsolatedAgain"));
    s.says("db", Phase::BeforeRestore, Verdict::Unknown);
    s.retry("db");
    s.run(60);
    assert!(s.status("db").resumes.is_empty());
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.run(600);
    assert_eq!((states(&s, "db"), resumed(&s, "db")), (vec![ResumeState::Resumed], 2));
}

#[test]
fn service_that_needs_a_decision_reads_no_forecast() {
    let mut s = story("- {name: db, resume: [{cronJob: nightly}]}");
    s.says("db", Phase::BeforeRestore, Verdict::Unknown);
    s.run(60);
    assert_eq!((s.stage("db"), looked(&s, "db")), (Stage::PreChecks, 0));
    s.says("db", Phase::BeforeRestore, Verdict::Fail);
    s.run(60);
    assert_eq!((s.needs("db"), looked(&s, "db")), (Some("GateFailed"), 0));
}

/// One look at a service that is about to open, seen so.
fn about_to_open(change: impl FnOnce(&mut ServiceObservation)) -> Look {
    let mut s = story("- {name: db, resume: [{cronJob: nightly}]}");
    s.run(600);
    s.quarantine("db").isolation = Some(Isolation::CleanRoom);
    let of = s.seen("db");
    of.status.stage = Stage::Reconnecting;
    of.asked = Some(Asked { isolation: Isolation::CleanRoom, attempt: of.status.attempt });
    of.room = Room { reachable: vec!["db".to_owned()], ..Room::default() };
    let up = |phase| GateKey { phase, name: "up".to_owned() };
    let passes = of.gates[&up(Phase::Continuous)].clone();
    of.gates.insert(up(Phase::BeforeRelease), passes);
    change(of);
    look_at(&s.world.plan, &s.world.seen, 0)
}

#[test]
fn after_a_restart_it_is_looked_at_before_what_would_open_it() {
    let open = about_to_open(|_| {}).effect;
    assert!(matches!(open, Some(Effect::Ask { isolation: Isolation::Open, .. })), "{open:?}");
    let look = about_to_open(|of| of.resumes = None).effect;
    assert!(matches!(look, Some(Effect::LookAtSuspended { .. })), "{look:?}");
}

#[test]
fn a_look_that_was_refused_is_tried_again_then_and_not_before() {
    let refused = |again_at: Timestamp| {
        about_to_open(|of| {
            let (reason, message) = (Reason::Refused, "may not list".to_owned());
            (of.resumes, of.refused) = (None, Some(Refusal { reason, message, again_at, since: None }));
        })
    };
    let now = Timestamp::from_second(600).unwrap();
    let later = refused(Timestamp::MAX);
    assert_eq!(later.effect, None);
    assert!(
        later.status.blocked_by.iter().any(|block| block.name == "resume"),
        "{:?}",
        later.status.blocked_by
    );
    assert!(refused(now).effect.is_some());
}

#[test]
fn suspended_cron_job_holds_no_dependents() {
    let mut s = story("- {name: db, resume: [{cronJob: nightly}]}");
    s.run(600);
    let (reason, message) = (Reason::Refused, "cannot list cronjobs".to_owned());
    let seen = s.seen("db");
    (seen.resumes, seen.refused) =
        (None, Some(Refusal { reason, message, again_at: Timestamp::MAX, since: None }));
    s.run(10);
    assert_eq!((s.stage("db"), looked(&s, "db")), (Stage::Recovered, 1), "refused since");
    assert_eq!(s.world.status.blocked_by, []);
}
