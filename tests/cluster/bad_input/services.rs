//! Services that meet something they did not expect on their way.

use control_plane::Identity;
use kube::api::{DeleteParams, PostParams};
use rehearsal::{Endpoint, condition, eventually, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, KINDS, cluster, operator_is_up, quarantine, role};

#[tokio::test]
async fn missing_namespace_is_named_by_quarantine_and_service() {
    let bench = Bench::new("absent", &["web"]).await;
    rehearsal::apply(&bench.admin, "on-call", &[quarantine("absent-gone")]).await.unwrap();
    let quarantines = kind(&bench.admin, KINDS, "Quarantine", None);
    let said = |o: &Value| condition(o, "Ready") == "False";
    let found = eventually(&quarantines, "absent-gone", "its word", rehearsal::DEADLINE, said).await.unwrap();
    let conditions = rehearsal::field(&found, "/status/conditions").to_string();
    assert!(conditions.contains("absent-gone"), "{conditions}");
    // Nor is one that exists, and that nobody has isolated.
    let services =
        json!([bench.service("web", &[]), bench.service("gone", &[]), bench.service("forgotten", &[])]);
    bench.apply(&bench.plan("plan", services)).await;
    bench.says("plan", "gone", "QuarantineNotReady", &["absent-gone"]).await;
    bench
        .says("plan", "forgotten", "QuarantineMissing", &["namespace absent-forgotten has no Quarantine"])
        .await;
    bench.recovers("plan", "web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn a_malformed_digest_in_the_list_of_images_is_named() {
    let bench = Bench::with("malformed", &["web"], |manifests| {
        let list = manifests.iter_mut().find(|m| m["kind"] == "ConfigMap").unwrap();
        list["data"]["images"] = json!(format!("{DIGEST}\nsha256:not-a-digest # typed by hand"));
    })
    .await;
    bench.apply(&bench.plan("plan", json!([bench.service("web", &[])]))).await;
    bench
        .says("plan", "web", "GateUnknown", &["images", "approved-images", "line 2", "'sha256:not-a-digest'"])
        .await;
    bench.stays_sealed("web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn a_workload_that_vanished_while_isolated_is_no_pass() {
    let bench = Bench::new("vanished", &["web"]).await;
    let deployments = kind(&bench.lead().await, "apps/v1", "Deployment", Some("vanished-web"));
    deployments.delete("web", &DeleteParams::background()).await.unwrap();
    bench.apply(&bench.plan("plan", json!([bench.service("web", &[])]))).await;
    bench.says("plan", "web", "GateUnknown", &["images", "no workload in namespace vanished-web"]).await;
    bench.stays_sealed("web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_keeps_its_service_in_the_clean_room() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.answer(0);
    let bench = Bench::new("hangs", &["web"]).await;
    let mut service = bench.service("web", &[]);
    let http = json!({"name": "login", "http": {"url": endpoint.url()}, "timeout": "200ms", "interval": "200ms", "unknownDeadline": "1s"});
    service["gates"] = json!({"beforeRelease": [http]});
    bench.apply(&bench.plan("plan", json!([service]))).await;
    let record = bench.says("plan", "web", "GateUnknown", &["login"]).await;
    let said = record["status"]["blockedBy"].to_string();
    let asks = |o: &Value| condition(o, "NeedsDecision") == "True";
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("hangs"));
    let record =
        eventually(&records, "plan.web", "a Decision is asked for", rehearsal::DEADLINE, asks).await.unwrap();
    let words = record["status"]["blockedBy"].to_string();
    assert!(words.contains("login") && words.contains("200ms"), "{said}\n{words}");
    assert_eq!(record["status"]["stage"], "PostChecks");
    let namespace =
        rehearsal::object(&kind(&bench.admin, "v1", "Namespace", None), "hangs-web").await.unwrap();
    assert_eq!(rehearsal::text(&namespace, "/metadata/labels/resurgam.dev~1isolation"), "clean-room");
    operator_is_up().await;
    // What was only Unknown is asked on: nobody has to decide anything once it answers.
    endpoint.answer(200);
    bench.recovers("plan", "web").await;
}

#[tokio::test]
async fn missing_grant_is_named_and_its_step_goes_on_once_given() {
    let bench = Bench::with("noscale", &["web"], |manifests| {
        let restore = manifests.iter_mut().find(|m| m["metadata"]["name"] == "noscale-restore").unwrap();
        restore["rules"].as_array_mut().unwrap().pop();
    })
    .await;
    bench.apply(&bench.plan("plan", json!([bench.service("web", &[])]))).await;
    let account = "system:serviceaccount:noscale:recovery";
    let words = [account, "cannot patch resource", "deployments", "web", "noscale-web"];
    let record = bench.says("plan", "web", "StepDenied", &words).await;
    assert_eq!(condition(&record, "NeedsDecision"), "True");
    assert_eq!(record["status"]["decision"]["reason"], "StepDenied");
    bench.stays("web", "clean-room").await;

    let granted = json!([
        {"apiGroups": ["", "apps", "batch"], "resources": ["pods", "replicationcontrollers", "deployments", "statefulsets", "daemonsets", "replicasets", "cronjobs", "jobs"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]},
    ]);
    let granted = role("ClusterRole", "noscale-restore", "", &granted);
    rehearsal::apply(&bench.admin, "platform", &[granted]).await.unwrap();
    let granted_at = std::time::Instant::now();
    let record = bench.recovers("plan", "web").await;
    assert!(granted_at.elapsed() < std::time::Duration::from_secs(60), "{:?}", granted_at.elapsed());
    assert_eq!(record["status"]["attempt"], 1, "nobody has to retry");
    operator_is_up().await;
}

#[tokio::test]
async fn an_account_without_recover_is_told_to_ask_for_it() {
    let bench = Bench::with("ungranted", &["web"], |manifests| {
        manifests.retain(|m| m["kind"] != "ClusterRoleBinding");
    })
    .await;
    bench.apply(&bench.plan("plan", json!([bench.service("web", &[])]))).await;
    let words =
        ["system:serviceaccount:ungranted:recovery may not 'recover' quarantines.resurgam.dev/ungranted-web"];
    bench.says("plan", "web", "RecoverNotGranted", &words).await;
    bench.stays_sealed("web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn decision_in_another_name_or_without_the_right_is_refused() {
    // The Quarantine stands: the operator has written its policies, and the API server goes by them.
    let bench = Bench::new("decided", &["web"]).await;
    let decide = async |who: Identity, by: &str| {
        let decision = json!({
            "apiVersion": KINDS, "kind": "Decision", "metadata": {"generateName": "retry-", "namespace": "decided"},
            "spec": {"by": by, "action": "Retry", "plan": "plan", "service": "web", "decidedOn": DIGEST, "reason": "a test"},
        });
        let client = cluster().await.client(who).await.unwrap();
        let decisions = kind(&client, KINDS, "Decision", Some("decided"));
        match decisions.create(&PostParams::default(), &serde_json::from_value(decision).unwrap()).await {
            Err(kube::Error::Api(refused)) => {
                assert_eq!(refused.code, 403, "{}", refused.message);
                Err(refused.message)
            }
            other => Ok(other.unwrap()),
        }
    };
    let policy = "ValidatingAdmissionPolicy 'resurgam-decision'";
    let said = decide(Identity::RecoveryLead, "somebody-else").await.unwrap_err();
    assert!(
        said.contains(policy) && said.contains("spec.by is somebody-else, its creator is recovery-lead"),
        "{said}"
    );
    // Whoever may create anything is not thereby one who decides.
    let flux = "system:serviceaccount:flux-system:kustomize-controller";
    for (who, name) in [(Identity::GitOps, flux), (Identity::PlatformAdministrator, "platform-administrator")]
    {
        let said = decide(who, name).await.unwrap_err();
        let words = format!("{name} may not retry recoveryplans/plan in namespace decided");
        assert!(said.contains(policy) && said.contains(&words), "{said}");
    }
    let tenant = decide(Identity::TenantAdministrator, "tenant-administrator").await;
    assert!(tenant.is_err(), "the tenant administrator may not decide either");
    decide(Identity::RecoveryLead, "recovery-lead").await.unwrap();
    bench.stays_sealed("web").await;
    operator_is_up().await;
}

#[tokio::test]
async fn the_smallest_example_recovers_next_to_all_of_these() {
    let cluster = cluster().await;
    let kubectl = async |who: Identity, arguments: &[&str]| {
        let output = tokio::process::Command::new(cluster.binary("kubectl").unwrap())
            .env("KUBECONFIG", cluster.kubeconfig(who))
            .env("KUBECACHEDIR", cluster.dir().join("kubectl-cache"))
            .args(arguments)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let file = cluster.dir().join("smallest.yaml");
    std::fs::write(&file, rehearsal::smallest().unwrap()).unwrap();
    // The Incident of this name is there already, by another manager.
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", file.to_str().unwrap()];
    kubectl(Identity::PlatformAdministrator, &apply).await;
    for condition in ["Recovered", "Ready"] {
        let condition = format!("--for=condition={condition}");
        let wait = ["wait", &condition, "rplan/library", "-n", "recovery", "--timeout=180s"];
        kubectl(Identity::Responder, &wait).await;
    }
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    for (namespace, kind_, name, replicas) in
        [("library-db", "StatefulSet", "postgres", 1), ("library-web", "Deployment", "catalogue", 2)]
    {
        let workload = kind(&admin, "apps/v1", kind_, Some(namespace));
        let workload = rehearsal::object(&workload, name).await.unwrap();
        assert_eq!(workload["status"]["readyReplicas"], replicas, "{namespace}");
        let quarantine =
            rehearsal::object(&kind(&admin, KINDS, "Quarantine", None), namespace).await.unwrap();
        assert!(quarantine["status"]["capture"]["digest"].is_string(), "it was isolated before");
        assert_eq!(quarantine["status"]["isolation"], "Open");
    }
    let report = judge::judge_files(cluster.audit_log(), &file, &judge::Options::default()).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.loosenings, 4);
    operator_is_up().await;
}

/// The plan is amended half-way to name another namespace, about which every gate now passes: the one that was proved nothing
/// of is not let out for it.
#[tokio::test]
async fn namespace_dropped_from_a_plan_stays_isolated() {
    let bench = Bench::new("moved", &["old", "new"]).await;
    let mut service = bench.service("old", &[]);
    service["gates"] =
        json!({"beforeRelease": [{"name": "never", "workloads": {"matchLabels": {"app": "nobody"}}}]});
    bench.apply(&bench.plan("plan", json!([service]))).await;
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("moved"));
    let waits = |o: &Value| rehearsal::text(o, "/status/stage") == "PostChecks";
    eventually(&records, "plan.old", "its last gates to be asked", rehearsal::DEADLINE, waits).await.unwrap();
    let mut amended = bench.plan("plan", json!([bench.service("old", &[])]));
    amended["spec"]["services"][0]["namespaces"] = json!(["moved-new"]);
    amended["spec"]["services"][0]["ungated"] = json!({"reason": "a test"});
    amended["spec"]["defaults"] = json!({"gates": {"beforeRestore": [], "beforeRelease": []}});
    bench.apply(&amended).await;
    bench.says("plan", "old", "ClaimLost", &["moved-new", "retry"]).await;
    let namespaces = kind(&bench.admin, "v1", "Namespace", None);
    let old = rehearsal::object(&namespaces, "moved-old").await.unwrap();
    assert_eq!(rehearsal::text(&old, "/metadata/labels/resurgam.dev~1isolation"), "clean-room");
    bench.stays_sealed("new").await;
    operator_is_up().await;
}
