//! What is kept before anything is stopped: in a folder and on an S3 server, and what happens where it cannot be.

use std::path::{Path, PathBuf};

use control_plane::Identity;
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use resurgam::api::quarantine::{Capture, CaptureMode};
use resurgam::api::{Isolation, Quarantine, QuarantineLevel, conditions};
use resurgam::isolation::evidence::{CaptureError, Problem, Snapshots, Store, Subject, capture};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::isolation::meanwhile::meanwhile;
use crate::isolation::s3;
use crate::isolation::support::{
    LOGGED, LOGGED_BEFORE, alone, apply, client, isolate, namespace, object, ready, rig, until, with,
};

/// One object, which must be what its name says.
fn stored(folder: &Path, object: &str) -> Vec<u8> {
    let bytes = std::fs::read(folder.join(object)).unwrap();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(object.contains(&digest), "{object} is not {digest}");
    bytes
}

/// The index of a capture into a folder.
pub fn index(folder: &Path, namespace: &str, kept: &Capture) -> Value {
    let name = format!("{namespace}/{}.json", kept.digest.strip_prefix("sha256:").unwrap());
    serde_json::from_slice(&stored(folder, &name)).unwrap()
}

/// The manifests of a capture into a folder.
pub fn manifests(folder: &Path, namespace: &str, kept: &Capture) -> Value {
    let index = index(folder, namespace, kept);
    serde_json::from_slice(&stored(folder, index["manifests"]["object"].as_str().unwrap())).unwrap()
}

fn subject(namespace: &str, mode: CaptureMode) -> Subject<'_> {
    Subject { namespace, quarantine: "uid", before: None, mode }
}

/// A namespace with a pod that runs, and has run before, one that never starts, and a Secret.
async fn fill(name: &str) {
    let tenant = namespace(name).await;
    let manifests = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: NAMESPACE}
spec:
  initContainers: [{name: init, image: registry.example/init}]
  containers: [{name: main, image: registry.example/web}]
---
apiVersion: v1
kind: Pod
metadata: {name: never, namespace: NAMESPACE}
spec:
  nodeSelector: {resurgam.example/none: 'true'}
  containers: [{name: main, image: registry.example/never}]
---
apiVersion: v1
kind: Secret
metadata:
  name: password
  namespace: NAMESPACE
  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"data":{"password":"aHVudGVyMg=="}}'}
