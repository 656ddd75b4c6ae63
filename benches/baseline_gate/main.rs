//! `cargo bench --bench baseline_gate`: what an evaluation of gate `baseline` costs against a real API server: the first one, one without a
//! change, and one after a change. 5,000 objects in 500 namespaces; `RESURGAM_BENCH=100` plays another number of namespaces.
//!
//! The evaluations run in a process of their own, whose memory is measured. The API server's audit log counts the requests.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod evaluate;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity, Options};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use rehearsal::{DEADLINE, eventually, kind};
use serde_json::{Value, json};

/// Namespace of the plan, and name of what is bound to its account.
pub const PLAN: &str = "baseline-bench";
/// Folder of the control plane, for the process that evaluates.
const FOLDER: &str = "RESURGAM_BENCH_FOLDER";
const AT_ONCE: usize = 16;
const RESURGAM: &str = env!("CARGO_BIN_EXE_resurgam");

fn main() -> Result<()> {
    let size = std::env::var("RESURGAM_BENCH").unwrap_or_else(|_| "500".to_owned()).parse()?;
    let runtime = tokio::runtime::Runtime::new()?;
    match std::env::var_os(FOLDER) {
        Some(folder) => runtime.block_on(evaluate::run(Path::new(&folder), &namespaces(size))),
        None => runtime.block_on(play(size)),
    }
}

/// Names of the namespaces.
fn namespaces(size: usize) -> Vec<String> {
    (0..size).map(|id| format!("estate-{id}")).collect()
}

async fn play(size: usize) -> Result<()> {
    let cluster = ControlPlane::start(Options { nodes: 1, ..Options::default() }).await?;
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    rehearsal::install_kinds(&admin).await?;
    rehearsal::apply(&admin, "platform", &access()).await?;
    lay_down(&admin, size).await?;
    let folder = tempfile::tempdir()?;
    sign(&cluster, &admin, size, folder.path()).await?;
    let mut child = Command::new(std::env::current_exe()?);
    child.env(FOLDER, cluster.dir()).env("RESURGAM_BENCH", size.to_string());
    child.env("RESURGAM_BENCH_KEY", folder.path().join("public.pem"));
    let status = tokio::task::spawn_blocking(move || child.status()).await??;
    ensure!(status.success(), "the evaluations failed");
    cluster.stop().await
}

/// An account that may read everything.
fn access() -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io";
    let version = format!("{rbac}/v1");
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLAN}}),
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": PLAN},
            "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]}),
        json!({"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": PLAN},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": PLAN},
            "subjects": [{"kind": "ServiceAccount", "name": "recovery", "namespace": PLAN}]}),
    ]
}

/// Ten objects in each namespace: itself, two that controllers make, a ReplicaSet of a Deployment, and those below.
async fn lay_down(admin: &Client, size: usize) -> Result<()> {
    let names = namespaces(size);
    let itself =
        names.iter().map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    apply_all(admin, itself).await?;
    apply_all(admin, names.iter().flat_map(|name| objects(name))).await?;
    for name in &names {
        for (version, of, object) in
            [("v1", "ConfigMap", "kube-root-ca.crt"), ("v1", "ServiceAccount", "default")]
        {
            eventually(&kind(admin, version, of, Some(name)), object, object, DEADLINE, |_| true).await?;
        }
        let observed =
            |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let deployments = kind(admin, "apps/v1", "Deployment", Some(name));
        eventually(&deployments, "web", "the Deployment", DEADLINE, observed).await?;
    }
    Ok(())
}

fn objects(namespace: &str) -> Vec<Value> {
    let meta = |name: &str| json!({"name": name, "namespace": namespace});
    let rbac = "rbac.authorization.k8s.io";
    let container = json!({"name": "main", "image": "registry.example/web:1", "command": ["serve"], "args": ["--port=80"],
        "env": [{"name": "MODE", "value": "live"}], "ports": [{"containerPort": 80}]});
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(name), "data": {"settings": "x".repeat(1000)}});
    vec![
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web"), "spec": {"replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}}}),
        map("settings"),
        map("more"),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("password"), "stringData": {"password": "hunter2"}}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": meta("web"),
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": meta("web"),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "web"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}]}),
    ]
}

/// Applies objects, some at a time.
async fn apply_all(admin: &Client, objects: impl Iterator<Item = Value>) -> Result<()> {
    let all: Vec<Value> = objects.collect();
    stream::iter(all)
        .map(|object| async move { rehearsal::apply(admin, "estate", &[object]).await })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Captures and signs everything by the command, and stores it where the gate reads it.
async fn sign(cluster: &ControlPlane, admin: &Client, size: usize, folder: &Path) -> Result<()> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (inventory, private, maps) = (path("a.json"), path("key.pem"), path("maps.yaml"));
    let resurgam = async |arguments: &[String]| {
        let mut command = Command::new(RESURGAM);
        command.env("KUBECONFIG", cluster.kubeconfig(Identity::PlatformAdministrator));
        command.arg("baseline").args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let mut capture = vec!["capture".to_owned(), "-o".to_owned(), inventory.clone()];
    capture.extend(namespaces(size).into_iter().flat_map(|name| ["-n".to_owned(), name]));
    resurgam(&capture).await?;
    std::fs::write(
        path("public.pem"),
        resurgam(&["keygen".to_owned(), "-o".to_owned(), private.clone()]).await?,
    )?;
    let target = format!("{PLAN}/approved");
    let sign =
        ["sign", &inventory, "--key", &private, "--config-map", &target, "-o", &maps].map(str::to_owned);
    resurgam(&sign).await?;
    let maps = rehearsal::documents(&std::fs::read_to_string(maps)?)?;
    ensure!(maps.len() == 1, "the inventory fits into one ConfigMap");
    rehearsal::apply(admin, "approver", &maps).await.context("the inventory")
}
