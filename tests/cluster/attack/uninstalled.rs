//! The operator is uninstalled, with its kinds, and nobody is let out by that.

use control_plane::Identity;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use rehearsal::{DEADLINE, eventually, kind};
use serde_json::{Value, json};

use crate::attack::rig::{KINDS, LEVELS, Stage, isolate, stage_to_spoil};
use crate::attack::served::get;
use crate::attack::states::{While, whole_table};

fn quarantined() -> impl Iterator<Item = &'static str> {
    LEVELS.into_iter().filter(|level| level.has_quarantine()).map(|level| level.namespace)
}

/// Rights on our kinds, for the recovery lead: they come from the platform's administrators, the word to release from the lead's role.
fn keeper_of_kinds() -> Vec<Value> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let metadata = json!({"name": "keeper-of-kinds"});
    let rules = json!([{
        "apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"],
        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
    }]);
    let role = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "keeper-of-kinds"},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": "recovery-lead"}],
    });
    vec![role, binding]
}

/// Deletes it as soon as the right to is known: the API server learns of a binding some milliseconds after it was written.
async fn eventually_deleted(crds: &kube::Api<kube::api::DynamicObject>, name: &str) {
    let deleted = async {
        while let Err(error) = crds.delete(name, &DeleteParams::default()).await {
            assert!(error.to_string().contains("cannot delete resource"), "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, deleted).await.unwrap();
}

/// Waits until the operator has told that it lets nobody out by the deletion of the kind.
async fn told(stage: &Stage) {
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let all_told = async {
        loop {
            let events = get(&admin, "/apis/events.k8s.io/v1/namespaces/default/events").await.unwrap();
            let events = events["items"].as_array().unwrap();
            let of = |name| {
                events.iter().any(|e| e["reason"] == "StaysIsolated" && e["regarding"]["name"] == name)
            };
            if quarantined().all(of) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all_told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uninstalling_the_operator_and_its_kinds_lets_nobody_out() {
    let mut stage = stage_to_spoil(1).await;
    let cluster = &stage.rig.cluster;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let crds = kind(&admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let delete = DeleteParams::default();

    // Whoever may delete everything may not delete a kind of ours while anything is isolated.
    for crd in rehearsal::read("charts/resurgam/files/crds").unwrap() {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let Err(kube::Error::Api(refused)) = crds.delete(name, &delete).await else {
            panic!("{name} was deleted by cluster-admin");
        };
        assert!(refused.message.contains("'resurgam-install-guard'"), "{}", refused.message);
    }

    // The kind's deletion, by who may release everything, marks every Quarantine as deleted, asking nobody. The operator takes
    // that for no release.
    rehearsal::apply(&admin, "platform", &keeper_of_kinds()).await.unwrap();
    let lead = stage.client(Identity::RecoveryLead).await;
    let crds = kind(&lead, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    eventually_deleted(&crds, "quarantines.resurgam.dev").await;
    let quarantines = kind(&admin, KINDS, "Quarantine", None);
    for name in quarantined() {
        let marked = |o: &Value| o["metadata"]["deletionTimestamp"].is_string();
        eventually(&quarantines, name, "it to be marked as deleted", DEADLINE, marked).await.unwrap();
    }
    told(&stage).await;
    for name in quarantined() {
        let namespace = get(&admin, &format!("/api/v1/namespaces/{name}")).await.unwrap();
        assert!(namespace["metadata"]["labels"]["resurgam.dev/isolation"].is_string(), "{name} is let out");
        get(
            &admin,
            &format!("/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies/resurgam-default-deny"),
        )
        .await
        .unwrap();
    }

    // Everything of ours goes: process, kinds. Of the Quarantines only who may release them can be rid.
    stage.operators(0);
    let strip = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let theirs = kind(&lead, KINDS, "Quarantine", None);
    for quarantine in theirs.list(&ListParams::default()).await.unwrap() {
        theirs
            .patch(quarantine.metadata.name.as_deref().unwrap(), &PatchParams::default(), &strip)
            .await
            .unwrap();
    }
    for crd in rehearsal::read("charts/resurgam/files/crds").unwrap() {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let _ = crds.delete(name, &delete).await;
        let gone = async {
            while crds.get_opt(name).await.unwrap().is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, gone).await.unwrap();
    }
    whole_table(stage.rig, While::Uninstalled).await;

    // Installed again, it takes up what stands.
    rehearsal::install_kinds(&lead).await.unwrap();
    for level in LEVELS.into_iter().filter(|level| level.has_quarantine()) {
        let isolation = if level.label == "sealed" { "Sealed" } else { "Contained" };
        isolate(cluster, level.namespace, isolation).await.unwrap();
    }
    stage.operators(1);
    for name in quarantined() {
        rehearsal::three_boroughs::isolated(cluster, name).await.unwrap();
    }
}
