//! Volumes and snapshots: whether data on disk can be kept before anything is stopped.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};

use super::read::{first_few, list};
use super::{Check, Fact, Outcome};
use crate::text::count;

// Only a warning, although the default install waits for a volume: the values may name another class, an existing claim or a bucket,
// which no API shows. After installation, `evidence-store` is fatal if storing evidence fails.
const CLASS: Check = Check::warning("storage-class", "a default StorageClass is there");
const SNAPSHOTS: Check =
    Check::warning("snapshot-classes", "volumes can be snapshotted before a namespace is sealed");

/// The checks, in display order.
pub const CHECKS: [Check; 2] = [CLASS, SNAPSHOTS];

/// Annotation of the default StorageClass.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// Maximum number of drivers named in a message.
const NAMED: usize = 5;

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// StorageClasses by name, and whether each is the default.
    pub classes: Fact<BTreeMap<String, bool>>,
    /// Number of volumes by CSI driver. The empty name counts those without one.
    pub volumes: Fact<BTreeMap<String, usize>>,
    /// Drivers with a VolumeSnapshotClass. `None`: the kind is not served.
    pub snapshot_drivers: Fact<Option<BTreeSet<String>>>,
}

pub(super) async fn gather(client: &Client) -> Facts {
    let classes: Api<StorageClass> = Api::all(client.clone());
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let (classes, volumes, snapshot_drivers) = futures::join!(
        list(&classes, "StorageClasses"),
        list(&volumes, "PersistentVolumes"),
        snapshot_drivers(client)
    );
    let by_driver = |volumes: Vec<PersistentVolume>| {
        let mut counts = BTreeMap::new();
        for volume in volumes {
            let driver = volume.spec.and_then(|spec| spec.csi).map(|csi| csi.driver).unwrap_or_default();
            *counts.entry(driver).or_default() += 1;
        }
        counts
    };
    let is_default =
        |class: &StorageClass| class.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true");
    Facts {
        classes: classes
            .map(|classes| classes.iter().map(|class| (class.name_any(), is_default(class))).collect())
            .map_err(String::from),
        volumes: volumes.map(by_driver).map_err(String::from),
        snapshot_drivers,
    }
}

async fn snapshot_drivers(client: &Client) -> Fact<Option<BTreeSet<String>>> {
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshotClass");
    let kind = ApiResource::from_gvk_with_plural(&kind, "volumesnapshotclasses");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    match list(&api, "VolumeSnapshotClasses").await {
        Ok(classes) => {
            let driver = |class: &DynamicObject| class.data["driver"].as_str().map(str::to_owned);
            Ok(Some(classes.iter().filter_map(driver).collect()))
        }
        Err(error) if error.is_not_served() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    vec![class(&facts.classes), snapshots(facts)]
}

fn class(classes: &Fact<BTreeMap<String, bool>>) -> Outcome {
    const PENDING: &str = "a default install waits for its evidence volume, and its pod stays Pending";
    const OTHER: &str = "evidence.s3 (a bucket) or evidence.volume.existingClaim";
    let classes = match classes {
        Ok(classes) => classes,
        Err(why) => return CLASS.unknown(why),
    };
    let default: Vec<&String> =
        classes.iter().filter(|(_, default)| **default).map(|(name, _)| name).collect();
    if !default.is_empty() {
        return CLASS.passes(first_few(&default, NAMED));
    }
    if classes.is_empty() {
        return CLASS.fails(format!(
            "no StorageClass is there: {PENDING}. The storage administrator installs a driver and a default StorageClass; or \
             the chart's user sets {OTHER}"
        ));
    }
    let names: Vec<&String> = classes.keys().collect();
    CLASS.fails(format!(
        "no StorageClass is the default one: {PENDING}. The chart's user sets evidence.volume.storageClass ({}), {OTHER}; \
         or the storage administrator makes one the default",
        first_few(&names, NAMED)
    ))
}

fn snapshots(facts: &Facts) -> Outcome {
    const LOST: &str = "what is on those volumes is not part of the evidence";
    let (volumes, drivers) = match (&facts.volumes, &facts.snapshot_drivers) {
        (Ok(volumes), Ok(drivers)) => (volumes, drivers),
        (Err(why), _) | (_, Err(why)) => return SNAPSHOTS.unknown(why),
    };
    if volumes.is_empty() {
        return SNAPSHOTS.does_not_apply("there is no PersistentVolume");
    }
    let without =
        |driver: &&String| !driver.is_empty() && drivers.as_ref().is_none_or(|d| !d.contains(*driver));
    let without: Vec<&String> = volumes.keys().filter(without).collect();
    let mut problems = Vec::new();
    if !without.is_empty() {
        let cause = match drivers {
            None => "the kind VolumeSnapshotClass is not installed (external-snapshotter)",
            Some(_) => "no VolumeSnapshotClass names it",
        };
        problems.push(format!("{}: {cause}", first_few(&without, NAMED)));
    }
    if let Some(number) = volumes.get("") {
        problems.push(format!("{} of no CSI driver, which cannot be snapshotted", count(*number, "volume")));
    }
    if problems.is_empty() {
        let drivers: Vec<&String> = volumes.keys().collect();
        return SNAPSHOTS.passes(first_few(&drivers, NAMED));
    }
    SNAPSHOTS.fails(format!(
        "{}. Where a namespace is sealed, {LOST}. The storage administrator makes a VolumeSnapshotClass for each CSI driver",
        problems.join("; ")
    ))
}
