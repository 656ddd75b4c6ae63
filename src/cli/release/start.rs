//! Starts what was stopped in a released namespace, as the caller, and removes its records.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, ObjectMeta};
use kube::{Api, Client};
use resurgam_core::release::{Held, ReleaseRead, Start, Starts};
use serde::Serialize;

use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt};
use crate::isolation::controls::cleanup;
use crate::isolation::policies::FENCES;
use crate::isolation::workloads::{self, Kind};

/// Objects started at a time.
const PARALLEL: usize = 8;
/// Attempts to remove the record of an object that its controller changes.
const ATTEMPTS: usize = 5;
/// How long a fence may refuse writes after the release.
const FENCE_LINGERS: Duration = Duration::from_secs(5);

/// Result of starting a namespace.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Started {
    /// What was started.
    pub(super) started: Vec<String>,
    /// What was not, with the cause and the command.
    pub(super) held: Vec<Held>,
    /// What is left to be tidied up, which stops nothing.
    pub(super) notes: Vec<String>,
}

impl Started {
    /// Returns whether everything was started that was to be.
    pub(super) fn is_complete(&self) -> bool {
        self.held.iter().all(|held| held.by_choice)
    }
}

/// Returns whether records are left on workloads that run.
pub(super) fn is_left(read: &ReleaseRead) -> bool {
    read.inventory.as_ref().is_ok_and(|inventory| {
        cleanup::is_anything_left(inventory) || inventory.workloads.iter().any(cleanup::awaits_start)
    })
}

/// Starts the objects. `unrecorded`: what cannot be started as its state before is not known.
pub(super) async fn start(
    client: &Client,
    namespace: &str,
    read: &ReleaseRead,
    starts: Starts,
    unrecorded: Vec<Held>,
) -> Started {
    let mut all = Started { held: starts.held, ..Started::default() };
    all.held.extend(unrecorded);
    all.held.sort_by(|a, b| a.what.cmp(&b.what));
    all.held.dedup_by(|a, b| a.what == b.what);
    if let Err(why) = &read.inventory {
        let command = format!("resurgam release {namespace} --start, once you may list them");
        all.held.push(Held { what: "all workloads".to_owned(), why: why.clone(), command, by_choice: false });
    }
    let mut outcomes = stream::iter(&starts.starts)
        .map(|start| async move { (start, start_one(client, namespace, start).await) })
        .buffered(PARALLEL);
    while let Some((start, outcome)) = outcomes.next().await {
        match outcome {
            Ok(note) => {
                let fires =
                    if start.fires.is_empty() { String::new() } else { format!(" ({})", start.fires) };
                all.started.push(format!("{}{fires}", start.what));
                all.notes.extend(note);
            }
            Err(error) => all.held.push(Held {
                what: start.what.clone(),
                why: error.to_string(),
                command: start.command.clone(),
                by_choice: false,
            }),
        }
    }
    // Records of what ran already, and the copies on ReplicaSets.
    let rest = async {
        let inventory = workloads::inventory(client, namespace).await?;
        cleanup::workloads(client, namespace, &inventory).await
    };
    if let Err(error) = rest.await {
        all.notes.push(format!("records (annotations resurgam.dev/*) are left on workloads: {error}"));
    }
    all
}

/// Starts one object, and removes its record. Returns a note if the record is left.
async fn start_one(client: &Client, namespace: &str, start: &Start) -> Result<Option<String>, IoError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource(start.kind));
    let params =
        PatchParams { field_manager: Some(field_manager::STEP.to_owned()), ..PatchParams::default() };
    let what = format!("start {}", start.what);
    let patch = Patch::Merge(&start.patch);
    let began = Instant::now();
    let started = loop {
        match call(what.clone(), api.patch_metadata(&start.name, &params, &patch)).await {
            Ok(started) => break started,
            // An API server takes a moment to learn that the namespace is open.
            Err(error) if is_fenced(&error) && began.elapsed() < FENCE_LINGERS => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    };
    let left = clean_up(&api, &params, start, started.metadata).await.err();
    Ok(left.map(|error| format!("{} is started, but its record is left: {error}", start.what)))
}

/// Returns whether one of our fences refused the write.
fn is_fenced(error: &IoError) -> bool {
    error.status().is_some_and(|status| {
        status.is_forbidden() && FENCES.iter().any(|fence| status.message.contains(fence))
    })
}

async fn clean_up(
    api: &Api<DynamicObject>,
    params: &PatchParams,
    start: &Start,
    mut meta: ObjectMeta,
) -> Result<(), IoError> {
    let what = || format!("clean up {} {}", start.kind, start.name);
    for attempt in 1.. {
        let Some(patch) = cleanup::started(&meta) else { break };
        match call_opt(what(), api.patch_metadata(&start.name, params, &Patch::Merge(patch))).await {
            Ok(_) => break,
            Err(error) if !error.is_conflict() || attempt == ATTEMPTS => return Err(error),
            Err(_) => match call_opt(what(), api.get_metadata(&start.name)).await? {
                Some(now) => meta = now.metadata,
                None => break,
            },
        }
    }
    Ok(())
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Deployment => ApiResource::erase::<Deployment>(&()),
        Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        Kind::ReplicaSet => ApiResource::erase::<ReplicaSet>(&()),
        Kind::ReplicationController => ApiResource::erase::<ReplicationController>(&()),
        Kind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        Kind::CronJob => ApiResource::erase::<CronJob>(&()),
        Kind::Job => ApiResource::erase::<Job>(&()),
    }
}
