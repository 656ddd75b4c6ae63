//! Quotas that leave no room: they keep nothing from being sealed, and are what they were once it is released.

use control_plane::Identity;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use resurgam::api::{Isolation, QuarantineLevel};
use resurgam::isolation::controls::quota::RAISED_ANNOTATION;
use serde_json::{Value, json};

use crate::isolation::api;
use crate::isolation::support::{Estate, client, controller, isolate, object, ready};

/// Namespace and what each of its quotas bounds. With one policy, two pods and two accounts in it, each is full.
fn cases() -> [(&'static str, Vec<Value>); 6] {
    let policies = "count/networkpolicies.networking.k8s.io";
    [
        ("quota-policies", vec![json!({policies: "0"})]),
        ("quota-used-up", vec![json!({policies: "1"})]),
        ("quota-accounts", vec![json!({"count/serviceaccounts": "2"})]),
        ("quota-configmaps", vec![json!({"count/configmaps": "1"})]),
        ("quota-pods", vec![json!({"pods": "1", "count/secrets": "0", "requests.cpu": "1m"})]),
        (
            "quota-many",
            vec![
                json!({policies: "1", "count/serviceaccounts": "0"}),
                json!({policies: "0", "pods": "0"}),
                json!({"count/serviceaccounts": "1"}),
            ],
        ),
    ]
}

async fn hard(quotas: &Api<ResourceQuota>, name: &str) -> Value {
    json!(quotas.get(name).await.unwrap().spec.unwrap().hard)
}

async fn play(name: &'static str, bounds: Vec<Value>) {
    let estate = Estate::new(name, "").await;
    let quotas: Api<ResourceQuota> = api(&client(Identity::PlatformAdministrator).await, name);
    for (number, hard) in bounds.iter().enumerate() {
        let quota = json!({"metadata": {"name": format!("q{number}")}, "spec": {"hard": hard}});
        quotas.create(&Default::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
        object(quotas.clone(), &format!("q{number}"), "counted", |quota| {
            let status = quota.status.clone().unwrap_or_default();
            json!(status.hard) == *hard
                && status.used.is_some_and(|used| used.len() == hard.as_object().unwrap().len())
        })
        .await;
    }
    isolate(name, QuarantineLevel::Sealed).await;
    ready(name, Isolation::Sealed).await;
    estate.is_sealed().await;

    estate.release().await;
    for (number, before) in bounds.iter().enumerate() {
        let quota = format!("q{number}");
        assert_eq!(hard(&quotas, &quota).await, *before, "{name}");
        let annotations = quotas.get(&quota).await.unwrap().metadata.annotations.unwrap_or_default();
        assert!(!annotations.contains_key(RAISED_ANNOTATION), "{name}: {annotations:?}");
    }
}

#[tokio::test]
async fn a_quota_without_room_keeps_nothing_from_being_sealed() {
    let _running = controller().await;
    join_all(cases().map(|(name, bounds)| Box::pin(play(name, bounds)))).await;
}
