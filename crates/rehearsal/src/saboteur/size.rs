//! Objects that are huge, or many.

use anyhow::Result;
use serde_json::{Value, json};

use super::Scene;
use super::scene::{allow, is_ready, workload};

/// What is huge, or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A Deployment with as many annotations as there may be: none can be added.
    BigWorkload,
    /// A ServiceAccount with as many annotations as there may be.
    BigAccount,
    /// A NetworkPolicy of close to 1 MiB.
    BigPolicy,
    /// Three hundred NetworkPolicies that allow.
    ManyPolicies,
    /// Three hundred ServiceAccounts.
    ManyAccounts,
    /// Three hundred ConfigMaps.
    ManyConfigMaps,
}

/// How many is many.
const MANY: usize = 300;
/// The API server takes 256 KiB of annotations, names included. Less than is free are any two annotations of ours.
const ANNOTATIONS: usize = 256 * 1024 - 16;
/// Blocks of a policy, of some 37 bytes each in JSON: more than a ConfigMap may hold, and less than etcd takes.
const BLOCKS: usize = 33_000;

impl Size {
    pub(super) const ALL: [Self; 6] = [
        Self::BigWorkload,
        Self::BigAccount,
        Self::BigPolicy,
        Self::ManyPolicies,
        Self::ManyAccounts,
        Self::ManyConfigMaps,
    ];

    pub(super) async fn plant(self, scene: &mut Scene<'_>) -> Result<()> {
        match self {
            Self::BigWorkload => {
                let mut big = workload("StatefulSet", "big", 2);
                big["metadata"]["annotations"] = ballast();
                scene.create(big).await?;
                scene.until("apps/v1", "StatefulSet", "big", "to run", is_ready).await.map(drop)
            }
            Self::BigAccount => {
                let annotations = ballast();
                scene.create(account("big", &annotations)).await?;
                scene.take_token("big").await
            }
            Self::BigPolicy => {
                let block =
                    |n: usize| json!({"ipBlock": {"cidr": format!("10.{}.{}.0/24", n / 256, n % 256)}});
                let mut big = allow("big");
                big["spec"]["ingress"] = json!([{"from": (0..BLOCKS).map(block).collect::<Vec<_>>()}]);
                scene.create(big).await.map(drop)
            }
            Self::ManyPolicies => scene.create_all((0..MANY).map(|n| allow(&format!("many-{n}")))).await,
            Self::ManyAccounts => {
                scene.create_all((0..MANY).map(|n| account(&format!("many-{n}"), &json!({})))).await?;
                scene.take_token("many-299").await
            }
            Self::ManyConfigMaps => {
                let map = |n: usize| {
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("many-{n}")},
                        "data": {"n": n.to_string()}})
                };
                scene.create_all((0..MANY).map(map)).await
            }
        }
    }
}

fn ballast() -> Value {
    let name = "mallory.example/ballast";
    json!({name: "x".repeat(ANNOTATIONS - name.len())})
}

fn account(name: &str, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "annotations": annotations}})
}
