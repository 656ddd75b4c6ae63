//! A real base backup of PostgreSQL, intact and with one flipped bit, judged by gate `jobResult` with the recipe's own program in a pod on
//! the real node. In place of a volume from a snapshot, which takes a CSI driver, the backup is in the pod's image.

use std::path::{Path, PathBuf};
use std::process::Command;

use control_plane::{ControlPlane, Identity, Image};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rehearsal::{condition, documents, eventually, kind, text};
use resurgam::api::{GateSpec, Phase, Verdict};
use resurgam::gates::{Account, Asker, Question};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{KINDS, PATIENCE, is_lacking, on_a_real_node};

const RECIPE: &str = include_str!("../../examples/gates/pg-verifybackup.yaml");
const PLAN: &str = "backup-recovery";
const INSPECTION: &str = "backup-inspection";
/// An account as `resurgam access` would have it.
const RIGHTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: backup-recovery}
---
apiVersion: v1
kind: Namespace
metadata: {name: backup-inspection}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: recovery, namespace: backup-recovery}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: backup-inspection}
rules:
- {apiGroups: [resurgam.dev], resources: [quarantines], resourceNames: [backup-inspection], verbs: [get, recover]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: backup-inspection}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: backup-inspection}
subjects: [{kind: ServiceAccount, name: recovery, namespace: backup-recovery}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: recovery, namespace: backup-inspection}
rules:
- {apiGroups: [batch], resources: [jobs], verbs: [create, get, list, delete]}
- {apiGroups: [""], resources: [pods], verbs: [list]}
- {apiGroups: [""], resources: [pods/log], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: recovery, namespace: backup-inspection}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: recovery}
subjects: [{kind: ServiceAccount, name: recovery, namespace: backup-recovery}]
"#;

#[test]
fn one_flipped_bit_in_a_base_backup_is_detected() {
    if is_lacking(&rehearsal::library::lacks()) {
        return;
    }
    on_a_real_node(async |cluster, kube_router| {
        let folder = tempfile::tempdir().unwrap();
        let backups = tokio::task::block_in_place(|| Backups::make(folder.path()));
        let enforced = cluster.enforce_network_policies(kube_router).unwrap();
        judged(cluster, &backups).await;
        enforced.stop().unwrap();
    });
}

async fn judged(cluster: &ControlPlane, backups: &Backups) {
    let images =
        [&backups.intact, &backups.flipped].map(|backup| cluster.import_image(&image(backup)).unwrap());
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    rehearsal::apply(&admin, "platform", &documents(RIGHTS).unwrap()).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), INSPECTION);
    let made = rehearsal::await_condition(accounts, "default", |of: Option<&ServiceAccount>| of.is_some());
    tokio::time::timeout(PATIENCE, made).await.unwrap().unwrap();
    let responder = cluster.client(Identity::Responder).await.unwrap();
    let quarantine = json!({
        "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": INSPECTION},
        "spec": {"isolation": "Sealed", "purpose": "Inspection", "reason": "backups are looked at here"},
    });
    rehearsal::apply(&responder, "on-call", &[quarantine]).await.unwrap();
    let quarantines = kind(&admin, KINDS, "Quarantine", None);
    let is_ready = |q: &Value| text(q, "/status/isolation") == "CleanRoom" && condition(q, "Ready") == "True";
    eventually(&quarantines, INSPECTION, "an inspection namespace", PATIENCE, is_ready).await.unwrap();

    let account = account(cluster).await;
    let asker = Asker::new(Vec::new()).unwrap();
    let [intact, flipped] = images;
    let answer = ask(&asker, &account, gate(&intact, &backups.manifest)).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Pass, "NothingDetected"), "{answer:?}");
    assert!(
        answer.message.contains(&format!("{} files are as the manifest says", backups.files)),
        "{answer:?}"
    );
    assert!(answer.exceptions.is_empty(), "its log was read: {answer:?}");

    let answer = ask(&asker, &account, gate(&flipped, &backups.manifest)).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Fail, "Detected"), "{answer:?}");
    assert!(answer.message.contains("checksum mismatch"), "{answer:?}");
    assert!(answer.message.contains(&backups.changed), "{answer:?}");

    // A backup of another day, with a manifest that is right in itself.
    let answer = ask(&asker, &account, gate(&intact, &"0".repeat(64))).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Fail, "Detected"), "{answer:?}");
    assert!(answer.message.contains("the manifest is another one"), "{answer:?}");
}

