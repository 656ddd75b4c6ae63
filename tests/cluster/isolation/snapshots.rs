//! VolumeSnapshots that a capture asks for, by the real snapshot controller. The kinds are there, in their smallest form; there is
//! no driver, so what a driver's sidecar would tell of its work the tests do.

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use control_plane::Identity;
use futures::FutureExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::Kubeconfig;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::conditions;
use kube::{Api, Client, ResourceExt};
use rehearsal::await_condition;
use resurgam::api::quarantine::{Capture, CaptureMode};
use resurgam::api::{Isolation, QuarantineLevel, conditions as ours, field_manager};
use resurgam::isolation::evidence::{CaptureError, Evidence, Store, Subject, capture, snapshot};
use resurgam::isolation::policies;
use serde_json::{Value, json};

use crate::isolation::evidence::index;
use crate::isolation::meanwhile::meanwhile;
use crate::isolation::support::{
    acting_as, alone, apply, client, controller, isolate, namespace, object, ready, refused, rig, until,
    with, within,
};
use crate::isolation::{api, live};

const KINDS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: volumesnapshots.snapshot.storage.k8s.io
  annotations: {api-approved.kubernetes.io: 'unapproved, a stand-in for tests'}
spec:
  group: snapshot.storage.k8s.io
  names: {kind: VolumeSnapshot, plural: volumesnapshots, singular: volumesnapshot, listKind: VolumeSnapshotList}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: volumesnapshotclasses.snapshot.storage.k8s.io
  annotations: {api-approved.kubernetes.io: 'unapproved, a stand-in for tests'}
spec:
  group: snapshot.storage.k8s.io
  names: {kind: VolumeSnapshotClass, plural: volumesnapshotclasses, singular: volumesnapshotclass, listKind: VolumeSnapshotClassList}
  scope: Cluster
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
";

const CLASSES: &str = r"
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: disks}
driver: disks.example
deletionPolicy: Retain
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: disks-daily, annotations: {snapshot.storage.kubernetes.io/is-default-class: 'true'}}
driver: disks.example
deletionPolicy: Retain
";

/// Two volumes, one of a driver with classes, and one of a driver without; a claim that is bound to each.
async fn volumes(name: &str) {
    let administrator = client(Identity::PlatformAdministrator).await;
    for (claim, driver) in [("data", "disks.example"), ("scratch", "other.example")] {
        let manifests = r"
apiVersion: v1
kind: PersistentVolume
metadata: {name: NAMESPACE-CLAIM}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ''
  claimRef: {namespace: NAMESPACE, name: CLAIM}
  csi: {driver: DRIVER, volumeHandle: NAMESPACE-CLAIM}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: CLAIM, namespace: NAMESPACE}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  volumeName: NAMESPACE-CLAIM
  resources: {requests: {storage: 1Gi}}
";
        let manifests =
            manifests.replace("NAMESPACE", name).replace("CLAIM", claim).replace("DRIVER", driver);
        apply(&administrator, &manifests).await;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(administrator.clone(), name);
        object(claims, claim, "bound", |claim| {
            claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
        })
        .await;
    }
}

const OF_ANOTHER_NAME: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: snapshots-by-another-name}
rules:
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshots/status], verbs: [patch]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [patch]}
- {apiGroups: [resurgam.dev], resources: [quarantines], resourceNames: [cut], verbs: [operate]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: snapshots-by-another-name}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: snapshots-by-another-name}
subjects: [{kind: ServiceAccount, name: snapshots, namespace: storage}]
"#;

fn kind_of(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", kind))
}

async fn snapshots(namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client(Identity::PlatformAdministrator).await, namespace, &kind_of("VolumeSnapshot"))
}

/// The snapshot controller, by the account and with the rights that it is installed with.
async fn snapshotter() {
    const RIGHTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: snapshot-controller, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: snapshot-controller}
