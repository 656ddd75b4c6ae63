//! A whole recovery by an operator with `--evidence-key`: isolating captures the Secrets, and the gate compares with what was captured.

use control_plane::{Identity, Options};
use rehearsal::{Shared, eventually, kind, text};

use super::*;
use crate::bad_input::bench::{Bench, KINDS, Stage, binding, role};

static STAGE: Shared<Stage> = Shared::new();

/// A control plane of its own: elsewhere operators have no key.
async fn stage() -> &'static Stage {
    let start = async || {
        let cluster = ControlPlane::start(Options::default()).await?;
        let file = cluster.dir().join("evidence.key");
        std::fs::write(&file, [7; 32])?;
        Stage::start(cluster, |options| {
            options.arguments = vec![format!("--evidence-key={}", file.display())]
        })
        .await
    };
    STAGE.get(start).await.unwrap()
}

fn password(namespace: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": namespace},
        "data": data(&[("password", value)])})
}

/// A service with a Secret, isolated, and the record of what was captured of it, printed as a person does.
async fn isolated(case: &'static str) -> Bench {
    let stage = stage().await;
    let bench = Bench::on(&stage.cluster, case, &["db"], |manifests| {
        let namespace = format!("{case}-db");
        manifests.push(password(&namespace, &format!("{CANARY}-old")));
        let rules =
            json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["db"], "verbs": ["get"]}]);
        manifests.push(role("ClusterRole", &format!("{case}-secrets"), "", &rules));
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": case}]);
        manifests.push(binding("ClusterRole", &format!("{case}-secrets"), &namespace, &account));
        // Who rotates: the fence asks them for `repair` beside this.
        let rules =
            json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "get", "patch"]}]);
        manifests.push(role("Role", "rotate", &namespace, &rules));
        let lead =
            json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "recovery-lead"}]);
        manifests.push(binding("Role", "rotate", &namespace, &lead));
    })
    .await;
    bench.isolate(&["db"]).await;
    let dir = stage.cluster.dir();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_resurgam"));
    command
        .args(["evidence", "digests", &bench.namespace("db"), "--config-map", &format!("{case}/captured")])
        .arg("--evidence-key")
        .arg(dir.join("evidence.key"))
        .arg("--evidence")
        .arg(dir.join("evidence"))
        .env("KUBECONFIG", stage.cluster.kubeconfig(Identity::PlatformAdministrator));
    let printed = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let error = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{error}");
    let record: Value = serde_yaml::from_slice(&printed.stdout).unwrap();
    rehearsal::apply(&bench.admin, "platform", &[record]).await.unwrap();
    bench
}

fn plan(bench: &Bench) -> Value {
    let mut plan = bench.plan("plan", json!([bench.service("db", &[])]));
    let rotated = json!({"name": "rotated", "interval": "500ms", "failureLimit": 1,
        "credentialsRotated": {"secrets": [{"name": "db"}], "capturedFrom": {"configMap": {"name": "captured"}}}});
    plan["spec"]["defaults"]["gates"]["beforeRestore"].as_array_mut().unwrap().push(rotated);
    plan
}

/// The recovery lead changes the password of an isolated namespace, later than within the second of its isolation.
async fn rotate(bench: &Bench, value: &str) {
    let quarantines = kind(&bench.admin, KINDS, "Quarantine", None);
    let quarantine = quarantines.get(&bench.namespace("db")).await.unwrap();
    let next = quarantine.creation_timestamp().unwrap().0 + SignedDuration::from_secs(1);
    within("the second after the isolation", async {
        while Timestamp::now() < next {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let lead = bench.lead().await;
    rehearsal::apply(&lead, "repair", &[password(&bench.namespace("db"), value)]).await.unwrap();
}

/// The verdict, reason and message of gate `rotated`.
fn said(record: &Value) -> [&str; 3] {
    let gates = rehearsal::field(record, "/status/gates").as_array();
    let gate = gates.and_then(|gates| gates.iter().find(|gate| gate["name"] == "rotated"));
    ["verdict", "reason", "message"]
        .map(|field| gate.and_then(|gate| gate[field].as_str()).unwrap_or_default())
}

/// No value of a Secret is in what the operator said, keeps or writes. The audit log has Secrets as people wrote them.
async fn no_value_is_shown(bench: &Bench) {
    let cluster = &stage().await.cluster;
    let mut places = vec![std::fs::read_to_string(cluster.dir().join("operator.log")).unwrap()];
    for kind_ in ["ServiceRecovery", "RecoveryPlan"] {
        let all = kind(&bench.admin, KINDS, kind_, Some(bench.case)).list(&Default::default()).await.unwrap();
        places.push(serde_json::to_string(&all.items).unwrap());
    }
    let folder = cluster.dir().join("evidence").join(bench.namespace("db"));
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            places.push(String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned());
        }
    }
    assert!(places.len() > 3, "nothing was captured");
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{CANARY}-old"));
    assert!(places.iter().all(|text| !text.contains(CANARY) && !text.contains(&encoded)));
}

#[tokio::test]
async fn service_with_a_changed_password_recovers() {
    let bench = isolated("rotated").await;
    rotate(&bench, &format!("{CANARY}-new")).await;
    let plan = plan(&bench);
    bench.apply(&plan).await;
    let record = bench.recovers("plan", "db").await;
    let aspects = rehearsal::field(&record, "/status/integrity").as_array().unwrap();
    let secrets = aspects.iter().find(|aspect| aspect["aspect"] == "Secrets").unwrap();
    assert_eq!(secrets["state"], "Proved", "{record}");
    no_value_is_shown(&bench).await;
    bench.judged(&plan).await;
}

#[tokio::test]
async fn service_with_its_old_password_put_back_never_starts() {
    let bench = isolated("putback").await;
    rotate(&bench, &format!("{CANARY}-new")).await;
    rotate(&bench, &format!("{CANARY}-old")).await;
    let plan = plan(&bench);
    bench.apply(&plan).await;
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("putback"));
    let is_asked = |o: &Value| text(o, "/status/decision/reason") == "GateFailed";
    let record =
        eventually(&records, "plan.db", "a person to be asked", rehearsal::DEADLINE, is_asked).await.unwrap();
    let [verdict, reason, message] = said(&record);
    assert_eq!((verdict, reason), ("Fail", "CapturedValue"), "{message}");
    assert!(message.starts_with("Secret putback-db/db, key password: "), "{message}");
    bench.stays_sealed("db").await;
    no_value_is_shown(&bench).await;

    // Changed again, and tried again, it recovers.
    rotate(&bench, &format!("{CANARY}-third")).await;
    rehearsal::retry(&bench.lead().await, "putback", "plan", "db", "the password is changed").await.unwrap();
    bench.recovers("plan", "db").await;
    bench.judged(&plan).await;
}
