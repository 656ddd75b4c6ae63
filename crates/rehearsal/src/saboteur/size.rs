//! Objects that are huge or numerous.

use anyhow::Result;
use serde_json::{Value, json};

use super::Scene;
use super::scene::{allow, is_ready, workload};

/// Huge or numerous objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// A Deployment whose annotations are full.
    BigWorkload,
    /// A ServiceAccount whose annotations are full.
    BigAccount,
    /// A NetworkPolicy of close to 1 MiB.
    BigPolicy,
    /// Three hundred NetworkPolicies that allow traffic.
    ManyPolicies,
    /// Three hundred ServiceAccounts.
    ManyAccounts,
    /// Three hundred ConfigMaps.
    ManyConfigMaps,
}

/// Number of numerous objects.
const MANY: usize = 300;
/// Size of full annotations in bytes, below the API server's limit of 256 KiB including keys. The rest is smaller than any two
/// annotations of ours.
const ANNOTATIONS: usize = 256 * 1024 - 16;
/// Number of IP blocks in a huge policy, of some 37 bytes each in JSON: more than a ConfigMap may have, and less than etcd accepts.
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
