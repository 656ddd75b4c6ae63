//! Plans that are wrong in themselves, or with what they name.

use kube::api::{DeleteParams, ListParams};
use rehearsal::{condition, eventually, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, KINDS, operator_is_up};

#[tokio::test]
async fn a_cycle_is_named_with_its_path_and_the_rest_recovers() {
    let bench = Bench::new("cycle", &["a", "b", "after", "apart"]).await;
    let services = json!([
        bench.service("a", &["b"]),
        bench.service("b", &["a"]),
        bench.service("after", &["b"]),
        bench.service("apart", &[])
    ]);
    let plan = bench.plan("plan", services);
    bench.apply(&plan).await;
    let told = bench
        .plan_says("plan", "False", "Cycle", &["these depend on each other", "a → b", "Cut an edge"])
        .await;
    assert_eq!((condition(&told, "Stalled"), condition(&told, "Reconciling")), ("True", ""));
    for service in ["a", "b"] {
        bench.says("plan", service, "Cycle", &["a → b"]).await;
    }
    bench.says("plan", "after", "Dependency", &["b"]).await;
    bench.recovers("plan", "apart").await;
    for service in ["a", "b", "after"] {
        bench.stays_sealed(service).await;
    }
    bench.judged(&plan).await;
    operator_is_up().await;
}

