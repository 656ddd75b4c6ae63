//! Steps with `undo`: what an earlier start left half done is undone before the next one, and only then.

use super::story::{Story, story};
use crate::api::service_recovery::StepState;
use crate::api::{Action, Phase, Stage, Verdict};
use crate::engine::StepProgress;

const UNDO: usize = 1;
const LOAD: usize = 2;

fn loading(retries: u8) -> Story {
    let job = "job: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main}]}}}}";
    story(&format!(
        "- {{name: db, restore: [{{name: start, scale: {{}}}}, {{name: load, {job}, undo: {{{job}}}, retries: {retries}, backoff: 10s}}]}}"
    ))
}

fn failed() -> StepProgress {
    StepProgress::Failed("Job failed: BackoffLimitExceeded".to_owned())
}

fn states(story: &Story) -> Vec<(&str, StepState)> {
    story.status("db").steps.iter().map(|step| (step.name.as_str(), step.state)).collect()
}

#[test]
fn first_start_of_a_step_undoes_nothing() {
    let mut s = loading(0);
    s.run(60);
    assert_eq!((s.stage("db"), s.steps_in_order("db")), (Stage::Recovered, vec![0, LOAD]));
    assert_eq!(s.status("db").steps[UNDO].message, "there is nothing to undo");
    let done = ["start", "load-undo", "load"].map(|name| (name, StepState::Done));
    assert_eq!(states(&s), done);
}

#[test]
fn failed_step_is_undone_before_each_retry() {
    let mut s = loading(2);
    s.step_ends("db", LOAD, failed());
    s.run(120);
    assert_eq!(s.steps_in_order("db"), [0, LOAD, UNDO, LOAD, UNDO, LOAD]);
    assert_eq!(s.needs("db"), Some("StepFailed"));
    // Each undo bears the number of the start that it makes room for, so that none is taken for an earlier one.
    assert_eq!((s.status("db").steps[UNDO].retries, s.status("db").steps[LOAD].retries), (2, 2));
}

#[test]
fn step_that_began_is_undone_in_the_next_attempt() {
    let mut s = loading(0);
    s.step_ends("db", LOAD, failed());
    s.run(60);
    s.retry("db");
    s.step_ends("db", LOAD, StepProgress::Succeeded);
    s.run(60);
    assert_eq!((s.stage("db"), s.steps_in_order("db")), (Stage::Recovered, vec![0, LOAD, 0, UNDO, LOAD]));
}

#[test]
fn step_that_succeeded_is_undone_if_its_attempt_is_given_up() {
    let mut s = loading(0);
    s.says("db", Phase::BeforeRelease, Verdict::Fail);
    s.run(120);
    assert_eq!((s.needs("db"), s.steps_in_order("db")), (Some("GateFailed"), vec![0, LOAD]));
    s.retry("db");
    s.run(120);
    assert_eq!(s.steps_in_order("db"), [0, LOAD, 0, UNDO, LOAD]);
}

#[test]
fn undo_that_ended_is_not_repeated_before_the_step_begins_again() {
    let mut s = loading(0);
    s.step_ends("db", LOAD, failed());
    s.run(60);
    s.retry("db");
    s.step_ends("db", UNDO, failed());
    s.run(60);
    assert_eq!((s.needs("db"), s.steps_in_order("db").last()), (Some("StepFailed"), Some(&UNDO)));
    // It failed, so that the next attempt has to undo still.
    s.step_ends("db", UNDO, StepProgress::Succeeded);
    s.step_ends("db", LOAD, StepProgress::Succeeded);
    s.retry("db");
    s.run(60);
    assert_eq!(s.steps_in_order("db"), [0, LOAD, 0, UNDO, 0, UNDO, LOAD]);
    assert_eq!(s.stage("db"), Stage::Recovered);
}

#[test]
fn step_never_starts_before_its_undo_has_ended() {
    let mut s = loading(0);
    s.step_ends("db", LOAD, failed());
    s.run(60);
    s.retry("db");
    s.step_ends("db", UNDO, StepProgress::Running("Job undo-load-2: 1 of its pods run".to_owned()));
    s.run(600);
    assert_eq!(s.steps_in_order("db"), [0, LOAD, 0, UNDO]);
    assert_eq!(s.blocks("db"), ["StepRunning: load-undo"]);
}

#[test]
fn failed_undo_can_be_skipped_and_is_an_exception() {
    let mut s = loading(0);
    s.step_ends("db", LOAD, failed());
    s.run(60);
    s.retry("db");
    s.step_ends("db", UNDO, failed());
    s.run(60);
    s.step_ends("db", LOAD, StepProgress::Succeeded);
    s.answers("db", Action::Skip);
    s.run(60);
    assert_eq!(s.stage("db"), Stage::Recovered);
    assert!(
        s.status("db").exceptions[0].starts_with("step 'load-undo' was skipped"),
        "{:?}",
        s.status("db").exceptions
    );
}
