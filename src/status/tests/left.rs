//! What recovered services rest on, and what is left for people.

use super::*;

fn gate(name: &str, phase: &str, verdict: &str, reason: &str, message: &str) -> serde_json::Value {
    json!({"phase": phase, "name": name, "verdict": verdict, "reason": reason, "message": message, "since": at(0).to_string()})
}

fn resume(kind: &str, name: &str, state: &str, fires: &str, message: &str) -> serde_json::Value {
    json!({"kind": kind, "namespace": "library-db", "name": name, "state": state, "fires": fires, "message": message})
}

/// Three recovered services: one with exceptions, one unhealthy, one with suspended CronJobs.
fn recovered() -> (RecoveryPlan, Vec<ServiceRecovery>) {
    let mut plan = plan();
    let status = plan.status.as_mut().unwrap();
    (status.total, status.recovered, status.running, status.waiting, status.needs_decision) = (3, 3, 0, 0, 0);
    status.blocked_by.clear();
    let unhealthy =
        condition("Ready", "Unknown", "Unhealthy", "recovered, but continuous gates do not all pass");
    status.conditions = vec![serde_json::from_value(unhealthy).unwrap()];
    status.gate_overrides = serde_json::from_value(json!([
        {"service": "billing", "phase": "BeforeRelease", "gate": "up", "change": "Omitted"},
        {"service": "identity", "phase": "Continuous", "gate": "up", "change": "Replaced"},
    ]))
    .unwrap();
    let billing = json!({
        "stage": "Recovered", "isolation": "Open",
        "exceptions": [
            "not enforced: billing/Network: accepted by maria (Decision billing-1): the node is replaced tomorrow",
            "Deployment billing/api: paused at revision 41: accepted by maria (Decision billing-2): as agreed",
        ],
        "acceptedRollouts": ["Deployment billing/api", "StatefulSet billing/db"],
        "conditions": [condition("Ready", "True", "WithExceptions", ""), condition("Healthy", "True", "GatesPass", "")],
    });
    let identity = json!({
        "stage": "Recovered", "isolation": "Open",
        "gates": [
            gate("images", "Continuous", "Pass", "Approved", "2 images"),
            gate("up", "Continuous", "Fail", "NotReady",
                "Deployment identity/keycloak: 0 of 2 ready; Deployment identity/ldap: 0 of 1 ready"),
            gate("answers", "Continuous", "Unknown", "NoAnswer", "http://keycloak.identity.svc:8080/health: no answer within 10 s"),
            gate("earlier", "BeforeRelease", "Unknown", "NoAnswer", "not of today"),
        ],
        "conditions": [
            condition("Ready", "Unknown", "GateFailing", "up: …"), condition("Healthy", "Unknown", "GateFailing", "up: …"),
        ],
    });
    let library = json!({
        "stage": "Recovered", "isolation": "Open",
        "resumes": [
            resume("CronJob", "nightly", "Held", "would start at once: missed 2025-11-24 02:00 Europe/London",
                "nobody has said that the run which it missed is wanted"),
            resume("CronJob", "report", "Suspended", "next at 2025-11-25 02:00 Europe/London", "the plan does not name it under resume"),
            resume("Job", "import", "Due", "starts at once", "resumed once the service is recovered"),
        ],
        "conditions": [condition("Ready", "True", "Recovered", ""), condition("Healthy", "True", "GatesPass", "")],
    });
    (
        plan,
        vec![
            record("billing", 1, &billing),
            record("identity", 1, &identity),
            record("library", 2, &library),
        ],
    )
}

fn quarantines() -> Vec<DeserializeGuard<Quarantine>> {
    let ready = |level: &str| json!([condition("Ready", "True", level, "")]);
    let source = |kind: &str, name: &str, state: &str| json!({"kind": kind, "namespace": "flux-system", "name": name, "state": state});
    let left = |level: &str| {
        json!({
            "isolation": level, "conditions": ready(level), "unmanagedPods": ["debug"], "lostTokenSecrets": {"names": ["ci-token"]},
            "deliverers": [
                source("Kustomization", "library", "Suspended"), source("Application", "library", "Suspended"),
                source("HelmRelease", "elsewhere", "Denied"),
            ],
        })
    };
    let unknown = |level: &str| {
        let why = "the operator lists Secrets only with --evidence-key";
        json!({"isolation": level, "conditions": ready(level), "lostTokenSecrets": {"unknown": why}})
    };
    vec![
        quarantine("library-db", "Sealed", &left("Open")),
        quarantine("still-sealed", "Sealed", &left("Sealed")),
        quarantine("billing", "Sealed", &unknown("Open")),
        quarantine("identity", "Sealed", &unknown("CleanRoom")),
    ]
}

#[test]
fn recovered_services_show_what_they_rest_on_and_what_is_left() {
    let (plan, records) = recovered();
    let view = View::from_objects(&[plan], &records, Ok(&quarantines()), Some(&lease(85)), at(90));
    let page = page(&view, 90);
    assert!(!page.contains("still-sealed/debug"), "sealed, nothing is missed yet: {page}");
    insta::assert_snapshot!(page);
    insta::assert_snapshot!("left_for_programs", serde_json::to_string_pretty(&view).unwrap());
}

#[test]
fn an_unhealthy_service_without_a_verdict_says_what_its_condition_says() {
    let status = json!({
        "stage": "Recovered", "isolation": "Open",
        "conditions": [condition("Healthy", "Unknown", "NotAsked", "up: not asked yet since this operator leads")],
    });
    let view = View::from_objects(&[plan()], &[record("web", 1, &status)], Ok(&[]), Some(&lease(85)), at(90));
    let page = page(&view, 90);
    assert!(page.contains("web is unhealthy"), "{page}");
    assert!(page.contains("  Unknown NotAsked: up: not asked yet since this operator leads"), "{page}");
}

#[test]
fn messages_of_others_cannot_draw_over_the_page() {
    let status = json!({
        "stage": "Isolated",
        "blockedBy": [{"reason": "Refused", "name": "web", "message": "one\u{1b}[2J\u{1b}[Atwo\nthree\r"}],
    });
    let view = View::from_objects(&[plan()], &[record("web", 1, &status)], Ok(&[]), Some(&lease(85)), at(90));
    let drawn = render(&view, at(90), 90);
    assert!(
        !drawn.contains("\u{1b}[2J") && !drawn.contains("\u{1b}[A") && !drawn.contains('\r'),
        "{drawn:?}"
    );
    assert!(drawn.contains("two three"), "{drawn:?}");
}

#[test]
fn long_lists_are_cut_on_the_page_and_complete_for_programs() {
    let pods: Vec<String> = (0..30).map(|n| format!("pod-{n:02}")).collect();
    let status = json!({"isolation": "Open", "conditions": [condition("Ready", "True", "Open", "")], "unmanagedPods": pods});
    let view =
        View::from_objects(&[], &[], Ok(&[quarantine("shop", "Sealed", &status)]), Some(&lease(85)), at(90));
    assert_eq!(view.left.len(), 30);
    let page = page(&view, 90);
    assert!(page.contains("pod-19") && !page.contains("pod-20"), "{page}");
    assert!(page.contains("and 10 more: resurgam status --output json"), "{page}");
}
