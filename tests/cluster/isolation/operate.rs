//! The clean room: whose pods run in it beside the plan's.

use control_plane::Identity;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use resurgam::api::{Isolation, QuarantineLevel};
use resurgam::isolation::policies;
use serde_json::json;

use crate::isolation::api;
use crate::isolation::recovery::{ask, claim, plan};
use crate::isolation::support::{acting_as, apply, client, controller, isolate, namespace, ready, refused};

fn pod(name: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "db", "image": "registry.example/db:1"}], "automountServiceAccountToken": false},
    }))
    .unwrap()
}

async fn create(client: &Client, namespace: &str, name: &str) -> kube::Result<Pod> {
    api::<Pod>(client, namespace).create(&PostParams::default(), &pod(name)).await
}

#[tokio::test]
async fn granted_operator_runs_pods_in_the_clean_room_only() {
    let _running = controller().await;
    let administrator = client(Identity::PlatformAdministrator).await;
    let name = "registry";
    // What such an operator comes with, and what the platform's engineers add for this one Quarantine.
    let rights = |account: &str, rule: &str| {
        format!(
            r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}-{account}}}
rules:
- {{apiGroups: [""], resources: [pods], verbs: [get, list, watch, create, delete]}}
- {rule}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}-{account}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}-{account}}}
subjects: [{{kind: ServiceAccount, name: {account}, namespace: databases}}]
"#
        )
    };
    let named = |names: &str, verb: &str| {
        format!(
            "{{apiGroups: [resurgam.dev], resources: [quarantines], resourceNames: [{names}], verbs: ['{verb}']}}"
        )
    };
    apply(&administrator, &rights("granted", &named(name, "operate"))).await;
    apply(&administrator, &rights("elsewhere", &named("another", "operate"))).await;
    apply(&administrator, &rights("wildcard", &named(name, "*"))).await;
    let operate = acting_as("databases", "granted").await;
    let (elsewhere, wildcard) =
        (acting_as("databases", "elsewhere").await, acting_as("databases", "wildcard").await);

    namespace(name).await;
    isolate(name, QuarantineLevel::Sealed).await;
    ready(name, Isolation::Sealed).await;
    let early = create(&operate, name, "db-0").await;
    refused("sealed, by who may operate", policies::WRITE_FENCE, early);

    let plan = plan(name, true).await;
    ask(name, &plan, None, 1).await;
    claim(name, &plan).await;
    ask(name, &plan, Some(Isolation::CleanRoom), 1).await;
    ready(name, Isolation::CleanRoom).await;
    refused("by who may operate another", policies::WRITE_FENCE, create(&elsewhere, name, "db-0").await);
    refused("by a wildcard", policies::WRITE_FENCE, create(&wildcard, name, "db-0").await);
    let made = create(&operate, name, "db-0").await.unwrap();
    api::<Pod>(&operate, name).delete(&made.name_any(), &DeleteParams::default()).await.unwrap();
}

/// What a restored service itself needs in order to become ready: a leader, where it is, what its load balancer says.
#[tokio::test]
async fn granted_accounts_elect_leaders_and_report_readiness_in_a_clean_room() {
    let _running = controller().await;
    let administrator = client(Identity::PlatformAdministrator).await;
    let name = "elections";
    namespace(name).await;
    let rights = format!(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: patroni, namespace: {name}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}}}
rules:
- {{apiGroups: [""], resources: [pods, pods/status, configmaps, endpoints, secrets, services], verbs: ['*']}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: ['*']}}
- {{apiGroups: [coordination.k8s.io], resources: [leases], verbs: ['*']}}
- {{apiGroups: [resurgam.dev], resources: [quarantines], resourceNames: [{name}], verbs: [operate]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}
subjects: [{{kind: ServiceAccount, name: patroni, namespace: {name}}}, {{kind: ServiceAccount, name: lb, namespace: databases}}]
"#
    );
    apply(&administrator, &rights).await;
    let own = acting_as(name, "patroni").await;
    let balancer = acting_as("databases", "lb").await;
    isolate(name, QuarantineLevel::Sealed).await;
    ready(name, Isolation::Sealed).await;
    let object = |version: &str, kind: &str, body: serde_json::Value| {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "leader"}});
        object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        object
    };
    let leaders = [
        object("coordination.k8s.io/v1", "Lease", json!({"spec": {"holderIdentity": "db-0"}})),
        object("v1", "ConfigMap", json!({"data": {"leader": "db-0"}})),
        object("v1", "Endpoints", json!({"subsets": []})),
        object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [], "ports": []}),
        ),
    ];
    let create = async |client: &Client, object: &serde_json::Value| {
        let api = rehearsal::kind(
            client,
            object["apiVersion"].as_str().unwrap(),
            object["kind"].as_str().unwrap(),
            Some(name),
        );
        api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await
    };
    for leader in &leaders {
        refused("sealed", policies::WRITE_FENCE, create(&own, leader).await);
    }
    let plan = plan(name, true).await;
    ask(name, &plan, None, 1).await;
    claim(name, &plan).await;
    ask(name, &plan, Some(Isolation::CleanRoom), 1).await;
    ready(name, Isolation::CleanRoom).await;
    for leader in &leaders {
        create(&own, leader).await.unwrap_or_else(|error| panic!("{}: {error}", leader["kind"]));
    }
    for (kind, body) in [("Secret", json!({})), ("Service", json!({"spec": {"ports": [{"port": 80}]}}))] {
        let made = create(&own, &object("v1", kind, body)).await;
        refused("of another kind", policies::WRITE_FENCE, made);
    }
    let pods = api::<Pod>(&own, name);
    pods.create(&PostParams::default(), &pod("db-0")).await.unwrap();
    let merge = |patch: &serde_json::Value| Patch::Merge(patch.clone());
    let labelled = json!({"metadata": {"labels": {"role": "primary"}}});
    pods.patch("db-0", &PatchParams::default(), &merge(&labelled)).await.unwrap();
    // A strategic merge keeps the conditions of others.
    let condition = |type_: &str| json!({"status": {"conditions": [{"type": type_, "status": "Unknown"}]}});
    let tell = async |patch: serde_json::Value| {
        let pods = api::<Pod>(&balancer, name);
        pods.patch_status("db-0", &PatchParams::default(), &Patch::Strategic(patch)).await
    };
    tell(condition("target-health.example/db")).await.unwrap();
    for forged in [
        condition("Ready"),
        json!({"status": {"phase": "Failed"}}),
        json!({"status": {"containerStatuses": [{"name": "db", "image": "x", "imageID": "x", "ready": true, "restartCount": 0}]}}),
    ] {
        refused("what the kubelet reports", policies::WRITE_FENCE, tell(forged).await);
    }
}
