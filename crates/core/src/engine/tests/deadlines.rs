//! What fails for too long asks a person, gives its slot back, and goes on by itself.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::story::{Story, plan_with, story};
use crate::api::service_recovery::StepState;
use crate::api::{Isolation, Reason, Stage};
use crate::engine::{Inspection, Refusal, Rollout, StepProgress};

/// `web` fails, and `db` waits for its slot.
fn two() -> Story {
    Story::of(plan_with(
        "incidentRef: {name: nov}\nmaxParallel: 1",
        "- {name: web, tier: 0}\n- {name: db, tier: 1}",
    ))
}

fn fails_since(s: &Story, denied: bool) -> StepProgress {
    let now = s.world.seen.now;
    let at = now.checked_add(SignedDuration::from_secs(20)).unwrap();
    StepProgress::Retry { message: "Deployment web: a webhook is down".to_owned(), at, since: now, denied }
}

#[test]
fn failing_step_asks_after_its_deadline_and_goes_on_by_itself() {
    let mut s = two();
    let failing = fails_since(&s, false);
    s.steps_end("web", failing);
    s.run(9 * 60);
    assert_eq!((s.needs("web"), s.stage("web"), s.stage("db")), (None, Stage::Restoring, Stage::Isolated));
    assert!(s.status("web").failing_since.is_some());
    s.run(2 * 60);
    assert_eq!(s.needs("web"), Some("DeadlineExceeded"));
    assert!(s.question("web").contains("a webhook is down"), "{}", s.question("web"));
    assert!(s.question("web").contains("has failed since 1970-01-01"), "{}", s.question("web"));
    s.run(120);
    assert_eq!(s.stage("db"), Stage::Recovered, "it has given its slot back");
    s.steps_end("web", StepProgress::Succeeded);
    s.run(120);
    assert_eq!((s.needs("web"), s.stage("web")), (None, Stage::Recovered));
    assert_eq!((s.status("web").attempt, s.status("web").failing_since.clone()), (1, None));
}

#[test]
fn step_whose_account_lacks_a_right_asks_at_once() {
    let mut s = two();
    let denied = fails_since(&s, true);
    s.steps_end("web", denied);
    s.run(60);
    assert_eq!((s.needs("web"), s.stage("db")), (Some("StepDenied"), Stage::Recovered));
    assert_eq!(s.status("web").steps[0].state, StepState::Running);
    s.steps_end("web", StepProgress::Succeeded);
    s.run(60);
    assert_eq!((s.needs("web"), s.stage("web")), (None, Stage::Recovered), "within a minute of the grant");
}

#[test]
fn step_that_cannot_be_observed_asks_after_its_deadline() {
    let mut s = two();
    let since = s.world.seen.now;
    s.steps_end("web", StepProgress::Unobserved { message: "cannot be observed: x".to_owned(), since });
    s.run(9 * 60);
    assert_eq!(s.needs("web"), None);
    s.run(2 * 60);
    assert_eq!(s.needs("web"), Some("DeadlineExceeded"));
    s.run(120);
    assert_eq!(s.stage("db"), Stage::Recovered);
}

#[test]
fn deadline_is_the_services_or_the_plans() {
    for (services, wanted) in [("- {name: web, stepDeadline: 1m}", 60), ("- {name: web}", 120)] {
        let mut s = Story::of(plan_with("incidentRef: {name: nov}", services));
        let spec = s.world.plan.services[0].step_deadline.as_secs();
        if services.contains("stepDeadline") {
            assert_eq!(spec, wanted);
        } else {
            assert_eq!(spec, 600);
        }
        let failing = fails_since(&s, false);
        s.steps_end("web", failing);
        s.run(90);
        assert_eq!(s.needs("web").is_some(), services.contains("stepDeadline"), "{services}");
    }
}

#[test]
fn failing_effect_asks_after_its_deadline_but_not_while_it_waits_for_its_turn() {
    let mut s = two();
    s.run(1);
    let refusal = |s: &Story| Refusal {
        reason: Reason::ApiServer,
        message: "cannot claim Quarantine web: 500".to_owned(),
        again_at: Timestamp::MAX,
        since: Some(s.world.seen.now),
    };
    for service in ["web", "db"] {
        let refused = refusal(&s);
        let of = s.seen(service);
        of.refused = Some(refused);
        of.status.stage = Stage::Isolated;
    }
    s.run(11 * 60);
    assert_eq!(s.needs("web"), Some("DeadlineExceeded"), "{:?}", s.status("web"));
}

#[test]
fn rollout_that_cannot_be_restored_asks_and_ends_as_an_exception() {
    let mut s = story("- {name: web}");
    let rollout = Rollout {
        workload: "Deployment web/api".to_owned(),
        message: "its rollout is paused: ReplicaSet api-1 served, and ReplicaSet api-2 is specified"
            .to_owned(),
    };
    s.seen("web").inspection = Some(Inspection { rollouts: vec![rollout], ..Inspection::default() });
    s.run(60);
    assert_eq!((s.needs("web"), s.stage("web")), (Some("RolloutNotRestorable"), Stage::PreChecks));
    assert_eq!(s.isolation("web"), Isolation::Contained);
    for name in ["api-1", "api-2", "Deployment web/api"] {
        assert!(s.question("web").contains(name), "{}", s.question("web"));
    }
    s.go_on("web");
    s.run(60);
    assert_eq!((s.needs("web"), s.stage("web")), (None, Stage::Recovered));
    assert_eq!(s.status("web").accepted_rollouts, ["Deployment web/api"]);
    assert!(
        s.status("web").exceptions[0].contains("api-2 is specified: accepted by"),
        "{:?}",
        s.status("web").exceptions
    );
    assert_eq!(s.condition("web", "Recovered").1, "WithExceptions");
}

#[test]
fn what_no_step_starts_ends_as_an_exception() {
    let mut s = story("- {name: web, restore: []}");
    let not_started =
        vec!["Deployment web/api is not started: no step selects it; it had 2 replicas".to_owned()];
    s.seen("web").inspection = Some(Inspection { not_started: not_started.clone(), ..Inspection::default() });
    s.run(60);
    assert_eq!((s.stage("web"), s.status("web").exceptions.clone()), (Stage::Recovered, not_started));
    let mut s = story("- {name: web, restore: []}");
    s.run(60);
    assert_eq!((s.stage("web"), s.condition("web", "Recovered").1.as_str()), (Stage::Recovered, "Recovered"));
}