rules:
- {apiGroups: [""], resources: [persistentvolumes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list, watch, update]}
- {apiGroups: [""], resources: [events], verbs: [list, watch, create, update, patch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotclasses], verbs: [get, list, watch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents, volumesnapshots], verbs: [create, get, list, watch, update, delete, patch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents/status, volumesnapshots/status], verbs: [update, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: snapshot-controller}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: snapshot-controller}
subjects: [{kind: ServiceAccount, name: snapshot-controller, namespace: kube-system}]
"#;
    let running = &rig().await.snapshot_controller;
    running
        .get_or_init(async || {
            let administrator = client(Identity::PlatformAdministrator).await;
            for manifests in [KINDS, include_str!("snapshots.yaml")] {
                apply(&administrator, manifests).await;
            }
            let crds: Api<CustomResourceDefinition> = Api::all(administrator.clone());
            for name in ["volumesnapshots", "volumesnapshotclasses", "volumesnapshotcontents"] {
                let name = format!("{name}.snapshot.storage.k8s.io");
                let established = await_condition(crds.clone(), &name, conditions::is_crd_established());
                within(&name, established).await.unwrap();
            }
            apply(&administrator, CLASSES).await;
            apply(&administrator, RIGHTS).await;

            let program = tokio::task::spawn_blocking(|| control_plane::part("snapshot-controller"));
            let program = program.await.unwrap().unwrap();
            let path = rig().await.control_plane.kubeconfig(Identity::PlatformAdministrator);
            let mut kubeconfig = Kubeconfig::read_from(path).unwrap();
            for user in &mut kubeconfig.auth_infos {
                let user = user.auth_info.as_mut().unwrap();
                user.impersonate = Some("system:serviceaccount:kube-system:snapshot-controller".to_owned());
            }
            let folder = rig().await.control_plane.dir();
            let own = folder.join("kubeconfigs/snapshot-controller.yaml");
            std::fs::write(&own, serde_yaml::to_string(&kubeconfig).unwrap()).unwrap();
            let log = std::fs::File::create(folder.join("logs/snapshot-controller.log")).unwrap();
            let mut command = Command::new(program);
            command.arg("--kubeconfig").arg(own).args([
                "--feature-gates=CSIVolumeGroupSnapshot=false",
                "--kube-api-qps=100",
                "--kube-api-burst=200",
                "--retry-interval-start=50ms",
                "-v=5",
            ]);
            command.stderr(log);
            Mutex::new(control_plane::spawn_bound(command).unwrap())
        })
        .await;
}

