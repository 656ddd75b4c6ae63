//! What people decide, by `resurgam decide`, each as themselves; and what the plan's failure policy does by itself.

use std::path::{Path, PathBuf};

use control_plane::Identity;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rehearsal::{condition, eventually, field, kind, text};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, KINDS, binding, cluster, incident, role};
use crate::quarantine_cli::support::{Ran, resurgam};

/// `resurgam decide ARGUMENTS`, by a kubeconfig. Other tests restart the operator: what is to be decided on is waited for before.
async fn decide(who: &Path, bench: &Bench, arguments: &[&str]) -> Ran {
    let all = [&["decide"], arguments, &["-n", bench.case, "--yes", "--wait", "60s"]].concat();
    resurgam(who, &all).await
}

/// The same, which took effect.
async fn decided(who: &Path, bench: &Bench, arguments: &[&str]) -> Ran {
    let ran = decide(who, bench, arguments).await;
    assert_eq!(ran.code, 0, "{arguments:?}: {}\n{}", ran.out, ran.err);
    ran
}

async fn as_lead() -> PathBuf {
    cluster().await.kubeconfig(Identity::RecoveryLead).to_owned()
}

/// A kubeconfig of somebody in these groups.
async fn person(name: &str, groups: &[&str]) -> PathBuf {
    let cluster = cluster().await;
    let admin = std::fs::read_to_string(cluster.kubeconfig(Identity::PlatformAdministrator)).unwrap();
    let mut config: Value = serde_yaml::from_str(&admin).unwrap();
    config["users"][0]["user"]["as"] = json!(name);
    config["users"][0]["user"]["as-groups"] = json!([groups, &["system:authenticated"]].concat());
    let path = cluster.dir().join(format!("{name}.kubeconfig"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

async fn record(bench: &Bench, service: &str, what: &str, is_it: impl Fn(&Value) -> bool + Send) -> Value {
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some(bench.case));
    eventually(&records, &format!("plan.{service}"), what, rehearsal::DEADLINE, is_it).await.unwrap()
}

fn exceptions(record: &Value) -> String {
    let all = field(record, "/status/exceptions").as_array().cloned().unwrap_or_default();
    all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// A service of the bench with this list of approved images only, which its own is not on.
fn unapproved(bench: &Bench, name: &str) -> Value {
    let mut service = bench.service(name, &[]);
    let other = format!("sha256:{}", "0a".repeat(32));
    service["gates"] = json!({"beforeRestore": [
        {"name": "images", "imageDigests": {"approved": [other]}, "interval": "500ms", "failureLimit": 1}]});
    service
}

#[tokio::test]
async fn on_call_holds_and_aborts_and_only_a_lead_lets_go() {
    let bench = Bench::new("held", &["db", "web"]).await;
    let plan = bench.plan("plan", json!([bench.service("db", &[]), bench.service("web", &["db"])]));
    bench.apply(&plan).await;
    bench.recovers("plan", "web").await;
    let (responder, lead) = (cluster().await.kubeconfig(Identity::Responder).to_owned(), as_lead().await);
    let ran = decided(&responder, &bench, &["web", "abort", "--reason", "the attacker is back"]).await;
    assert!(ran.out.contains("isolates the service again"), "{}", ran.out);
    let aborted =
        |o: &Value| field(o, "/status/attempt") == 2 && text(o, "/status/decision/reason") == "OnHold";
    let found = record(&bench, "web", "its attempt to end", aborted).await;
    assert_eq!(text(&found, "/status/history/0/reason"), "Aborted");
    assert!(text(&found, "/status/history/0/message").contains("the attacker is back"), "{found}");
    let quarantines = kind(&bench.admin, KINDS, "Quarantine", None);
    let is_sealed = |o: &Value| text(o, "/status/isolation") == "Sealed" && condition(o, "Ready") == "True";
    eventually(&quarantines, "held-web", "to be sealed", rehearsal::DEADLINE, is_sealed).await.unwrap();
    bench.stays("web", "sealed").await;
    assert_eq!(condition(&found, "Recovered"), "False");

    let refused = decide(&responder, &bench, &["web", "unhold", "--reason", "all clear"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("may not unhold recoveryplans/plan"), "{}", refused.err);
    let nothing = decide(&lead, &bench, &["db", "retry", "--reason", "a test"]).await;
    assert_eq!(nothing.code, 2);
    assert!(nothing.err.contains("nothing is asked about it"), "{}", nothing.err);
    let dry = decide(&lead, &bench, &["web", "unhold", "--dry-run"]).await;
    assert!(dry.code == 0 && dry.out.contains("is possible. Nothing was made"), "{}\n{}", dry.out, dry.err);

    decided(&lead, &bench, &["web", "unhold", "--reason", "all clear"]).await;
    bench.recovers("plan", "web").await;
    bench.judged(&plan).await;
}

#[tokio::test]
async fn approval_counts_people_by_their_own_groups() {
    let bench = Bench::with("approved", &["db"], |manifests| {
        manifests.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "approvers", "namespace": "approved"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "resurgam-approver"},
            "subjects": [
                {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "rbkc-leads"},
                {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "wcc-leads"},
            ],
        }));
    })
    .await;
    let mut db = bench.service("db", &[]);
    db["gates"] = json!({"beforeRelease": [{"name": "councils", "approval": {"parties": [
        {"name": "rbkc", "group": "rbkc-leads"}, {"name": "wcc", "group": "wcc-leads"}]}}]});
    let plan = bench.plan("plan", json!([db]));
    bench.apply(&plan).await;
    bench.says("plan", "db", "ApprovalNeeded", &["1 of party rbkc", "1 of party wcc"]).await;
    let (ana, bo) = (person("ana", &["rbkc-leads"]).await, person("bo", &["wcc-leads", "rbkc-leads"]).await);

    // Somebody else's group, past the command's own check.
    let decision = json!({
        "apiVersion": KINDS, "kind": "Decision", "metadata": {"name": "forged", "namespace": "approved"},
        "spec": {"by": "ana", "plan": "plan", "service": "db", "action": "Approve", "reason": "a test", "group": "wcc-leads",
            "decidedOn": format!("sha256:{}", "0a".repeat(32))},
    });
    let file = cluster().await.dir().join("forged.yaml");
    std::fs::write(&file, decision.to_string()).unwrap();
    let kubectl = tokio::process::Command::new(cluster().await.binary("kubectl").unwrap())
        .env("KUBECONFIG", &ana)
        .env("KUBECACHEDIR", cluster().await.dir().join("kubectl-cache"))
        .args(["create", "-f", file.to_str().unwrap()])
        .output()
        .await
        .unwrap();
    let error = String::from_utf8_lossy(&kubectl.stderr);
    assert!(error.contains("ana is not in group wcc-leads"), "{error}");
    let own = decide(&ana, &bench, &["db", "approve", "--group", "wcc-leads", "--reason", "a test"]).await;
    assert!(own.code == 2 && own.err.contains("you are in rbkc-leads"), "{}", own.err);

    decided(&ana, &bench, &["db", "approve", "--group", "rbkc-leads", "--reason", "seen with the vendor"])
        .await;
    bench.says("plan", "db", "ApprovalNeeded", &["approved by ana", "still needs 1 of party wcc"]).await;
    decided(&bo, &bench, &["db", "reject", "--group", "wcc-leads", "--reason", "the ledger is a day short"])
        .await;
    bench
        .says("plan", "db", "ApprovalNeeded", &["rejected by bo", "the ledger is a day short", "rbkc", "wcc"])
        .await;
    decided(&bo, &bench, &["db", "approve", "--group", "wcc-leads", "--reason", "it is there now"]).await;
    // Nobody is asked while an operator that has just begun to lead asks the other gates.
    bench.says("plan", "db", "ApprovalNeeded", &["approved by bo", "still needs 1 of party rbkc"]).await;
    decided(&ana, &bench, &["db", "approve", "--group", "rbkc-leads", "--reason", "seen again"]).await;
    let found = bench.recovers("plan", "db").await;
    assert_eq!(exceptions(&found), "");
    bench.judged(&plan).await;
}

