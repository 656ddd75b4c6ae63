//! Objects that outlive their deletion, for ever or for an hour.

use anyhow::{Context, Result};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::Scene;
use super::scene::{KEEP, allow, is_ready, pod, workload};
use crate::kind;

/// An object that outlives its deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizers {
    /// NetworkPolicies that allow traffic and have a finalizer.
    KeptPolicies,
    /// A NetworkPolicy that allows traffic, has a finalizer, and is being deleted.
    GoingPolicy,
    /// Bare pods with a finalizer.
    KeptPods,
    /// A Deployment whose pods ignore SIGTERM and have a grace period of an hour.
    LongGrace,
    /// A pod that is being deleted with a grace period of an hour.
    GoingPod,
    /// A ServiceAccount with a finalizer.
    KeptAccount,
    /// A Deployment that is being deleted and waits for its pods, which have a finalizer.
    GoingDeployment,
}

impl Finalizers {
    pub(super) const ALL: [Self; 7] = [
        Self::KeptPolicies,
        Self::GoingPolicy,
        Self::KeptPods,
        Self::LongGrace,
        Self::GoingPod,
        Self::KeptAccount,
        Self::GoingDeployment,
    ];

    pub(super) async fn plant(self, scene: &mut Scene<'_>) -> Result<()> {
        match self {
            Self::KeptPolicies => scene.create_all(["kept-1", "kept-2"].map(|name| kept(allow(name)))).await,
            Self::GoingPolicy => {
                scene.create(kept(allow("going"))).await?;
                self::delete(
                    scene,
                    "networking.k8s.io/v1",
                    "NetworkPolicy",
                    "going",
                    &DeleteParams::default(),
                )
                .await
            }
            Self::KeptPods => {
                for name in ["kept-1", "kept-2"] {
                    scene.create(kept(pod(name))).await?;
                    scene.until_running(name).await?;
                }
                Ok(())
            }
            Self::LongGrace => {
                let mut stubborn = workload("Deployment", "stubborn", 2);
                lives_an_hour(&mut stubborn["spec"]["template"]);
                scene.create(stubborn).await?;
                scene.until("apps/v1", "Deployment", "stubborn", "to run", is_ready).await.map(drop)
            }
            Self::GoingPod => {
                let mut going = pod("going");
                lives_an_hour(&mut going);
                scene.create(going).await?;
                scene.until_running("going").await?;
                self::delete(scene, "v1", "Pod", "going", &DeleteParams::default()).await
            }
            Self::KeptAccount => {
                let account =
                    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "kept"}});
                scene.create(kept(account)).await?;
                scene.take_token("kept").await
            }
            Self::GoingDeployment => {
                let mut going = workload("Deployment", "going", 2);
                going["spec"]["template"]["metadata"]["finalizers"] = json!([KEEP]);
                lives_an_hour(&mut going["spec"]["template"]);
                scene.create(going).await?;
                scene.until("apps/v1", "Deployment", "going", "to run", is_ready).await?;
                self::delete(scene, "apps/v1", "Deployment", "going", &DeleteParams::foreground()).await
            }
        }
    }

    pub(super) fn culprits(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::KeptPolicies | Self::KeptPods => &["kept-1", "kept-2", KEEP],
            Self::GoingPolicy => &["NetworkPolicy going", "/going", KEEP],
            Self::KeptAccount => &["/kept", "ServiceAccount kept", KEEP],
            Self::GoingDeployment => &["going-", KEEP],
            // The processes end within two minutes, whatever their grace period is.
            Self::LongGrace | Self::GoingPod => &[],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}

fn kept(mut object: Value) -> Value {
    object["metadata"]["finalizers"] = json!([KEEP]);
    object
}

/// Makes a pod, or a pod template, ignore SIGTERM with a grace period of an hour.
fn lives_an_hour(pod: &mut Value) {
    pod["metadata"]["annotations"] = json!({"kwok.resurgam.dev/ignores-sigterm": "true"});
    pod["spec"]["terminationGracePeriodSeconds"] = json!(3600);
}

async fn delete(scene: &Scene<'_>, version: &str, what: &str, name: &str, how: &DeleteParams) -> Result<()> {
    let objects = kind(&scene.mallory, version, what, Some(scene.namespace()));
    objects.delete(name, how).await.with_context(|| format!("delete {what} {name}"))?;
    Ok(())
}
