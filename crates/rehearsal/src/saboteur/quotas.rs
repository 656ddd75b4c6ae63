//! Quotas without any room, and limits that no pod meets. They are the platform's.

use anyhow::{Context, Result};
use kube::api::ListParams;
use serde_json::{Value, json};

use super::Scene;
use crate::field;

/// Resource that the quota exhausts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotas {
    /// ConfigMaps, at their current number.
    FullConfigMaps,
    /// NetworkPolicies, at zero.
    NoPolicies,
    /// NetworkPolicies, at their current number.
    FullPolicies,
    /// Pods, at zero.
    NoPods,
    /// ServiceAccounts, at zero.
    NoAccounts,
    /// Secrets, at zero.
    NoSecrets,
    /// A limit range whose minimum exceeds any node.
    Limits,
}

/// Name of the quota or limit range, followed by the resource.
const NAME: &str = "platform";

impl Quotas {
    pub(super) const ALL: [Self; 7] = [
        Self::FullConfigMaps,
        Self::NoPolicies,
        Self::FullPolicies,
        Self::NoPods,
        Self::NoAccounts,
        Self::NoSecrets,
        Self::Limits,
    ];

    /// Returns name and resource of the object.
    fn counts(self) -> (&'static str, &'static str) {
        match self {
            Self::FullConfigMaps => ("configmaps", "count/configmaps"),
            Self::NoPolicies => ("no-policies", "count/networkpolicies.networking.k8s.io"),
            Self::FullPolicies => ("policies", "count/networkpolicies.networking.k8s.io"),
            Self::NoPods => ("pods", "pods"),
            Self::NoAccounts => ("accounts", "count/serviceaccounts"),
            Self::NoSecrets => ("secrets", "secrets"),
            Self::Limits => ("limits", ""),
        }
    }

    fn name(self) -> String {
        format!("{NAME}-{}", self.counts().0)
    }

    pub(super) async fn plant(self, scene: &mut Scene<'_>) -> Result<()> {
        let metadata = json!({"name": self.name(), "labels": {"team": "platform"}});
        if self == Self::Limits {
            let limits = json!([{"type": "Container", "min": {"cpu": "1000", "memory": "100Ti"}}]);
            let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}});
            scene.create_as_platform(range).await?;
            return Ok(());
        }
        let hard = match self {
            Self::FullConfigMaps => count(scene, "v1", "ConfigMap").await?,
            Self::FullPolicies => count(scene, "networking.k8s.io/v1", "NetworkPolicy").await?,
            _ => 0,
        };
        let resource = self.counts().1;
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata,
            "spec": {"hard": {resource: hard.to_string()}}});
        scene.create_as_platform(quota).await?;
        let counted = |o: &Value| {
            let used = field(o, "/status/used");
            used.get(resource).is_some() && field(o, "/status/hard") == field(o, "/spec/hard")
        };
        scene.until("v1", "ResourceQuota", &self.name(), "to be counted", counted).await?;
        Ok(())
    }

    pub(super) fn culprits(self) -> Vec<String> {
        std::iter::once(self.name()).chain(self.refuses_first().map(str::to_owned)).collect()
    }

    /// Returns the message with which it denies requests before ValidatingAdmissionPolicies run.
    pub(super) fn refuses_first(self) -> Option<&'static str> {
        (self == Self::Limits).then_some("usage per Container")
    }
}

async fn count(scene: &Scene<'_>, version: &str, what: &str) -> Result<usize> {
    let all = scene.objects(version, what).list_metadata(&ListParams::default()).await;
    Ok(all.with_context(|| format!("count {what}s"))?.items.len())
}
