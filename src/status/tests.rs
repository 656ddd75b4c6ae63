use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::*;

mod left;
mod questions;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_763_971_200 + seconds).unwrap()
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> serde_json::Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(0).to_string()})
}

fn plan() -> RecoveryPlan {
    serde_json::from_value(json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "RecoveryPlan",
        "metadata": {"name": "three-boroughs", "namespace": "recovery"},
        "spec": {"serviceAccountName": "recovery", "services": [{"name": "identity"}]},
        "status": {
            "total": 4, "recovered": 1, "running": 1, "waiting": 1, "needsDecision": 1, "startedAt": at(0).to_string(),
            "blockedBy": [{"name": "integration", "reason": "GateFailed", "holds": 6}],
            "conditions": [condition("Ready", "False", "NeedsDecision", "1 service needs a decision")],
        },
    }))
    .unwrap()
}

fn record(service: &str, tier: i32, status: &serde_json::Value) -> ServiceRecovery {
    serde_json::from_value(json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "ServiceRecovery",
        "metadata": {"name": format!("three-boroughs.{service}"), "namespace": "recovery"},
        "spec": {"planRef": {"name": "three-boroughs", "uid": "u"}, "service": service, "tier": tier},
        "status": status,
    }))
    .unwrap()
}

fn records() -> Vec<ServiceRecovery> {
    let digest = format!("sha256:{}", "0a".repeat(32));
    vec![
        record(
            "wcc-adults-care",
            3,
            &json!({"stage": "Isolated", "isolation": "Contained", "waitingFor": "integration"}),
        ),
        record(
            "identity",
            1,
            &json!({
                "stage": "Recovered", "isolation": "Open", "conditions": [condition("Ready", "True", "Recovered", "")],
                "integrity": [
                    {"aspect": "Images", "state": "Proved", "gates": ["images"]},
                    {"aspect": "Secrets", "state": "NotLookedAt"}, {"aspect": "RBAC", "state": "NotLookedAt"},
                ],
            }),
        ),
        record(
            "integration",
            2,
            &json!({
                "stage": "PreChecks", "isolation": "Sealed", "waitingFor": "GateFailed: images",
                "decision": {"reason": "GateFailed", "digest": digest, "actions": ["Retry"], "since": at(60).to_string()},
                "conditions": [condition("NeedsDecision", "True", "GateFailed",
                    "images: Deployment shared-integration/message-hub: sha256:54e2… is not on the approved list")],
            }),
        ),
        record(
            "databases",
            2,
            &json!({"stage": "PostChecks", "attempt": 2, "isolation": "CleanRoom", "holes": ["DNS"], "waitingFor": "GateUnknown: up"}),
        ),
    ]
}

fn lease(renewed: i64) -> Lease {
    serde_json::from_value(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "resurgam"},
        "spec": {"holderIdentity": "resurgam-1", "leaseDurationSeconds": 15, "renewTime": format!("{:.6}", at(renewed))},
    }))
    .unwrap()
}

/// The page as a person without colours sees it.
fn page(view: &View, now: i64) -> String {
    anstream::adapter::strip_str(&render(view, at(now), 90)).to_string()
}

#[test]
fn page_shows_recovered_next_and_blocked() {
    let view = View::from_objects(&[plan()], &records(), Ok(&[]), Some(&lease(85)), at(90));
    assert!(view.needs_a_person());
    insta::assert_snapshot!(page(&view, 90));
}

#[test]
fn service_that_left_the_plan_needs_no_decision() {
    let mut all = records();
    let status = all[2].status.as_mut().unwrap();
    let message = "the plan names this service no more; its isolation stays as it is";
    let orphaned = condition("Orphaned", "True", "NotInPlan", message);
    status.conditions.push(serde_json::from_value(orphaned).unwrap());
    let mut plan = plan();
    let counts = plan.status.as_mut().unwrap();
    (counts.needs_decision, counts.conditions) = (0, Vec::new());
    let view = View::from_objects(&[plan], &all, Ok(&[]), Some(&lease(85)), at(90));
    assert!(!view.needs_a_person());
    let page = page(&view, 90);
    assert!(!page.contains("integration needs a decision"), "{page}");
    assert!(page.lines().any(|line| line.contains("integration") && line.contains("NotInPlan")), "{page}");
    assert!(!changes(None, &view).iter().any(|line| line.contains("needs a decision")));
}

