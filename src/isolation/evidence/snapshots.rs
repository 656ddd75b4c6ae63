//! VolumeSnapshots of a namespace's volumes, if a class for their driver exists: one per bound claim and sealing. A capture waits until
//! they are cut: from then on, stopping workloads does not change them. They may become usable later.

use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, future};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::Discovery;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::pages::pages;
use super::store::digest;
use super::{CaptureError, Miss, Subject, complete};
use crate::calls::{IoError, call, call_opt};

const GROUP: &str = "snapshot.storage.k8s.io";
const VERSION: &str = "v1";
/// Annotation of the default class.
const DEFAULT: &str = "snapshot.storage.kubernetes.io/is-default-class";
/// Label with the UID of the Quarantine.
const SEAL: &str = "resurgam.dev/seal";
/// Maximum length of an object's name.
const NAME: usize = 253;
/// Maximum number of snapshots in the status.
pub(super) const MOST: usize = 64;

/// VolumeSnapshots of a namespace, as far as available.
#[derive(Clone, Debug, Default)]
pub struct Snapshots {
    /// All requested snapshots.
    pub(super) asked: Vec<Snapshot>,
    /// Volumes without a snapshot.
    pub(super) missing: Vec<Miss>,
}

impl Snapshots {
    /// Returns the names of the snapshots that are cut.
    pub(super) fn cut(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().filter(|snapshot| snapshot.told.is_cut()).map(|snapshot| snapshot.name.as_str())
    }
}

/// A requested snapshot, as in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    name: String,
    uid: String,
    /// Time of the request, possibly of an earlier attempt.
    at: String,
    claim: String,
    volume: String,
    class: String,
    #[serde(flatten)]
    told: SnapshotStatus,
}

/// Status of a snapshot from its controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotStatus {
    /// The bound VolumeSnapshotContent.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// Time of the snapshot according to the storage system.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_at: Option<String>,
    /// A volume can be restored from it. Some drivers have to copy for hours first.
    ready_to_use: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl SnapshotStatus {
    fn by(snapshot: &DynamicObject) -> Self {
        let status = &snapshot.data["status"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            content: text(&status["boundVolumeSnapshotContentName"]),
            cut_at: text(&status["creationTime"]),
            ready_to_use: status["readyToUse"] == true,
            error: text(&status["error"]["message"]),
        }
    }

    fn is_cut(&self) -> bool {
        self.cut_at.is_some() || self.ready_to_use
    }
}

/// Requests snapshots of all bound claims while holding the permit `turn`, then waits until they are cut, at most for `wait` in total.
/// Nothing is stopped in the meantime, so that all snapshots are of the running workload.
///
/// # Errors
/// [`CaptureError::Incomplete`] if a required snapshot is missing.
pub async fn snapshot<T>(
    client: &Client,
    subject: Subject<'_>,
    wait: Duration,
    turn: impl Future<Output = T>,
) -> Result<Snapshots, CaptureError> {
    let mut taken = Snapshots::default();
    let turn = turn.await;
    if let Err(miss) = ask(client, subject, &mut taken).await {
        taken.missing.push(miss);
    }
    drop(turn);
    complete(subject, &taken.missing)?;
    let until = Instant::now() + wait;
    let waits = taken.asked.into_iter().map(|asked| await_cut(client, subject, asked, until, wait));
    let (asked, misses): (Vec<_>, Vec<_>) = future::join_all(waits).await.into_iter().unzip();
    taken.asked = asked;
    taken.missing.extend(misses.into_iter().flatten());
    taken.missing.extend(unnamed(taken.cut().count()));
    complete(subject, &taken.missing)?;
    Ok(taken)
}

/// Returns an entry for the snapshots that exceed the limit of the status.
fn unnamed(cut: usize) -> Option<Miss> {
    let more = cut.checked_sub(MOST).filter(|more| *more > 0)?;
    let what = format!("{more} snapshots are in the index alone: the status names {MOST}");
    Some(Miss { what, failure: false })
}

async fn ask(client: &Client, subject: Subject<'_>, taken: &mut Snapshots) -> Result<(), Miss> {
    // What the operator may not read is no failure; what did not answer may do so shortly.
    let failed = |error: IoError| Miss { failure: error.is_transient(), what: format!("volumes: {error}") };
    let claims = claims(client, subject.namespace).await.map_err(failed)?;
    let bound: Vec<(&PersistentVolumeClaim, &str)> = claims.iter().filter_map(bound).collect();
    if bound.is_empty() {
        return Ok(());
    }
    let none = |why: &str| Miss { what: format!("volumes of {} claims: {why}", bound.len()), failure: false };
    let Some((kind, class_kind)) = kinds(client).await.map_err(failed)? else {
        return Err(none("this cluster has no VolumeSnapshots"));
    };
    let classes = classes(client, &class_kind)
        .await
        .map_err(|error| Miss { what: error.to_string(), failure: true })?;
    if classes.is_empty() {
        return Err(none("there is no VolumeSnapshotClass"));
    }
    for (claim, volume) in bound {
        match take_one(client, &kind, &classes, claim, volume, subject).await {
            Ok(snapshot) => taken.asked.push(snapshot),
            Err(miss) => taken.missing.push(miss),
        }
    }
    Ok(())
}

