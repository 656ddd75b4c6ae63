//! Kinds, rights and operator are replaced by those of another state of this repository in the midst of a recovery, and taken back.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::Trial;
use crate::{Operator, OperatorOptions, Release, kind};

/// Short: nobody else is to lead, and each operator waits for it once.
const LEASE_SECONDS: u32 = 3;
/// The lists of isolated namespaces. An earlier state knows the first alone.
const LISTS: [&str; 2] = ["resurgam-guard", "resurgam-guard-copy"];

/// One of two states of this repository.
#[derive(Clone, Copy, Debug)]
pub enum State<'a> {
    /// That of an earlier commit.
    Earlier(&'a Release),
    /// The one at hand, with its operator.
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

    /// Takes the place of an operator of the other state: its kinds and rights first, while that operator still runs. To go back to a
    /// state without a list fence, the operator ends first, an administrator removes that fence, and a lead removes the list and the
    /// texts that the earlier state does not write (docs/isolation.md). The label fences all the while.
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
        nobody_gets_out(cluster, &trial.namespaces()[1]).await?;
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

/// Between two operators, what is isolated is so all the same.
async fn nobody_gets_out(cluster: &ControlPlane, namespace: &str) -> Result<()> {
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

/// Has a recovery begun by one state, continued by the other once the database is up, and ended by the first. Each namespace is loosened
/// twice: into the clean room, and out of it.
///
/// # Errors
/// The recovery does not end, or something was loosened otherwise.
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
