//! A dump of a real PostgreSQL database, loaded by a step `job` in the clean room: the same rows are back, in another process.

use std::process::Stdio;

use control_plane::{ControlPlane, Identity};
use rehearsal::{condition, documents, eventually, field, kind, text};
use serde_json::{Value, json};

use super::{KINDS, PATIENCE, is_lacking, on_a_real_node};

const MANIFESTS: &str = include_str!("restore.yaml");
/// Number of rows, and a digest over them in their order.
const DIGEST: &str = "SELECT count(*) || ' ' || md5(string_agg(id || ':' || amount || ':' || payee, ',' ORDER BY id)) FROM payment";

#[test]
fn dump_that_a_job_loads_brings_the_same_rows_back() {
    if is_lacking(&rehearsal::library::lacks()) {
        return;
    }
    on_a_real_node(async |cluster, kube_router| {
        let enforced = cluster.enforce_network_policies(kube_router).unwrap();
        restored(cluster).await;
        enforced.stop().unwrap();
    });
}

async fn restored(cluster: &ControlPlane) {
    let (image, programs) = rehearsal::library::postgres_image(cluster).unwrap();
    let digest = image.rsplit_once('@').unwrap().1;
    let manifests = MANIFESTS
        .replace("PGBIN", &programs.to_string_lossy())
        .replace("image: POSTGRES", &format!("image: {image}"))
        .replace("DIGEST", digest);
    let is_of_the_day = |object: &Value| text(object, "/apiVersion").starts_with("resurgam.dev");
    let (day, estate): (Vec<Value>, Vec<Value>) =
        documents(&manifests).unwrap().into_iter().partition(is_of_the_day);
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    rehearsal::apply(&admin, "platform", &estate).await.unwrap();
    let deployments = kind(&admin, "apps/v1", "Deployment", Some("ledger"));
    let runs = |o: &Value| field(o, "/status/readyReplicas") == 1;
    eventually(&deployments, "postgres", "the database to run", PATIENCE, runs).await.unwrap();
    let ledger = Ledger { cluster };
    ledger.psql("CREATE TABLE payment (id int PRIMARY KEY, amount numeric(9,2), payee text)").await;
    ledger.psql("INSERT INTO payment SELECT n, n * 1.01, 'payee ' || n FROM generate_series(1, 500) n").await;
    let before = ledger.psql(DIGEST).await;
    assert!(before.starts_with("500 "), "{before}");
    let dump = ledger.run(&["pg_dump", "--host=127.0.0.1", "--username=ledger", "postgres"]).await;
    // Its administrator brings it there before the isolation. The attacker encrypts what is in the database.
    let dump = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dump", "namespace": "ledger"},
        "data": {"ledger.sql": dump},
    });
    rehearsal::apply(&admin, "platform", &[dump]).await.unwrap();
    ledger.psql("UPDATE payment SET payee = md5(payee)").await;
    assert_ne!(ledger.psql(DIGEST).await, before);

    let plan = day.iter().find(|object| object["kind"] == "RecoveryPlan").unwrap();
    let file = cluster.dir().join("ledger.yaml");
    std::fs::write(&file, plan.to_string()).unwrap();
    let binary = env!("CARGO_BIN_EXE_resurgam");
    let access = tokio::process::Command::new(binary).arg("access").arg(&file).output().await.unwrap();
    assert!(access.status.success(), "{}", String::from_utf8_lossy(&access.stderr));
    let access = documents(std::str::from_utf8(&access.stdout).unwrap()).unwrap();
    rehearsal::apply(&admin, "platform", &access).await.unwrap();

    let responder = cluster.client(Identity::Responder).await.unwrap();
    let quarantine = json!({
        "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": "ledger"},
        "spec": {"isolation": "Sealed", "reason": "the ledger was encrypted"},
    });
    rehearsal::apply(&responder, "on-call", &[quarantine]).await.unwrap();
    let quarantines = kind(&admin, KINDS, "Quarantine", None);
    let sealed = |q: &Value| text(q, "/status/isolation") == "Sealed" && condition(q, "Ready") == "True";
    eventually(&quarantines, "ledger", "the ledger to be sealed", PATIENCE, sealed).await.unwrap();

    let gitops = cluster.client(Identity::GitOps).await.unwrap();
    rehearsal::apply(&gitops, "gitops", &day).await.unwrap();
    let records = kind(&admin, KINDS, "ServiceRecovery", Some("ledger-recovery"));
    let back = |r: &Value| condition(r, "Recovered") == "True";
    let record =
        eventually(&records, "ledger.ledger", "the ledger to be back", PATIENCE, back).await.unwrap();
    assert_eq!(super::reason(&record, "Recovered"), "Recovered", "{record:#}");
    let states = [0, 1, 2].map(|step| text(&record, &format!("/status/steps/{step}/state")));
    assert_eq!(states, ["Done", "Done", "Done"]);
    assert_eq!(ledger.psql(DIGEST).await, before, "the same rows");
}

struct Ledger<'a> {
    cluster: &'a ControlPlane,
}

impl Ledger<'_> {
    async fn psql(&self, command: &str) -> String {
        let psql =
            ["psql", "--host=127.0.0.1", "--username=ledger", "--dbname=postgres", "--no-psqlrc", "--quiet"];
        self.run(&[&psql[..], &["--tuples-only", "--no-align", "--command", command]].concat()).await
    }

    /// Runs a program in the database's pod, and returns its output.
    async fn run(&self, arguments: &[&str]) -> String {
        let kubeconfig = self.cluster.kubeconfig(Identity::PlatformAdministrator);
        let mut kubectl = tokio::process::Command::new(self.cluster.binary("kubectl").unwrap());
        kubectl.env("KUBECONFIG", kubeconfig);
        kubectl.args(["exec", "--namespace", "ledger", "deployment/postgres", "--"]);
        kubectl.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, kubectl.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