stringData: {password: hunter2}
"#;
    apply(&tenant, &manifests.replace("NAMESPACE", name)).await;
    let pods: Api<Pod> = Api::namespaced(client(Identity::PlatformAdministrator).await, name);
    let running = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    let pod = object(pods.clone(), "web", "running", running).await;
    let mut statuses = pod.status.unwrap().container_statuses.unwrap();
    let before = json!({"terminated": {"exitCode": 137, "containerID": "cri://before"}});
    statuses[0].last_state = Some(serde_json::from_value(before).unwrap());
    let patch = Patch::Strategic(json!({"status": {"containerStatuses": statuses}}));
    pods.patch_status("web", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn everything_is_kept_alike_in_a_folder_and_on_an_s3_server() {
    let rig = rig().await;
    fill("evidenced").await;
    let folder = tempfile::tempdir().unwrap();
    let server = s3::Server::start().await;
    let stores: [(Store, PathBuf); 2] =
        [(Store::folder(folder.path()), folder.path().to_owned()), (server.store(), server.objects())];
    for (store, folder) in stores {
        let evidence = rig.evidence(store);
        let operator = client(Identity::Operator).await;
        let kept =
            capture(&operator, &evidence, subject("evidenced", CaptureMode::Required), Snapshots::default())
                .await
                .unwrap();
        assert_eq!(kept.missing, Vec::<String>::new());
        assert_eq!(kept.logs, Some(2), "of the init container, and of the other; never has none");

        let index = index(&folder, "evidenced", &kept);
        let objects = manifests(&folder, "evidenced", &kept)["objects"].as_array().unwrap().clone();
        assert_eq!(i64::try_from(objects.len()).unwrap(), kept.objects);
        let secret = objects.iter().find(|o| o["kind"] == "Secret").unwrap();
        let digest = secret["digests"]["password"].as_str().unwrap();
        assert!(digest.starts_with("hmac-sha256:") && digest.len() == 76, "{digest}");

        // What was logged is there for who has the identity.
        let containers = index["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 3, "{index}");
        let main = containers.iter().find(|c| c["pod"] == "web" && c["kind"] == "container").unwrap();
        assert!(main["node"].as_str().unwrap().starts_with("node-"));
        for (which, logged) in [("log", LOGGED), ("previousLog", LOGGED_BEFORE)] {
            let log = &main[which]["kept"];
            let bytes = stored(&folder, log["object"].as_str().unwrap());
            assert_eq!(log["size"], bytes.len());
            let clear = String::from_utf8(age::decrypt(&rig.identity, &bytes).unwrap()).unwrap();
            assert_eq!(clear, format!("2025-11-24T03:00:00.000000001Z {logged}\n"));
            assert_eq!(log["truncated"], false);
        }
        let never = containers.iter().find(|c| c["pod"] == "never").unwrap();
        assert_eq!(never["log"]["none"], "it never started");

        // And nothing of it, nor of the Secret, is there in clear.
        let mut files = 0;
        for file in std::fs::read_dir(folder.join("evidenced")).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            for clear in ["Miggins", "Baldrick", "hunter2", "aHVudGVyMg"] {
                assert!(!bytes.windows(clear.len()).any(|part| part == clear.as_bytes()), "{clear}");
            }
            files += 1;
        }
        assert_eq!(files, 2 + 3, "index, manifests, three logs: {index}");

        // Read back, it is what was kept, until somebody changes it.
        let recorded = [("evidenced".to_owned(), kept.digest.clone())].into();
        let found = evidence.store.read_all(None).await.unwrap();
        assert_eq!((found.objects.len(), found.sealings.len(), found.sealings[0].index.logs()), (5, 1, 3));
        assert_eq!(found.verify(&recorded)[0].findings, []);
        let log = main["log"]["kept"]["object"].as_str().unwrap();
        std::fs::write(folder.join(log), b"forged").unwrap();
        let found = evidence.store.read_all(Some("evidenced")).await.unwrap();
        assert!(
            found.verify(&recorded)[0]
                .findings
                .iter()
                .all(|f| f.problem == Problem::Changed && f.object == log)
        );
        assert!(!found.verify(&recorded)[0].is_sound());
    }
}

#[tokio::test]
async fn capture_without_recipient_or_key_omits_logs_and_secrets() {
    fill("frugal").await;
    let folder = tempfile::tempdir().unwrap();
    let evidence = resurgam::isolation::evidence::Evidence::new(Store::folder(folder.path()));
    let operator = client(Identity::Operator).await;
    let kept = capture(&operator, &evidence, subject("frugal", CaptureMode::Required), Snapshots::default())
        .await
        .unwrap();
    assert_eq!(
        kept.missing,
        ["secrets: no --evidence-key is configured", "logs: no --evidence-recipient is configured"]
    );
    assert_eq!(kept.logs, None);
    let manifests = manifests(folder.path(), "frugal", &kept);
    let kinds: Vec<&str> = manifests["objects"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|object| object["kind"].as_str())
        .collect();
    assert!(kinds.contains(&"ConfigMap") && !kinds.contains(&"Secret"), "{kinds:?}");
    assert_eq!(std::fs::read_dir(folder.path().join("frugal")).unwrap().count(), 2);
}

#[tokio::test]
async fn stored_evidence_is_never_overwritten_or_mistaken() {
    let folder = tempfile::tempdir().unwrap();
    let server = s3::Server::start().await;
    for (store, at) in
        [(Store::folder(folder.path()), folder.path().to_owned()), (server.store(), server.objects())]
    {
        let first = store.keep("library", "json", b"first".to_vec()).await.unwrap();
        assert_eq!(stored(&at, &first.object), b"first");
        assert_eq!(
            store.keep("library", "json", b"first".to_vec()).await.unwrap(),
            first,
            "again is the same"
        );
        std::fs::write(at.join(&first.object), b"forged").unwrap();
        let error = store.keep("library", "json", b"first".to_vec()).await.unwrap_err().to_string();
        assert!(error.contains(&first.object), "{error}");
        assert_eq!(std::fs::read(at.join(&first.object)).unwrap(), b"forged", "left for who investigates");
    }
}

#[tokio::test]
async fn unreliable_store_is_a_failure_where_evidence_is_required() {
    let rig = rig().await;
    fill("unkept").await;
    let server = s3::Server::start().await;
    let (lying, _serving) = s3::lying().await;
    let operator = client(Identity::Operator).await;
    for (store, why) in [
        (lying, "what can be read back is not what was stored"),
        (s3::unreachable().await, "s3://council/2025/nov"),
        (server.store_of_a_stranger(), "SignatureDoesNotMatch"),
    ] {
        let evidence = rig.evidence(store);
        let required =
            capture(&operator, &evidence, subject("unkept", CaptureMode::Required), Snapshots::default())
                .await;
        let error = required.unwrap_err();
        assert!(matches!(error, CaptureError::Store(_)), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        let kept =
            capture(&operator, &evidence, subject("unkept", CaptureMode::BestEffort), Snapshots::default())
                .await
                .unwrap();
        assert_eq!((kept.objects, kept.logs), (0, Some(0)), "nothing is said to be kept");
        assert!(kept.missing.iter().any(|missing| missing.contains("could not be stored")), "{kept:?}");
    }
}

#[tokio::test]
async fn each_container_is_asked_for_its_log_up_to_the_limit() {
    fill("each-log").await;
    let folder = tempfile::tempdir().unwrap();
    let evidence = rig().await.evidence(Store::folder(folder.path()));
    let log = "GET /api/v1/namespaces/each-log/pods/web/log";
    let (operator, asked) = meanwhile(client(Identity::Operator).await, log, |_| async { None }.boxed());
    capture(&operator, &evidence, subject("each-log", CaptureMode::BestEffort), Snapshots::default())
        .await
        .unwrap();
    let mut asked: Vec<_> = asked
        .each()
        .into_iter()
        .map(|request| {
            let query = request.split_once('?').unwrap().1.to_owned();
            let of = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)).map(str::to_owned);
            (of("container=").unwrap(), of("previous="), of("limitBytes=").unwrap())
        })
        .collect();
    asked.sort();
    let (limit, before) = ((evidence.log_limit + 1).to_string(), Some("true".to_owned()));
    let expected = [("init", None), ("main", None), ("main", before)];
    assert_eq!(asked, expected.map(|(container, previous)| (container.to_owned(), previous, limit.clone())));
}

