//! `quarantinePolicy: Create`.

use k8s_openapi::jiff::SignedDuration;

use super::story::{Story, plan_with};
use crate::api::Reason;
use crate::api::{Isolation, Phase, Stage, Verdict};
use crate::engine::{Effect, Presence, Refusal};

const CREATE: &str = "incidentRef: {name: nov}\nquarantinePolicy: Create";

fn story(services: &str) -> Story {
    Story::of(plan_with(CREATE, services))
}

fn made(s: &Story, service: &str) -> Vec<Vec<String>> {
    let made = |effect| match effect {
        Effect::Quarantine { namespaces } => Some(namespaces),
        _ => None,
    };
    s.done(service).into_iter().filter_map(made).collect()
}

/// Somebody who may deletes the Quarantine.
fn release(s: &mut Story, service: &str) {
    let q = &mut s.seen(service).quarantines[0];
    (q.exists, q.found) = (false, None);
}

#[test]
fn everything_is_isolated_at_once_in_whatever_order_it_recovers() {
    let mut s = story("- {name: db, namespaces: [db-a, db-b]}\n- {name: web, dependsOn: [db]}");
    s.says("db", Phase::BeforeRestore, Verdict::Unknown);
    s.run(60);
    assert_eq!(made(&s, "db"), [["db-a".to_owned(), "db-b".to_owned()]]);
    assert_eq!(made(&s, "web"), [["web".to_owned()]], "before its dependency is back");
    assert_eq!(s.isolation("web"), Isolation::Contained);
    s.says("db", Phase::BeforeRestore, Verdict::Pass);
    s.run(600);
    assert_eq!((s.stage("db"), s.stage("web")), (Stage::Recovered, Stage::Recovered));
    assert_eq!((made(&s, "db").len(), made(&s, "web").len()), (1, 1));
}

#[test]
fn by_default_and_without_an_incident_nothing_is_made() {
    for top in ["incidentRef: {name: nov}", "quarantinePolicy: Create"] {
        let mut s = Story::of(plan_with(top, "- {name: db}"));
        release(&mut s, "db");
        s.run(60);
        assert_eq!(made(&s, "db").len(), 0, "{top}");
    }
    // Named, and not there: nobody knows what for.
    let mut s = story("- {name: db}");
    s.world.seen.incident = Presence::Missing;
    s.run(60);
    assert_eq!(made(&s, "db").len(), 0);
    assert_eq!(s.blocks("db"), ["IncidentMissing: nov", "QuarantineMissing: db"]);
}

#[test]
fn one_that_was_deleted_is_not_made_again_in_this_attempt() {
    // Made by the plan, or by somebody else: it was there.
    for by_the_plan in [true, false] {
        let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
        s.says("db", Phase::BeforeRestore, Verdict::Unknown);
        if !by_the_plan {
            s.seen("web").quarantines[0].exists = true;
        }
        s.run(60);
        assert_eq!(made(&s, "web").len(), usize::from(by_the_plan));
        release(&mut s, "web");
        s.run(600);
        assert_eq!(made(&s, "web").len(), usize::from(by_the_plan));
        assert_eq!(s.blocks("web")[0], "QuarantineReleased: web");
        let told = &s.status("web").blocked_by[0].message;
        assert!(told.starts_with("namespace web was let out: its Quarantine was deleted"), "{told}");
    }
}

#[test]
fn one_that_is_being_deleted_is_there() {
    let mut s = story("- {name: db}");
    s.seen("db").quarantines[0].exists = true;
    s.run(5);
    release(&mut s, "db");
    s.run(60);
    assert_eq!(made(&s, "db").len(), 0);
}

#[test]
fn only_a_retry_recreates_a_released_quarantine() {
    let mut s = story("- {name: db}");
    s.says("db", Phase::BeforeRelease, Verdict::Fail);
    s.run(60);
    assert_eq!(s.needs("db"), Some("GateFailed"));
    release(&mut s, "db");
    s.run(60);
    assert_eq!(made(&s, "db").len(), 1);
    s.says("db", Phase::BeforeRelease, Verdict::Pass);
    s.retry("db");
    s.run(600);
    assert_eq!((s.stage("db"), made(&s, "db").len()), (Stage::Recovered, 2));
    // Open, with its Quarantine gone: it is released for good.
    release(&mut s, "db");
    s.run(600);
    assert_eq!((s.stage("db"), made(&s, "db").len()), (Stage::Recovered, 2));
}