/// The one snapshot of ours in a namespace, bound to its content by the snapshot controller.
async fn bound(namespace: &str) -> (String, String) {
    let api = snapshots(namespace).await;
    let name = within("a snapshot to be asked for", async {
        loop {
            let all = api.list(&Default::default()).await.unwrap().items;
            if let Some(ours) = all.iter().find(|s| s.name_any().starts_with("resurgam-")) {
                return ours.name_any();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let content = |o: Option<&DynamicObject>| {
        o.is_some_and(|o| o.data["status"]["boundVolumeSnapshotContentName"].is_string())
    };
    let found = within("it to be bound", await_condition(api, &name, content)).await.unwrap().unwrap();
    (name, found.data["status"]["boundVolumeSnapshotContentName"].as_str().unwrap().to_owned())
}

/// Tells of a content what the driver's sidecar would: it marks it while it is at work, too.
async fn tell(content: &str, status: Value) {
    let contents: Api<DynamicObject> =
        Api::all_with(client(Identity::PlatformAdministrator).await, &kind_of("VolumeSnapshotContent"));
    let params = PatchParams::default();
    let mark = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
    for at_work in [json!("yes"), Value::Null] {
        let marked = Patch::Merge(json!({"metadata": {"annotations": {mark: at_work}}}));
        contents.patch(content, &params, &marked).await.unwrap();
    }
    contents.patch_status(content, &params, &Patch::Merge(json!({"status": status}))).await.unwrap();
}

/// Of a storage system that has cut it: since then, and, if it is `ready`, for use.
fn cut(ready: bool) -> Value {
    json!({"snapshotHandle": "one", "creationTime": 1_763_953_200_000_000_000_i64, "readyToUse": ready, "restoreSize": 1 << 30, "error": null})
}

fn subject<'a>(namespace: &'a str, before: Option<&'a str>, mode: CaptureMode) -> Subject<'a> {
    Subject { namespace, quarantine: "uid", before, mode }
}

async fn keep(operator: &Client, evidence: &Evidence, of: Subject<'_>) -> Result<Capture, CaptureError> {
    let taken = snapshot(operator, of, evidence.snapshot_wait, std::future::ready(())).await?;
    capture(operator, evidence, of, taken).await
}

#[tokio::test]
async fn a_volume_is_snapshotted_once_where_its_driver_has_a_class() {
    let rig = rig().await;
    let administrator = client(Identity::PlatformAdministrator).await;
    snapshotter().await;
    namespace("volumes").await;
    volumes("volumes").await;
    let folder = tempfile::tempdir().unwrap();
    let evidence = rig.evidence(Store::folder(folder.path()));
    let operator = client(Identity::Operator).await;
    let required = |before| subject("volumes", before, CaptureMode::Required);

    // Who is refused is told by what.
    let create = "POST /apis/snapshot.storage.k8s.io/v1/namespaces/volumes/volumesnapshots";
    let (refused, _) = meanwhile(operator.clone(), create, |_| async { Some(422) }.boxed());
    let error = keep(&refused, &evidence, required(None)).await.unwrap_err().to_string();
    assert!(
        error.contains("create VolumeSnapshot volumes/") && error.contains("as the test has it"),
        "{error}"
    );

    let sidecar = async {
        let (name, content) = bound("volumes").await;
        tell(&content, cut(true)).await;
        name
    };
    let (kept, name) = tokio::join!(keep(&operator, &evidence, required(None)), sidecar);
    let kept = kept.unwrap();
    assert_eq!(kept.snapshots, [name.as_str()]);
    assert!(name.ends_with("-data"), "{name}");
    assert_eq!(kept.missing.len(), 1, "{kept:?}");
    assert!(kept.missing[0].contains("claim scratch") && kept.missing[0].contains("other.example"));
    let api = snapshots("volumes").await;
    let made = api.get(&name).await.unwrap();
    assert_eq!(made.data["spec"]["source"]["persistentVolumeClaimName"], "data");
    assert_eq!(made.data["spec"]["volumeSnapshotClassName"], "disks-daily", "the default one");
    let managers = made.metadata.managed_fields.iter().flatten().filter(|entry| {
        serde_json::to_string(&entry.fields_v1).unwrap().contains("f:volumeSnapshotClassName")
    });
    let managers: Vec<_> = managers.filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, [field_manager::ISOLATION]);
    let listed = &index(folder.path(), "volumes", &kept)["snapshots"][0];
    assert_eq!(listed["cutAt"], "2025-11-24T03:00:00Z");
    assert_eq!((&listed["readyToUse"], listed["content"].is_string()), (&json!(true), true));

    // Another try of the same sealing finds it; the next sealing has its own, and waits for that.
    assert_eq!(keep(&operator, &evidence, required(None)).await.unwrap().snapshots, kept.snapshots);
    assert_eq!(api.get(&name).await.unwrap().metadata.uid, made.metadata.uid);
    let next = required(Some(&kept.digest));
    let error = snapshot(&operator, next, Duration::from_secs(1), std::future::ready(()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("claim data") && error.contains("is not cut after 1 s"), "{error}");
    assert_eq!(api.list(&Default::default()).await.unwrap().items.len(), 2);

    // One that is deleted before it is cut, and kept by its finalizers for now, is not waited for.
    let all = api.list(&Default::default()).await.unwrap().items;
    let uncut = all.iter().map(ResourceExt::name_any).find(|other| *other != name).unwrap();
    let kept = Patch::Merge(json!({"metadata": {"finalizers": ["example.org/kept"]}}));
    api.patch(&uncut, &PatchParams::default(), &kept).await.unwrap();
    let (theirs, deleted) = (api.clone(), uncut.clone());
    let watch = "GET /apis/snapshot.storage.k8s.io/v1/namespaces/volumes/volumesnapshots?";
    let (client, _) = meanwhile(operator.clone(), watch, move |_| {
        let (theirs, deleted) = (theirs.clone(), deleted.clone());
        async move {
            theirs.delete(&deleted, &DeleteParams::default()).await.unwrap();
            None
        }
        .boxed()
    });
    let waited = snapshot(&client, next, Duration::from_secs(30), std::future::ready(())).await;
    let error = waited.unwrap_err().to_string();
    assert!(error.contains(&format!("volumes/{uncut}: it was deleted")), "{error}");
    let let_go = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(&uncut, &PatchParams::default(), &let_go).await.unwrap();

    // One of that name that is not ours is no evidence.
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    let gone = await_condition(api.clone(), &name, |o: Option<&DynamicObject>| o.is_none());
    within("the snapshot to be gone", gone).await.unwrap();
    let forged = format!(
        "{{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {{name: {name}, namespace: volumes}}}}"
    );
    apply(&administrator, &forged).await;
    let error = keep(&operator, &evidence, required(None)).await.unwrap_err().to_string();
    assert!(error.contains(name.as_str()) && error.contains("not ours"), "{error}");
}

#[tokio::test]
async fn nothing_is_stopped_before_its_snapshot_is_cut() {
    let _running = controller().await;
    snapshotter().await;
    let tenant = namespace("cut").await;
    volumes("cut").await;
    let manifests = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: cut}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: registry.example/web}]}
";
    apply(&tenant, manifests).await;
    object::<Deployment>(api(&tenant, "cut"), "web", "available", |d| {
        d.status.as_ref().and_then(|s| s.available_replicas) == Some(1)
    })
    .await;
    // A snapshot controller by another name, with a grant of its own.
    apply(&client(Identity::PlatformAdministrator).await, OF_ANOTHER_NAME).await;
    isolate("cut", QuarantineLevel::Sealed).await;
    let (name, content) = bound("cut").await;

    // What a driver complains of is told, and waited for.
    tell(&content, json!({"readyToUse": false, "error": {"message": "too many snapshots", "time": "2025-11-24T03:00:00Z"}})).await;
    let api_of = snapshots("cut").await;
    let told = |o: Option<&DynamicObject>| {
        o.is_some_and(|o| o.data["status"]["error"]["message"] == "too many snapshots")
    };
    within("the error to be told", await_condition(api_of.clone(), &name, told)).await.unwrap();
    let waiting = until("cut", "said to be capturing", |q| {
        let status = q.status.clone().unwrap_or_default();
        ours::find(&status.conditions, ours::READY).is_some_and(|c| c.reason == "Capturing")
    })
    .await;
    assert_eq!(waiting.status.unwrap().isolation, Some(Isolation::Contained));
    assert_eq!(live(&tenant, "cut").await.len(), 1, "nothing is stopped yet");

    // Its claim is protected meanwhile.
    let protected = |claim: &PersistentVolumeClaim| {
        claim.finalizers().iter().any(|f| f.ends_with("/pvc-as-source-protection"))
    };
    object::<PersistentVolumeClaim>(api(&tenant, "cut"), "data", "protected", protected).await;

    // Nobody else says that it is cut.
    let gitops = client(Identity::GitOps).await;
    let theirs: Api<DynamicObject> = Api::namespaced_with(gitops, "cut", &kind_of("VolumeSnapshot"));
    let forged = Patch::Merge(json!({"status": {"readyToUse": true}}));
    let outcome = theirs.patch_status(&name, &PatchParams::default(), &forged).await;
    refused("say that it is cut", policies::WRITE_FENCE, outcome);

    let another = acting_as("storage", "snapshots").await;
    let theirs: Api<DynamicObject> = Api::namespaced_with(another.clone(), "cut", &kind_of("VolumeSnapshot"));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    theirs.patch_status(&name, &dry, &forged).await.unwrap();
    let disowned = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let claims = api::<PersistentVolumeClaim>(&another, "cut");
    refused("strip the claim", policies::WRITE_FENCE, claims.patch("data", &dry, &disowned).await);

    // Cut is enough: to copy it may take hours.
    tell(&content, cut(false)).await;
    let sealed = ready("cut", Isolation::Sealed).await;
    assert_eq!(live(&tenant, "cut").await, Vec::<String>::new());
    let kept = sealed.status.unwrap().capture.unwrap();
    assert_eq!(kept.snapshots, [name.as_str()]);
    let of_data = |m: &&String| m.contains("claim data");
    let said = kept.missing.iter().find(of_data).unwrap();
    assert!(said.contains("is cut, and was not ready to use yet"), "{said}");

    // While sealed it gets ready, and its claim is let go again.
    tell(&content, cut(true)).await;
    let is_ready = |o: Option<&DynamicObject>| o.is_some_and(|o| o.data["status"]["readyToUse"] == true);
    let snapshot = within("ready", await_condition(api_of, &name, is_ready)).await.unwrap().unwrap();
    assert!(snapshot.finalizers().iter().any(|f| f.ends_with("/volumesnapshot-as-source-protection")));
    object::<PersistentVolumeClaim>(api(&tenant, "cut"), "data", "let go", |claim| !protected(claim)).await;
}