#[tokio::test]
async fn failed_gate_and_failed_step_end_with_exceptions() {
    let bench = Bench::new("excepted", &["db"]).await;
    let mut db = unapproved(&bench, "db");
    db["restore"] = json!([
        {"name": "by-hand", "manual": {"instructions": "plug the partner's link back in"}},
        {"name": "missing", "scale": {"matchLabels": {"app": "nothing-of-that-name"}}},
        {"name": "start", "scale": {}},
    ]);
    let plan = bench.plan("plan", json!([db]));
    bench.apply(&plan).await;
    let lead = as_lead().await;
    bench.says("plan", "db", "GateFailed", &["images"]).await;
    let ran = decided(&lead, &bench, &["db", "acceptexception", "--reason", "the list lags behind"]).await;
    assert!(ran.out.contains("is not on the approved list"), "what it is about is shown: {}", ran.out);
    bench.says("plan", "db", "ApprovalNeeded", &["by-hand", "plug the partner's link back in"]).await;
    decided(&lead, &bench, &["db", "approve", "--reason", "it is in"]).await;
    bench.says("plan", "db", "StepFailed", &["missing"]).await;
    decided(&lead, &bench, &["db", "skip", "--reason", "it is no longer needed"]).await;
    let found = bench.recovers("plan", "db").await;
    let exceptions = exceptions(&found);
    for words in [
        "gate 'images' fails",
        "the list lags behind",
        "step 'missing' was skipped",
        "it is no longer needed",
    ] {
        assert!(exceptions.contains(words), "{words}: {exceptions}");
    }
    let reason = field(&found, "/status/conditions").as_array().unwrap();
    assert!(reason.iter().any(|c| c["type"] == "Recovered" && c["reason"] == "WithExceptions"));
    bench.judged(&plan).await;
}

