//! A service with nothing to start is complete, and what has ended holds nobody up.

use control_plane::Identity;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rehearsal::{eventually, field, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::{DIGEST, KINDS, binding, cluster, role};
use crate::ordinary::estate::{Estate, exceptions, template, workload};

fn cron_job(name: &str) -> Value {
    let mut template = template(name);
    template["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}},
    })
}

fn job(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}}},
    })
}

fn config(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

/// Waits until a Job has this condition.
async fn ends(estate: &Estate, service: &str, name: &str, how: &str) {
    let jobs = kind(&estate.bench.admin, "batch/v1", "Job", Some(&estate.bench.namespace(service)));
    let ended = |object: &Value| rehearsal::condition(object, how) == "True";
    eventually(&jobs, name, &format!("Job {name} to be {how}"), rehearsal::DEADLINE, ended).await.unwrap();
}

#[tokio::test]
async fn namespaces_of_cron_jobs_or_configuration_only_are_complete() {
    let estate = Estate::open(
        "nothing",
        &[
            ("batch", vec![cron_job("load"), cron_job("report")]),
            ("settings", vec![config("settings")]),
            ("two-a", vec![workload("Deployment", "web", 1)]),
            ("two-b", vec![config("settings")]),
        ],
    )
    .await;
    estate.is_ready("two-a", "Deployment", "web", 1).await;
    estate.bench.isolate(&["batch", "settings", "two-a", "two-b"]).await;
    let mut batch = estate.bench.service("batch", &[]);
    batch["resume"] = json!([{"cronJob": "load"}]);
    let two =
        json!({"name": "two", "namespaces": ["nothing-two-a", "nothing-two-b"], "dependsOn": ["settings"]});
    let plan = estate.plan(json!([batch, estate.bench.service("settings", &["batch"]), two]));
    estate.bench.apply(&plan).await;
    for (service, said) in [("batch", ""), ("two", ""), ("settings", "nothing was there to start")] {
        let record = estate.recovers(service).await;
        let exceptions = exceptions(&record);
        assert_eq!(exceptions.is_empty(), said.is_empty(), "{service}: {exceptions}");
        assert!(exceptions.contains(said), "{service}: {exceptions}");
    }
    let records = kind(&estate.bench.admin, KINDS, "ServiceRecovery", Some("nothing"));
    let resumed = |object: &Value| field(object, "/status/resumes/0/state") == "Resumed";
    eventually(&records, "plan.batch", "the CronJob to be resumed", rehearsal::DEADLINE, resumed)
        .await
        .unwrap();
    let suspended = async |name: &str| {
        field(&estate.object("batch", "batch/v1", "CronJob", name).await, "/spec/suspend")
            .as_bool()
            .unwrap_or(false)
    };
    assert_eq!((suspended("load").await, suspended("report").await), (false, true), "as the plan says");
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn daemon_set_that_fits_no_node_is_complete() {
    let mut windows = workload("DaemonSet", "agent-windows", 0);
    windows["spec"]["template"]["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
    let estate =
        Estate::open("nodes", &[("agents", vec![workload("DaemonSet", "agent-linux", 0), windows])]).await;
    let sets = kind(&estate.bench.admin, "apps/v1", "DaemonSet", Some("nodes-agents"));
    let ready = |object: &Value| field(object, "/status/numberReady").as_i64().unwrap_or(0) > 0;
    eventually(&sets, "agent-linux", "a pod", rehearsal::DEADLINE, ready).await.unwrap();
    estate.bench.isolate(&["agents"]).await;
    let plan = estate.plan(json!([estate.bench.service("agents", &[])]));
    estate.bench.apply(&plan).await;
    estate.recovers("agents").await;
    for (name, runs) in [("agent-linux", true), ("agent-windows", false)] {
        let now = estate.object("agents", "apps/v1", "DaemonSet", name).await;
        let fits = field(&now, "/status/desiredNumberScheduled").as_i64().unwrap();
        assert_eq!(fits > 0, runs, "{name}");
        let selector = field(&now, "/spec/template/spec/nodeSelector").to_string();
        assert!(!selector.contains("resurgam"), "{selector}");
    }
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn what_ended_long_ago_holds_nobody_up() {
    let hook = job("certgen", "registry.example/certgen:1");
    let mut late = job("migrate-41", "registry.example/migrate:41");
    late["spec"]["activeDeadlineSeconds"] = json!(1);
    late["spec"]["template"]["spec"]["nodeSelector"] = json!({"resurgam.example/nowhere": "true"});
    let test = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-test"},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example/busybox"}]},
    });
    let estate = Estate::open(
        "ended",
        &[
            ("hook", vec![hook, config("settings")]),
            ("check", vec![test, workload("Deployment", "web", 1)]),
            (
                "migrate",
                vec![
                    late,
                    job("migrate-42", "registry.example/migrate:42"),
                    workload("Deployment", "web", 1),
                ],
            ),
        ],
    )
    .await;
    ends(&estate, "hook", "certgen", "Complete").await;
    ends(&estate, "migrate", "migrate-41", "Failed").await;
    ends(&estate, "migrate", "migrate-42", "Complete").await;
    estate.is_ready("check", "Deployment", "web", 1).await;
    estate.is_ready("migrate", "Deployment", "web", 1).await;
    let pods = kind(&estate.bench.admin, "v1", "Pod", Some("ended-check"));
    let over = json!({"status": {"phase": "Failed"}});
    pods.patch_status("web-test", &PatchParams::default(), &Patch::Merge(over)).await.unwrap();
    estate.bench.isolate(&["hook", "check", "migrate"]).await;
    let services = ["hook", "check", "migrate"].map(|name| estate.bench.service(name, &[]));
    let plan = estate.plan(json!(services));
    estate.bench.apply(&plan).await;
    for service in ["hook", "check", "migrate"] {
        estate.recovers(service).await;
    }
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn later_failed_job_is_no_regression_unless_the_plan_asks() {
    let objects = || vec![workload("Deployment", "web", 1)];
    let estate = Estate::open("nightly", &[("lenient", objects()), ("strict", objects())]).await;
    for service in ["lenient", "strict"] {
        estate.is_ready(service, "Deployment", "web", 1).await;
    }
    estate.bench.isolate(&["lenient", "strict"]).await;
    let mut strict = estate.bench.service("strict", &[]);
    let jobs = json!({"name": "up", "workloads": {"jobs": "Fail"}, "interval": "500ms", "failureLimit": 1});
    strict["gates"] = json!({"continuous": [jobs]});
    let plan = estate.plan(json!([estate.bench.service("lenient", &[]), strict]));
    estate.bench.apply(&plan).await;
    for service in ["lenient", "strict"] {
        estate.recovers(service).await;
    }
    let plans = kind(&estate.bench.admin, KINDS, "RecoveryPlan", Some("nightly"));
    let overridden = rehearsal::object(&plans, "plan").await.unwrap();
    assert_eq!(
        field(&overridden, "/status/gateOverrides"),
        &json!([{"service": "strict", "phase": "Continuous", "gate": "up", "change": "Replaced"}])
    );
    for service in ["lenient", "strict"] {
        let mut failing = job("nightly-2", "registry.example/x");
        failing["metadata"]["namespace"] = json!(estate.bench.namespace(service));
        failing["spec"]["activeDeadlineSeconds"] = json!(1);
        failing["spec"]["template"]["spec"]["nodeSelector"] = json!({"resurgam.example/nowhere": "true"});
        rehearsal::apply(&estate.bench.admin, "platform", &[failing]).await.unwrap();
        ends(&estate, service, "nightly-2", "Failed").await;
    }
    let record = estate.asks("strict", "Regressed").await;
    assert!(record["status"].to_string().contains("nightly-2"), "{record}");
    let lenient = estate.recovers("lenient").await;
    assert_eq!(rehearsal::condition(&lenient, "NeedsDecision"), "False");
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn bare_pods_that_nothing_brings_back_are_named() {
    let bare = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "database-1"},
        "spec": template("database")["spec"],
    });
    let estate = Estate::open("bare", &[("app", vec![workload("Deployment", "pooler", 1), bare])]).await;
    estate.is_ready("app", "Deployment", "pooler", 1).await;
    estate.bench.isolate(&["app"]).await;
    let plan = estate.plan(json!([estate.bench.service("app", &[])]));
    estate.bench.apply(&plan).await;
    let record = estate.recovers("app").await;
    assert!(exceptions(&record).contains("database-1"), "{}", exceptions(&record));
    assert_eq!(record["status"]["conditions"].to_string().matches("WithExceptions").count(), 2);
    estate.bench.judged(&plan).await;
}

