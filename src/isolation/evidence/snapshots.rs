//! VolumeSnapshots of a namespace's volumes, where a class for their driver exists: one for each bound claim and sealing. They
//! are asked for, not waited for: a CSI driver takes as long as it takes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::manifests::Manifests;
use super::pages::pages;
use super::store::digest;
use super::{Miss, Subject};
use crate::calls::{IoError, call, call_opt};

/// Which class is meant where several fit.
const DEFAULT: &str = "snapshot.storage.kubernetes.io/is-default-class";
/// Whose a snapshot is: the UID of the Quarantine.
const SEAL: &str = "resurgam.dev/seal";
/// How long an object's name may be.
const NAME: usize = 253;
/// Most snapshots that the status may name.
pub(super) const MOST: usize = 64;

/// A snapshot that was asked for, as the index has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    pub(super) name: String,
    uid: String,
    /// When it was made: an earlier try may have done so.
    at: String,
    claim: String,
    volume: String,
    class: String,
}

/// Asks for snapshots of all bound claims. What cannot be had is in the second list.
pub(super) async fn take(
    client: &Client,
    found: &Manifests,
    claims: &[PersistentVolumeClaim],
    subject: Subject<'_>,
) -> (Vec<Snapshot>, Vec<Miss>) {
    let mut taken = Vec::new();
    let bound: Vec<(&PersistentVolumeClaim, &str)> = claims.iter().filter_map(bound).collect();
    if bound.is_empty() {
        return (taken, Vec::new());
    }
    let none =
        |why: &str| vec![Miss { what: format!("volumes of {} claims: {why}", bound.len()), failure: false }];
    let Some((kind, class_kind)) = &found.snapshots else {
        return (taken, none("this cluster has no VolumeSnapshots"));
    };
    let classes = match classes(client, class_kind).await {
        Ok(classes) => classes,
        Err(error) => return (taken, vec![Miss { what: error.to_string(), failure: true }]),
    };
    if classes.is_empty() {
        return (taken, none("there is no VolumeSnapshotClass"));
    }
    let mut missing = Vec::new();
    for (claim, volume) in bound {
        match take_one(client, kind, &classes, claim, volume, subject).await {
            Ok(snapshot) => taken.push(snapshot),
            Err(miss) => missing.push(miss),
        }
    }
    if taken.len() > MOST {
        let what =
            format!("{} snapshots are in the index alone: the status names {MOST}", taken.len() - MOST);
        missing.push(Miss { what, failure: false });
    }
    (taken, missing)
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
        uid: made.uid().unwrap_or_default(),
        at: made.creation_timestamp().map(|at| at.0.to_string()).unwrap_or_default(),
        name,
        claim: claim_name,
        volume: volume.to_owned(),
        class: class.to_owned(),
    })
}

/// Is it what we would have made? Somebody may have put an empty one in its place, before the fence was up.
fn is_ours(snapshot: &DynamicObject, quarantine: &str, claim: &str) -> bool {
    snapshot.annotations().get(SEAL).is_some_and(|seal| seal == quarantine)
        && snapshot.data["spec"]["source"]["persistentVolumeClaimName"] == claim
        && snapshot.metadata.deletion_timestamp.is_none()
}

/// A VolumeSnapshotClass, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    name: String,
    driver: String,
    default: bool,
}

async fn classes(client: &Client, kind: &ApiResource) -> Result<Vec<Class>, IoError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let all = pages(&kind.plural, async |params: ListParams| {
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

/// The class for a driver: the only one, or the one that is marked as the default. Else why there is none.
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

/// Tells one sealing from another: of the same Quarantine, by the capture that was before it. The same through all tries.
fn seal(quarantine: &str, before: Option<&str>) -> String {
    let both = format!("{quarantine}/{}", before.unwrap_or_default());
    digest(both.as_bytes()).chars().take(8).collect()
}

/// A name that is the same at each try, and another for each claim, however long that one's is.
fn name(seal: &str, claim: &str, uid: &str) -> String {
    let name = format!("resurgam-{seal}-{claim}");
    if name.len() <= NAME {
        return name;
    }
    let end: String = digest(format!("{claim}/{uid}").as_bytes()).chars().take(8).collect();
    // Names are ASCII. A label within one begins and ends with a letter or a digit.
    let start: String = name.chars().take(NAME - 1 - end.len()).collect();
    format!("{}-{end}", start.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn class(name: &str, driver: &str, default: bool) -> Class {
        Class { name: name.into(), driver: driver.into(), default }
    }

    #[test]
    fn the_class_is_the_only_one_for_the_driver_or_its_default() {
        let both = [class("a", "ebs", false), class("b", "ebs", true), class("c", "nfs", true)];
        for (driver, classes, expected) in [
            ("ebs", &both[..], Ok("b")),
            ("nfs", &both[..], Ok("c")),
            ("ebs", &both[..1], Ok("a")),
            ("disk", &both[..], Err("no VolumeSnapshotClass for driver disk")),
            ("ebs", &[class("a", "ebs", false), class("b", "ebs", false)], Err("a, b")),
            ("ebs", &[class("a", "ebs", true), class("b", "ebs", true)], Err("a, b")),
        ] {
            match (choose(driver, classes), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{found:?} for {expected:?}"),
            }
        }
    }

    #[test]
    fn a_name_is_bounded_and_each_claims_and_each_sealings_own() {
        let first = seal("quarantine", None);
        assert_eq!(name(&first, "data", "u"), format!("resurgam-{first}-data"));
        assert_ne!(seal("quarantine", None), seal("quarantine", Some("sha256:0")));
        assert_ne!(seal("quarantine", None), seal("another", None));
        let long = |end: &str| name(&first, &format!("{}{end}", "a".repeat(249)), "u");
        assert_eq!(long("1").len(), NAME);
        assert_ne!(long("1"), long("2"));
        let dotted = name(&first, &format!("{}.{}", "a".repeat(225), "b".repeat(20)), "u");
        assert!(dotted.len() <= NAME && !dotted.contains(".-"), "{dotted}");
    }

    #[test]
    fn only_bound_claims_have_a_volume() {
        let claim = |phase: &str, volume: Option<&str>| -> PersistentVolumeClaim {
            let claim = json!({"spec": {"volumeName": volume}, "status": {"phase": phase}});
            serde_json::from_value(claim).unwrap()
        };
        assert_eq!(
            bound(&claim("Bound", Some("pv-1"))).map(|(_, volume)| volume.to_owned()).as_deref(),
            Some("pv-1")
        );
        assert!(bound(&claim("Pending", None)).is_none());
        assert!(bound(&claim("Lost", Some("pv-1"))).is_none());
        assert!(bound(&PersistentVolumeClaim::default()).is_none());
    }

    #[test]
    fn a_snapshot_that_somebody_else_put_there_is_not_taken_for_ours() {
        let there = |seal: &str, claim: &str| -> DynamicObject {
            let annotations = BTreeMap::from([(SEAL, seal)]);
            serde_json::from_value(json!({
                "metadata": {"name": "s", "annotations": annotations},
                "spec": {"source": {"persistentVolumeClaimName": claim}},
            }))
            .unwrap()
        };
        assert!(is_ours(&there("uid", "data"), "uid", "data"));
        assert!(!is_ours(&there("other", "data"), "uid", "data"));
        assert!(!is_ours(&there("uid", "empty"), "uid", "data"));
    }
}