#[test]
fn recreated_plan_does_not_undo_a_release() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.says("db", Phase::BeforeRestore, Verdict::Unknown);
    s.run(60);
    release(&mut s, "web");
    s.seen("web").other_plan = Some("uid-0".to_owned());
    s.run(60);
    assert_eq!((s.status("web").attempt, made(&s, "web").len()), (2, 1));
}

#[test]
fn the_clusters_own_namespaces_are_never_isolated() {
    let mut s = story("- {name: dns, namespaces: [kube-system]}\n- {name: db}");
    s.run(60);
    assert_eq!((made(&s, "dns").len(), made(&s, "db").len()), (0, 1));
}

#[test]
fn denied_quarantine_creation_is_reported_and_retried() {
    let mut s = story("- {name: db}");
    (s.seen("db").exists, s.seen("db").generation) = (true, Some(1));
    let again_at = s.world.seen.now.checked_add(SignedDuration::from_secs(10)).unwrap();
    let reason = Reason::QuarantineNotGranted;
    s.seen("db").refused = Some(Refusal { reason, message: "bind it".to_owned(), again_at, since: None });
    s.run(5);
    assert_eq!((s.blocks("db"), made(&s, "db").len()), (vec!["QuarantineNotGranted: db".to_owned()], 0));
    s.run(60);
    assert_eq!(made(&s, "db").len(), 1);
}

/// A database that an operator of its own runs as bare pods is not silently gone.
#[test]
fn pods_that_nothing_brings_back_are_exceptions_of_the_recovery() {
    let mut s = super::story::story("- {name: db}");
    s.quarantine("db").unmanaged_pods = vec!["database-1".to_owned(), "database-2".to_owned()];
    s.run(600);
    assert_eq!(s.stage("db"), Stage::Recovered);
    let expected = "namespace db: pods were stopped that no workload brings back: database-1, database-2";
    assert_eq!(s.status("db").exceptions, [expected]);
    assert_eq!(s.condition("db", crate::api::conditions::RECOVERED).1, "WithExceptions");
}

#[test]
fn service_is_rebuilt_in_a_namespace_that_is_isolated_before_it_exists() {
    let services = "- {name: shop, namespaces: [shop-new], replaces: [shop]}";
    let mut s = Story::of(plan_with("incidentRef: {name: nov}", services));
    let mut without = Story::of(plan_with("incidentRef: {name: nov}", services));
    release(&mut without, "shop");
    without.run(5);
    assert_eq!(made(&without, "shop"), [["shop-new".to_owned()]], "its Quarantine first");
    let missing = s.quarantine("shop");
    (missing.isolation, missing.ready, missing.is_namespace_missing) = (None, false, true);
    s.run(60);
    let effects = s.done("shop");
    let created = Effect::CreateNamespaces { namespaces: vec!["shop-new".to_owned()] };
    assert!(effects.contains(&created), "{effects:?}");
    assert_eq!(s.stage("shop"), Stage::Recovered);
    let original = s.seen("shop").originals[0].found.as_ref().unwrap().isolation;
    assert_eq!(original, Some(Isolation::Contained), "nobody touches the original");
}

#[test]
fn nothing_is_rebuilt_while_the_original_is_not_isolated() {
    let services = "- {name: shop, namespaces: [shop-new], replaces: [shop]}";
    let mut s = Story::of(plan_with("incidentRef: {name: nov}", services));
    s.seen("shop").originals[0].found.as_mut().unwrap().isolation = Some(Isolation::Open);
    s.run(60);
    assert_eq!(
        (s.stage("shop"), s.blocks("shop")),
        (Stage::Isolated, vec!["OriginalNotIsolated: shop".to_owned()])
    );
    s.seen("shop").originals[0].found.as_mut().unwrap().isolation = Some(Isolation::Sealed);
    s.says("shop", Phase::BeforeRelease, Verdict::Unknown);
    s.run(60);
    assert_eq!(s.stage("shop"), Stage::PostChecks);
    // Somebody lets the original out: the copy is not opened beside it.
    s.seen("shop").originals[0].found = None;
    s.says("shop", Phase::BeforeRelease, Verdict::Pass);
    s.run(60);
    assert_eq!((s.stage("shop"), s.isolation("shop")), (Stage::PostChecks, Isolation::CleanRoom));
}

#[test]
fn original_that_a_service_recovers_is_a_problem_of_the_plan() {
    let plan = plan_with(CREATE, "- {name: shop}\n- {name: new, namespaces: [shop-new], replaces: [shop]}");
    assert_eq!(plan.services[1].problems[0].reason, Reason::ReplacesRecovered);
}
