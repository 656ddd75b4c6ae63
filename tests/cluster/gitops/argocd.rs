//! Step `resume` with Argo CD's own kinds. The controller is a stand-in: the test writes what Argo CD would.

use std::process::Command;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use rehearsal::{DEADLINE, apply, condition, documents, eventually, kind, object, text};
use serde_json::{Value, json};

use super::resume::{Stage, grant, says, without_kinds};

const ARGOCD: &str = "argocd";
const KINDS: &str = "argoproj.io/v1alpha1";
/// The module that holds the kinds, and the digest of it that Go's checksum database has.
const MODULE: [&str; 2] =
    ["github.com/argoproj/argo-cd/v3@v3.2.0", "h1:m2eGAV+nXQGgzZbH5SyJD5laaPW27mzWXBrgisUHY/0="];
const APPROVED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The CustomResourceDefinition of an Application, from Go's module cache. `None`: it is not there, which is reported on stderr. With
/// `RESURGAM_PARTS=1` it is downloaded.
fn application_kind() -> Option<Vec<Value>> {
    let is_required = std::env::var_os("RESURGAM_PARTS").is_some();
    let mut command = Command::new("go");
    command.args(["mod", "download", "-json", MODULE[0]]);
    if !is_required {
        command.env("GOPROXY", "off");
    }
    let output = command.current_dir(std::env::temp_dir()).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    if !output.status.success() {
        assert!(!is_required, "{answer}");
        eprintln!(
            "Argo CD's module is not on this machine (`go mod download {}` fetches it): not tested",
            MODULE[0]
        );
        return None;
    }
    assert_eq!(answer["Sum"], MODULE[1]);
    let file = std::path::Path::new(text(&answer, "/Dir")).join("manifests/crds/application-crd.yaml");
    Some(documents(&std::fs::read_to_string(file).unwrap()).unwrap())
}

async fn install(admin: &Client, crds: &[Value]) {
    apply(admin, "argocd", crds).await.unwrap();
    let all = kind(admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let name = "applications.argoproj.io";
    let served = |crd: &Value| condition(crd, "Established") == "True";
    eventually(&all, name, "Applications to be served", DEADLINE, served).await.unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ARGOCD}});
    apply(admin, "argocd", &[namespace]).await.unwrap();
}

/// An Application as it is while its namespace is isolated: nothing syncs it.
fn application(name: &str) -> Value {
    json!({
        "apiVersion": KINDS, "kind": "Application", "metadata": {"name": name, "namespace": ARGOCD},
        "spec": {
            "project": "default", "destination": {"server": "https://kubernetes.default.svc", "namespace": format!("{name}-db")},
            "source": {"repoURL": "https://git.example.org/estate", "path": ".", "targetRevision": "main"},
        },
    })
}

fn rules() -> Value {
    json!([{"apiGroups": ["argoproj.io"], "resources": ["applications"], "verbs": ["get", "patch"]}])
}

fn by(name: &str) -> Value {
    json!({"argocd": {"namespace": ARGOCD, "name": name, "revision": APPROVED}})
}

/// Writes what the controller would. It has no subresource for its status.
async fn controller_writes(all: &Api<DynamicObject>, name: &str, patch: Value) {
    let params =
        PatchParams { field_manager: Some("argocd-controller".to_owned()), ..PatchParams::default() };
    all.patch(name, &params, &Patch::Merge(patch)).await.unwrap();
}

/// What the controller's state of an operation is.
fn state(operation: &Value, phase: &str, message: &str) -> Value {
    json!({
        "operation": operation, "phase": phase, "message": message, "startedAt": "2026-11-30T10:00:00Z",
        "syncResult": {"revision": APPROVED, "source": {"repoURL": "https://git.example.org/estate"}},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn argo_cd_syncs_once_and_a_sync_window_is_no_progress() {
    let Some(crds) = application_kind() else { return };
    let stage = Stage::set().await;
    let missing = without_kinds(&stage.admin, &by("backargo")).await;
    let words = "Application argocd/backargo: the API server does not serve applications in argoproj.io/v1alpha1: install its CRD";
    assert_eq!(missing, words);
    install(&stage.admin, &crds).await;
    let all = kind(&stage.admin, KINDS, "Application", Some(ARGOCD));
    let operated = |application: &Value| !application["operation"].is_null();

    // Somebody else's operation is waited for.
    let theirs = json!({"initiatedBy": {"username": "alice"}, "sync": {"revision": "main"}});
    let mut busy = application("backargo");
    busy["operation"] = theirs;
    apply(&stage.admin, "platform", &[busy]).await.unwrap();
    let trial = stage.isolated("backargo").await;
    stage.recover(&trial, &by("backargo")).await;
    let words = ["read Application argocd/backargo", "backargo-recovery:recovery", "cannot get resource"];
    says(&trial, "StepDenied", &words).await;
    grant(&stage.admin, "backargo", ARGOCD, &rules()).await;
    says(&trial, "StepPending", &["Application argocd/backargo is at another operation, which alice began"])
        .await;
    controller_writes(&all, "backargo", json!({"operation": null})).await;
    says(&trial, "StepRunning", &["has not begun the sync yet"]).await;
    let before = object(&all, "backargo").await.unwrap();
    assert_eq!(before["operation"]["sync"]["revision"], APPROVED);
    stage.restart().await;
    says(&trial, "StepRunning", &["has not begun the sync yet"]).await;
    let after = object(&all, "backargo").await.unwrap();
    assert_eq!(after["metadata"], before["metadata"], "it is asked for once");

    let operation = &before["operation"];
    let blocked = state(operation, "Running", "Sync operation blocked by sync window");
    controller_writes(&all, "backargo", json!({"status": {"operationState": blocked}})).await;
    says(&trial, "StepRunning", &["waits for a sync window, and nothing of it is done before"]).await;
    let mut synced = state(operation, "Succeeded", "successfully synced");
    synced["finishedAt"] = json!("2026-11-30T10:05:00Z");
    let status = json!({
        "operationState": synced, "reconciledAt": "2026-11-30T10:05:01Z",
        "sync": {
            "status": "Synced", "revision": APPROVED,
            "comparedTo": {"source": {"repoURL": "https://git.example.org/estate"}, "destination": {}},
        },
        "health": {"status": "Progressing"},
    });
    controller_writes(&all, "backargo", json!({"operation": null, "status": status})).await;
    says(&trial, "StepRunning", &["has synced, and is Synced and Progressing"]).await;
    controller_writes(&all, "backargo", json!({"status": {"health": {"status": "Healthy"}}})).await;
    trial.recovered().await.unwrap();
    assert!(!operated(&object(&all, "backargo").await.unwrap()), "nothing is asked for a second time");
    let message = format!("Application argocd/backargo synced revision {APPROVED}, and is healthy");
    assert!(stage.log().contains(&message), "{message}");

    // One that fails asks a person.
    apply(&stage.admin, "platform", &[application("failargo")]).await.unwrap();
    grant(&stage.admin, "failargo", ARGOCD, &rules()).await;
    let trial = stage.isolated("failargo").await;
    stage.recover(&trial, &by("failargo")).await;
    let begun = eventually(&all, "failargo", "its operation", DEADLINE, operated).await.unwrap();
    let failed = state(&begun["operation"], "Failed", "one or more objects failed to apply");
    let patch = json!({"operation": null, "status": {"operationState": failed}});
    controller_writes(&all, "failargo", patch).await;
    says(&trial, "StepFailed", &["Application argocd/failargo failed to sync: one or more objects failed"])
        .await;
}
