//! Failure policy: optional dependencies, optional services, and regressions that isolate.

use super::look_at;
use super::story::{plan, story};
use crate::api::conditions::find;
use crate::api::{Isolation, Phase, Reason, Stage, Verdict};

#[test]
fn optional_dependency_is_waited_for_but_not_for_ever() {
    let mut story = story("- {name: dns}\n- {name: web, optionalDependencies: [dns]}");
    story.says("dns", Phase::BeforeRestore, Verdict::Unknown);
    story.run(60);
    assert_eq!(story.blocks("web"), ["Dependency: dns"], "it may still come");
    story.says("dns", Phase::BeforeRestore, Verdict::Fail);
    story.run(120);
    assert_eq!((story.needs("dns"), story.stage("web")), (Some("GateFailed"), Stage::Recovered));
    assert_eq!(story.status("web").exceptions, ["started without dns, which was held up by dns"]);
}

#[test]
fn unit_that_began_without_an_optional_dependency_is_not_held_back_by_it() {
    let mut story = story("- {name: dns}\n- {name: web, optionalDependencies: [dns]}");
    story.says("dns", Phase::BeforeRestore, Verdict::Fail);
    story.says("web", Phase::BeforeRelease, Verdict::Unknown);
    story.run(120);
    assert_eq!(story.stage("web"), Stage::PostChecks);
    // The optional one begins anew, and is held up no more.
    story.says("dns", Phase::BeforeRestore, Verdict::Unknown);
    story.retry("dns");
    story.says("web", Phase::BeforeRelease, Verdict::Pass);
    story.run(60);
    assert_eq!((story.stage("dns"), story.stage("web")), (Stage::PreChecks, Stage::Recovered));
}

#[test]
fn what_holds_up_an_optional_dependency_counts_through_the_chain() {
    let mut story =
        story("- {name: net}\n- {name: dns, dependsOn: [net]}\n- {name: web, optionalDependencies: [dns]}");
    story.says("net", Phase::BeforeRestore, Verdict::Fail);
    story.run(120);
    assert_eq!(story.stage("web"), Stage::Recovered);
    assert_eq!(story.status("web").exceptions, ["started without dns, which was held up by net"]);
    assert_eq!(story.status("dns").held_up_by.as_deref(), Some("net"));
}

#[test]
fn optional_dependency_that_is_recovered_is_no_exception() {
    let mut story = story("- {name: dns}\n- {name: web, optionalDependencies: [dns]}");
    story.run(60);
    assert_eq!(story.stage("web"), Stage::Recovered);
    assert!(story.status("web").exceptions.is_empty());
    assert!(story.reached("dns", Stage::Recovered) < story.reached("web", Stage::PreChecks));
}

#[test]
fn dependency_that_becomes_optional_is_a_loosening() {
    let required = plan("- {name: dns}\n- {name: web, dependsOn: [dns]}").services[1].requirements.clone();
    let optional =
        plan("- {name: dns}\n- {name: web, optionalDependencies: [dns]}").services[1].requirements.clone();
    assert!(required.depends_on.len() > optional.depends_on.len());
    let both = plan("- {name: dns}\n- {name: web, dependsOn: [dns], optionalDependencies: [dns]}");
    assert_eq!(both.services[1].requirements, required, "who is named in both is required");
}

#[test]
fn plan_is_recovered_without_an_optional_service() {
    let mut story = story("- {name: db}\n- {name: stats, impact: Optional}");
    story.says("stats", Phase::BeforeRestore, Verdict::Fail);
    story.run(120);
    assert_eq!(story.plan_condition("Recovered"), ("True", "WithExceptions"));
    assert_eq!(story.needs("stats"), Some("GateFailed"), "a person is still asked");
    assert_eq!(story.plan_condition("Ready"), ("False", "NeedsDecision"));
    // While an optional one is on its way, the plan is recovered, and not at rest yet.
    story.says("stats", Phase::BeforeRestore, Verdict::Unknown);
    story.retry("stats");
    story.run(20);
    assert_eq!(story.plan_condition("Recovered"), ("True", "WithExceptions"));
    assert_eq!(story.plan_condition("Ready"), ("Unknown", "Progressing"));
}

#[test]
fn regression_isolates_once_an_hour_if_the_plan_says_so() {
    let mut story = story("- {name: db, onRegression: Contain}\n- {name: web, dependsOn: [db]}");
    story.run(60);
    assert_eq!(story.stage("web"), Stage::Recovered);
    story.says("db", Phase::Continuous, Verdict::Fail);
    story.says("db", Phase::BeforeRestore, Verdict::Unknown);
    story.run(60);
    assert_eq!(story.isolation("db"), Isolation::Contained);
    let status = story.status("db").clone();
    assert_eq!((status.attempt, status.history[0].reason.as_str()), (2, "Contained"));
    assert!(
        status.history[0].message.starts_with("continuous gate 'up' fails"),
        "{}",
        status.history[0].message
    );
    story.says("db", Phase::BeforeRestore, Verdict::Pass);
    story.says("db", Phase::Continuous, Verdict::Pass);
    story.run(60);
    assert_eq!(story.stage("db"), Stage::Recovered);
    story.says("db", Phase::Continuous, Verdict::Fail);
    story.run(60);
    assert_eq!(
        (story.needs("db"), story.isolation("db")),
        (Some("Regressed"), Isolation::Open),
        "within an hour"
    );
}

#[test]
fn changed_list_isolates_nothing_and_asks_a_person() {
    let mut story = story("- {name: db, onRegression: Contain}");
    story.run(60);
    let gates = &mut story.seen("db").gates;
    let (_, gate) = gates.iter_mut().find(|(key, _)| key.phase == Phase::Continuous).unwrap();
    assert!(gate.has_passed);
    (gate.verdict, gate.failed, gate.is_judged_anew) = (Verdict::Fail, true, true);
    gate.message = "sha256:b is not on the approved list".to_owned();
    let look = look_at(&story.world.plan, &story.world.seen, story.id("db"));
    assert_eq!(look.status.decision.map(|asked| asked.reason), Some(Reason::Regressed));
    assert_eq!((look.status.isolating, look.effect), (None, None));
    let needs = find(&look.status.conditions, "NeedsDecision").unwrap();
    assert!(needs.message.contains("what is approved has changed"), "{}", needs.message);
}

#[test]
fn gate_that_never_passed_isolates_nothing() {
    let mut story = story("- {name: db, onRegression: Contain}");
    story.says("db", Phase::Continuous, Verdict::Fail);
    story.run(120);
    assert_eq!((story.needs("db"), story.isolation("db")), (Some("Regressed"), Isolation::Open));
}