async fn claims(client: &Client, namespace: &str) -> Result<Vec<PersistentVolumeClaim>, IoError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let api = &api;
    pages("persistentvolumeclaims", |params: ListParams| async move {
        let page = api.list(&params).await?;
        Ok((page.items, page.metadata.continue_))
    })
    .await
}

/// Returns `VolumeSnapshot` and its class, if they are served.
async fn kinds(client: &Client) -> Result<Option<(ApiResource, ApiResource)>, IoError> {
    let groups = Discovery::new(client.clone()).filter(&[GROUP]);
    let found = call(format!("discover kinds of {GROUP}"), groups.run_aggregated()).await?;
    let resources = found.get(GROUP).map(|group| group.versioned_resources(VERSION)).unwrap_or_default();
    let of =
        |plural: &str| resources.iter().map(|(kind, _)| kind).find(|kind| kind.plural == plural).cloned();
    Ok(of("volumesnapshots").zip(of("volumesnapshotclasses")))
}

fn bound(claim: &PersistentVolumeClaim) -> Option<(&PersistentVolumeClaim, &str)> {
    let phase = claim.status.as_ref()?.phase.as_deref()?;
    let volume = claim.spec.as_ref()?.volume_name.as_deref()?;
    (phase == "Bound").then_some((claim, volume))
}

async fn take_one(
    client: &Client,
    kind: &ApiResource,
    classes: &[Class],
    claim: &PersistentVolumeClaim,
    volume: &str,
    subject: Subject<'_>,
) -> Result<Snapshot, Miss> {
    let claim_name = claim.name_any();
    let miss = |failure: bool| {
        let claim_name = claim_name.clone();
        move |why: String| Miss { what: format!("volume of claim {claim_name}: {why}"), failure }
    };
    let failed = |error: IoError| miss(true)(error.to_string());
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let what = format!("get PersistentVolume {volume}");
    let found = call_opt(what, volumes.get(volume)).await.map_err(failed)?;
    let driver = found.and_then(|volume| Some(volume.spec?.csi?.driver));
    let driver = driver.ok_or_else(|| miss(false)(format!("PersistentVolume {volume} has no CSI driver")))?;
    let class = choose(&driver, classes).map_err(miss(false))?;

    let seal = seal(subject.quarantine, subject.before);
    let name = name(&seal, &claim_name, claim.metadata.uid.as_deref().unwrap_or_default());
    let namespace = subject.namespace;
    let snapshot = json!({
        "apiVersion": kind.api_version, "kind": kind.kind,
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "resurgam"},
            "annotations": {SEAL: subject.quarantine},
        },
        "spec": {
            "source": {"persistentVolumeClaimName": claim_name},
            "volumeSnapshotClassName": class,
        },
    });
    let snapshot: DynamicObject =
        serde_json::from_value(snapshot).map_err(|error| miss(true)(error.to_string()))?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
    let params = PostParams {
        field_manager: Some(crate::api::field_manager::ISOLATION.into()),
        ..PostParams::default()
    };
    let create = call(format!("create VolumeSnapshot {namespace}/{name}"), api.create(&params, &snapshot));
    let made = match create.await {
        Ok(made) => made,
        Err(error) if error.is_conflict() => {
            let there = call(format!("get VolumeSnapshot {namespace}/{name}"), api.get(&name));
            let there = there.await.map_err(failed)?;
            if !is_ours(&there, subject.quarantine, &claim_name) {
                let why =
                    format!("VolumeSnapshot {namespace}/{name} is there, and not ours: delete or rename it");
                return Err(miss(true)(why));
            }
            there
        }
        Err(error) => return Err(failed(error)),
    };
    Ok(Snapshot {
        told: SnapshotStatus::by(&made),
        uid: made.uid().unwrap_or_default(),
        at: made.creation_timestamp().map(|at| at.0.to_string()).unwrap_or_default(),
        name,
        claim: claim_name,
        volume: volume.to_owned(),
        class: class.to_owned(),
    })
}