#[tokio::test]
async fn manifests_that_no_index_leads_to_are_not_said_to_be_kept() {
    fill("unindexed").await;
    let folder = tempfile::tempdir().unwrap();
    let evidence = rig().await.evidence(Store::folder(folder.path()));
    // Once the manifests are there, and before the index is, nothing more can be stored.
    let (taken, away) = (folder.path().join("unindexed"), folder.path().join("away"));
    let log = "GET /api/v1/namespaces/unindexed/pods/web/log";
    let (operator, _) = meanwhile(client(Identity::Operator).await, log, move |nth| {
        if nth == 1 {
            std::fs::rename(&taken, &away).unwrap();
            std::fs::write(&taken, "in the way").unwrap();
        }
        async { None }.boxed()
    });
    let kept =
        capture(&operator, &evidence, subject("unindexed", CaptureMode::BestEffort), Snapshots::default())
            .await
            .unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("away")).unwrap().count(), 1, "the manifests");
    assert_eq!((kept.objects, kept.logs), (0, Some(0)), "nothing is said to be kept");
    assert!(kept.missing[0].contains("could not be stored"), "{kept:?}");
}

/// A node whose kubelet takes connections and never answers.
async fn silent_node(name: &str) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nodes: Api<Node> = Api::all(client(Identity::PlatformAdministrator).await);
    let node = json!({"metadata": {"name": name}, "spec": {"unschedulable": true}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let status = Patch::Merge(json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": listener.local_addr().unwrap().port()}},
    }}));
    nodes.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    listener
}

