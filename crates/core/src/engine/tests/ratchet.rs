//! The ratchet: a plan that requires less than was accepted goes on only by a Decision on just that.

use super::look_at;
use super::story::{Story, plan, story};
use crate::api::Reason;
use crate::api::service_recovery::StepState;
use crate::api::{Action, Isolation, Phase, PodSecurity, Stage, Verdict};
use crate::engine::{AcceptedState, Effect, Inspection};

const CHAIN: &str = "- {name: db}\n- {name: web, dependsOn: [db]}";
/// The same without a gate and without a dependency.
const BARE: &str = "serviceAccountName: recovery\nincidentRef: {name: nov}\nservices:\n- {name: db, ungated: {reason: x}}\n- {name: web, ungated: {reason: x}}";

fn bare() -> crate::plan::Plan {
    let spec = serde_yaml::from_str(BARE).unwrap();
    crate::plan::Plan::compile("recovery", "p", "uid-1", &spec)
}

fn accept(s: &mut Story, service: &str) {
    let digest = s.status(service).decision.as_ref().unwrap().digest.clone();
    s.decide(service, Action::AcceptLoosening, &digest);
}

fn records(s: &Story, service: &str) -> usize {
    s.timed(service).iter().filter(|(_, effect)| matches!(effect, Effect::Accept { .. })).count()
}

/// Nothing of it is loosened, begun or resumed by one look at the world as it is.
fn moves(s: &Story, service: &str) -> Option<Effect> {
    let id = s.id(service);
    look_at(&s.world.plan, &s.world.seen, id).effect
}

#[test]
fn the_first_requirements_are_recorded_before_the_first_claim() {
    let mut s = story(CHAIN);
    s.says("db", Phase::BeforeRestore, Verdict::Unknown);
    s.run(30);
    for service in ["db", "web"] {
        assert_eq!(records(&s, service), 1, "{service}");
    }
    let effects: Vec<Effect> = s.timed("db").into_iter().map(|(_, effect)| effect).collect();
    let at = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    assert!(at(|e| matches!(e, Effect::Accept { .. })) < at(|e| matches!(e, Effect::Claim { .. })));
    assert_eq!(s.stage("web"), Stage::Isolated, "recorded long before its turn");
}

#[test]
fn loosened_plan_waits_for_acceptance_and_ends_with_exceptions() {
    let mut s = story(CHAIN);
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    assert_eq!((s.stage("db"), s.stage("web")), (Stage::PostChecks, Stage::Isolated));
    s.world.plan = bare();
    s.run(600);
    for (service, stage) in [("db", Stage::PostChecks), ("web", Stage::Isolated)] {
        assert_eq!((s.stage(service), s.needs(service)), (stage, Some("Loosened")), "{service}");
        assert_eq!(s.status(service).decision.as_ref().unwrap().actions, [Action::AcceptLoosening]);
    }
    let (_, _, message) = s.condition("web", "NeedsDecision");
    for word in [
        "beforeRestore gate 'images' is gone",
        "no longer waits for namespace db",
        "it is ungated: x",
        "acceptloosening on recoveryplans/p in namespace recovery",
        "Decision: AcceptLoosening",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    accept(&mut s, "web");
    s.run(120);
    assert_eq!((s.stage("web"), s.needs("db")), (Stage::Recovered, Some("Loosened")));
    let (status, reason, message) = s.condition("web", "Recovered");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "WithExceptions"));
    assert!(
        message.contains("accepted by wren (Decision d0)") && message.contains("waits for namespace db"),
        "{message}"
    );
}

