//! The clean room: whose pods run in it beside the plan's.

use control_plane::Identity;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
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
