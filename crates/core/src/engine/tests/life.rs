//! The life of services to which nothing bad happens.

use super::story::{Story, plan, story};
use crate::api::conditions::{HEALTHY, READY, RECOVERED, find};
use crate::api::service_recovery::StepState;
use crate::api::{Isolation, Phase, Stage, Verdict};
use crate::engine::{Effect, Observation, decide};
use crate::simulate::Event;

#[test]
fn a_service_goes_through_all_stages_and_each_isolation_in_turn() {
    let mut s = story("- {name: db}");
    s.run(60);
    assert_eq!(
        s.stages("db"),
        [
            Stage::Isolated,
            Stage::PreChecks,
            Stage::Restoring,
            Stage::PostChecks,
            Stage::Reconnecting,
            Stage::Recovered
        ]
    );
    assert_eq!(s.asked("db"), [Isolation::Sealed, Isolation::CleanRoom, Isolation::Open]);
    assert_eq!(s.steps_begun("db"), 1);
    assert_eq!(s.condition("db", RECOVERED).0, "True");
    assert_eq!(s.condition("db", HEALTHY).0, "True");
    assert_eq!(s.condition("db", READY).0, "True");
    assert_eq!(s.plan_condition(READY), ("True", "Recovered"));
    assert_eq!(s.world.status.progress.as_deref(), Some("1/1"));
    let status = s.status("db");
    assert!(status.claimed_at.is_some() && status.recovered_at.is_some() && status.blocked_by.is_empty());
    let kept: Vec<_> = status.gates.iter().map(|g| (g.phase, g.name.as_str(), g.verdict)).collect();
    assert_eq!(
        kept,
        [(Phase::BeforeRestore, "images", Verdict::Pass), (Phase::BeforeRelease, "up", Verdict::Pass)]
    );
}

/// The operator may end between the two: a plan that is called recovered has records that say so.
#[test]
fn plan_is_recovered_exactly_while_its_services_are() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.run(120);
    let ready = |seen: &Observation, s: &Story| {
        let status = decide(&s.world.plan, seen).plan;
        [RECOVERED, READY].map(|type_| find(&status.conditions, type_).unwrap().status.clone())
    };
    assert_eq!(ready(&s.world.seen, &s), ["True", "True"]);
    for (type_, told) in [(RECOVERED, ["False", "Unknown"]), (HEALTHY, ["True", "Unknown"])] {
        let mut seen = s.world.seen.clone();
        let written = &mut seen.services[s.id("web")].status.conditions;
        written.iter_mut().find(|c| c.type_ == type_).unwrap().status = "False".to_owned();
        assert!(
            decide(&s.world.plan, &seen).services[s.id("web")].write.is_some(),
            "{type_} is to be written"
        );
        assert_eq!(ready(&seen, &s), told, "{type_} is not written yet");
    }
    s.says("web", Phase::Continuous, Verdict::Unknown);
    s.run(60);
    assert_eq!(ready(&s.world.seen, &s), ["True", "Unknown"]);
    let mut seen = s.world.seen.clone();
    let written = &mut seen.services[s.id("web")].status.conditions;
    written.iter_mut().find(|c| c.type_ == HEALTHY).unwrap().status = "True".to_owned();
    assert_eq!(ready(&seen, &s), ["True", "Unknown"], "bad news does not wait to be written");
}

/// DESIGN §7. Adoption counts as one, each status as one, each isolation asked for as one.
#[test]
fn a_plain_service_costs_at_most_ten_writes_in_its_life() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}\n- {name: top, dependsOn: [web]}");
    s.run(120);
    for service in ["db", "web", "top"] {
        assert_eq!(s.stage(service), Stage::Recovered);
        let writes = s.world.writes[s.id(service)];
        assert!(writes <= 10, "{service}: {writes} writes");
    }
}

/// I8.
#[test]
fn a_recovered_plan_writes_nothing() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.run(120);
    let before = s.world.writes.clone();
    s.run(3_600);
    assert_eq!(s.world.writes, before);
}

#[test]
fn a_dependant_is_claimed_only_once_its_dependency_is_recovered() {
    let mut s = story("- {name: web, dependsOn: [db]}\n- {name: db}");
    s.run(5);
    assert_eq!((s.stage("web"), s.blocks("web")), (Stage::Isolated, vec!["Dependency: db".to_owned()]));
    assert_eq!(s.done("web"), [Effect::Adopt]);
    s.run(60);
    let claimed = s.timed("web").into_iter().find(|(_, e)| matches!(e, Effect::Claim { .. })).unwrap().0;
    assert!(claimed >= s.reached("db", Stage::Recovered));
    assert_eq!(s.stage("web"), Stage::Recovered);
}

