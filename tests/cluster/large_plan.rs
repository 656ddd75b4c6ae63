//! A plan of 500 services fits: the API server takes it, its status can be written, and etcd has room to spare.

use control_plane::Identity;
use kube::Api;
use kube::api::{Patch, PatchParams};
use resurgam::api::recovery_plan::Blocker;
use resurgam::api::{GROUP, RecoveryPlan, RecoveryPlanStatus, field_manager};
use serde_json::{Value, json};

/// etcd refuses requests larger than this, in bytes.
const ETCD_LIMIT: usize = 1_572_864;

/// A service as people write them when there are many: a title, an owner, two namespaces, four dependencies, gates and
/// a step of its own.
fn service(number: usize) -> Value {
    let name = |n: usize| format!("council-{}-line-of-business-system-{n}", n % 40);
    let dependencies: Vec<String> =
        [1, 2, 7, 40].iter().filter_map(|d| number.checked_sub(*d)).map(name).collect();
    let images = json!({"approvedFrom": {"configMap": {"name": "approved-images"}}});
    json!({
        "name": name(number),
        "title": format!("Line-of-business system number {number}, as residents and staff know it"),
        "owner": format!("system-owner-{number}@council-{}.example", number % 40),
        "tier": number * 7 / 500,
        "namespaces": [name(number), format!("{}-data", name(number))],
        "dependsOn": dependencies,
        "gates": {
            "beforeRestore": [{"name": "own-images", "imageDigests": images}],
            "beforeRelease": [
                {"name": "front", "workloads": {"matchLabels": {"app.kubernetes.io/component": "front"}}, "stableFor": "30s"},
                {"name": "answers", "interval": "5s", "timeout": "3s",
                 "http": {"url": format!("https://system-{number}.council-{}.example/healthz", number % 40), "status": 200}},
            ],
            "continuous": [{"name": "answers", "http": {"url": format!("https://system-{number}.example/healthz")}}],
        },
        "restore": [{"name": "data", "scale": {"matchLabels": {"tier": "data"}}}, {"name": "rest", "scale": {}}],
    })
}

/// A status as full as it gets.
fn status() -> RecoveryPlanStatus {
    let blocker = |n: usize| Blocker {
        name: format!("council-{n}-line-of-business-system-{n}"),
        reason: resurgam::api::Reason::GateFailed,
        message: "m".repeat(512),
        holds: 100,
        owner: Some("o".repeat(256)),
        since: None,
    };
    RecoveryPlanStatus {
        observed_generation: Some(1),
        progress: Some("12/500".to_owned()),
        total: 500,
        recovered: 12,
        blocked_by: (0..10).map(blocker).collect(),
        ..RecoveryPlanStatus::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_of_500_services_fits_into_etcd_with_room_to_spare() {
    let client = crate::schema::cluster().await.client(Identity::PlatformAdministrator).await.unwrap();

    let api: Api<RecoveryPlan> = Api::namespaced(client, "default");
    let services: Vec<Value> = (0..500).map(service).collect();
    let plan = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "RecoveryPlan", "metadata": {"name": "large"},
        "spec": {"serviceAccountName": "recovery", "services": services},
    });
    let apply = |manager: &'static str| {
        let (api, plan) = (api.clone(), plan.clone());
        async move {
            api.patch("large", &PatchParams::apply(manager).force(), &Patch::Apply(&plan)).await.unwrap()
        }
    };
    assert_eq!(apply("kubectl").await.spec.services.len(), 500);
    // A second manager of the whole, as where people take over from GitOps, doubles what is kept of field managers.
    apply("gitops").await;

    let change =
        json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "RecoveryPlan", "status": status()});
    let written = api
        .patch_status("large", &PatchParams::apply(field_manager::PLAN).force(), &Patch::Apply(&change))
        .await
        .unwrap();
    assert_eq!(written.status.as_ref().map(|status| status.total), Some(500));

    let stored = serde_json::to_vec(&written).unwrap().len();
    println!("a plan of 500 services: {stored} bytes with managedFields and status, etcd takes {ETCD_LIMIT}");
    assert!(stored < ETCD_LIMIT * 9 / 10, "{stored} bytes leave no room");
    assert!(stored > 500_000, "{stored} bytes: this would be no large plan");

    // One service too many is refused, by the schema.
    let mut one_more = plan.clone();
    one_more["metadata"]["name"] = "too-large".into();
    one_more["spec"]["services"].as_array_mut().unwrap().push(service(500));
    let refused =
        api.patch("too-large", &PatchParams::apply("kubectl"), &Patch::Apply(&one_more)).await.unwrap_err();
    assert!(refused.to_string().contains("500"), "{refused}");
}
