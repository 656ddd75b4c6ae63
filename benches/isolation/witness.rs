//! Somebody who tries to write in some of the namespaces all the time, so that the audit log shows when that was first refused.

use std::time::Duration;

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::PostParams;
use rehearsal::kind;
use serde_json::json;

/// In so many namespaces, spread over all, the last one among them. In all of them, it would be the one who keeps the API server busy.
pub const SAMPLE: usize = 4;

/// Who tries, and where.
pub struct Witness {
    client: Client,
    sample: Vec<String>,
}

impl Witness {
    /// Makes one for these namespaces.
    ///
    /// # Errors
    /// There is no client.
    pub async fn of(cluster: &ControlPlane, names: &[String]) -> Result<Self> {
        let client = cluster.client(Identity::TenantAdministrator).await?;
        let many = SAMPLE.min(names.len());
        let last = names.len().saturating_sub(1);
        let at = |n: usize| if many == 1 { last } else { n * last / (many - 1) };
        let sample = (0..many).filter_map(|n| names.get(at(n)).cloned()).collect();
        Ok(Self { client, sample })
    }

    /// The namespaces in which it tries.
    pub fn sample(&self) -> &[String] {
        &self.sample
    }

    /// Tries in all of them at once, by dry-runs, each until it is refused.
    ///
    /// # Errors
    /// It was not refused everywhere in time, or a write failed for another reason.
    pub async fn until_refused(&self, deadline: Duration) -> Result<()> {
        let one = async |namespace: &String| {
            while !self.is_refused(namespace).await? {}
            anyhow::Ok(())
        };
        let trying = futures::future::try_join_all(self.sample.iter().map(one));
        tokio::time::timeout(deadline, trying).await.context("writes are not refused")??;
        Ok(())
    }

    async fn is_refused(&self, namespace: &str) -> Result<bool> {
        let maps = kind(&self.client, "v1", "ConfigMap", Some(namespace));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "witness"}});
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match maps.create(&params, &serde_json::from_value(map)?).await {
            Ok(_) => Ok(false),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(true),
            Err(error) => Err(error).with_context(|| format!("a write in {namespace}")),
        }
    }
}
