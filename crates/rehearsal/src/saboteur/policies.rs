//! Policies of several APIs that allow traffic.

use anyhow::Result;
use serde_json::{Value, json};

use super::Scene;
use super::scene::allow;

/// Policies that allow traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policies {
    /// NetworkPolicies, each of which allows a part: one direction, some pods, some peers.
    Parts,
    /// A policy of the network plugin that allows all traffic.
    Cilium,
}

/// Name of the network plugin's policy.
pub(super) const CILIUM: &str = "mallory-allows-all";

impl Policies {
    pub(super) const ALL: [Self; 2] = [Self::Parts, Self::Cilium];

    pub(super) async fn plant(self, scene: &mut Scene<'_>) -> Result<()> {
        match self {
            Self::Parts => {
                let part = |name: &str, spec: Value| {
                    let mut policy = allow(name);
                    policy["spec"] = spec;
                    policy
                };
                let block = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}});
                scene
                    .create_all([
                        part("in", json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]})),
                        part("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [block]}]})),
                        part("web", json!({"podSelector": {"matchLabels": {"app": "web"}},
                            "ingress": [{"from": [{"namespaceSelector": {}}]}], "policyTypes": ["Ingress"]})),
                        // It allows nothing, and isolates nothing out.
                        part("nothing", json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
                    ])
                    .await
            }
            Self::Cilium => {
                let everybody = json!([{"fromEntities": ["all"]}]);
                let everywhere = json!([{"toEntities": ["all"]}]);
                let spec = json!({"endpointSelector": {}, "ingress": everybody, "egress": everywhere});
                let policy = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
                    "metadata": {"name": CILIUM}, "spec": spec});
                scene.create(policy).await.map(drop)
            }
        }
    }

    pub(super) fn culprits(self) -> Vec<String> {
        match self {
            Self::Parts => Vec::new(),
            Self::Cilium => vec![CILIUM.to_owned(), "CiliumNetworkPolicy".to_owned()],
        }
    }
}