/// Waits until a snapshot is cut. The second value is why it is no evidence, or incomplete.
async fn await_cut(
    client: &Client,
    subject: Subject<'_>,
    mut asked: Snapshot,
    until: Instant,
    wait: Duration,
) -> (Snapshot, Option<Miss>) {
    let name = format!("{}/{}", subject.namespace, asked.name);
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, "VolumeSnapshot"));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), subject.namespace, &kind);
    let Snapshot { name: one, uid, told, .. } = &mut asked;
    let mut trouble = String::new();
    let cut = async {
        let mut seen = pin!(watch_object(api, one).default_backoff());
        while let Some(now) = seen.next().await {
            // The watch restarts on its own. Its error is reported only if the snapshot is not cut in time.
            let now = match now {
                Ok(now) => now,
                Err(error) => {
                    trouble = format!(", and it could not be watched: {error}");
                    continue;
                }
            };
            trouble.clear();
            let there = now.filter(|now| {
                now.metadata.uid.as_ref() == Some(uid) && now.metadata.deletion_timestamp.is_none()
            });
            let now = there.ok_or("it was deleted")?;
            *told = SnapshotStatus::by(&now);
            if told.is_cut() {
                return Ok(());
            }
        }
        Err("its watch ended".to_owned())
    };
    let outcome = match tokio::time::timeout_at(until, cut).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("it is not cut after {} s{trouble}", wait.as_secs())),
    };
    let said = asked.told.error.as_deref();
    let miss = match outcome {
        Ok(()) if asked.told.ready_to_use => None,
        Ok(()) => Some(Miss {
            what: format!(
                "volume of claim {}: VolumeSnapshot {name} is cut, and was not ready to use yet{}",
                asked.claim,
                said.map(|said| format!(": {said}")).unwrap_or_default()
            ),
            failure: false,
        }),
        Err(why) => Some(Miss {
            what: format!(
                "volume of claim {}: VolumeSnapshot {name}: {why}: {}",
                asked.claim,
                said.unwrap_or("its controller reported no error")
            ),
            failure: true,
        }),
    };
    (asked, miss)
}

/// Returns whether the snapshot equals the one we would create. A tenant may have created an empty one before the fence was up.
fn is_ours(snapshot: &DynamicObject, quarantine: &str, claim: &str) -> bool {
    snapshot.annotations().get(SEAL).is_some_and(|seal| seal == quarantine)
        && snapshot.data["spec"]["source"]["persistentVolumeClaimName"] == claim
        && snapshot.metadata.deletion_timestamp.is_none()
}

/// The used fields of a VolumeSnapshotClass.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    name: String,
    driver: String,
    default: bool,
}

async fn classes(client: &Client, kind: &ApiResource) -> Result<Vec<Class>, IoError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let api = &api;
    let all = pages(&kind.plural, |params: ListParams| async move {
        let page = api.list(&params).await?;
        let next = page.metadata.continue_.clone();
        let class = |class: DynamicObject| {
            json!({
                "name": class.name_any(),
                "driver": class.data["driver"],
                "default": class.annotations().get(DEFAULT).is_some_and(|value| value == "true"),
            })
        };
        Ok((page.items.into_iter().map(class).collect(), next))
    })
    .await?;
    let class = |class: Value| {
        let (name, driver) = (class["name"].as_str()?.to_owned(), class["driver"].as_str()?.to_owned());
        Some(Class { name, driver, default: class["default"] == true })
    };
    Ok(all.into_iter().filter_map(class).collect())
}

/// Returns the class for a driver: the only one, or the default. Otherwise, why there is none.
fn choose<'a>(driver: &str, classes: &'a [Class]) -> Result<&'a str, String> {
    let fit: Vec<&Class> = classes.iter().filter(|class| class.driver == driver).collect();
    let marked: Vec<&Class> = fit.iter().copied().filter(|class| class.default).collect();
    match (fit.as_slice(), marked.as_slice()) {
        ([only], _) | (_, [only]) => Ok(&only.name),
        ([], _) => Err(format!("there is no VolumeSnapshotClass for driver {driver}")),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|class| class.name.as_str()).collect();
            Err(format!(
                "which VolumeSnapshotClass of {} for driver {driver}: mark one as the default",
                names.join(", ")
            ))
        }
    }
}

/// Returns an ID of the sealing, from the Quarantine and its previous capture. The same for all attempts.
fn seal(quarantine: &str, before: Option<&str>) -> String {
    let both = format!("{quarantine}/{}", before.unwrap_or_default());
    digest(both.as_bytes()).chars().take(8).collect()
}

/// Returns a name that is the same for all attempts, differs between claims, and fits the length limit.
fn name(seal: &str, claim: &str, uid: &str) -> String {
    let name = format!("resurgam-{seal}-{claim}");
    if name.len() <= NAME {
        return name;
    }
    let end: String = digest(format!("{claim}/{uid}").as_bytes()).chars().take(8).collect();
    // Names are ASCII. Each DNS label starts and ends with a letter or digit.
    let start: String = name.chars().take(NAME - 1 - end.len()).collect();
    format!("{}-{end}", start.trim_end_matches(['-', '.']))
}

#[cfg(test)]
#[path = "snapshots_tests.rs"]
mod tests;