#[tokio::test]
async fn optional_dependency_that_is_held_up_is_gone_without() {
    let bench = Bench::new("optional", &["dns", "web"]).await;
    let mut dns = unapproved(&bench, "dns");
    dns["impact"] = json!("Optional");
    let mut web = bench.service("web", &[]);
    web["optionalDependencies"] = json!(["dns"]);
    let plan = bench.plan("plan", json!([dns, web]));
    bench.apply(&plan).await;
    let found = bench.recovers("plan", "web").await;
    assert_eq!(exceptions(&found), "started without dns, which was held up by dns");
    let plans = kind(&bench.admin, KINDS, "RecoveryPlan", Some("optional"));
    let recovered = |o: &Value| condition(o, "Recovered") == "True";
    eventually(&plans, "plan", "to be recovered without it", rehearsal::DEADLINE, recovered).await.unwrap();
    bench.plan_says("plan", "False", "NeedsDecision", &["dns"]).await;
    bench.stays_sealed("dns").await;
    bench.judged(&plan).await;
}

#[tokio::test]
async fn tampered_service_isolates_itself_once() {
    let bench = Bench::new("contains", &["db"]).await;
    let mut db = bench.service("db", &[]);
    db["onRegression"] = json!("Contain");
    db["gates"] = json!({"continuous": [
        {"name": "images", "imageDigests": {"approvedFrom": {"configMap": {"name": "approved-images"}}}, "interval": "500ms",
            "failureLimit": 1}]});
    let plan = bench.plan("plan", json!([db]));
    bench.apply(&plan).await;
    bench.recovers("plan", "db").await;
    let other = format!("registry.example/miner:1@sha256:{}", "0b".repeat(32));
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": other}]}}}});
    let deployments = kind(&bench.admin, "apps/v1", "Deployment", Some("contains-db"));
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    let ended = |o: &Value| text(o, "/status/history/0/reason") == "Contained";
    let found = record(&bench, "db", "to isolate itself", ended).await;
    assert!(text(&found, "/status/history/0/message").contains("sha256:0b0b"), "{found}");
    // The next attempt finds the same before it restores anything.
    let asks = bench.says("plan", "db", "GateFailed", &["sha256:0b0b"]).await;
    assert_eq!((field(&asks, "/status/attempt"), text(&asks, "/status/stage")), (&json!(2), "PreChecks"));
    let namespace = kind(&bench.admin, "v1", "Namespace", None).get("contains-db").await.unwrap();
    // The claim of the next attempt lets the Quarantine's own level count, which is tighter.
    let label = namespace.metadata.labels.unwrap_or_default().get("resurgam.dev/isolation").cloned();
    assert!(matches!(label.as_deref(), Some("contained" | "sealed")), "{label:?}");
    bench.judged(&plan).await;
}

#[tokio::test]
async fn compromise_that_began_earlier_supersedes_what_was_proved() {
    let bench = Bench::open("superseded", &["db", "web"], |manifests| {
        manifests.push(incident("moves"));
    })
    .await;
    bench.isolate(&["db", "web"]).await;
    let mut plan = bench.plan("plan", json!([bench.service("db", &[]), unapproved(&bench, "web")]));
    plan["spec"]["incidentRef"]["name"] = json!("moves");
    bench.apply(&plan).await;
    bench.recovers("plan", "db").await;
    let incidents = kind(&bench.admin, KINDS, "Incident", None);
    let earlier = json!({"spec": {"compromisedSince": "2025-10-01T00:00:00Z"}});
    incidents.patch("moves", &PatchParams::default(), &Patch::Merge(&earlier)).await.unwrap();
    let asks = bench.says("plan", "db", "Superseded", &["2025-10-01", "2025-11-17"]).await;
    assert_eq!((condition(&asks, "Recovered"), condition(&asks, "Healthy")), ("True", "Unknown"));
    decided(&as_lead().await, &bench, &["db", "acceptexception", "--reason", "the images are of 2024"]).await;
    let found = bench.recovers("plan", "db").await;
    assert!(exceptions(&found).contains("proved for a later compromisedSince"), "{found}");
}

