//! What was recorded says how to start, not what is healthy for ever.

use kube::api::{Patch, PatchParams};
use rehearsal::{eventually, field, kind};
use serde_json::{Value, json};

use crate::ordinary::estate::{Estate, exceptions, workload};

#[tokio::test]
async fn zero_comes_back_as_zero_and_is_complete() {
    let objects = vec![
        workload("Deployment", "blue", 2),
        workload("Deployment", "green", 0),
        workload("StatefulSet", "idle", 0),
    ];
    let estate = Estate::open("zero", &[("shop", objects)]).await;
    estate.is_ready("shop", "Deployment", "blue", 2).await;
    estate.bench.isolate(&["shop"]).await;
    let plan = estate.plan(json!([estate.bench.service("shop", &[])]));
    estate.bench.apply(&plan).await;
    let record = estate.recovers("shop").await;
    assert_eq!(exceptions(&record), "");
    for (of, name, wanted) in
        [("Deployment", "blue", 2), ("Deployment", "green", 0), ("StatefulSet", "idle", 0)]
    {
        assert_eq!(estate.replicas("shop", of, name).await, wanted, "{name}");
    }
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn plan_may_say_any_number_below_the_record_and_zero() {
    let objects = vec![workload("Deployment", "shop", 3), workload("Deployment", "batch", 2)];
    let estate = Estate::open("below", &[("shop", objects)]).await;
    estate.is_ready("shop", "Deployment", "shop", 3).await;
    estate.is_ready("shop", "Deployment", "batch", 2).await;
    estate.bench.isolate(&["shop"]).await;
    let mut service = estate.bench.service("shop", &[]);
    service["restore"] = json!([
        {"name": "few", "scale": {"replicas": 1, "matchLabels": {"app": "shop"}}},
        {"name": "none", "scale": {"replicas": 0, "matchLabels": {"app": "batch"}}},
    ]);
    let plan = estate.plan(json!([service]));
    estate.bench.apply(&plan).await;
    estate.recovers("shop").await;
    assert_eq!(estate.replicas("shop", "Deployment", "shop").await, 1);
    assert_eq!(estate.replicas("shop", "Deployment", "batch").await, 0);
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn old_replica_sets_of_another_controller_are_never_started() {
    // Its controller is not needed here, so that an object of a built-in kind stands for it.
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "api"}});
    let estate = Estate::open("revisions", &[("api", vec![owner])]).await;
    let uid = field(&estate.object("api", "v1", "ConfigMap", "api").await, "/metadata/uid").clone();
    let set = |name: &str, replicas: i32| {
        let mut set = workload("ReplicaSet", name, replicas);
        set["metadata"]["namespace"] = json!("revisions-api");
        set["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "api", "uid": uid, "controller": true}]);
        set
    };
    rehearsal::apply(&estate.bench.admin, "rollouts", &[set("api-new", 2), set("api-old", 0)]).await.unwrap();
    estate.is_ready("api", "ReplicaSet", "api-new", 2).await;
    estate.bench.isolate(&["api"]).await;
    let mut service = estate.bench.service("api", &[]);
    service["restore"] = json!([{"name": "start", "scale": {"replicas": 3}}]);
    let plan = estate.plan(json!([service]));
    estate.bench.apply(&plan).await;
    estate.recovers("api").await;
    assert_eq!(estate.replicas("api", "ReplicaSet", "api-new").await, 2);
    assert_eq!(estate.replicas("api", "ReplicaSet", "api-old").await, 0);
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn autoscalers_and_people_may_change_the_number_after_release() {
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "front"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "front"}, "minReplicas": 1, "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]},
    });
    let estate = Estate::open(
        "scaled",
        &[
            ("front", vec![workload("Deployment", "front", 4), workload("Deployment", "idle", 2), scaler]),
            ("orders", vec![workload("Deployment", "orders", 1)]),
        ],
    )
    .await;
    estate.is_ready("front", "Deployment", "front", 4).await;
    estate.is_ready("front", "Deployment", "idle", 2).await;
    estate.is_ready("orders", "Deployment", "orders", 1).await;
    estate.bench.isolate(&["front"]).await;
    let plan =
        estate.plan(json!([estate.bench.service("front", &[]), estate.bench.service("orders", &["front"])]));
    estate.bench.apply(&plan).await;
    estate.recovers("front").await;
    assert_eq!(estate.replicas("front", "Deployment", "front").await, 4);
    // Without metrics an autoscaler still keeps to its maximum.
    let namespace = estate.bench.namespace("front");
    let patch = async |of: &str, version: &str, name: &str, patch: Value| {
        let api = kind(&estate.bench.admin, version, of, Some(&namespace));
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    patch("HorizontalPodAutoscaler", "autoscaling/v2", "front", json!({"spec": {"maxReplicas": 2}})).await;
    patch("Deployment", "apps/v1", "idle", json!({"spec": {"replicas": 0}})).await;
    let deployments = kind(&estate.bench.admin, "apps/v1", "Deployment", Some(&namespace));
    let scaled = |object: &Value| field(object, "/spec/replicas") == 2;
    eventually(&deployments, "front", "the autoscaler", rehearsal::DEADLINE, scaled).await.unwrap();
    estate.bench.isolate(&["orders"]).await;
    estate.recovers("orders").await;
    let front = estate.recovers("front").await;
    assert_eq!(front["status"]["attempt"], 1);
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn workloads_that_no_step_starts_are_named_as_exceptions() {
    let objects = vec![workload("Deployment", "web", 1), workload("Deployment", "legacy", 2)];
    let estate = Estate::open("unstarted", &[("shop", objects)]).await;
    estate.is_ready("shop", "Deployment", "web", 1).await;
    estate.is_ready("shop", "Deployment", "legacy", 2).await;
    estate.bench.isolate(&["shop"]).await;
    let mut service = estate.bench.service("shop", &[]);
    service["restore"] = json!([{"name": "web", "scale": {"matchLabels": {"app": "web"}}}]);
    let plan = estate.plan(json!([service]));
    estate.bench.apply(&plan).await;
    let record = estate.recovers("shop").await;
    let said = exceptions(&record);
    assert!(said.contains("Deployment unstarted-shop/legacy") && said.contains("2 replicas"), "{said}");
    assert_eq!(estate.replicas("shop", "Deployment", "legacy").await, 0);
    estate.bench.judged(&plan).await;
}
