//! `quarantinePolicy: Create`.

use kube::api::DeleteParams;
use rehearsal::{kind, object, text};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, KINDS, cluster, role};

/// The right to make Quarantines, for the account of one case.
fn may_create(case: &str) -> [Value; 2] {
    let name = format!("{case}-isolate");
    let rules = json!([{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "verbs": ["create"]}]);
    [
        role("ClusterRole", &name, "", &rules),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "recovery", "namespace": case}],
        }),
    ]
}

fn creating(mut plan: Value) -> Value {
    plan["spec"]["quarantinePolicy"] = json!("Create");
    plan
}

/// As whom a Quarantine was made, by the audit log.
async fn makers(name: &str) -> Vec<String> {
    let log = std::fs::read_to_string(cluster().await.audit_log()).unwrap();
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains(name));
    let events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let made = events.filter(|e| {
        e["verb"] == "create"
            && e["objectRef"]["resource"] == "quarantines"
            && e["objectRef"]["name"] == name
            && e["responseStatus"]["code"] == 201
            && e["stage"] == "ResponseComplete"
    });
    made.map(|e| text(&e, "/impersonatedUser/username").to_owned()).collect()
}

#[tokio::test]
async fn plan_that_opts_in_isolates_and_recovers_its_services() {
    let bench = Bench::open("create", &["db", "web"], |_| {}).await;
    let services = json!([bench.service("db", &[]), bench.service("web", &["db"])]);
    let plan = creating(bench.plan("plan", services));
    bench.apply(&plan).await;
    // What its account may not, is not done by the operator in its stead.
    let words =
        ["system:serviceaccount:create:recovery", "quarantines.resurgam.dev/create-db", "verbs: [create]"];
    bench.says("plan", "db", "QuarantineNotGranted", &words).await;
    let quarantines = kind(&bench.admin, KINDS, "Quarantine", None);
    assert!(quarantines.get_opt("create-db").await.unwrap().is_none());

    rehearsal::apply(&bench.admin, "platform", &may_create("create")).await.unwrap();
    bench.recovers("plan", "db").await;
    bench.recovers("plan", "web").await;
    for service in ["create-db", "create-web"] {
        let made = object(&quarantines, service).await.unwrap();
        assert_eq!(text(&made, "/spec/isolation"), "Contained");
        assert_eq!(text(&made, "/spec/incidentRef/name"), "nov-2025");
        let reason = text(&made, "/spec/reason");
        assert!(reason.contains("create/plan") && reason.contains("Incident nov-2025"), "{reason}");
        assert_eq!(makers(service).await, ["system:serviceaccount:create:recovery"], "{service}");
    }
    assert_eq!(bench.judged(&plan).await.loosenings, 4);
}

#[tokio::test]
async fn what_a_lead_lets_out_is_not_isolated_again_behind_their_back() {
    let bench = Bench::open("release", &["stuck", "late"], |manifests| {
        manifests.extend(may_create("release"));
        for list in manifests.iter_mut().filter(|m| m["kind"] == "ConfigMap") {
            list["data"]["images"] = json!("");
        }
    })
    .await;
    let services = json!([bench.service("stuck", &[]), bench.service("late", &["stuck"])]);
    bench.apply(&creating(bench.plan("plan", services))).await;
    rehearsal::three_boroughs::isolated(cluster().await, "release-late").await.unwrap();
    let quarantines = kind(&bench.lead().await, KINDS, "Quarantine", None);
    quarantines.delete("release-late", &DeleteParams::default()).await.unwrap();
    bench.says("plan", "late", "QuarantineReleased", &["release-late"]).await;
    let gone =
        rehearsal::await_condition(quarantines.clone(), "release-late", |found: Option<&_>| found.is_none());
    tokio::time::timeout(rehearsal::DEADLINE, gone).await.unwrap().unwrap();
    assert_eq!(makers("release-late").await.len(), 1);
    let namespace = object(&kind(&bench.admin, "v1", "Namespace", None), "release-late").await.unwrap();
    assert_eq!(
        text(&namespace, "/metadata/labels/resurgam.dev~1isolation"),
        "",
        "it is let out, and stays so"
    );
    // Whoever is on call can isolate it again, and it goes on.
    rehearsal::apply(&bench.admin, "on-call", &[crate::bad_input::bench::quarantine("release-late")])
        .await
        .unwrap();
    bench.says("plan", "late", "Dependency", &["stuck"]).await;
}

#[tokio::test]
async fn service_is_rebuilt_beside_its_sealed_original() {
    let bench = Bench::with("rebuilt", &["shop"], |manifests| {
        manifests.extend(may_create("rebuilt"));
        let rules = json!([
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"]},
            {"apiGroups": ["", "apps", "batch"], "resources": ["pods", "replicationcontrollers", "deployments", "statefulsets", "daemonsets", "replicasets", "cronjobs", "jobs"], "verbs": ["create", "get", "list", "watch"]},
        ]);
        manifests.push(role("ClusterRole", "rebuilt-restore-new", "", &rules));
        manifests.push(role(
            "ClusterRole",
            "rebuilt-recover-new",
            "",
            &json!([{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": ["rebuilt-new"], "verbs": ["recover"]}]),
        ));
        for name in ["rebuilt-restore-new", "rebuilt-recover-new"] {
            manifests.push(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": "recovery", "namespace": "rebuilt"}],
            }));
        }
    })
    .await;
    let job = json!({"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "main", "image": format!("registry.example/web:1@{DIGEST}")}]}}});
    let plan = bench.plan(
        "plan",
        json!([{
            "name": "shop", "namespaces": ["rebuilt-new"], "replaces": ["rebuilt-shop"],
            "restore": [{"name": "load", "job": {"spec": job}}],
        }]),
    );
    bench.apply(&plan).await;
    bench.recovers("plan", "shop").await;
    bench.stays_sealed("shop").await;
    assert_eq!(makers("rebuilt-new").await, ["system:serviceaccount:rebuilt:recovery"]);
    // By the audit log, the namespace was never there without isolation before it was opened.
    let log = std::fs::read_to_string(cluster().await.audit_log()).unwrap();
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains("rebuilt-new"));
    let events: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |is: &dyn Fn(&Value) -> bool| events.iter().position(is).unwrap();
    let done =
        |e: &Value| e["stage"] == "ResponseComplete" && e["responseStatus"]["code"].as_u64() < Some(300);
    let listed = at(&|e| {
        done(e)
            && text(e, "/objectRef/name").starts_with("resurgam-guard")
            && e["verb"] == "patch"
            && !text(e, "/requestURI").contains("dryRun")
    });
    let created = at(&|e| done(e) && e["verb"] == "create" && e["objectRef"]["resource"] == "namespaces");
    assert!(listed < created, "{listed} {created}");
    bench.judged(&plan).await;
}
