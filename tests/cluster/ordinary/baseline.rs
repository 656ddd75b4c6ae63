//! A baseline from before the day passes in every phase of a recovery; what was planted since keeps a service sealed, or shows at once.

use std::process::Command;

use control_plane::Identity;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use rehearsal::{condition, eventually, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::{KINDS, cluster};
use crate::ordinary::estate::{Estate, template, workload};

/// Runs `resurgam baseline`, and returns what it wrote.
async fn resurgam(arguments: &[&str]) -> String {
    let (text, failed) = run(arguments).await;
    assert!(!failed, "{arguments:?}: {text}");
    text
}

/// Runs `resurgam baseline`. Returns what it wrote, with its errors if it failed, and whether it did.
async fn run(arguments: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_resurgam"));
    command.env("KUBECONFIG", cluster().await.kubeconfig(Identity::PlatformAdministrator));
    command.arg("baseline").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let failed = !output.status.success();
    let mut text = String::from_utf8(output.stdout).unwrap();
    if failed {
        text += &String::from_utf8_lossy(&output.stderr);
    }
    (text, failed)
}

/// Less than the time between two evaluations without a change.
const WOKEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(25);
/// Value of a Secret.
const CANARY: &str = "canary-aeB9ohx4";

fn objects() -> Vec<Value> {
    let mut nightly = template("nightly");
    nightly["spec"]["restartPolicy"] = json!("Never");
    let named = |version: &str, kind: &str, name: &str, body: Value| {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        object
    };
    vec![
        workload("Deployment", "web", 2),
        workload("DaemonSet", "agent", 0),
        named(
            "batch/v1",
            "CronJob",
            "nightly",
            json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": nightly}}}}),
        ),
        named("v1", "ConfigMap", "settings", json!({"data": {"mode": "live"}})),
        named("v1", "Secret", "database", json!({"stringData": {"password": CANARY}})),
        named("v1", "ServiceAccount", "web", json!({})),
        named(
            "v1",
            "ResourceQuota",
            "all",
            json!({"spec": {"hard": {"count/serviceaccounts": "3", "pods": "20"}}}),
        ),
        named(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "web",
            json!({"spec": {"podSelector": {}, "ingress": [{}]}}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_baseline_passes_in_every_phase_and_names_what_was_planted() {
    const CASE: &str = "approved";
    let estate = Estate::open(CASE, &[("web", objects()), ("evil", objects())]).await;
    let bench = &estate.bench;
    for service in ["web", "evil"] {
        estate.is_ready(service, "Deployment", "web", 2).await;
    }
    // Before the day.
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (inventory, private, maps) = (path("a.json"), path("key.pem"), path("maps.yaml"));
    let (web, evil) = (bench.namespace("web"), bench.namespace("evil"));
    resurgam(&["capture", "-n", &web, "-n", &evil, "--no-outside", "-o", &inventory]).await;
    let mut captured: Value = serde_json::from_str(&std::fs::read_to_string(&inventory).unwrap()).unwrap();
    captured["capturedAt"] = json!("2025-01-01T00:00:00Z");
    std::fs::write(&inventory, captured.to_string()).unwrap();
    let public = resurgam(&["keygen", "-o", &private]).await;
    let target = format!("{CASE}/baseline");
    resurgam(&["sign", &inventory, "--key", &private, "--config-map", &target, "-o", &maps]).await;
    let map: Value = serde_yaml::from_str(&std::fs::read_to_string(&maps).unwrap()).unwrap();
    // What a gate of this type lists, and the namespaces themselves.
    let rbac = "rbac.authorization.k8s.io";
    let subjects = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": CASE}]);
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "approved-reads"}, "rules": [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]});
    let binding = json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "approved-reads"},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "approved-reads"}, "subjects": subjects});
    rehearsal::apply(&bench.admin, "platform", &[map, role, binding]).await.unwrap();

    // The attacker.
    let settings = kind(&bench.admin, "v1", "ConfigMap", Some(&evil));
    let tampered = |mode: &str| Patch::Merge(json!({"data": {"mode": mode}}));
    settings.patch("settings", &PatchParams::default(), &tampered("debug")).await.unwrap();
    let secrets = kind(&bench.admin, "v1", "Secret", Some(&evil));
    let planted = Patch::Merge(json!({"stringData": {"more": format!("{CANARY}-more")}}));
    secrets.patch("database", &PatchParams::default(), &planted).await.unwrap();

    bench.isolate(&["web", "evil"]).await;
    // What was captured when it was isolated, the tampering included.
    let store = cluster().await.dir().join("evidence").display().to_string();
    let captured = path("captured.json");
    resurgam(&["capture", "--from-evidence", &store, "-n", &web, "-n", &evil, "-o", &captured]).await;
    let (found, differs) = run(&["diff", &inventory, &captured]).await;
    let expected =
        format!("~ ConfigMap {evil}/settings\n    data.mode\n      was 'live'\n      is  'debug'\n");
    assert!(differs && found.starts_with(&expected), "{found}");
    assert!(!found.contains("NetworkPolicy"), "what isolating wrote before the capture counts: {found}");

    let mut plan = estate.plan(json!([bench.service("web", &[]), bench.service("evil", &[])]));
    let gate = json!({"name": "approved", "interval": "1s", "failureLimit": 1,
        "baseline": {"configMaps": [{"name": "baseline"}], "publicKeys": [public], "outside": "LeaveOut"}});
    // After the release, changes wake the gate.
    let mut seldom = gate.clone();
    seldom["interval"] = json!("1h");
    for (phase, gate) in [("beforeRestore", &gate), ("beforeRelease", &gate), ("continuous", &seldom)] {
        plan["spec"]["defaults"]["gates"][phase].as_array_mut().unwrap().push(gate.clone());
    }
    bench.apply(&plan).await;
    let record = estate.recovers("web").await;
    let gates = record["status"]["gates"].as_array().unwrap();
    let approved: Vec<&Value> = gates.iter().filter(|gate| gate["name"] == "approved").collect();
    assert!(!approved.is_empty() && approved.iter().all(|gate| gate["verdict"] == "Pass"), "{gates:?}");

    // What was planted before is found before anything starts, by object and field.
    let asks = estate.asks("evil", "GateFailed").await;
    let told = asks["status"].to_string();
    assert!(told.contains(&format!("ConfigMap {evil}/settings: data.mode has another value")), "{told}");
    assert!(told.contains(&format!("Secret {evil}/database")), "{told}");
    bench.stays_sealed("evil").await;

    // What is planted after the release shows, of kinds that no other gate looks at as well.
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some(CASE));
    let shows = async |what: &str| {
        let unhealthy = |object: &Value| {
            condition(object, "Healthy") == "False" && object["status"].to_string().contains(what)
        };
        eventually(&records, "plan.web", what, rehearsal::DEADLINE, unhealthy).await.unwrap();
    };
    let bindings = kind(&bench.admin, "rbac.authorization.k8s.io/v1", "RoleBinding", Some(&web));
    let planted = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "backdoor"},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    let at = std::time::Instant::now();
    bindings.create(&PostParams::default(), &serde_json::from_value(planted).unwrap()).await.unwrap();
    shows(&format!("RoleBinding {web}/backdoor: it is not in the baseline")).await;
    let took = at.elapsed();
    assert!(took < WOKEN_WITHIN, "found by pace after {took:?}, not by the change");
    let settings = kind(&bench.admin, "v1", "ConfigMap", Some(&web));
    settings.patch("settings", &PatchParams::default(), &tampered("debug")).await.unwrap();
    shows("data.mode has another value").await;
    no_secret_is_told(&bench.admin).await;
}