#[tokio::test]
async fn missing_dependency_is_named_and_the_rest_recovers() {
    let bench = Bench::new("unknown", &["database", "web"]).await;
    let services = json!([bench.service("database", &[]), bench.service("web", &["databases"])]);
    bench.apply(&bench.plan("plan", services)).await;
    let words = ["web depends on 'databases'", "did you mean 'database'?"];
    bench.plan_says("plan", "False", "UnknownService", &words).await;
    bench.says("plan", "web", "UnknownService", &words).await;
    bench.recovers("plan", "database").await;
    bench.stays_sealed("web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn the_second_plan_over_a_namespace_is_told_whose_it_is() {
    let bench = Bench::new("claimed", &["web"]).await;
    bench.apply(&bench.plan("first", json!([bench.service("web", &[])]))).await;
    let quarantines = kind(&bench.admin, KINDS, "Quarantine", None);
    let claimed = |o: &Value| rehearsal::text(o, "/status/claimedBy/display") == "claimed/first/web";
    eventually(&quarantines, "claimed-web", "the first plan's claim", rehearsal::DEADLINE, claimed)
        .await
        .unwrap();
    bench.apply(&bench.plan("second", json!([bench.service("web", &[])]))).await;
    let words = ["claimed-web", "claimed by claimed/first/web"];
    let record = bench.says("second", "web", "ClaimedByAnother", &words).await;
    assert_eq!(
        (&record["status"]["stage"], &record["spec"]["isolation"]),
        (&json!("Isolated"), &Value::Null)
    );
    bench.recovers("first", "web").await;
    let still = rehearsal::object(&quarantines, "claimed-web").await.unwrap();
    assert!(claimed(&still), "{}", still["status"]["claimedBy"]);
    // With the first plan its claim goes, and whoever waited for that is told at once; what runs is not stopped by that.
    let plans = kind(&bench.admin, KINDS, "RecoveryPlan", Some("claimed"));
    plans.delete("first", &DeleteParams::default()).await.unwrap();
    bench.says("second", "web", "AlreadyOpen", &["claimed-web", "retry"]).await;
    still_runs(&bench, "web").await;
    operator_is_up().await;
}

/// A service's namespace is open, and its Deployment is not at zero.
async fn still_runs(bench: &Bench, service: &str) {
    let name = bench.namespace(service);
    let namespace = rehearsal::object(&kind(&bench.admin, "v1", "Namespace", None), &name).await.unwrap();
    assert_eq!(rehearsal::text(&namespace, "/metadata/labels/resurgam.dev~1isolation"), "");
    let deployments = kind(&bench.admin, "apps/v1", "Deployment", Some(&name));
    let all = deployments.list(&ListParams::default()).await.unwrap();
    assert!(!all.items.is_empty());
    assert!(all.items.iter().all(|d| d.data["spec"]["replicas"].as_i64() > Some(0)), "{name}");
}

#[tokio::test]
async fn recovered_service_survives_recreated_plan_and_record() {
    let bench = Bench::new("anew", &["web"]).await;
    let plan = bench.plan("plan", json!([bench.service("web", &[])]));
    bench.apply(&plan).await;
    bench.recovers("plan", "web").await;
    let plans = kind(&bench.admin, KINDS, "RecoveryPlan", Some("anew"));
    plans.delete("plan", &DeleteParams::default()).await.unwrap();
    bench.apply(&plan).await;
    let uid = plans.get("plan").await.unwrap().metadata.uid.unwrap();
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("anew"));
    let taken_over = |o: &Value| {
        rehearsal::text(o, "/spec/planRef/uid") == uid
            && condition(o, "Recovered") == "True"
            && condition(o, "Healthy") == "True"
    };
    let record =
        eventually(&records, "plan.web", "the new plan to take over", rehearsal::DEADLINE, taken_over)
            .await
            .unwrap();
    assert_eq!((&record["status"]["stage"], &record["status"]["attempt"]), (&json!("Recovered"), &json!(1)));
    still_runs(&bench, "web").await;
    records.delete("plan.web", &DeleteParams::default()).await.unwrap();
    bench.says("plan", "web", "AlreadyOpen", &["anew-web", "retry"]).await;
    still_runs(&bench, "web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn a_missing_service_account_is_named() {
    let bench = Bench::new("account", &["web"]).await;
    let mut plan = bench.plan("plan", json!([bench.service("web", &[])]));
    plan["spec"]["serviceAccountName"] = json!("nobody");
    bench.apply(&plan).await;
    let words = ["there is no ServiceAccount nobody in namespace account"];
    bench.plan_says("plan", "False", "ServiceAccountMissing", &words).await;
    bench.says("plan", "web", "ServiceAccountMissing", &words).await;
    bench.stays_sealed("web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn missing_incident_is_named_and_plan_goes_on_once_it_exists() {
    let bench = Bench::new("incident", &["web"]).await;
    let mut plan = bench.plan("plan", json!([bench.service("web", &[])]));
    plan["spec"]["incidentRef"] = json!({"name": "never-declared"});
    bench.apply(&plan).await;
    let words = ["there is no Incident named never-declared"];
    bench.plan_says("plan", "False", "IncidentMissing", &words).await;
    bench.says("plan", "web", "IncidentMissing", &words).await;
    bench.stays_sealed("web").await;
    let incident = json!({
        "apiVersion": KINDS, "kind": "Incident", "metadata": {"name": "never-declared"},
        "spec": {"title": "Declared at last", "compromisedSince": "2025-11-17T00:00:00Z"},
    });
    rehearsal::apply(&bench.admin, "platform", &[incident]).await.unwrap();
    bench.recovers("plan", "web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn an_empty_list_of_gates_is_no_pass() {
    let bench = Bench::new("empty", &["web", "said"]).await;
    let mut plan = bench.plan("plan", json!([bench.service("web", &[]), bench.service("said", &[])]));
    plan["spec"]["defaults"] = json!({"gates": {"beforeRestore": [], "beforeRelease": []}});
    // The other one says out loud that it has none: it recovers, with an exception.
    plan["spec"]["services"][1]["ungated"] = json!({"reason": "a test without gates"});
    bench.apply(&plan).await;
    let words =
        ["web has no beforeRestore gate, no beforeRelease gate, no integrity gate", "empty is not passed"];
    bench.plan_says("plan", "False", "Ungated", &words).await;
    bench.says("plan", "web", "Ungated", &words).await;
    let said = bench.recovers("plan", "said").await;
    let reason = rehearsal::field(&said, "/status/conditions").as_array().unwrap();
    let reason = reason.iter().find(|c| c["type"] == "Recovered").unwrap();
    assert_eq!(reason["reason"], "WithExceptions");
    bench.stays_sealed("web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn a_plan_that_names_kube_system_touches_nothing_there() {
    let bench = Bench::new("system", &["web"]).await;
    let mut service = bench.service("web", &[]);
    service["namespaces"] = json!(["system-web", "kube-system"]);
    let accounts = kind(&bench.admin, "v1", "Namespace", None);
    let before = rehearsal::object(&accounts, "kube-system").await.unwrap();
    bench.apply(&bench.plan("plan", json!([service]))).await;
    let words = ["namespace kube-system is never isolated or recovered"];
    bench.plan_says("plan", "False", "ProtectedNamespace", &words).await;
    bench.says("plan", "web", "ProtectedNamespace", &words).await;
    bench.stays_sealed("web").await;
    let after = rehearsal::object(&accounts, "kube-system").await.unwrap();
    assert_eq!(after["metadata"], before["metadata"]);
    operator_is_up().await;
}
