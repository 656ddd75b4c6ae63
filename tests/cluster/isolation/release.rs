//! What is left of an isolation once a recovery has released the namespace: nothing.

use control_plane::Identity;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use resurgam::api::{Isolation, QuarantineLevel, RECORDED_ANNOTATION, RELEASED_ANNOTATION, SEAL_ANNOTATION};
use resurgam::isolation::workloads::recorded_replicas;
use serde_json::json;

use crate::inventory::{as_before, inventory};
use crate::isolation::api;
use crate::isolation::recovery::{ask, claim, plan, scale};
use crate::isolation::support::{
    acting_as, apply, client, controller, isolate, namespace, object, ready, within,
};

/// Workloads, an account with tokens, and policies of both sorts. NAMESPACE is replaced.
const ESTATE: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: NAMESPACE, annotations: {team: library}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: main, image: registry.example/web}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: NAMESPACE}
spec:
  replicas: 1
  serviceName: db
  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: main, image: registry.example/db}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-front, namespace: NAMESPACE, labels: {team: library}}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-some, namespace: NAMESPACE}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [web, db]}]}
  policyTypes: [Ingress]
"#;

async fn available(web: &Api<Deployment>, replicas: i32) {
    object::<Deployment>(web.clone(), "web", "available", |d| {
        d.status.as_ref().and_then(|s| s.available_replicas) == Some(replicas)
    })
    .await;
}

#[tokio::test]
async fn recovered_namespace_is_as_it_was_and_is_sealed_anew() {
    let _running = controller().await;
    let name = "left-over";
    let tenant = namespace(name).await;
    apply(&tenant, &ESTATE.replace("NAMESPACE", name)).await;
    let web = api::<Deployment>(&tenant, name);
    available(&web, 2).await;
    let admin = client(Identity::PlatformAdministrator).await;
    let before = inventory(&admin, name).await;

    let plan = plan(name, true).await;
    isolate(name, QuarantineLevel::Sealed).await;
    let sealed = ready(name, Isolation::Sealed).await;
    let account = acting_as(&format!("{name}-plan"), "recovery").await;
    ask(name, &plan, Some(Isolation::CleanRoom), 1).await;
    claim(name, &plan).await;
    ready(name, Isolation::CleanRoom).await;
    scale(&account, name, &sealed).await.unwrap();
    available(&web, 2).await;
    ask(name, &plan, Some(Isolation::Open), 1).await;
    ready(name, Isolation::Open).await;
    as_before(&admin, name, &before).await;

    // The same Quarantine seals it again: what it is now is recorded, not what it was the first time.
    let more = Patch::Merge(json!({"spec": {"replicas": 3}}));
    web.patch("web", &PatchParams::default(), &more).await.unwrap();
    available(&web, 3).await;
    ask(name, &plan, Some(Isolation::Sealed), 1).await;
    ready(name, Isolation::Sealed).await;
    let stopped = web.get("web").await.unwrap();
    assert_eq!(recorded_replicas(&stopped.metadata, &sealed.uid().unwrap()), Some(3));
}

#[tokio::test]
async fn stopped_workload_keeps_its_record_until_somebody_starts_it() {
    let _running = controller().await;
    let name = "left-stopped";
    let tenant = namespace(name).await;
    apply(&tenant, &ESTATE.replace("NAMESPACE", name)).await;
    let web = api::<Deployment>(&tenant, name);
    available(&web, 2).await;
    let plan = plan(name, true).await;
    isolate(name, QuarantineLevel::Sealed).await;
    ready(name, Isolation::Sealed).await;
    ask(name, &plan, Some(Isolation::CleanRoom), 1).await;
    claim(name, &plan).await;
    ready(name, Isolation::CleanRoom).await;
    ask(name, &plan, Some(Isolation::Open), 1).await;
    ready(name, Isolation::Open).await;
    let marked = |d: &Deployment| d.annotations().get(RELEASED_ANNOTATION).is_some_and(|mark| mark == "true");
    let stopped = object::<Deployment>(web.clone(), "web", "marked", marked).await;
    assert_eq!(stopped.annotations().get(RECORDED_ANNOTATION).map(String::as_str), Some("2"));

    let start = Patch::Merge(json!({"spec": {"replicas": 2}}));
    web.patch("web", &PatchParams::default(), &start).await.unwrap();
    let cleaned = |d: &Deployment| !d.annotations().keys().any(|key| key.starts_with("resurgam.dev/"));
    object::<Deployment>(web.clone(), "web", "rid of its record", cleaned).await;
    let sets = api::<ReplicaSet>(&tenant, name);
    within("the copied records to be removed", async {
        loop {
            let all = sets.list(&ListParams::default()).await.unwrap().items;
            if all.iter().all(|set| !set.annotations().contains_key(SEAL_ANNOTATION)) {
                return;
            }
        }
    })
    .await;
}