#[tokio::test]
async fn step_that_overruns_asks_is_started_once_and_can_be_skipped() {
    let bench = Bench::with("overruns", &["db"], |manifests| {
        let rules =
            json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list"]}]);
        manifests.push(role("ClusterRole", "overruns-jobs", "", &rules));
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": "overruns"}]);
        manifests.push(binding("ClusterRole", "overruns-jobs", "overruns-db", &account));
    })
    .await;
    let mut db = bench.service("db", &[]);
    let job = json!({"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never",
        "nodeSelector": {"resurgam.example/none": "true"},
        "containers": [{"name": "main", "image": format!("registry.example/web:1@{DIGEST}")}]}}});
    db["restore"] =
        json!([{"name": "load", "timeout": "2s", "job": {"spec": job}}, {"name": "start", "scale": {}}]);
    let plan = bench.plan("plan", json!([db]));
    bench.apply(&plan).await;
    bench.says("plan", "db", "StepOverrunning", &["load", "longer than its timeout of 2s"]).await;
    let lead = as_lead().await;
    let refused = decide(&lead, &bench, &["db", "retry", "--reason", "again"]).await;
    assert!(
        refused.err.contains("Retry does not answer StepOverrunning: possible are Skip"),
        "{}",
        refused.err
    );
    decided(&lead, &bench, &["db", "skip", "--reason", "the dump is loaded by hand"]).await;
    let found = bench.recovers("plan", "db").await;
    assert!(exceptions(&found).contains("step 'load' was skipped while it still ran, by"), "{found}");
    let jobs = kind(&bench.admin, "batch/v1", "Job", Some("overruns-db"));
    let jobs = jobs.list(&ListParams::default()).await.unwrap();
    assert_eq!(jobs.items.len(), 1, "it is never started a second time");
    bench.judged(&plan).await;
}

#[tokio::test]
async fn no_job_starts_beside_one_of_its_step_that_still_runs() {
    let bench = Bench::with("beside-job", &["db"], |manifests| {
        let rules =
            json!([{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list"]}]);
        manifests.push(role("ClusterRole", "beside-job", "", &rules));
        let subjects = json!([
            {"kind": "ServiceAccount", "name": "recovery", "namespace": "beside-job"},
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "recovery-lead"},
        ]);
        manifests.push(binding("ClusterRole", "beside-job", "beside-job-db", &subjects));
    })
    .await;
    let spec = json!({"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never",
        "nodeSelector": {"resurgam.example/none": "true"},
        "containers": [{"name": "main", "image": format!("registry.example/web:1@{DIGEST}")}]}}});
    let mut db = bench.service("db", &[]);
    db["restore"] = json!([
        {"name": "look", "manual": {"instructions": "see what runs"}},
        {"name": "load", "timeout": "1s", "job": {"spec": spec}},
        {"name": "start", "scale": {}},
    ]);
    let plan = bench.plan("plan", json!([db]));
    bench.apply(&plan).await;
    bench.says("plan", "db", "ApprovalNeeded", &["look"]).await;
    // As one of an attempt before, which a person skipped while it ran. Whether a Retry seals the namespace meanwhile, which suspends it,
    // depends on who is faster.
    let jobs = kind(&bench.lead().await, "batch/v1", "Job", Some("beside-job-db"));
    let earlier = json!({"apiVersion": "batch/v1", "kind": "Job", "spec": spec,
        "metadata": {"name": "step-load-0-earlier", "labels": {"resurgam.dev/step": "load"}}});
    jobs.create(&PostParams::default(), &serde_json::from_value(earlier).unwrap()).await.unwrap();
    let lead = as_lead().await;
    decided(&lead, &bench, &["db", "approve", "--reason", "seen"]).await;
    let waits = ["Job beside-job-db/step-load-0-earlier", "nothing is started beside it"];
    bench.says("plan", "db", "StepPending", &waits).await;
    let all = async || jobs.list(&ListParams::default()).await.unwrap().items.len();
    assert_eq!(all().await, 1);
    jobs.delete("step-load-0-earlier", &DeleteParams::background()).await.unwrap();
    bench.says("plan", "db", "StepOverrunning", &["load"]).await;
    assert_eq!(all().await, 1);
    bench.judged(&plan).await;
}
