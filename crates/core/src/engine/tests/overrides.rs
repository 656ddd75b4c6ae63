//! A control that does not hold: it goes on only by a Decision on just that, and never as if nothing had been.

use super::story::{Story, story};
use crate::api::quarantine::ControlName;
use crate::api::{Action, Isolation, Phase, Stage, Verdict};

const READY: &str = "Ready";

/// From now on the network of a service's namespace does not isolate.
fn leaks(s: &mut Story, service: &str) {
    let found = s.quarantine(service);
    found.ready = false;
    found.lacking = Some(ControlName::Network);
    found.message = "tried, and not enforced: on node a".to_owned();
}

#[test]
fn unenforced_network_needs_a_decision_when_the_turn_comes() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    leaks(&mut s, "db");
    leaks(&mut s, "web");
    s.run(60);
    assert_eq!((s.stage("db"), s.needs("db")), (Stage::Isolated, Some("ControlNotEnforced")));
    assert_eq!(s.status("db").decision.as_ref().unwrap().actions, [Action::Override]);
    assert_eq!(s.blocks("db"), ["ControlNotEnforced: db/Network"]);
    let (needed, reason, message) = s.condition("db", "NeedsDecision");
    assert_eq!((needed.as_str(), reason.as_str()), ("True", "ControlNotEnforced"));
    assert!(message.contains("on node a") && message.contains("Decision: Override"), "{message}");
    // It would be asked about nothing yet; but what is the matter shows.
    assert_eq!(s.needs("web"), None);
    assert!(s.blocks("web").contains(&"QuarantineNotReady: web".to_owned()), "{:?}", s.blocks("web"));
    assert!(s.asked("db").is_empty());
}

#[test]
fn an_override_goes_on_and_ends_with_exceptions_never_plain() {
    let mut s = story("- {name: db}");
    leaks(&mut s, "db");
    s.run(60);
    s.go_on("db");
    // The world of this test says of every level that it is ready once it is enforced; only what was there at first lacked.
    s.run(120);
    assert_eq!((s.stage("db"), s.status("db").attempt), (Stage::Recovered, 1));
    assert_eq!(s.asked("db"), [Isolation::Sealed, Isolation::CleanRoom, Isolation::Open]);
    let (status, reason, message) = s.condition("db", "Recovered");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "WithExceptions"));
    assert!(message.contains("not enforced: db/Network: accepted by wren (Decision d0)"), "{message}");
    assert_eq!(s.condition("db", READY).1, "WithExceptions");
    assert_eq!(s.plan_condition("Recovered"), ("True", "WithExceptions"));
    let accepted = &s.status("db").accepted;
    assert_eq!((accepted.len(), accepted[0].control), (1, ControlName::Network));
}

#[test]
fn control_lost_during_recovery_stops_it_until_accepted() {
    let mut s = story("- {name: db}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(30);
    assert_eq!(s.stage("db"), Stage::PostChecks);
    leaks(&mut s, "db");
    s.says("db", Phase::BeforeRelease, Verdict::Pass);
    s.run(60);
    assert_eq!((s.stage("db"), s.needs("db")), (Stage::PostChecks, Some("ControlNotEnforced")));
    assert_eq!(s.isolation("db"), Isolation::CleanRoom);
    s.go_on("db");
    s.run(60);
    assert_eq!(
        (s.stage("db"), s.condition("db", "Recovered").1.as_str()),
        (Stage::Recovered, "WithExceptions")
    );
}

#[test]
fn only_an_override_on_just_this_goes_on() {
    let mut s = story("- {name: db}");
    leaks(&mut s, "db");
    s.run(60);
    let digest = s.status("db").decision.as_ref().unwrap().digest.clone();
    s.decide("db", Action::Retry, &digest);
    s.decide("db", Action::Override, &format!("sha256:{}", "0".repeat(64)));
    s.run(600);
    assert_eq!((s.stage("db"), s.needs("db")), (Stage::Isolated, Some("ControlNotEnforced")));
    assert_eq!(s.status("db").attempt, 1, "a retry would change nothing");
    // Once it holds, nobody needs to decide, and nothing is an exception.
    s.quarantine("db").ready = true;
    s.quarantine("db").lacking = None;
    s.run(120);
    assert_eq!(s.condition("db", "Recovered").1, "Recovered");
}

#[test]
fn override_answers_no_retry_and_ends_with_its_attempt() {
    let mut s = story("- {name: db}");
    leaks(&mut s, "db");
    s.run(60);
    s.go_on("db");
    s.says("db", Phase::BeforeRestore, Verdict::Fail);
    s.run(60);
    assert_eq!(s.needs("db"), Some("GateFailed"));
    s.go_on("db");
    s.run(60);
    assert_eq!((s.needs("db"), s.status("db").attempt), (Some("GateFailed"), 1));
    s.retry("db");
    leaks(&mut s, "db");
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.run(60);
    assert_eq!((s.status("db").attempt, s.needs("db")), (2, Some("ControlNotEnforced")));
    assert!(s.status("db").accepted.is_empty() && s.status("db").exceptions.is_empty());
}

#[test]
fn accepted_control_covers_no_other_namespace_or_control() {
    let lacking = |s: &mut Story, namespace: usize, control: Option<ControlName>| {
        let found = s.seen("db").quarantines[namespace].found.as_mut().unwrap();
        (found.ready, found.lacking) = (control.is_none(), control);
    };
    let mut s = story("- {name: db, namespaces: [a, b]}");
    s.says("db", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    lacking(&mut s, 0, Some(ControlName::Network));
    s.run(5);
    assert_eq!(s.blocks("db"), ["ControlNotEnforced: a/Network"]);
    s.go_on("db");
    s.run(5);
    assert_eq!(s.needs("db"), None);
    for (namespace, control, block) in
        [(1, ControlName::Network, "b/Network"), (0, ControlName::Workloads, "a/Workloads")]
    {
        lacking(&mut s, namespace, Some(control));
        s.run(5);
        assert_eq!(s.blocks("db"), [format!("ControlNotEnforced: {block}")]);
        lacking(&mut s, namespace, None);
        s.run(5);
        assert_eq!(s.needs("db"), None);
    }
}
