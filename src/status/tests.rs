use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::*;

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
            &json!({"stage": "Recovered", "isolation": "Open", "conditions": [condition("Ready", "True", "Recovered", "")]}),
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
fn the_page_tells_what_is_back_what_is_next_and_what_holds_it() {
    let view = View::of(&[plan()], &records(), Some(&lease(85)), at(90));
    assert!(view.needs_a_person());
    insta::assert_snapshot!(page(&view, 90));
}

#[test]
fn a_silent_operator_is_told_with_since_when_and_what_it_means() {
    let view = View::of(&[plan()], &[], Some(&lease(0)), at(90));
    insta::assert_snapshot!(page(&view, 90));
    let never = View::of(&[], &[], None, at(0));
    assert!(never.needs_a_person());
    insta::assert_snapshot!("never_heard_of", page(&never, 0));
}

#[test]
fn without_a_terminal_each_change_is_a_line_and_a_first_isolation_is_none() {
    let before = View::of(&[plan()], &[], Some(&lease(85)), at(90));
    let view = View::of(&[plan()], &records(), Some(&lease(85)), at(90));
    insta::assert_snapshot!(changes(Some(&before), &view).join("\n"));
    assert!(changes(Some(&view), &view).is_empty());
}