/// A stand-in for CloudNativePG: a kind of its own whose operator creates pods, elects a leader and labels the primary.
#[tokio::test]
async fn database_of_a_custom_resource_comes_back_by_its_own_operator() {
    let estate = Estate::open("cnpg", &[("db", vec![config("ledger")])]).await;
    let uid = field(&estate.object("db", "v1", "ConfigMap", "ledger").await, "/metadata/uid").clone();
    let namespace = "cnpg-db";
    let instance = || {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "ledger-1", "namespace": namespace, "labels": {"cnpg.io/cluster": "ledger"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "ledger", "uid": uid, "controller": true}]},
            "spec": template("ledger")["spec"],
        })
    };
    rehearsal::apply(&estate.bench.admin, "cnpg", &[instance()]).await.unwrap();
    let account = json!([{"kind": "ServiceAccount", "name": "cnpg-manager", "namespace": "cnpg"}]);
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]);
    let operate = json!([{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": [namespace], "verbs": ["operate"]}]);
    let bind = |name: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}, "subjects": account,
        })
    };
    let granted = [
        role("ClusterRole", "cnpg-manager", "", &rules),
        binding("ClusterRole", "cnpg-manager", namespace, &account),
        role("ClusterRole", "cnpg-operates", "", &operate),
        bind("cnpg-operates"),
    ];
    rehearsal::apply(&estate.bench.admin, "platform", &granted).await.unwrap();
    estate.bench.isolate(&["db"]).await;
    let pods = kind(&estate.bench.admin, "v1", "Pod", Some(namespace));
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
    let mut service = estate.bench.service("db", &[]);
    service["restore"] = json!([]);
    let plan = estate.plan(json!([service]));
    estate.bench.apply(&plan).await;
    let words = ["no pod in namespace cnpg-db", "their own operator", "operate on quarantines/cnpg-db"];
    estate.bench.says("plan", "db", "GateUnknown", &words).await;

    let manager = acting("cnpg", "cnpg-manager").await;
    rehearsal::apply(&manager, "cnpg", &[instance()]).await.unwrap();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "ledger", "namespace": namespace},
        "spec": {"holderIdentity": "ledger-1"},
    });
    let leases = kind(&manager, "coordination.k8s.io/v1", "Lease", Some(namespace));
    leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    let primary = json!({"metadata": {"labels": {"role": "primary"}}});
    let own = kind(&manager, "v1", "Pod", Some(namespace));
    own.patch("ledger-1", &PatchParams::default(), &Patch::Merge(primary)).await.unwrap();
    let record = estate.recovers("db").await;
    let said = exceptions(&record);
    assert!(said.contains("ledger-1"), "the pod of before is gone, and named: {said}");
    estate.bench.judged(&plan).await;
    // Its failure counts: it is to run.
    pods.delete("ledger-1", &DeleteParams::default()).await.unwrap();
    let unhealthy = |object: &Value| rehearsal::condition(object, "Healthy") != "True";
    let records = kind(&estate.bench.admin, KINDS, "ServiceRecovery", Some("cnpg"));
    eventually(&records, "plan.db", "its health to fall", rehearsal::DEADLINE, unhealthy).await.unwrap();
    assert!(DIGEST.starts_with("sha256:"));
}

/// Returns a client that acts as a ServiceAccount.
async fn acting(namespace: &str, account: &str) -> kube::Client {
    let path = cluster().await.kubeconfig(Identity::PlatformAdministrator).to_owned();
    let kubeconfig = kube::config::Kubeconfig::read_from(path).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{account}"));
    kube::Client::try_from(config).unwrap()
}
