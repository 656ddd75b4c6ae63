//! Pods that are made to stay: whatever their owner, finalizers or grace, none lives in a sealed namespace.

use std::collections::BTreeSet;

use control_plane::Identity;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use resurgam::api::{Isolation, QuarantineLevel};
use resurgam::isolation::workloads::recorded_replicas;
use serde_json::{Value, json};

use crate::isolation::support::{Estate, apply, client, controller, isolate, object, ready};
use crate::isolation::{api, live};

fn owner(version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true}])
}

const NOBODY: &str = "00000000-0000-4000-8000-000000000003";

fn pod(name: &str, metadata: Value, grace: u32) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": metadata,
        "spec": {"terminationGracePeriodSeconds": grace, "containers": [{"name": "main", "image": "registry.example/implant"}]},
    });
    pod["metadata"]["name"] = json!(name);
    // The API server wants to know of a mirror where it runs.
    if pod["metadata"]["annotations"].is_object() {
        pod["spec"]["nodeName"] = json!("node-1");
    }
    pod
}

#[tokio::test]
async fn no_pod_outlives_sealing() {
    let _running = controller().await;
    let name = "stayers";
    let estate = Estate::new(name, "").await;
    let tenant = &estate.tenant;
    // Anybody may name an owner that there is, and that starts nothing.
    let map = api::<ConfigMap>(tenant, name).get("kube-root-ca.crt").await.unwrap().uid().unwrap();
    let mirror = json!({"kubernetes.io/config.mirror": "forged"});
    let unmanaged = [
        (
            "of-a-kind-not-served",
            json!({"ownerReferences": owner("apps.implant.example/v1", "ReplicaSet", "nothing", NOBODY)}),
            30,
        ),
        (
            "of-a-set-not-served",
            json!({"ownerReferences": owner("apps.implant.example/v1", "StatefulSet", "nothing", NOBODY)}),
            30,
        ),
        (
            "of-a-configmap",
            json!({"ownerReferences": owner("v1", "ConfigMap", "kube-root-ca.crt", &map)}),
            30,
        ),
        ("as-if-static", json!({"annotations": mirror}), 30),
        ("long-grace", json!({}), 86_400),
        ("finalized", json!({"finalizers": ["implant.example/keep", "implant.example/more"]}), 30),
        (
            "all-of-it",
            json!({"finalizers": ["implant.example/keep"], "annotations": mirror,
                "ownerReferences": owner("apps.implant.example/v1", "Deployment", "nothing", NOBODY)}),
            86_400,
        ),
    ];
    let pods = api::<Pod>(tenant, name);
    for (pod_name, metadata, grace) in &unmanaged {
        let pod = serde_json::from_value(pod(pod_name, metadata.clone(), *grace)).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
    for (pod, ..) in &unmanaged {
        object(pods.clone(), pod, "running", |pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        })
        .await;
    }
    // A ReplicaSet that says it follows a Deployment which nobody serves.
    let miner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "miner", "namespace": name, "ownerReferences": owner("apps.implant.example/v1", "Deployment", "nothing", NOBODY)},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "miner"}}, "template": {
            "metadata": {"labels": {"app": "miner"}}, "spec": {"containers": [{"name": "main", "image": "registry.example/miner"}]}}},
    });
    apply(&client(Identity::PlatformAdministrator).await, &miner.to_string()).await;
    object(api::<ReplicaSet>(tenant, name), "miner", "running", |set| {
        set.status.as_ref().is_some_and(|status| status.ready_replicas == Some(3))
    })
    .await;

    isolate(name, QuarantineLevel::Sealed).await;
    let sealed = ready(name, Isolation::Sealed).await;
    estate.is_sealed().await;
    assert_eq!(live(tenant, name).await, [""; 0]);
    let miner = api::<ReplicaSet>(tenant, name).get("miner").await.unwrap();
    assert_eq!(miner.spec.as_ref().unwrap().replicas, Some(0));
    assert_eq!(recorded_replicas(&miner.metadata, &sealed.uid().unwrap()), Some(3));

    // Those that nothing will bring back are named.
    let expected: BTreeSet<_> =
        unmanaged.iter().map(|(pod, ..)| (*pod).to_owned()).chain(["bare".to_owned()]).collect();
    let named: BTreeSet<_> = sealed.status.unwrap().unmanaged_pods.into_iter().collect();
    assert_eq!(named, expected);
    let events = api::<Event>(&client(Identity::PlatformAdministrator).await, "default");
    let of_it =
        ListParams::default().fields(&format!("involvedObject.name={name},reason=UnmanagedPodsDeleted"));
    let said: Vec<_> =
        events.list(&of_it).await.unwrap().into_iter().filter_map(|event| event.message).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("bare"), "{said:?}");
}
