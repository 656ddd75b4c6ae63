//! The operator is uninstalled, with its kinds, and nobody is let out by that.

use control_plane::Identity;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use rehearsal::{DEADLINE, eventually, kind};
use serde_json::{Value, json};

use crate::rig::{KINDS, LEVELS, Stage, isolate, stage};
use crate::served::get;
use crate::states::{a_few, whole_table};

fn quarantined() -> impl Iterator<Item = &'static str> {
    LEVELS.into_iter().filter(|level| level.has_quarantine()).map(|level| level.namespace)
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
    let mut stage = stage(1).await;
    let cluster = &stage.rig.cluster;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let crds = kind(&admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let delete = DeleteParams::default();

    // The kind's deletion marks every Quarantine as deleted, asking nobody. The operator takes that for no release.
    crds.delete("quarantines.resurgam.dev", &delete).await.unwrap();
    let quarantines = kind(&admin, KINDS, "Quarantine", None);
    for name in quarantined() {
        let marked = |o: &Value| o["metadata"]["deletionTimestamp"].is_string();
        eventually(&quarantines, name, "it to be marked as deleted", DEADLINE, marked).await.unwrap();
    }
    told(&stage).await;
    let everybody = a_few(&stage).await;
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

    // Everything of ours goes: process, kinds, rights. Of the Quarantines only who may release them can be rid.
    stage.operators(0);
    let lead = stage.client(Identity::RecoveryLead).await;
    let strip = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let theirs = kind(&lead, KINDS, "Quarantine", None);
    for quarantine in theirs.list(&ListParams::default()).await.unwrap() {
        theirs
            .patch(quarantine.metadata.name.as_deref().unwrap(), &PatchParams::default(), &strip)
            .await
            .unwrap();
    }
    for crd in rehearsal::read("crds").unwrap() {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let _ = crds.delete(name, &delete).await;
        let gone = async {
            while crds.get_opt(name).await.unwrap().is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, gone).await.unwrap();
    }
    let bindings = kind(&admin, "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);
    bindings.delete("resurgam-operator", &delete).await.unwrap();
    whole_table(&stage, &everybody, false).await;

    // Installed again, it takes up what stands.
    rehearsal::install(cluster).await.unwrap();
    for level in LEVELS.into_iter().filter(|level| level.has_quarantine()) {
        let isolation = if level.label == "sealed" { "Sealed" } else { "Contained" };
        isolate(cluster, level.namespace, isolation).await.unwrap();
    }
    stage.operators(1);
    for name in quarantined() {
        rehearsal::three_boroughs::isolated(cluster, name).await.unwrap();
    }
}
