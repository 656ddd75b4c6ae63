//! CRDs, RBAC and operator are replaced by those of another state of this repository during a recovery, and rolled back.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::Trial;
use crate::{Operator, OperatorOptions, Release, kind};

/// Duration of the leader lease. Short, as each operator waits for its expiry once.
const LEASE_SECONDS: u32 = 3;
/// Names of the isolation lists. An earlier state has only the first.
const LISTS: [&str; 2] = ["resurgam-guard", "resurgam-guard-copy"];

/// A state of this repository.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// That of an earlier commit.
    Earlier(&'a Release),
    /// The current one, with the path of its operator.
    This(&'a Path),
}

impl State<'_> {
    async fn install(self, cluster: &ControlPlane) -> Result<()> {
        match self {
            Self::Earlier(release) => release.install(cluster).await,
            Self::This(_) => crate::install(cluster).await,
        }
    }

    async fn upgrade(self, cluster: &ControlPlane) -> Result<()> {
        match self {
            Self::Earlier(release) => release.upgrade(cluster).await,
            Self::This(_) => crate::upgrade(cluster).await,
        }
    }

    fn start(self, cluster: &ControlPlane) -> Result<Operator> {
        let binary = match self {
            Self::Earlier(release) => release.operator(),
            Self::This(binary) => binary,
        };
        let within = OperatorOptions::within(cluster, binary);
        Operator::start(cluster, &OperatorOptions { lease_seconds: LEASE_SECONDS, ..within })
    }

    /// Replaces an operator of the other state: CRDs and RBAC first, while that operator is still running. To roll back to a state
    /// without a list fence, the operator is stopped first, an administrator removes that fence, and a lead removes the list and the keys
    /// that the earlier state does not write (docs/isolation.md). The label fence stays in force.
    async fn replace(self, cluster: &ControlPlane, trial: &Trial<'_>, other: Operator) -> Result<Operator> {
        match self {
            Self::Earlier(release) if !release.has_list_fence() => {
                other.kill()?;
                remove_list_fence(cluster).await?;
                self.upgrade(cluster).await?;
            }
            Self::Earlier(_) | Self::This(_) => {
                self.upgrade(cluster).await?;
                other.kill()?;
            }
        }
        isolation_stays_in_force(cluster, &trial.namespaces()[1]).await?;
        self.start(cluster)
    }
}

async fn remove_list_fence(cluster: &ControlPlane) -> Result<()> {
    let lead = cluster.client(Identity::RecoveryLead).await?;
    let lists = kind(&lead, "v1", "ConfigMap", Some("resurgam-system"));
    lists.delete(LISTS[1], &DeleteParams::default()).await?;
    let texts = json!({"data": {"_sealed": null, "_contained": null, "_clean-room": null}});
    lists.patch(LISTS[0], &PatchParams::default(), &Patch::Merge(texts)).await?;
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let bindings = "ValidatingAdmissionPolicyBinding";
    let bindings = kind(&admin, "admissionregistration.k8s.io/v1", bindings, None);
    bindings.delete("resurgam-list-fence", &DeleteParams::default()).await?;
    Ok(())
}

/// Checks that isolation stays in force between two operators.
async fn isolation_stays_in_force(cluster: &ControlPlane, namespace: &str) -> Result<()> {
    let tenant = cluster.client(Identity::TenantAdministrator).await?;
    let label = json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}});
    let scale = json!({"spec": {"replicas": 9}});
    for (api, name, patch) in [
        (kind(&tenant, "v1", "Namespace", None), namespace, label),
        (kind(&tenant, "apps/v1", "Deployment", Some(namespace)), "catalogue", scale),
    ] {
        let written = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let refused =
            written.err().with_context(|| format!("a tenant changed {name} between two operators"))?;
        ensure!(refused.to_string().contains("denied request"), "{name}: {refused}");
    }
    Ok(())
}

/// Runs a recovery that one state begins, the other continues once the database is up, and the first ends. Each namespace is loosened
/// twice: into the clean room, and out of it.
///
/// # Errors
/// The recovery does not end, or something else was loosened.
pub async fn there_and_back(
    cluster: &ControlPlane,
    name: &str,
    one: State<'_>,
    other: State<'_>,
) -> Result<()> {
    one.install(cluster).await?;
    let operator = one.start(cluster)?;
    let trial = Trial::lay_down(cluster, name).await?;
    let [database, web] = trial.namespaces().clone();
    let stage = |stage: &'static str| move |record: &Value| record["status"]["stage"] == stage;
    trial.begin().await?;
    trial.service(&database, "to be checked", stage("PostChecks")).await?;
    let operator = other.replace(cluster, &trial, operator).await?;
    trial.service(&web, "to be checked", stage("PostChecks")).await?;
    let operator = one.replace(cluster, &trial, operator).await?;
    trial.recovered().await?;
    let report = trial.end().await?.report;
    ensure!(report.loosened == [(database, 2), (web, 2)].into(), "{report}");
    drop(operator);
    Ok(())
}
