//! VolumeSnapshots that a capture asks for. The kinds are there, in their smallest form; their controller is not.

use control_plane::Identity;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions};
use resurgam::api::quarantine::CaptureMode;
use resurgam::api::{Isolation, QuarantineLevel};
use resurgam::isolation::evidence::{Store, Subject, capture};

use crate::support::{apply, client, controller, isolate, namespace, object, ready, rig, within};

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
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
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

async fn snapshots(namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshot");
    let client = client(Identity::PlatformAdministrator).await;
    Api::namespaced_with(client, namespace, &ApiResource::from_gvk(&kind))
}

#[tokio::test]
async fn a_volume_is_snapshotted_once_where_its_driver_has_a_class() {
    let rig = rig().await;
    let administrator = client(Identity::PlatformAdministrator).await;
    namespace("volumes").await;
    volumes("volumes").await;
    let folder = tempfile::tempdir().unwrap();
    let evidence = rig.evidence(Store::folder(folder.path()));
    let operator = client(Identity::Operator).await;
    let subject =
        |before| Subject { namespace: "volumes", quarantine: "uid", before, mode: CaptureMode::Required };

    let without = capture(&operator, &evidence, subject(None)).await.unwrap();
    assert_eq!(without.snapshots, Vec::<String>::new());
    assert_eq!(without.missing, ["volumes of 2 claims: this cluster has no VolumeSnapshots"]);

    apply(&administrator, KINDS).await;
    let crds: Api<CustomResourceDefinition> = Api::all(administrator.clone());
    for name in ["volumesnapshots", "volumesnapshotclasses"] {
        let name = format!("{name}.snapshot.storage.k8s.io");
        let established = await_condition(crds.clone(), &name, conditions::is_crd_established());
        within(&name, established).await.unwrap();
    }
    apply(&administrator, CLASSES).await;

    let kept = capture(&operator, &evidence, subject(None)).await.unwrap();
    let [name] = kept.snapshots.as_slice() else { panic!("{kept:?}") };
    assert!(name.starts_with("resurgam-") && name.ends_with("-data"), "{name}");
    assert_eq!(kept.missing.len(), 1, "{kept:?}");
    assert!(kept.missing[0].contains("claim scratch") && kept.missing[0].contains("other.example"));
    let api = snapshots("volumes").await;
    let made = api.get(name).await.unwrap();
    assert_eq!(made.data["spec"]["source"]["persistentVolumeClaimName"], "data");
    assert_eq!(made.data["spec"]["volumeSnapshotClassName"], "disks-daily", "the default one");

    // Another try of the same sealing finds it; the next sealing has its own.
    assert_eq!(capture(&operator, &evidence, subject(None)).await.unwrap().snapshots, kept.snapshots);
    assert_eq!(api.get(name).await.unwrap().metadata.uid, made.metadata.uid);
    let next = capture(&operator, &evidence, subject(Some(&kept.digest))).await.unwrap();
    assert_ne!(next.snapshots, kept.snapshots);

    // One of that name that is not ours is no evidence.
    api.delete(name, &DeleteParams::default()).await.unwrap();
    let forged = format!(
        "{{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {{name: {name}, namespace: volumes}}}}"
    );
    apply(&administrator, &forged).await;
    let error = capture(&operator, &evidence, subject(None)).await.unwrap_err().to_string();
    assert!(error.contains(name.as_str()) && error.contains("not ours"), "{error}");

    // The fence lets the operator make one.
    let _running = controller().await;
    isolate("volumes", QuarantineLevel::Contained).await;
    let contained = ready("volumes", Isolation::Contained).await;
    let listed = contained.status.unwrap().capture.unwrap().snapshots;
    assert_eq!(listed.len(), 1);
    let all = api.list(&ListParams::default()).await.unwrap();
    assert!(all.items.iter().any(|snapshot| snapshot.metadata.name.as_ref() == listed.first()));
}