/// What a service waits for, and whether it is said to be held up by it.
#[test]
fn lasting_block_is_shown_and_needs_a_person() {
    const WEBHOOK: &str = "Deployment meshed-app/app: 0 of 1 updated, 0 ready: Internal error occurred: failed calling webhook \
                           \"injector.mesh.example\": no endpoints available for service \"injector\"";
    let view = |reason: &str, message: &str, more: serde_json::Value| {
        let mut status = json!({
            "stage": "PostChecks", "isolation": "CleanRoom", "waitingFor": format!("{reason}: up"),
            "blockedBy": [{"reason": "StepPending", "name": "start"}, {"reason": reason, "name": "up", "message": message}],
        });
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut plan = plan();
        let counts = plan.status.as_mut().unwrap();
        (counts.needs_decision, counts.blocked_by, counts.conditions) = (0, Vec::new(), Vec::new());
        View::from_objects(&[plan], &[record("meshed-app", 1, &status)], Ok(&[]), Some(&lease(85)), at(90))
    };
    for (reason, message, more, held_up) in [
        ("GateUnknown", WEBHOOK, json!({}), true),
        ("Isolation", "x is on its way to CleanRoom: exceeded quota: pods, requested: 1", json!({}), true),
        ("QuarantineMissing", "namespace x has no Quarantine", json!({}), true),
        ("Suspended", "", json!({}), true),
        ("GateUnknown", "Deployment meshed-app/app: 0 of 1 updated", json!({}), false),
        ("QuarantineNotReady", "awaiting pods", json!({}), false),
        ("Conflict", "", json!({}), false),
        ("Dependency", WEBHOOK, json!({}), false),
        (
            "GateUnknown",
            WEBHOOK,
            json!({"conditions": [condition("Orphaned", "True", "NotInPlan", "")]}),
            false,
        ),
    ] {
        let view = view(reason, message, more);
        assert_eq!(view.needs_a_person(), held_up, "{reason}: {message}");
    }
    let webhook = view("GateUnknown", WEBHOOK, json!({}));
    insta::assert_snapshot!("held_up", page(&webhook, 90));
    insta::assert_snapshot!("held_up_lines", changes(None, &webhook).join("\n"));
    assert!(changes(Some(&webhook), &webhook).is_empty());
}

#[test]
fn silent_operator_is_shown_with_time_and_effect() {
    let view = View::from_objects(&[plan()], &[], Ok(&[]), Some(&lease(0)), at(90));
    insta::assert_snapshot!(page(&view, 90));
    let never = View::from_objects(&[], &[], Ok(&[]), None, at(0));
    assert!(never.needs_a_person());
    insta::assert_snapshot!("never_heard_of", page(&never, 0));
}

#[test]
fn without_terminal_each_change_but_the_first_is_a_line() {
    let before = View::from_objects(&[plan()], &[], Ok(&[]), Some(&lease(85)), at(90));
    let view = View::from_objects(&[plan()], &records(), Ok(&[]), Some(&lease(85)), at(90));
    insta::assert_snapshot!(changes(Some(&before), &view).join("\n"));
    assert!(changes(Some(&view), &view).is_empty());
}

/// A Quarantine that was made at 0.
fn quarantine(name: &str, level: &str, status: &serde_json::Value) -> DeserializeGuard<Quarantine> {
    serde_json::from_value(json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine",
        "metadata": {"name": name, "creationTimestamp": at(0).to_string()},
        "spec": {"isolation": level, "reason": "unusual activity", "incidentRef": {"name": "nov-2025"}},
        "status": status,
    }))
    .unwrap()
}