#[tokio::test]
async fn who_does_without_a_snapshot_that_does_not_come_is_told_of_it() {
    let _nobody = alone().await;
    snapshotter().await;
    let rig = rig().await;
    namespace("uncut").await;
    volumes("uncut").await;
    let folder = tempfile::tempdir().unwrap();
    let evidence =
        Evidence { snapshot_wait: Duration::from_secs(1), ..rig.evidence(Store::folder(folder.path())) };
    let _own = with(evidence).await;
    isolate("uncut", QuarantineLevel::Sealed).await;
    let (name, content) = bound("uncut").await;
    tell(
        &content,
        json!({"readyToUse": false, "error": {"message": "out of space", "time": "2025-11-24T03:00:00Z"}}),
    )
    .await;
    // What holds without the snapshot may be confirmed after the first try of it.
    let held = until("uncut", "contained, and held up by its snapshot, with what its driver says", |q| {
        let status = q.status.clone().unwrap_or_default();
        status.isolation == Some(Isolation::Contained)
            && ours::find(&status.conditions, ours::READY)
                .is_some_and(|c| c.reason == "CaptureFailed" && c.message.contains("out of space"))
    })
    .await;
    assert_eq!(held.status.unwrap().capture, None);
    assert!(!folder.path().join("uncut").exists(), "a try in vain leaves nothing");

    let quarantines: Api<resurgam::api::Quarantine> = Api::all(client(Identity::Responder).await);
    let without = Patch::Merge(json!({"spec": {"capture": "BestEffort"}}));
    quarantines.patch("uncut", &PatchParams::default(), &without).await.unwrap();
    let sealed = ready("uncut", Isolation::Sealed).await;
    let kept = sealed.status.unwrap().capture.unwrap();
    assert_eq!(kept.snapshots, Vec::<String>::new(), "none that is cut");
    let missing = kept.missing.iter().find(|missing| missing.contains(&name)).unwrap();
    assert!(missing.contains("is not cut after 1 s") && missing.contains("out of space"), "{missing}");
    let listed = &index(folder.path(), "uncut", &kept)["snapshots"][0];
    assert_eq!((&listed["error"], &listed["readyToUse"]), (&json!("out of space"), &json!(false)));
}
