//! What a StatefulSet keeps on volumes is evidence, and what its service comes back with: sealing deletes none of it.

use control_plane::Identity;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt};
use resurgam::api::{Isolation, QuarantineLevel};

use crate::isolation::recovery::{ask, claim, plan, scale};
use crate::isolation::support::{acting_as, apply, client, controller, isolate, namespace, object, ready};
use crate::isolation::{api, live};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: kept-data}
spec:
  storageClassName: kept
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /kept}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: kept}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: main, image: registry.example/db, volumeMounts: [{name: data, mountPath: /data}]}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: kept, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

fn when_scaled(set: &StatefulSet) -> Option<&str> {
    set.spec.as_ref()?.persistent_volume_claim_retention_policy.as_ref()?.when_scaled.as_deref()
}

#[tokio::test]
async fn sealing_keeps_claims_that_a_statefulset_would_delete() {
    let _running = controller().await;
    let tenant = namespace("kept").await;
    apply(&client(Identity::PlatformAdministrator).await, MANIFESTS).await;
    let sets: Api<StatefulSet> = api(&tenant, "kept");
    let runs = |s: &StatefulSet| s.status.as_ref().and_then(|s| s.available_replicas) == Some(1);
    object(sets.clone(), "db", "available", runs).await;
    let claims: Api<PersistentVolumeClaim> = api(&tenant, "kept");
    let before = claims.get("data-db-0").await.unwrap();

    isolate("kept", QuarantineLevel::Sealed).await;
    ready("kept", Isolation::Sealed).await;
    let stopped = object(sets.clone(), "db", "at zero, as its controller says", |s| {
        let status = s.status.clone().unwrap_or_default();
        status.observed_generation == s.metadata.generation && status.replicas == 0
    })
    .await;
    assert_eq!(live(&tenant, "kept").await, Vec::<String>::new());
    let kept = claims.get("data-db-0").await.unwrap();
    assert_eq!((kept.uid(), &kept.metadata.deletion_timestamp), (before.uid(), &None));
    assert!(kept.owner_references().is_empty(), "nothing whose end would take it along: {kept:?}");
    assert_eq!(when_scaled(&stopped), Some("Retain"));

    let plan = plan("kept", true).await;
    ask("kept", &plan, Some(Isolation::Sealed), 1).await;
    claim("kept", &plan).await;
    let sealed = ready("kept", Isolation::Sealed).await;
    ask("kept", &plan, Some(Isolation::CleanRoom), 1).await;
    ready("kept", Isolation::CleanRoom).await;
    scale(&acting_as("kept-plan", "recovery").await, "kept", &sealed).await.unwrap();
    let back = object(sets, "db", "available again", runs).await;
    assert_eq!(when_scaled(&back), Some("Delete"), "as it was");
    assert_eq!(claims.get("data-db-0").await.unwrap().uid(), before.uid());
}