/// Looks for values of Secrets in all that the operator tells and keeps: its log, Events, objects of its kinds, and the evidence.
async fn no_secret_is_told(admin: &kube::Client) {
    let cluster = cluster().await;
    let log = std::fs::read_to_string(cluster.dir().join("operator.log")).unwrap();
    let mut told = vec![("the log".to_owned(), log)];
    for (version, of) in [
        ("v1", "Event"),
        ("events.k8s.io/v1", "Event"),
        (KINDS, "RecoveryPlan"),
        (KINDS, "ServiceRecovery"),
        (KINDS, "Quarantine"),
    ] {
        let list = kind(admin, version, of, None).list(&ListParams::default()).await.unwrap();
        assert!(!list.items.is_empty(), "no {of}");
        told.push((format!("a {of}"), serde_json::to_string(&list.items).unwrap()));
    }
    let mut folders = vec![cluster.dir().join("evidence")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                told.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    assert!(told.len() > 6, "nothing was captured");
    // In base64, what follows the canary changes its last character.
    let encoded = serde_json::to_value(k8s_openapi::ByteString(CANARY.into())).unwrap();
    let encoded = &encoded.as_str().unwrap()[..16];
    for (place, text) in told {
        assert!(!text.contains(CANARY) && !text.contains(encoded), "the value of a Secret is in {place}");
    }
}
