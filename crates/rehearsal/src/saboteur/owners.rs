//! Pods and workloads with owners that are forged, foreign or missing.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Scene;
use super::scene::{implant, is_ready, pod, workload};
use crate::{kind, object, text};

/// Forged owner of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// None.
    Bare,
    /// A ReplicaSet owned by a Deployment of an API group that is not served.
    UnservedReplicaSet,
    /// A pod owned by a ReplicaSet of an API group that is not served.
    UnservedPod,
    /// A Job owned by a CronJob of an API group that is not served.
    UnservedJob,
    /// A pod owned by another project's StatefulSet.
    OtherGroup,
    /// A pod owned by an existing ReplicaSet with a forged UID.
    MadeUpUid,
    /// A pod owned by a cluster-scoped object.
    InNoNamespace,
}

const MADE_UP: &str = "00000000-0000-4000-8000-000000000002";
const UNSERVED_APPS: &str = "apps.implant.example/v1";
const UNSERVED_BATCH: &str = "batch.implant.example/v1";

impl Owners {
    pub(super) const ALL: [Self; 7] = [
        Self::Bare,
        Self::UnservedReplicaSet,
        Self::UnservedPod,
        Self::UnservedJob,
        Self::OtherGroup,
        Self::MadeUpUid,
        Self::InNoNamespace,
    ];

    pub(super) async fn plant(self, scene: &mut Scene<'_>) -> Result<()> {
        match self {
            Self::Bare => run(scene, pod("bare")).await,
            Self::UnservedReplicaSet => {
                let miner = workload("ReplicaSet", "miner", 3);
                scene.create(owned(miner, UNSERVED_APPS, "Deployment", "nothing", MADE_UP)).await?;
                scene.until("apps/v1", "ReplicaSet", "miner", "to run", is_ready).await.map(drop)
            }
            Self::UnservedPod => {
                run(scene, owned(pod("implant"), UNSERVED_APPS, "ReplicaSet", "nothing", MADE_UP)).await
            }
            Self::UnservedJob => {
                let mut template = implant();
                template["restartPolicy"] = json!("Never");
                let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "miner"}, "spec": {
                    "completions": 100_000, "parallelism": 1, "template": {"spec": template}}});
                scene.create(owned(job, UNSERVED_BATCH, "CronJob", "nothing", MADE_UP)).await?;
                let began = |o: &Value| !o["status"]["startTime"].is_null();
                scene.until("batch/v1", "Job", "miner", "to begin", began).await.map(drop)
            }
            Self::OtherGroup => {
                let game = json!({"apiVersion": "apps.kruise.io/v1beta1", "kind": "StatefulSet",
                    "metadata": {"name": "game"}, "spec": {"replicas": 1}});
                let uid = scene.create(game).await?.metadata.uid.context("an object without a UID")?;
                run(scene, owned(pod("game-0"), "apps.kruise.io/v1beta1", "StatefulSet", "game", &uid)).await
            }
            Self::MadeUpUid => {
                // The garbage collector takes such a pod away: it may run or not when isolation begins.
                let pods = scene.objects("apps/v1", "ReplicaSet");
                let all = pods.list(&kube::api::ListParams::default().labels("app=web")).await?;
                let name =
                    all.items.first().and_then(|set| set.metadata.name.clone()).context("no ReplicaSet")?;
                scene.create(owned(pod("orphan"), "apps/v1", "ReplicaSet", &name, MADE_UP)).await.map(drop)
            }
            Self::InNoNamespace => {
                let namespace =
                    object(&kind(&scene.admin, "v1", "Namespace", None), scene.namespace()).await?;
                let uid = text(&namespace, "/metadata/uid");
                run(scene, owned(pod("of-namespace"), "v1", "Namespace", scene.namespace(), uid)).await
            }
        }
    }
}

fn owned(mut object: Value, version: &str, what: &str, name: &str, uid: &str) -> Value {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": version, "kind": what, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": false,
    }]);
    object
}

async fn run(scene: &Scene<'_>, pod: Value) -> Result<()> {
    let name = text(&pod, "/metadata/name").to_owned();
    scene.create(pod).await?;
    scene.until_running(&name).await
}