fn control(name: &str, state: &str, since: i64, message: &str) -> serde_json::Value {
    json!({"name": name, "state": state, "message": message, "since": at(since).to_string()})
}

fn healthy(name: &str) -> DeserializeGuard<Quarantine> {
    let conditions = [condition("Ready", "True", "Contained", "")];
    quarantine(name, "Contained", &json!({"isolation": "Contained", "conditions": conditions}))
}

const CILIUM: &str = "a network policy of another API lets traffic through: CiliumNetworkPolicy allow-world (allows ingress and \
                      egress). Who may repair quarantines/r18-lab deletes it: kubectl delete ciliumnetworkpolicies.cilium.io \
                      -n r18-lab allow-world";
const WEBHOOK: &str =
    "label namespace r03-portal: failed calling webhook \"validate.policy.example\": connection refused";

fn quarantines() -> Vec<DeserializeGuard<Quarantine>> {
    let stalled = json!({
        "isolation": "Contained",
        "controls": [control("Lock", "Tested", 0, "tried"), control("Network", "NotEnforced", 10, CILIUM)],
        "conditions": [
            condition("Ready", "False", "NetworkNotEnforced", CILIUM), condition("Stalled", "True", "NetworkNotEnforced", CILIUM),
        ],
    });
    let held_up = json!({
        "controls": [
            control("Lock", "NotEnforced", 20, "the namespace's label is not written"),
            control("Fence", "NotEnforced", 20, "the namespace's label is not written"),
            control("Network", "Tested", 20, "tried"),
        ],
        "conditions": [condition("Ready", "Unknown", "CallFailed", WEBHOOK), condition("Reconciling", "True", "CallFailed", WEBHOOK)],
    });
    let odd = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "odd"},
        "spec": {"isolation": "Buried", "reason": "x"},
    });
    vec![
        healthy("housing"),
        quarantine("r18-lab", "Contained", &stalled),
        quarantine("r03-portal", "Sealed", &held_up),
        healthy("parking"),
        quarantine("new", "Sealed", &json!({})),
        serde_json::from_value(odd).unwrap(),
    ]
}

#[test]
fn failing_quarantines_come_first_with_or_without_a_plan() {
    let all = quarantines();
    let view = View::from_objects(&[], &[], Ok(&all), Some(&lease(185)), at(190));
    assert!(view.needs_a_person());
    let failing: Vec<_> = view.quarantines.failing.iter().map(|q| q.namespace.as_str()).collect();
    assert_eq!(failing, ["new", "odd", "r03-portal", "r18-lab"]);
    insta::assert_snapshot!("failing_without_a_plan", page(&view, 190));
    let view = View::from_objects(&[plan()], &records(), Ok(&all), Some(&lease(185)), at(190));
    insta::assert_snapshot!("failing_with_a_plan", page(&view, 190));
    insta::assert_snapshot!("failing_for_programs", serde_json::to_string_pretty(&view.quarantines).unwrap());
}

#[test]
fn healthy_quarantines_are_one_line() {
    let all: Vec<_> = (0..12).map(|n| healthy(&format!("borough-{n}"))).collect();
    let view = View::from_objects(&[], &[], Ok(&all), Some(&lease(85)), at(90));
    assert!(!view.needs_a_person());
    insta::assert_snapshot!(page(&view, 90));
    let many: Vec<_> =
        (0..40).map(|n| quarantine(&format!("borough-{n:02}"), "Sealed", &json!({}))).collect();
    let view = View::from_objects(&[], &[], Ok(&many), Some(&lease(85)), at(90));
    assert!(page(&view, 90).contains("and 30 more"));
}

