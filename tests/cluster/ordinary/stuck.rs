//! Nothing hangs without asking, and what asked goes on by itself.

use control_plane::Identity;
use kube::api::DeleteParams;
use rehearsal::{Endpoint, condition, eventually, field, kind, text};
use serde_json::{Value, json};

use crate::bad_input::bench::{KINDS, cluster};
use crate::ordinary::estate::{Estate, workload};

#[tokio::test]
async fn dead_webhook_at_the_step_asks_and_gives_its_slot_back() {
    let estate = Estate::open(
        "hooked",
        &[
            ("intake", vec![workload("Deployment", "intake", 1)]),
            ("other", vec![workload("Deployment", "web", 1)]),
        ],
    )
    .await;
    estate.is_ready("intake", "Deployment", "intake", 1).await;
    estate.is_ready("other", "Deployment", "web", 1).await;
    estate.bench.isolate(&["intake", "other"]).await;
    // Whoever answered for it was isolated itself, and is no service of this plan.
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "hooked"},
        "webhooks": [{
            "name": "hooked.policy.example", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "timeoutSeconds": 1, "clientConfig": {"url": "https://127.0.0.1:9/validate"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "hooked-intake"}},
            "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["UPDATE"]}],
        }],
    });
    rehearsal::apply(&estate.bench.admin, "platform", &[webhook]).await.unwrap();
    let mut intake = estate.bench.service("intake", &[]);
    intake["stepDeadline"] = json!("4s");
    let mut plan = estate.plan(json!([intake, estate.bench.service("other", &[])]));
    plan["spec"]["maxParallel"] = json!(1);
    estate.bench.apply(&plan).await;
    let record = estate.asks("intake", "DeadlineExceeded").await;
    let block = field(&record, "/status/blockedBy/0");
    assert_eq!(block["reason"], "DeadlineExceeded");
    let said = block["message"].as_str().unwrap();
    assert!(said.contains("hooked.policy.example") && said.contains("has failed since"), "{said}");
    assert!(!text(&record, "/status/failingSince").is_empty(), "{record}");
    // The other service comes back meanwhile.
    estate.recovers("other").await;
    let hooks =
        kind(&estate.bench.admin, "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", None);
    hooks.delete("hooked", &DeleteParams::default()).await.unwrap();
    let record = estate.recovers("intake").await;
    assert_eq!(record["status"]["attempt"], 1, "nobody has to decide");
    assert_eq!(text(&record, "/status/failingSince"), "");
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn unknown_continuous_gate_that_holds_dependents_asks() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.answer(200);
    let estate = Estate::open(
        "doubt",
        &[("db", vec![workload("Deployment", "db", 1)]), ("web", vec![workload("Deployment", "web", 1)])],
    )
    .await;
    estate.is_ready("db", "Deployment", "db", 1).await;
    estate.bench.isolate(&["db"]).await;
    let mut db = estate.bench.service("db", &[]);
    let answers = json!({"name": "answers", "http": {"url": endpoint.url()}, "interval": "200ms", "timeout": "200ms", "unknownDeadline": "2s"});
    db["gates"] = json!({"continuous": [answers]});
    let plan = estate.plan(json!([db, estate.bench.service("web", &["db"])]));
    estate.bench.apply(&plan).await;
    estate.recovers("db").await;
    endpoint.answer(0);
    let record = estate.asks("db", "GateUnknown").await;
    assert_eq!(record["status"]["stage"], "Recovered");
    let said = text(&record, "/status/conditions").to_owned() + &record["status"].to_string();
    assert!(said.contains("continuous gate 'answers' has no answer since"), "{said}");
    endpoint.answer(200);
    estate.recovers("db").await;
    estate.bench.isolate(&["web"]).await;
    estate.recovers("web").await;
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn pod_that_cannot_run_is_named_in_the_schedulers_words() {
    let mut nowhere = workload("Deployment", "web", 1);
    nowhere["spec"]["template"]["spec"]["nodeSelector"] = json!({"resurgam.example/nowhere": "true"});
    let estate = Estate::open("unplaced", &[("web", vec![nowhere])]).await;
    estate.bench.isolate(&["web"]).await;
    let plan = estate.plan(json!([estate.bench.service("web", &[])]));
    estate.bench.apply(&plan).await;
    let words = ["Deployment unplaced-web/web", "pod web-", "cannot be scheduled", "nodes are available"];
    estate.bench.says("plan", "web", "GateUnknown", &words).await;
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn service_that_warms_up_is_not_failed_for_it() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.answer(503);
    let estate = Estate::open("warm", &[("portal", vec![workload("Deployment", "portal", 1)])]).await;
    estate.is_ready("portal", "Deployment", "portal", 1).await;
    estate.bench.isolate(&["portal"]).await;
    let gate = |name: &str, grace: Option<&str>| {
        let mut gate = json!({"name": name, "http": {"url": endpoint.url()}, "interval": "100ms", "timeout": "100ms", "failureLimit": 1});
        if let Some(grace) = grace {
            gate["startupGrace"] = json!(grace);
        }
        gate
    };
    let mut portal = estate.bench.service("portal", &[]);
    portal["gates"] = json!({"beforeRelease": [gate("answers", None)]});
    let plan = estate.plan(json!([portal]));
    estate.bench.apply(&plan).await;
    let words = ["answers", "503", "counts from", "startupGrace"];
    estate.bench.says("plan", "portal", "GateFailing", &words).await;
    endpoint.answer(200);
    let record = estate.recovers("portal").await;
    assert_eq!(record["status"]["attempt"], 1);
    estate.bench.judged(&plan).await;

    // Without a grace the first Fail counts.
    let estate = Estate::open("cold", &[("portal", vec![workload("Deployment", "portal", 1)])]).await;
    endpoint.answer(503);
    estate.bench.isolate(&["portal"]).await;
    let mut portal = estate.bench.service("portal", &[]);
    portal["gates"] = json!({"beforeRelease": [gate("answers", Some("0s"))]});
    estate.bench.apply(&estate.plan(json!([portal]))).await;
    estate.asks("portal", "GateFailed").await;
}

/// A right that was missing when its Quarantine was claimed.
#[tokio::test]
async fn missing_grant_of_recover_is_noticed_once_given() {
    let estate = Estate::open("later", &[("web", vec![workload("Deployment", "web", 1)])]).await;
    estate.is_ready("web", "Deployment", "web", 1).await;
    let bindings = kind(&estate.bench.admin, "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);
    bindings.delete("later-recover", &DeleteParams::default()).await.unwrap();
    estate.bench.isolate(&["web"]).await;
    let mut web = estate.bench.service("web", &[]);
    web["stepDeadline"] = json!("1s");
    let plan = estate.plan(json!([web]));
    estate.bench.apply(&plan).await;
    estate.asks("web", "DeadlineExceeded").await;
    let releaser = cluster().await.client(Identity::RecoveryLead).await.unwrap();
    let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": "later"}]);
    let granted = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "later-recover"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "later-recover"}, "subjects": account,
    });
    rehearsal::apply(&releaser, "platform", &[granted]).await.unwrap();
    let given = std::time::Instant::now();
    estate.recovers("web").await;
    assert!(given.elapsed() < std::time::Duration::from_secs(60), "{:?}", given.elapsed());
    let records = kind(&estate.bench.admin, KINDS, "ServiceRecovery", Some("later"));
    let calm = |object: &Value| condition(object, "NeedsDecision") == "False";
    eventually(&records, "plan.web", "calm", rehearsal::DEADLINE, calm).await.unwrap();
}
