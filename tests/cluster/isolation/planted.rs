//! What a tenant left in its namespace before: nothing of it stops, weakens or delays isolation.

use control_plane::Identity;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use resurgam::api::{ISOLATION_LABEL, Isolation, QuarantineLevel};
use resurgam::isolation::network::{self, CLEAN_ROOM, DEFAULT_DENY};
use serde_json::{Value, json};

use crate::isolation::api;
use crate::isolation::support::{Estate, allowing, apply, client, controller, isolate, ready};

const NOBODY: &str = "00000000-0000-4000-8000-000000000003";

/// A policy that allows everything.
fn policy(name: &str, metadata: Value) -> Value {
    let everything =
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]});
    let mut policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": everything});
    policy["metadata"]["name"] = json!(name);
    policy["metadata"]["namespace"] = json!("NAMESPACE");
    policy
}

fn owned() -> Value {
    json!([{"apiVersion": "implant.example/v1", "kind": "Nothing", "name": "nothing", "uid": NOBODY}])
}

/// Annotations that leave so little room.
fn filled(left: usize) -> Value {
    json!({"filler": "x".repeat((256 << 10) - "filler".len() - left)})
}

/// What is planted in each namespace, and the policies that select again once it is released.
fn cases() -> [(&'static str, Vec<Value>, &'static [&'static str]); 6] {
    let kept = json!({"finalizers": ["implant.example/keep"]});
    let kept_and_owned = json!({"finalizers": ["implant.example/keep"], "ownerReferences": owned()});
    let record = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": true, "data": {"mine": "yes"},
            "metadata": {"name": name, "namespace": "NAMESPACE", "finalizers": ["implant.example/keep"]}})
    };
    let account = |metadata: Value| {
        let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        account["metadata"]["name"] = json!("worker");
        account["metadata"]["namespace"] = json!("NAMESPACE");
        account
    };
    let mut half = policy("half", json!({}));
    half["spec"]["podSelector"] =
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]});
    [
        (
            "planted-records",
            vec![record("resurgam-network-record"), record("resurgam-identity-record")],
            &["allow-all"],
        ),
        ("planted-denial", vec![policy(DEFAULT_DENY, kept_and_owned.clone())], &["allow-all"]),
        ("planted-room", vec![policy(CLEAN_ROOM, kept.clone())], &["allow-all"]),
        (
            "planted-policies",
            vec![half, policy("kept", kept.clone()), policy("owned", kept_and_owned.clone())],
            &["allow-all", "half", "kept", "owned"],
        ),
        ("planted-accounts", vec![account(kept_and_owned)], &["allow-all"]),
        (
            "planted-annotations",
            vec![
                policy("full", json!({"annotations": filled(0)})),
                policy(DEFAULT_DENY, json!({"annotations": filled(0)})),
                account(json!({"annotations": filled(0)})),
                // The controller of a Deployment needs this much.
                json!({"metadata": {"annotations": filled(40)}, "apiVersion": "apps/v1", "kind": "Deployment"}),
            ],
            &["allow-all", "full"],
        ),
    ]
}

async fn play(name: &'static str, planted: Vec<Value>, allow: &[&str]) {
    let administrator = client(Identity::PlatformAdministrator).await;
    let estate = Estate::new(name, "").await;
    let policies = api::<NetworkPolicy>(&estate.tenant, name);
    for mut object in planted {
        if object["kind"] == "Deployment" {
            let web = api::<Deployment>(&estate.tenant, name);
            let patch = kube::api::Patch::Merge(json!({"metadata": object["metadata"].take()}));
            web.patch("web", &Default::default(), &patch).await.unwrap();
            continue;
        }
        object["metadata"]["namespace"] = json!(name);
        apply(&administrator, &object.to_string()).await;
    }
    let mut before = Vec::new();
    for policy in allow {
        before.push(policies.get(policy).await.unwrap());
    }
    isolate(name, QuarantineLevel::Sealed).await;
    ready(name, Isolation::Sealed).await;
    estate.is_sealed().await;
    let deny = policies.get(DEFAULT_DENY).await.unwrap();
    assert_eq!(deny.spec, network::wanted(name, None)[0].spec, "{name}");
    assert!(deny.finalizers().is_empty() && deny.owner_references().is_empty(), "{name}: {deny:?}");
    let worker = api::<ServiceAccount>(&estate.tenant, name).get("worker").await.unwrap();
    assert!(worker.metadata.deletion_timestamp.is_none() && worker.finalizers().is_empty(), "{name}");

    estate.release().await;
    assert_eq!(allowing(&estate.tenant, name).await, allow, "{name}");
    for was in before {
        let now = policies.get(&was.name_any()).await.unwrap();
        assert_eq!((&now.spec, now.uid()), (&was.spec, was.uid()), "{name}");
    }
}

#[tokio::test]
async fn nothing_that_a_tenant_planted_keeps_it_from_being_sealed() {
    let _running = controller().await;
    join_all(cases().map(|(name, planted, allow)| Box::pin(play(name, planted, allow)))).await;
}

/// The label and the lists fence; why it is isolated is told where there is room for it.
#[tokio::test]
async fn namespace_without_room_for_annotations_is_sealed() {
    let _running = controller().await;
    for (name, left) in [("planted-full", 0), ("planted-nearly-full", 60)] {
        let estate = Estate::new(name, "").await;
        let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
            kube::Api::all(estate.tenant.clone());
        let fill = kube::api::Patch::Merge(json!({"metadata": {"annotations": filled(left)}}));
        namespaces.patch(name, &Default::default(), &fill).await.unwrap();
        isolate(name, QuarantineLevel::Sealed).await;
        ready(name, Isolation::Sealed).await;
        estate.is_sealed().await;
        let namespace = namespaces.get(name).await.unwrap();
        assert_eq!(namespace.labels()[ISOLATION_LABEL], "sealed");
        assert!(namespace.annotations().contains_key("filler"), "what is a tenant's stays");
        estate.release().await;
        assert!(!namespaces.get(name).await.unwrap().labels().contains_key(ISOLATION_LABEL));
    }
}
