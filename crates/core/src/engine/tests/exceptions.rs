//! `AcceptException` and `Skip`: people go on without a proof or a step, in the open.

use k8s_openapi::jiff::Timestamp;

use super::story::story;
use crate::api::{Action, Isolation, Phase, Stage, Verdict};
use crate::engine::StepProgress;

#[test]
fn failed_gate_is_accepted_for_exactly_what_it_found() {
    let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    story.says("db", Phase::BeforeRelease, Verdict::Fail);
    story.run(120);
    assert_eq!(story.needs("db"), Some("GateFailed"));
    story.answers("db", Action::AcceptException);
    story.run(60);
    assert_eq!((story.stage("db"), story.stage("web")), (Stage::Recovered, Stage::Recovered));
    assert_eq!(story.condition("db", "Recovered").1, "WithExceptions");
    assert_eq!(story.plan_condition("Recovered"), ("True", "WithExceptions"));
    insta::assert_snapshot!(story.status("db").exceptions.join("\n"), @"gate 'up' fails: up says Fail: accepted by wren (Decision d0): put back the approved version");
    // The continuous gate of that name fails anew, for something else.
    story.says("db", Phase::Continuous, Verdict::Fail);
    story.run(60);
    let mut accepted = story.status("db").accepted_gates.clone();
    assert_eq!(accepted.pop().unwrap().name, "up");
}

#[test]
fn accepted_regression_lets_dependents_go_on() {
    let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    story.says("web", Phase::BeforeRestore, Verdict::Unknown);
    story.run(20);
    story.says("db", Phase::Continuous, Verdict::Fail);
    story.run(60);
    assert_eq!(story.needs("db"), Some("Regressed"));
    story.says("web", Phase::BeforeRestore, Verdict::Pass);
    story.run(60);
    assert_ne!(story.stage("web"), Stage::Recovered);
    story.answers("db", Action::AcceptException);
    story.run(60);
    assert_eq!((story.needs("db"), story.stage("web")), (None, Stage::Recovered));
    assert_eq!(story.condition("db", "Healthy").0, "True");
}

#[test]
fn skipped_step_is_an_exception_and_the_next_one_runs() {
    let mut story = story("- {name: db, restore: [{name: load, scale: {}}, {name: start, scale: {}}]}");
    story.steps_end("db", StepProgress::Failed("the dump is torn".to_owned()));
    story.run(30);
    assert_eq!(story.needs("db"), Some("StepFailed"));
    story.steps_end("db", StepProgress::Succeeded);
    story.answers("db", Action::Skip);
    story.run(60);
    assert_eq!(story.stage("db"), Stage::Recovered);
    let states: Vec<String> =
        story.status("db").steps.iter().map(|step| format!("{:?}", step.state)).collect();
    assert_eq!(states, ["Skipped", "Done"]);
    insta::assert_snapshot!(story.status("db").exceptions.join("\n"), @"step 'load' was skipped by wren (Decision d0): put back the approved version");
    assert_eq!(story.condition("db", "Recovered").1, "WithExceptions");
}

#[test]
fn failed_step_starts_again_by_itself_as_often_as_the_plan_says() {
    let mut story = story("- {name: db, restore: [{name: load, retries: 2, backoff: 10s, scale: {}}]}");
    story.steps_end("db", StepProgress::Failed("the dump is torn".to_owned()));
    story.run(12);
    assert_eq!((story.steps_begun("db"), story.needs("db")), (1, None));
    assert_eq!(story.blocks("db"), ["StepPending: load"]);
    story.run(10);
    assert_eq!(story.steps_begun("db"), 2, "after 10 s");
    story.run(16);
    assert_eq!(story.steps_begun("db"), 2, "the pause doubles");
    story.run(60);
    assert_eq!((story.steps_begun("db"), story.needs("db")), (3, Some("StepFailed")));
    let step = &story.status("db").steps[0];
    assert_eq!((step.retries, step.message.as_str()), (2, "the dump is torn"));
}

#[test]
fn step_that_overruns_asks_and_is_never_started_twice() {
    let mut story = story("- {name: db, restore: [{name: load, timeout: 60s, scale: {}}]}");
    story.steps_end("db", StepProgress::Running("3 of 9 files".to_owned()));
    story.run(30);
    assert_eq!(story.needs("db"), None);
    story.run(60);
    assert_eq!(story.needs("db"), Some("StepOverrunning"));
    insta::assert_snapshot!(story.question("db"), @"load: it runs since 1970-01-01T00:00:00Z, longer than its timeout of 1m, and is not started again: 3 of 9 files. Skip goes on without it; Abort isolates the service, which ends what runs. A recovery lead can clear it with a Decision: Skip");
    story.run(3_600);
    assert_eq!(story.steps_begun("db"), 1);
    story.steps_end("db", StepProgress::Succeeded);
    story.run(60);
    assert_eq!(story.stage("db"), Stage::Recovered, "it goes on by itself");
    assert!(story.status("db").exceptions.is_empty());
}

#[test]
fn superseded_proof_asks_and_dependents_wait() {
    let mut story = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    story.says("web", Phase::BeforeRestore, Verdict::Unknown);
    story.world.seen.compromised_since = Some(Timestamp::from_second(-1_000).unwrap());
    story.run(20);
    assert_eq!(story.stage("db"), Stage::Recovered);
    story.world.seen.compromised_since = Some(Timestamp::from_second(-9_000).unwrap());
    story.says("web", Phase::BeforeRestore, Verdict::Pass);
    story.run(60);
    assert_eq!((story.needs("db"), story.isolation("db")), (Some("Superseded"), Isolation::Open));
    assert_eq!(story.condition("db", "Healthy").1, "Superseded");
    insta::assert_snapshot!(story.question("db"), @"db: compromisedSince is now 1969-12-31T21:30:00Z, and what was proved of it was proved for 1969-12-31T23:43:20Z: Retry proves it again, through isolation; AcceptException keeps what was proved. A recovery lead can clear it with a Decision: Retry or AcceptException");
    assert_ne!(story.stage("web"), Stage::Recovered);
    let mut accepted = story;
    accepted.answers("db", Action::AcceptException);
    accepted.run(60);
    assert_eq!((accepted.needs("db"), accepted.stage("web")), (None, Stage::Recovered));
    assert_eq!(accepted.condition("db", "Recovered").1, "WithExceptions");
}

#[test]
fn superseded_proof_is_proved_again_by_a_retry() {
    let mut story = story("- {name: db}");
    story.says("db", Phase::BeforeRelease, Verdict::Unknown);
    story.world.seen.compromised_since = Some(Timestamp::from_second(-1_000).unwrap());
    story.run(20);
    story.world.seen.compromised_since = Some(Timestamp::from_second(-9_000).unwrap());
    story.run(5);
    assert_eq!((story.stage("db"), story.needs("db")), (Stage::PostChecks, Some("Superseded")));
    story.retry("db");
    story.says("db", Phase::BeforeRelease, Verdict::Pass);
    story.run(60);
    assert_eq!((story.stage("db"), story.needs("db")), (Stage::Recovered, None));
    assert!(story.status("db").exceptions.is_empty());
}