#[tokio::test]
async fn silent_node_holds_up_sealing_until_its_logs_are_waived() {
    let _nobody = alone().await;
    let rig = rig().await;
    let folder = tempfile::tempdir().unwrap();
    let _silent = silent_node("silent").await;
    namespace("mute").await;
    let administrator = client(Identity::PlatformAdministrator).await;
    let pods: Api<Pod> = Api::namespaced(administrator, "mute");
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {"nodeName": "silent", "containers": [{"name": "main", "image": "registry.example/web"}]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let running = Patch::Merge(json!({"status": {"phase": "Running", "containerStatuses": [{
        "name": "main", "image": "web", "imageID": "", "containerID": "cri://1", "ready": true,
        "restartCount": 0, "state": {"running": {}},
    }]}}));
    pods.patch_status("web", &PatchParams::default(), &running).await.unwrap();
    let _own = with(rig.evidence(Store::folder(folder.path()))).await;

    isolate("mute", QuarantineLevel::Sealed).await;
    let held = until("mute", "held up by its evidence", |q| {
        let status = q.status.clone().unwrap_or_default();
        conditions::find(&status.conditions, conditions::READY).is_some_and(|c| c.reason == "CaptureFailed")
    })
    .await;
    let status = held.status.unwrap();
    assert_eq!(status.isolation, Some(Isolation::Contained), "what contains it does not wait for evidence");
    let message = &conditions::find(&status.conditions, conditions::READY).unwrap().message;
    for word in ["web/main", "silent", "nothing is stopped", "BestEffort"] {
        assert!(message.contains(word), "{word} in {message}");
    }
    assert!(pods.get("web").await.unwrap().metadata.deletion_timestamp.is_none(), "it lives");
    assert!(!folder.path().join("mute").exists(), "a try in vain leaves nothing");

    let quarantines: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let without = Patch::Merge(json!({"spec": {"capture": "BestEffort"}}));
    quarantines.patch("mute", &PatchParams::default(), &without).await.unwrap();
    until("mute", "captured as far as possible", |q| q.status.as_ref().is_some_and(|s| s.capture.is_some()))
        .await;
    // Its node never says that it ended: somebody has to.
    let lead: Api<Pod> = Api::namespaced(client(Identity::RecoveryLead).await, "mute");
    lead.delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    let sealed = ready("mute", Isolation::Sealed).await;
    let kept = sealed.status.unwrap().capture.unwrap();
    assert_eq!(kept.logs, Some(0));
    assert!(kept.missing.iter().any(|m| m.contains("web/main") && m.contains("silent")), "{kept:?}");
}

#[tokio::test]
async fn slow_store_is_reported_and_nothing_is_captured_twice() {
    let _nobody = alone().await;
    let rig = rig().await;
    fill("slow").await;
    let (server, open) = s3::Server::start_closed().await;
    let _own = with(rig.evidence(server.store())).await;
    isolate("slow", QuarantineLevel::Sealed).await;
    let reason = |q: &Quarantine| {
        let status = q.status.clone().unwrap_or_default();
        conditions::find(&status.conditions, conditions::READY).map(|ready| ready.reason.clone())
    };
    let waiting = until("slow", "said to be capturing", |q| reason(q).as_deref() == Some("Capturing")).await;
    assert_eq!(waiting.status.unwrap().isolation, Some(Isolation::Contained));

    // Somebody writes to it meanwhile.
    let quarantines: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let note = Patch::Merge(json!({"metadata": {"annotations": {"ticket": "4711"}}}));
    quarantines.patch("slow", &PatchParams::default(), &note).await.unwrap();
    open.send(()).unwrap();
    let sealed = ready("slow", Isolation::Sealed).await;
    let kept = sealed.status.unwrap().capture.unwrap();
    assert_eq!(index(&server.objects(), "slow", &kept)["quarantine"], sealed.metadata.uid.unwrap());
    let logs = kept.logs.and_then(|logs| usize::try_from(logs).ok()).unwrap();
    let files = std::fs::read_dir(server.objects().join("slow")).unwrap().count();
    assert_eq!(files, 2 + logs + 1, "index, manifests, and each log once, that of the run before too");
}
