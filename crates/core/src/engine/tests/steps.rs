//! Steps that take their time, and steps after the release.

use super::look_at;
use super::story::story;
use crate::api::service_recovery::StepState;
use crate::api::{Isolation, Stage};
use crate::engine::{Effect, StepProgress};

/// A story of one service, at the moment at which its only step is running.
fn running(plan: &str) -> super::story::Story {
    let mut s = story(plan);
    s.steps_end("db", StepProgress::Running("Job step-load-1: 1 of its pods run".to_owned()));
    s.run(60);
    s
}

#[test]
fn step_that_runs_is_observed_and_not_started_again() {
    let mut s = running("- {name: db}");
    let step = s.status("db").steps[0].clone();
    assert_eq!((s.steps_begun("db"), step.state), (1, StepState::Running));
    assert_eq!(step.message, "Job step-load-1: 1 of its pods run");
    assert_eq!((s.blocks("db"), s.needs("db")), (vec!["StepRunning: start".to_owned()], None));
    let look = look_at(&s.world.plan, &s.world.seen, s.id("db"));
    assert_eq!((look.observe_step, look.effect), (Some(0), None));
    s.steps_end("db", StepProgress::Succeeded);
    s.run(60);
    assert_eq!((s.steps_begun("db"), s.stage("db")), (1, Stage::Recovered));
    assert!(s.status("db").steps[0].message.is_empty());
}

#[test]
fn step_that_runs_goes_on_while_its_plan_is_suspended() {
    let mut s = running("- {name: db}");
    s.world.plan.suspend = true;
    let look = look_at(&s.world.plan, &s.world.seen, s.id("db"));
    assert_eq!((look.observe_step, look.effect), (Some(0), None));
}

#[test]
fn step_is_started_again_by_an_operator_that_has_not_started_it() {
    let mut s = running("- {name: db}");
    s.seen("db").steps.clear();
    let look = look_at(&s.world.plan, &s.world.seen, s.id("db"));
    assert!(matches!(look.effect, Some(Effect::Step { index: 0, attempt: 1, .. })), "{:?}", look.effect);
    assert_eq!(look.observe_step, None);
}

#[test]
fn failed_running_step_needs_a_decision_and_is_not_observed() {
    let mut s = running("- {name: db}");
    s.steps_end("db", StepProgress::Failed("Job step-load-1 failed: BackoffLimitExceeded".to_owned()));
    s.run(60);
    assert_eq!((s.needs("db"), s.stage("db")), (Some("StepFailed"), Stage::Restoring));
    let look = look_at(&s.world.plan, &s.world.seen, s.id("db"));
    assert_eq!((look.observe_step, look.effect), (None, None));
}

const AFTER_RELEASE: &str = "- {name: db, restore: [{name: tell, scale: {}, phase: AfterRelease}, {name: start, scale: {}}]}\n\
                             - {name: web, dependsOn: [db]}";

#[test]
fn step_after_release_runs_once_open_and_before_dependents() {
    let mut s = story(AFTER_RELEASE);
    s.run(120);
    let done = s.done("db");
    let at = |wanted: fn(&Effect) -> bool| done.iter().position(wanted).unwrap();
    let open = at(|e| matches!(e, Effect::Ask { isolation: Isolation::Open, .. }));
    let start = at(|e| matches!(e, Effect::Step { index: 1, .. }));
    let tell = at(|e| matches!(e, Effect::Step { index: 0, .. }));
    assert!(start < open && open < tell, "{done:?}");
    assert!(s.status("db").steps.iter().all(|step| step.state == StepState::Done));
    let told = s.timed("db").into_iter().find(|(_, e)| matches!(e, Effect::Step { index: 0, .. })).unwrap().0;
    assert!(s.reached("web", Stage::PreChecks) > told);
    assert_eq!(s.stage("web"), Stage::Recovered);
}

#[test]
fn failed_step_after_release_asks_and_keeps_dependents_waiting() {
    let mut s = story(AFTER_RELEASE);
    while s.steps_begun("db") == 0 {
        s.run(1);
    }
    s.run(5);
    s.steps_end("db", StepProgress::Failed("no such ConfigMap".to_owned()));
    s.run(120);
    assert_eq!((s.needs("db"), s.stage("db")), (Some("StepFailed"), Stage::Reconnecting));
    assert_eq!((s.isolation("db"), s.stage("web")), (Isolation::Open, Stage::Isolated));
}