#[test]
fn an_acceptance_is_of_just_what_was_shown() {
    let mut s = story(CHAIN);
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    s.world.plan = plan("- {name: db}\n- {name: web}");
    s.run(30);
    let digest = s.status("web").decision.as_ref().unwrap().digest.clone();
    // Edited once more before the Decision is made.
    s.world.plan = bare();
    s.decide("web", Action::AcceptLoosening, &digest);
    for action in [Action::Retry, Action::Override] {
        let now = look_at(&s.world.plan, &s.world.seen, 1);
        let digest = now.status.decision.as_ref().unwrap().digest.clone();
        s.decide("web", action, &digest);
    }
    s.run(120);
    assert_eq!((s.stage("web"), s.needs("web")), (Stage::Isolated, Some("Loosened")));
    assert_eq!(records(&s, "web"), 1);
    // Put back, nobody has to decide, and nothing is an exception.
    s.world.plan = plan(CHAIN);
    s.says("db", Phase::BeforeRelease, Verdict::Pass);
    s.run(120);
    assert_eq!(s.condition("web", "Recovered").1, "Recovered");
}

#[test]
fn a_tightening_counts_at_once_and_cannot_be_taken_back() {
    let mut s = story("- {name: db}\n- {name: web}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.says("web", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    s.world.plan = plan(CHAIN);
    s.run(30);
    assert_eq!((s.needs("web"), records(&s, "web")), (None, 2));
    s.world.plan = plan("- {name: db}\n- {name: web}");
    s.run(30);
    assert_eq!(s.needs("web"), Some("Loosened"));
}

#[test]
fn an_acceptance_outlives_a_retry_and_stays_an_exception() {
    let mut s = story(CHAIN);
    s.says("web", Phase::BeforeRestore, Verdict::Fail);
    s.world.plan = plan(CHAIN);
    s.run(60);
    assert_eq!(s.needs("web"), Some("GateFailed"));
    s.world.plan = plan("- {name: db}\n- {name: web}");
    s.run(5);
    assert!(s.blocks("web").contains(&"Loosened: web".to_owned()), "{:?}", s.blocks("web"));
    s.retry("web");
    s.run(5);
    assert_eq!((s.needs("web"), s.status("web").attempt), (Some("Loosened"), 2));
    accept(&mut s, "web");
    s.run(60);
    assert_eq!(s.needs("web"), Some("GateFailed"));
    s.says("web", Phase::BeforeRestore, Verdict::Pass);
    s.retry("web");
    s.run(120);
    assert_eq!((s.stage("web"), s.status("web").attempt), (Stage::Recovered, 3));
    assert_eq!(s.condition("web", "Recovered").1, "WithExceptions");
}

#[test]
fn loosened_recovered_service_stays_open_and_holds_dependents() {
    let mut s = story(CHAIN);
    s.says("web", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    assert_eq!((s.stage("db"), s.stage("web")), (Stage::Recovered, Stage::PostChecks));
    let mut weaker = plan(CHAIN);
    let yaml = "serviceAccountName: recovery\nincidentRef: {name: nov}\ndefaults: {gates: {beforeRestore: [{name: images, imageDigests: \
                {approvedFrom: {configMap: {name: images}}}}], beforeRelease: [{name: up, workloads: {}}]}}\nservices:\n\
                - {name: db, gates: {continuous: [{name: up, workloads: {matchLabels: {app: none}}}]}}\n- {name: web, dependsOn: [db]}";
    weaker = crate::plan::Plan::compile(
        "recovery",
        "p",
        "uid-1",
        &serde_yaml::from_str(yaml).unwrap_or_else(|e| panic!("{e} {weaker:?}")),
    );
    s.world.plan = weaker;
    s.says("web", Phase::BeforeRelease, Verdict::Pass);
    s.run(120);
    assert_eq!((s.stage("db"), s.isolation("db")), (Stage::Recovered, Isolation::Open));
    assert_eq!(s.needs("db"), Some("Loosened"));
    assert_eq!(
        (s.condition("db", "Healthy").0.as_str(), s.condition("db", "Healthy").1.as_str()),
        ("Unknown", "Loosened")
    );
    assert_eq!((s.stage("web"), s.isolation("web")), (Stage::PostChecks, Isolation::CleanRoom));
    assert_eq!(s.seen("web").room.reachable, ["db", "web"], "nobody is cut off");
    accept(&mut s, "db");
    s.run(120);
    assert_eq!(s.stage("web"), Stage::Recovered);
    assert_eq!(s.condition("db", "Recovered").1, "WithExceptions");
    assert_eq!(s.condition("web", "Recovered").1, "Recovered");
}

/// A world at each stage, with something about to move.
fn about_to_move() -> Vec<(&'static str, Story)> {
    let isolated = {
        let mut s = story("- {name: web}");
        s.world.run(k8s_openapi::jiff::Timestamp::UNIX_EPOCH).unwrap();
        s.run(1);
        let of = s.seen("web");
        of.status.stage = Stage::Isolated;
        of.status.claimed_at = None;
        s
    };
    let held = |phase: Phase| {
        let mut s = story("- {name: web}");
        s.says("web", phase, Verdict::Unknown);
        s.run(60);
        s
    };
    let mut steps = held(Phase::BeforeRelease);
    let of = steps.seen("web");
    of.status.stage = Stage::Restoring;
    of.status.steps[0].state = StepState::Running;
    of.steps.clear();
    let mut opens = held(Phase::BeforeRelease);
    opens.says("web", Phase::BeforeRelease, Verdict::Pass);
    opens.seen("web").status.stage = Stage::Reconnecting;
    let key = crate::engine::GateKey { phase: Phase::BeforeRelease, name: "up".to_owned() };
    let gate = opens.seen("web").gates.get_mut(&key).unwrap();
    (gate.verdict, gate.changes_at) = (Verdict::Pass, None);
    vec![("claim", isolated), ("step", steps), ("open", opens)]
}

#[test]
fn no_stage_advances_without_recorded_requirements() {
    let unreadable = || AcceptedState::Unreadable { revision: "7".to_owned(), why: "not JSON".to_owned() };
    for (stage, s) in about_to_move() {
        let sound = moves(&s, "web");
        assert!(
            matches!(sound, Some(Effect::Claim { .. } | Effect::Step { .. } | Effect::Ask { .. }))
                || stage == "claim",
            "{stage}: {sound:?}"
        );
        type Change = (&'static str, Box<dyn Fn(&mut Story)>);
        let changes: Vec<Change> = vec![
            ("missing", Box::new(|s| s.seen("web").accepted.clear())),
            ("unreadable", Box::new(move |s| s.seen("web").accepted = vec![unreadable()])),
            (
                "loosened",
                Box::new(|s| {
                    let AcceptedState::Record { record, .. } = &mut s.seen("web").accepted[0] else {
                        panic!()
                    };
                    let mut more = (*record.requirements).clone();
                    more.depends_on.insert("namespace db".to_owned());
                    record.requirements = std::sync::Arc::new(more);
                }),
            ),
        ];
        for (what, change) in changes {
            let mut s = about_to_move().into_iter().find(|(name, _)| *name == stage).unwrap().1;
            change(&mut s);
            let id = s.id("web");
            let decided = look_at(&s.world.plan, &s.world.seen, id);
            match (what, &decided.effect) {
                ("missing", Some(Effect::Accept { records })) => assert_eq!(records.len(), 1),
                ("unreadable" | "loosened", None) => {
                    assert_eq!(decided.status.decision.unwrap().reason, Reason::Loosened, "{stage} {what}");
                }
                (_, effect) => panic!("{stage} {what}: {effect:?}"),
            }
            assert_eq!(decided.status.stage, s.stage("web"), "{stage} {what}");
        }
    }
}

#[test]
fn record_of_a_deleted_incident_is_ignored_and_overwritten() {
    let mut s = story("- {name: web}");
    s.says("web", Phase::BeforeRestore, Verdict::Unknown);
    s.run(30);
    s.seen("web").accepted = vec![AcceptedState::Outdated { revision: "7".to_owned() }];
    let Some(Effect::Accept { records }) = moves(&s, "web") else { panic!("{:?}", moves(&s, "web")) };
    assert_eq!(records[0].over.as_deref(), Some("7"));
}

#[test]
fn another_plans_namespace_is_not_recorded_for() {
    let mut s = story("- {name: web}");
    s.quarantine("web").claim = crate::engine::ClaimState::Other { holder: "a/b/c".to_owned() };
    s.run(30);
    assert_eq!(records(&s, "web"), 0);
    assert_eq!(s.blocks("web"), ["ClaimedByAnother: web"]);
}

#[test]
fn an_external_system_is_held_to_what_was_accepted_too() {
    let gates = "gates: {beforeRestore: [{name: a, http: {url: 'http://a.test/'}}], beforeRelease: [{name: b, http: {url: 'http://b.test/'}}]}, ungated: {reason: external}";
    let mut s =
        story(&format!("- {{name: idp, namespaces: [], {gates}}}\n- {{name: web, dependsOn: [idp]}}"));
    s.says("idp", Phase::BeforeRelease, Verdict::Unknown);
    s.run(30);
    assert_eq!((s.stage("idp"), records(&s, "idp")), (Stage::PostChecks, 1));
    s.world.plan =
        plan("- {name: idp, namespaces: [], ungated: {reason: external}}\n- {name: web, dependsOn: [idp]}");
    s.run(600);
    assert_eq!((s.stage("idp"), s.needs("idp")), (Stage::PostChecks, Some("Loosened")));
    assert_eq!(s.stage("web"), Stage::Isolated);
}

const HOST: &str = "- {name: web, cleanRoom: {hostAccess: {reason: it drives the storage}}}";

#[test]
fn host_access_needs_acceptance_before_the_clean_room_grants_it() {
    let mut s = story(HOST);
    s.run(60);
    assert_eq!((s.stage("web"), s.needs("web")), (Stage::Isolated, Some("Loosened")));
    assert!(
        s.condition("web", "NeedsDecision")
            .2
            .contains("Pod Security baseline forbids: it drives the storage")
    );
    s.says("web", Phase::BeforeRelease, Verdict::Unknown);
    accept(&mut s, "web");
    s.run(60);
    assert_eq!(
        (s.stage("web"), s.seen("web").room.pod_security),
        (Stage::PostChecks, PodSecurity::Privileged)
    );
    // Taken out of the plan, it is taken back at once.
    s.world.plan = plan("- {name: web}");
    s.run(5);
    assert_eq!(s.seen("web").room.pod_security, PodSecurity::Baseline);
    s.world.plan = plan(HOST);
    s.run(60);
    assert_eq!(s.seen("web").room.pod_security, PodSecurity::Baseline);
    assert_eq!(s.needs("web"), Some("Loosened"));
}

#[test]
fn undeclared_host_access_needs_a_decision_before_any_start() {
    let mut s = story("- {name: web}");
    s.says("web", Phase::BeforeRestore, Verdict::Unknown);
    s.run(30);
    assert_eq!(s.stage("web"), Stage::PreChecks);
    s.seen("web").inspection = Some(found());
    s.says("web", Phase::BeforeRestore, Verdict::Pass);
    s.run(60);
    assert_eq!((s.stage("web"), s.needs("web")), (Stage::PreChecks, Some("HostAccess")));
    assert!(s.condition("web", "NeedsDecision").2.contains("Deployment web/proxy: hostNetwork"));
    assert!(s.asked("web").is_empty());
    // Mended, and tried again: it is looked at afresh.
    s.retry("web");
    s.run(120);
    assert_eq!((s.stage("web"), s.status("web").attempt), (Stage::Recovered, 2));
}

#[test]
fn host_access_findings_stay_until_the_next_check() {
    let mut s = story("- {name: web}");
    s.says("web", Phase::BeforeRestore, Verdict::Unknown);
    s.run(30);
    s.seen("web").inspection = Some(found());
    s.run(30);
    assert_eq!(s.needs("web"), Some("HostAccess"));
    // Another process leads: it knows nothing of that yet.
    s.seen("web").inspection = None;
    let decided = look_at(&s.world.plan, &s.world.seen, 0);
    assert_eq!(decided.status.decision, s.status("web").decision);
    assert!(matches!(decided.effect, Some(Effect::Inspect { .. })));
}

fn found() -> Inspection {
    Inspection { host_access: vec!["Deployment web/proxy: hostNetwork".to_owned()], ..Inspection::default() }
}