/// The recipe, with this image and manifest.
fn gate(image: &str, manifest: &str) -> GateSpec {
    let mut gate: Value = serde_yaml::from_str(RECIPE).unwrap();
    let job = gate["jobResult"].as_object_mut().unwrap();
    assert!(job.remove("volumes").is_some(), "the recipe takes the backup from a snapshot");
    job["inspectionNamespace"] = json!(INSPECTION);
    let container = &mut job["pod"]["containers"][0];
    container["image"] = json!(image);
    assert_eq!(container["env"][0]["name"], "MANIFEST_SHA256");
    container["env"][0]["value"] = json!(manifest);
    serde_json::from_value(gate).unwrap()
}

async fn ask(asker: &Asker, account: &Account, gate: GateSpec) -> resurgam::engine::Answer {
    let question = Question::new(PLAN, vec!["ledger".to_owned()], Phase::BeforeRestore, gate);
    let answered = async {
        loop {
            let answer = asker.ask(account, &question).await;
            // Rights reach the API server by a watch.
            if !["InProgress", "Forbidden"].contains(&answer.reason.as_str()) {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap()
}

async fn account(cluster: &ControlPlane) -> Account {
    let user = format!("system:serviceaccount:{PLAN}:recovery");
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig(Identity::PlatformAdministrator)).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(user.clone());
    Account { user, client: kube::Client::try_from(config).unwrap() }
}

/// Two base backups of one database.
struct Backups {
    intact: PathBuf,
    flipped: PathBuf,
    /// SHA-256 of their manifest.
    manifest: String,
    /// Number of files in it.
    files: usize,
    /// The file with the flipped bit.
    changed: String,
}

impl Backups {
    /// Makes them with the PostgreSQL of this machine, as its user: it refuses to run as root.
    fn make(folder: &Path) -> Self {
        let own = |path: &Path| run(Command::new("chown").arg("postgres:postgres").arg(path));
        own(folder);
        let [data, socket, intact, flipped] =
            ["data", "socket", "intact", "flipped"].map(|name| folder.join(name));
        std::fs::create_dir(&socket).unwrap();
        own(&socket);
        let programs = rehearsal::library::programs().unwrap();
        let postgres = |program: &str| {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(programs.join(program));
            command.current_dir(folder).env("PGHOST", &socket).env("PGUSER", "library");
            command
        };
        let accounts = ["--auth=trust", "--username=library", "--no-sync", "--pgdata"];
        run(postgres("initdb").args(accounts).arg(&data));
        let options = format!("-c listen_addresses= -c unix_socket_directories={}", socket.display());
        let server = |what: &str| {
            let mut control = postgres("pg_ctl");
            control.arg("--pgdata").arg(&data).args(["--wait", "--log", "server.log", what]);
            control
        };
        run(server("start").args(["--options", &options]));
        let rows = "CREATE TABLE ledger AS SELECT n, md5(n::text) AS entry FROM generate_series(1, 10000) n";
        run(postgres("psql").args(["--dbname=postgres", "--no-psqlrc", "--quiet", "--command", rows]));
        let backup = ["--checkpoint=fast", "--wal-method=fetch", "--manifest-checksums=SHA256", "--no-sync"];
        run(postgres("pg_basebackup").args(backup).arg("--pgdata").arg(&intact));
        run(server("stop").args(["--mode", "fast"]));
        run(Command::new("cp").arg("-a").arg(&intact).arg(&flipped));

        let manifest = std::fs::read(intact.join("backup_manifest")).unwrap();
        let listed: Value = serde_json::from_slice(&manifest).unwrap();
        let files = listed["Files"].as_array().unwrap();
        // The table is the largest file of its database.
        let in_tables = files.iter().filter(|file| file["Path"].as_str().unwrap().starts_with("base/"));
        let largest = in_tables.max_by_key(|file| file["Size"].as_u64()).unwrap();
        let changed = largest["Path"].as_str().unwrap().to_owned();
        let mut bytes = std::fs::read(flipped.join(&changed)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(flipped.join(&changed), bytes).unwrap();
        let manifest = Sha256::digest(&manifest).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { intact, flipped, manifest, files: files.len(), changed }
    }
}

/// The image of a recipe: its programs, and the backup.
fn image(backup: &Path) -> Image {
    let name = backup.file_name().unwrap().to_str().unwrap();
    let of = Image::new(&format!("localhost/backup-{name}:1")).run_as("999:999").with("/bin/sh");
    let tools = ["grep", "head", "sha256sum"].into_iter().fold(of, |image, tool| {
        let path = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(tool));
        image.put(path.iter().find(|path| path.exists()).unwrap(), &Path::new("/usr/bin").join(tool))
    });
    let verify = rehearsal::library::programs().unwrap().join("pg_verifybackup");
    tools.put(&verify, Path::new("/usr/bin/pg_verifybackup")).put(backup, Path::new("/backup"))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
