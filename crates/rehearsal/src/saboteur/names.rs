//! Objects with our names, labels and annotations that a tenant created before.

use anyhow::Result;
use serde_json::{Value, json};

use super::Scene;
use super::scene::{KEEP, allow, is_ready, pod, workload};

/// Objects that impersonate ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// An immutable ConfigMap with the name of an earlier network record.
    NetworkRecord,
    /// An immutable ConfigMap with the name of an earlier record of ServiceAccounts.
    IdentityRecord,
    /// Immutable ConfigMaps with other names and labels of ours.
    OtherRecords,
    /// A policy named like our default-deny that allows all traffic, with a finalizer.
    DenyThatAllows,
    /// A policy named like our clean-room policy that allows all traffic.
    CleanRoomThatAllows,
    /// Policies that are labelled as ours and allow all traffic.
    MarkedPolicies,
    /// Workloads with forged records of their replicas and seal.
    MarkedWorkloads,
    /// ServiceAccounts with forged marks of a recreation.
    MarkedAccounts,
    /// Pods that are labelled as ours.
    MarkedPods,
}

impl Names {
    pub(super) const ALL: [Self; 9] = [
        Self::NetworkRecord,
        Self::IdentityRecord,
        Self::OtherRecords,
        Self::DenyThatAllows,
        Self::CleanRoomThatAllows,
        Self::MarkedPolicies,
        Self::MarkedWorkloads,
        Self::MarkedAccounts,
        Self::MarkedPods,
    ];

    pub(super) async fn plant(self, scene: &mut Scene<'_>) -> Result<()> {
        match self {
            Self::NetworkRecord => scene.create(record("resurgam-network-record")).await.map(drop),
            Self::IdentityRecord => scene.create(record("resurgam-identity-record")).await.map(drop),
            Self::OtherRecords => {
                let mut guard = record("resurgam-guard");
                guard["metadata"]["labels"] = json!({"resurgam.dev/isolation-list": "true", "app.kubernetes.io/managed-by": "resurgam"});
                scene
                    .create_all([guard, record("resurgam-anything"), record("resurgam-workload-record")])
                    .await
            }
            Self::DenyThatAllows => {
                let mut deny = allow("resurgam-default-deny");
                deny["metadata"]["finalizers"] = json!([KEEP]);
                scene.create(deny).await.map(drop)
            }
            Self::CleanRoomThatAllows => scene.create(marked(allow("resurgam-clean-room"))).await.map(drop),
            Self::MarkedPolicies => {
                let other = ["resurgam-allow", "mallory-marked"].map(|name| marked(allow(name)));
                scene.create_all(other).await
            }
            Self::MarkedWorkloads => {
                for (what, name) in [("Deployment", "marked"), ("StatefulSet", "marked-db")] {
                    scene.create(marked(workload(what, name, 2))).await?;
                    scene.until("apps/v1", what, name, "to run", is_ready).await?;
                }
                Ok(())
            }
            Self::MarkedAccounts => {
                let account =
                    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "marked"}});
                scene.create(marked(account)).await?;
                scene.take_token("marked").await
            }
            Self::MarkedPods => {
                for name in ["resurgam-probe", "marked-pod"] {
                    scene.create(marked(pod(name))).await?;
                    scene.until_running(name).await?;
                }
                Ok(())
            }
        }
    }
}

/// Returns an immutable ConfigMap.
fn record(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "immutable": true, "data": {"mine": "yes"},
    })
}

/// Adds our labels and annotations with forged values.
fn marked(mut object: Value) -> Value {
    let annotations = json!({
        "resurgam.dev/seal": "00000000-0000-4000-8000-000000000001",
        "resurgam.dev/replicas": "1000000",
        "resurgam.dev/evidence": format!("sha256:{}", "0".repeat(64)),
        "resurgam.dev/was": "{}",
    });
    object["metadata"]["labels"] =
        json!({"app.kubernetes.io/managed-by": "resurgam", "resurgam.dev/isolation": "open"});
    object["metadata"]["annotations"] = annotations;
    object
}
