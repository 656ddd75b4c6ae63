//! What the operator's own accounts may not do, whatever RBAC grants them.

use std::time::Duration;

use control_plane::Identity;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use resurgam::api::{Isolation, QuarantineLevel};
use resurgam::isolation::policies::{OPERATOR_LIMIT, WORKLOAD_LIMIT};
use serde_json::{Value, json};

use crate::isolation::api;
use crate::isolation::support::{
    acting_as, apply, client, controller, isolate, namespace, object, ready, refused, within,
};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: registry.example/web}]}
"#;

/// Waits until the policies are in force: a controller that has just started has just written them. Both are written at once.
async fn in_force() {
    let all: Api<Namespace> = Api::all(client(Identity::Operator).await);
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let label: Patch<Value> = Patch::Merge(json!({"metadata": {"labels": {"mine": "true"}}}));
    within("the operator's limit to be in force", async {
        while all.patch("kube-system", &dry, &label).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_stops_only_workloads_of_isolated_namespaces() {
    let _running = controller().await;
    let (open, isolated) = ("bounded-not", "bounded");
    for name in [open, isolated] {
        let tenant = namespace(name).await;
        apply(&tenant, &WEB.replace("NAMESPACE", name)).await;
        let up = |web: &Deployment| web.status.as_ref().and_then(|s| s.ready_replicas) == Some(1);
        object(api::<Deployment>(&tenant, name), "web", "web to run", up).await;
    }
    in_force().await;
    isolate(isolated, QuarantineLevel::Contained).await;
    ready(isolated, Isolation::Contained).await;

    let operator = client(Identity::Operator).await;
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let deployments = |name: &'static str| api::<Deployment>(&operator, name);
    let stop = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let image = json!([{"name": "main", "image": "registry.example/other"}]);
    let change = Patch::Merge(json!({"spec": {"template": {"spec": {"containers": image}}}}));
    deployments(isolated).patch("web", &dry, &stop).await.unwrap();
    refused("a stop elsewhere", WORKLOAD_LIMIT, deployments(open).patch("web", &dry, &stop).await);
    refused("another image", WORKLOAD_LIMIT, deployments(isolated).patch("web", &dry, &change).await);
    // Our annotations come off once a namespace is open, and nothing else changes with them.
    let change = |metadata: Value| Patch::Merge(json!({"metadata": metadata}));
    let mark = json!({"resurgam.dev/released": "true"});
    deployments(open).patch("web", &dry, &change(json!({"annotations": mark}))).await.unwrap();
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "u"});
    for (what, also) in [
        ("annotations", json!({"annotations": {"resurgam.dev/released": "true", "team": "other"}})),
        ("labels", json!({"annotations": mark, "labels": {"team": "other"}})),
        ("finalizers", json!({"annotations": mark, "finalizers": ["example.org/keep"]})),
        ("ownerReferences", json!({"annotations": mark, "ownerReferences": [owner]})),
    ] {
        refused(what, WORKLOAD_LIMIT, deployments(open).patch("web", &dry, &change(also)).await);
    }

    let delete = DeleteParams { dry_run: true, ..DeleteParams::default() };
    for (name, is_refused) in [(isolated, false), (open, true)] {
        let pods = api::<Pod>(&operator, name);
        let pod = pods.list(&ListParams::default()).await.unwrap().items.remove(0).name_any();
        let outcome = pods.delete(&pod, &delete).await;
        if is_refused {
            refused("deleting a pod elsewhere", WORKLOAD_LIMIT, outcome);
        } else {
            outcome.unwrap();
        }
    }
    let label: Patch<Value> = Patch::Merge(json!({"metadata": {"labels": {"mine": "true"}}}));
    for name in ["kube-system", "default"] {
        let outcome = Api::<Namespace>::all(operator.clone()).patch(name, &dry, &label).await;
        refused("a label on a namespace that is never isolated", OPERATOR_LIMIT, outcome);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_that_tries_the_fence_sends_dry_runs_only() {
    let _running = controller().await;
    in_force().await;
    let name = "bounded-prober";
    namespace(name).await;
    let prober = acting_as("resurgam-system", "resurgam-prober").await;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "mine"}, "spec": {"containers": [{"name": "main", "image": "registry.example/mine"}]},
    }))
    .unwrap();
    let pods = api::<Pod>(&prober, name);
    let dry = PostParams { dry_run: true, field_manager: None };
    pods.create(&dry, &pod).await.unwrap();
    refused("a pod in earnest", OPERATOR_LIMIT, pods.create(&PostParams::default(), &pod).await);
}