#[test]
fn a_quarantine_under_way_fails_only_after_a_minute() {
    let going = |since: i64, state: &str, reconciling: &str| {
        quarantine(
            "housing",
            "Sealed",
            &json!({
                "isolation": "Contained",
                "controls": [control("Workloads", state, since, "workloads are not at zero")],
                "conditions": [condition("Ready", "Unknown", "Stopping", "x"), condition("Reconciling", reconciling, "Stopping", "x")],
            }),
        )
    };
    let bare = || quarantine("housing", "Sealed", &json!({}));
    for (what, object, now, failing) in [
        ("a minute", going(30, "NotEnforced", "True"), 90, 0),
        ("more than a minute", going(30, "NotEnforced", "True"), 91, 1),
        ("another control", going(30, "Enforced", "True"), 500, 0),
        ("not reconciling", going(30, "NotEnforced", "False"), 500, 0),
        ("new", bare(), 60, 0),
        ("taken up by nobody", bare(), 61, 1),
        ("healthy", healthy("housing"), 500, 0),
    ] {
        let view = QuarantinesView::from_objects(Ok(&[object]), at(now));
        assert_eq!(view.failing.len(), failing, "{what}");
        let since = view.failing.first().and_then(|f| f.since);
        assert!(since.is_none_or(|since| since < at(now)), "{what}");
    }
}

#[test]
fn quarantines_that_may_not_be_listed_are_not_known() {
    let why = "list Quarantines: quarantines.resurgam.dev is forbidden. A cluster administrator grants list on quarantines";
    let view = View::from_objects(&[], &[], Err(why), Some(&lease(85)), at(90));
    assert!(!view.needs_a_person(), "nobody knows");
    insta::assert_snapshot!(page(&view, 90));
}

#[test]
fn a_quarantine_that_fails_or_fails_no_more_is_a_line() {
    let view = |quarantines: &[DeserializeGuard<Quarantine>]| {
        View::from_objects(&[], &[], Ok(quarantines), Some(&lease(185)), at(190))
    };
    let (good, bad) = (view(&[healthy("housing")]), view(&quarantines()[1..3]));
    assert_eq!(changes(Some(&good), &good), Vec::<String>::new());
    assert_eq!(changes(Some(&bad), &bad), Vec::<String>::new());
    assert_eq!(changes(None, &bad).len(), 2);
    let lines = [changes(Some(&good), &bad), changes(Some(&bad), &good)].concat();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn dormant_plan_says_what_it_lacks_and_armed_plan_until_recovered() {
    let lacks = "1 missing: ServiceAccount recovery/nobody does not exist";
    for (ready, reason, prepared, shown) in [
        ("True", "Dormant", Some("True"), "\nPrepared: "),
        ("True", "Dormant", Some("False"), "\nNot prepared: "),
        ("True", "Dormant", Some("Unknown"), "\nNot known whether it is prepared: "),
        ("True", "Dormant", None, ""),
        ("Unknown", "Progressing", Some("False"), "\nNot prepared: "),
        ("Unknown", "Progressing", Some("True"), ""),
        ("True", "Recovered", Some("False"), ""),
    ] {
        let mut plan = plan();
        let mut conditions = vec![condition("Ready", ready, reason, "")];
        conditions.extend(prepared.map(|status| condition("Prepared", status, "NotPrepared", lacks)));
        let status = plan.status.as_mut().unwrap();
        status.conditions = serde_json::from_value(json!(conditions)).unwrap();
        let view = View::from_objects(&[plan], &[], Ok(&[]), Some(&lease(85)), at(90));
        let page = page(&view, 90);
        assert_eq!(page.contains(lacks), !shown.is_empty(), "{page}");
        assert!(page.contains(shown), "{page}");
    }
}

#[test]
fn namespace_isolated_for_several_incidents_is_shown() {
    let quarantine: DeserializeGuard<Quarantine> = DeserializeGuard(Ok(serde_json::from_value(json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "web"},
        "spec": {"reason": "breach", "incidentRef": {"name": "nov"}, "furtherIncidents": [{"name": "dec", "reason": "again"}]},
    }))
    .unwrap()));
    let view = View::from_objects(&[], &[], Ok(&[quarantine]), Some(&lease(85)), at(90));
    let page = page(&view, 90);
    assert!(page.contains("web is isolated for several incidents: nov, dec"), "{page}");
}