#[test]
fn clean_room_reaches_only_dependencies_that_were_read_live() {
    let mut s = story(
        "- {name: db, namespaces: [data]}\n- {name: other}\n- {name: web, namespaces: [front, api], dependsOn: [db]}",
    );
    s.run(60);
    let (db, asks) = (s.world.plan.key(s.id("db")), s.done("web"));
    let room = asks.iter().find_map(|e| match e {
        Effect::Ask { isolation: Isolation::CleanRoom, reachable, dependencies, .. } => {
            Some((reachable, dependencies))
        }
        _ => None,
    });
    let (reachable, dependencies) = room.unwrap();
    assert_eq!(
        (reachable.as_slice(), dependencies.as_slice()),
        (["api".to_owned(), "data".to_owned(), "front".to_owned()].as_slice(), [db].as_slice())
    );
}

/// I5: intent before act.
#[test]
fn steps_run_in_order_and_each_is_written_before_it_begins() {
    let mut s = story("- {name: db, restore: [{name: one, scale: {}}, {name: two, scale: {replicas: 2}}]}");
    s.run(60);
    let mut written: Vec<StepState> = Vec::new();
    let mut begun = Vec::new();
    for fact in &s.world.facts {
        match &fact.event {
            Event::Written(status) => written = status.steps.iter().map(|s| s.state).collect(),
            Event::Done(Effect::Step { index, .. }) => {
                assert_eq!(written[*index], StepState::Running, "step {index} began unwritten");
                assert!(written[..*index].iter().all(|&s| s == StepState::Done));
                begun.push(*index);
            }
            _ => {}
        }
    }
    assert_eq!(begun, [0, 1]);
    assert_eq!(s.stage("db"), Stage::Recovered);
}

#[test]
fn sealed_namespace_is_not_sealed_again() {
    let mut s = story("- {name: db}");
    s.quarantine("db").isolation = Some(Isolation::Sealed);
    s.run(60);
    assert_eq!(s.asked("db"), [Isolation::CleanRoom, Isolation::Open]);
}

#[test]
fn an_external_service_is_only_asked() {
    let mut s = story(
        "- {name: partner, namespaces: [], ungated: {reason: run by others}, gates: {beforeRelease: [{name: up, http: {url: \
         'https://partner.example'}}]}}",
    );
    s.says("partner", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    assert_eq!(s.stage("partner"), Stage::PostChecks);
    s.says("partner", Phase::BeforeRelease, Verdict::Pass);
    s.run(60);
    assert_eq!(s.stage("partner"), Stage::Recovered);
    assert_eq!(s.asked("partner"), []);
    assert_eq!(s.steps_begun("partner"), 0);
}

#[test]
fn exceptions_are_never_plainly_recovered() {
    let mut s = story("- {name: db, ungated: {reason: archive without users}}");
    s.run(60);
    let (state, reason, message) = s.condition("db", RECOVERED);
    assert_eq!((state.as_str(), reason.as_str()), ("True", "WithExceptions"));
    assert!(message.contains("archive without users"));
    assert_eq!(s.condition("db", READY).1, "WithExceptions");
    assert_eq!(s.plan_condition(RECOVERED), ("True", "WithExceptions"));
}

#[test]
fn an_ungated_service_without_any_gate_recovers_with_exceptions() {
    let mut plan = plan("- {name: db, ungated: {reason: a cache}}");
    plan.services[0].gates.clear();
    let mut s = Story::of(plan);
    s.run(60);
    assert_eq!(
        (s.stage("db"), s.condition("db", RECOVERED).1.as_str()),
        (Stage::Recovered, "WithExceptions")
    );
}

#[test]
fn service_is_recovered_once_all_namespaces_are_open_and_tested() {
    let mut s = story("- {name: db, namespaces: [a, b]}");
    // Long after Open was asked for, one namespace is not there yet.
    while s.asked("db").last() != Some(&Isolation::Open) {
        s.run(1);
    }
    assert_eq!(s.stage("db"), Stage::Reconnecting);
    s.run(5);
    assert_eq!(s.stage("db"), Stage::Recovered);
    let opened: Vec<_> = s
        .world
        .facts
        .iter()
        .filter(|f| matches!(&f.event, Event::Enforced(_, Isolation::Open)))
        .map(|f| f.at)
        .collect();
    assert_eq!(opened.len(), 2);
    assert!(opened.iter().all(|&at| at <= s.reached("db", Stage::Recovered)));
}

#[test]
fn status_reports_the_loosest_isolation_of_its_namespaces() {
    let mut s = story("- {name: db, namespaces: [a, b]}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    assert_eq!(s.status("db").isolation, Some(Isolation::CleanRoom));
    s.seen("db").quarantines[1].found.as_mut().unwrap().isolation = Some(Isolation::Contained);
    s.run(60);
    assert_eq!(s.status("db").isolation, Some(Isolation::CleanRoom));
}
