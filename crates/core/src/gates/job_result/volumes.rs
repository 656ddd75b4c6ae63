//! Volumes that a program looks at: which snapshot each comes from, and the objects that make a volume of it in the inspection namespace.
//!
//! The sealed volume and its snapshot are not touched: a second content names the same snapshot of the storage system, keeps it when it
//! goes, and is bound in the inspection namespace.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::claim_name;
use crate::api::gate::{InspectedVolume, JobResultSpec};
use crate::api::{GateReason, MANAGED_BY_LABEL};
use crate::gates::{Answer, Question};

/// Annotation on a VolumeSnapshot of the operator's: UID of the Quarantine that it was taken for.
const SEAL: &str = "resurgam.dev/seal";
/// API group of VolumeSnapshots.
pub const GROUP: &str = "snapshot.storage.k8s.io";

/// A snapshot of the storage system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSource {
    driver: String,
    handle: String,
    /// Size of a volume that holds it, in bytes.
    size: i64,
    /// `Filesystem` or `Block`, if the content says so.
    mode: Option<String>,
}

/// The objects that make a volume of a snapshot, in the order in which they are created.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeObjects {
    /// Cluster-wide: names the storage system's snapshot.
    pub content: Value,
    /// In the inspection namespace: is bound to the content.
    pub snapshot: Value,
    /// In the inspection namespace: the volume.
    pub claim: PersistentVolumeClaim,
}

/// Returns the namespace of a volume's claim.
///
/// # Errors
/// The verdict Unknown: it is none of the service's, or the gate names none and the service has several.
pub fn namespace<'a>(volume: &'a InspectedVolume, question: &'a Question) -> Result<&'a str, Answer> {
    let claim = &volume.from_snapshot_of.claim;
    let malformed = |why: String| Err(Answer::unknown(GateReason::Malformed, why));
    match (&volume.from_snapshot_of.namespace, question.namespaces.as_slice()) {
        (Some(named), all) if all.contains(&named.0) => Ok(&named.0),
        (Some(named), _) => {
            malformed(format!("claim {claim} is in namespace {}, which is none of the service's", named.0))
        }
        (None, [only]) => Ok(only),
        (None, _) => malformed(format!(
            "the gate must name the namespace of claim {claim}: the service has not exactly one"
        )),
    }
}

/// Returns the snapshot that was taken of a claim when its namespace was sealed, the last one if there are several.
///
/// # Errors
/// The verdict Unknown: there is none, or it is not bound yet.
pub fn choose<'a>(
    volume: &InspectedVolume,
    question: &Question,
    snapshots: &'a [Value],
) -> Result<&'a Value, Answer> {
    let (namespace, claim) = (namespace(volume, question)?, &volume.from_snapshot_of.claim);
    let Some(seal) = question.seals.get(namespace) else {
        let message =
            format!("namespace {namespace} has no Quarantine, so nobody took a snapshot of claim {claim}");
        return Err(Answer::unknown(GateReason::SnapshotMissing, message));
    };
    let is_of_it = |snapshot: &&Value| {
        snapshot["metadata"]["annotations"][SEAL] == *seal.uid
            && snapshot["metadata"]["labels"][MANAGED_BY_LABEL] == "resurgam"
            && snapshot["metadata"]["deletionTimestamp"].is_null()
            && snapshot["spec"]["source"]["persistentVolumeClaimName"] == **claim
    };
    let of_it = snapshots.iter().filter(is_of_it);
    // RFC 3339 in UTC sorts by time.
    let last = of_it.max_by_key(|snapshot| snapshot["metadata"]["creationTimestamp"].as_str());
    last.ok_or_else(|| {
        let message = format!(
            "no VolumeSnapshot of claim {namespace}/{claim} was taken when the namespace was sealed: see status.capture of Quarantine \
             {namespace}"
        );
        Answer::unknown(GateReason::SnapshotMissing, message)
    })
}

/// Returns what a VolumeSnapshot stands for in the storage system. `content`: the one that it names.
///
/// # Errors
/// The verdict Unknown: it is not ready to use, or the content is of another snapshot.
pub fn source(snapshot: &Value, content: Option<&Value>) -> Result<SnapshotSource, Answer> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let name = format!(
        "VolumeSnapshot {}/{}",
        text(&snapshot["metadata"]["namespace"]),
        text(&snapshot["metadata"]["name"])
    );
    let not_ready = |why: &str| Answer::unknown(GateReason::SnapshotNotReady, format!("{name} {why}"));
    let content = content.ok_or_else(|| not_ready("has no content"))?;
    let uid = snapshot["metadata"]["uid"].as_str();
    if uid.is_none() || content["spec"]["volumeSnapshotRef"]["uid"].as_str() != uid {
        return Err(not_ready("names a content that is of another snapshot"));
    }
    if snapshot["status"]["readyToUse"] != true || content["status"]["readyToUse"] != true {
        return Err(not_ready("is not ready to use yet"));
    }
    let driver = content["spec"]["driver"].as_str();
    let handle = content["status"]["snapshotHandle"].as_str();
    let size = content["status"]["restoreSize"].as_i64().filter(|size| *size > 0);
    match (driver, handle, size) {
        (Some(driver), Some(handle), Some(size)) => Ok(SnapshotSource {
            driver: driver.to_owned(),
            handle: handle.to_owned(),
            size,
            mode: content["spec"]["sourceVolumeMode"].as_str().map(str::to_owned),
        }),
        _ => Err(not_ready("has a content that lacks driver, snapshotHandle or restoreSize")),
    }
}

/// Returns the objects that make a volume of a snapshot. They go with the Job, but for the content, which is of the cluster and stays.
#[must_use]
pub fn objects(
    spec: &JobResultSpec,
    (index, volume): (usize, &InspectedVolume),
    (job, job_uid): (&str, &str),
    source: &SnapshotSource,
) -> VolumeObjects {
    let (namespace, name) = (&spec.inspection_namespace.0, claim_name(job, index));
    // Of the cluster, and so named by namespace, too.
    let content_name = format!("{namespace}-{name}");
    let labels = json!({MANAGED_BY_LABEL: "resurgam"});
    let metadata = json!({
        "name": name, "namespace": namespace, "labels": labels,
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": job_uid}],
    });
    let mut content = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "VolumeSnapshotContent",
        "metadata": {"name": content_name, "labels": labels},
        "spec": {
            // The storage system's snapshot is evidence.
            "deletionPolicy": "Retain",
            "driver": source.driver,
            "source": {"snapshotHandle": source.handle},
            "volumeSnapshotRef": {"name": name, "namespace": namespace},
        },
    });
    if let Some(mode) = &source.mode {
        content["spec"]["sourceVolumeMode"] = json!(mode);
    }
    let snapshot = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "VolumeSnapshot",
        "metadata": metadata,
        "spec": {"source": {"volumeSnapshotContentName": content_name}},
    });
    let claim = json!({
        "metadata": metadata,
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": source.size.to_string()}},
            "storageClassName": volume.storage_class,
            "dataSourceRef": {"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": name},
        },
    });
    // What is written here has the type's form.
    let claim = serde_json::from_value(claim).unwrap_or_default();
    VolumeObjects { content, snapshot, claim }
}

/// Returns whether an object that is there says what the one to create says. `found` may say more.
#[must_use]
pub fn is_as_asked(asked: &Value, found: &Value) -> bool {
    match (asked, found) {
        (Value::Object(asked), Value::Object(found)) => asked
            .iter()
            .all(|(key, value)| found.get(key).map_or(value.is_null(), |found| is_as_asked(value, found))),
        (asked, found) => asked == found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::gate::SnapshotOf;
    use crate::api::{DnsLabel, GateSpec, Phase};
    use crate::isolation::Seal;

    fn volume(namespace: Option<&str>) -> InspectedVolume {
        let namespace = namespace.map(|name| DnsLabel(name.into()));
        InspectedVolume {
            name: "data".into(),
            from_snapshot_of: SnapshotOf { claim: "data".into(), namespace },
            mount_path: "/data".into(),
            storage_class: None,
        }
    }

    fn question() -> Question {
        let mut question =
            Question::new("recovery", vec!["shop".into()], Phase::BeforeRestore, GateSpec::default());
        question.seals.insert("shop".into(), Seal { uid: "seal".into(), ..Seal::default() });
        question
    }

    fn snapshot(name: &str, created: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": created,
                "labels": {MANAGED_BY_LABEL: "resurgam"}, "annotations": {SEAL: "seal"}},
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
            "status": {"readyToUse": true},
        })
    }

    fn content() -> Value {
        json!({
            "spec": {"driver": "disks", "sourceVolumeMode": "Filesystem", "volumeSnapshotRef": {"uid": "a"}},
            "status": {"readyToUse": true, "snapshotHandle": "s-1", "restoreSize": 1024},
        })
    }

    #[test]
    fn snapshot_of_this_sealing_is_chosen() {
        let (old, new) = (snapshot("a", "2025-11-24T03:00:00Z"), snapshot("b", "2025-11-24T04:00:00Z"));
        let chosen = |snapshots: &[Value], question: &Question, volume: &InspectedVolume| {
            choose(volume, question, snapshots)
                .map(|found| found["metadata"]["name"].as_str().unwrap().to_owned())
                .map_err(|answer| answer.reason)
        };
        let of = |snapshots: &[Value]| chosen(snapshots, &question(), &volume(None));
        assert_eq!(of(&[new.clone(), old.clone()]), Ok("b".into()));
        for (pointer, value) in [
            ("/metadata/annotations/resurgam.dev~1seal", "an earlier one"),
            ("/metadata/labels/app.kubernetes.io~1managed-by", "somebody"),
            ("/spec/source/persistentVolumeClaimName", "logs"),
        ] {
            let mut other = old.clone();
            *other.pointer_mut(pointer).unwrap() = json!(value);
            assert_eq!(of(&[other]), Err(GateReason::SnapshotMissing), "{pointer}");
        }
        let unsealed = Question { seals: Default::default(), ..question() };
        assert_eq!(
            chosen(std::slice::from_ref(&old), &unsealed, &volume(None)),
            Err(GateReason::SnapshotMissing)
        );
        let elsewhere = chosen(std::slice::from_ref(&old), &question(), &volume(Some("bank")));
        assert_eq!(elsewhere, Err(GateReason::Malformed), "it is of another service");
        let several = Question { namespaces: vec!["shop".into(), "bank".into()], ..question() };
        assert_eq!(chosen(std::slice::from_ref(&old), &several, &volume(None)), Err(GateReason::Malformed));
        assert_eq!(chosen(&[old], &several, &volume(Some("shop"))), Ok("a".into()));
    }

    #[test]
    fn snapshot_that_is_not_ready_or_not_bound_is_unknown() {
        let snapshot = snapshot("a", "2025-11-24T03:00:00Z");
        assert_eq!(source(&snapshot, Some(&content())).unwrap().handle, "s-1");
        assert!(source(&snapshot, None).is_err());
        for (pointer, value) in [
            ("/spec/volumeSnapshotRef/uid", json!("b")),
            ("/spec/driver", json!(null)),
            ("/status/readyToUse", json!(false)),
            ("/status/snapshotHandle", json!(7)),
            ("/status/restoreSize", json!(0)),
        ] {
            let mut other = content();
            *other.pointer_mut(pointer).unwrap() = value;
            assert_eq!(
                source(&snapshot, Some(&other)).unwrap_err().reason,
                GateReason::SnapshotNotReady,
                "{pointer}"
            );
        }
    }

    #[test]
    fn objects_name_the_same_snapshot_and_keep_it() {
        let source = source(&snapshot("a", "2025-11-24T03:00:00Z"), Some(&content())).unwrap();
        let spec =
            JobResultSpec { inspection_namespace: DnsLabel("inspection".into()), ..JobResultSpec::default() };
        let VolumeObjects { content, snapshot, claim } =
            objects(&spec, (0, &volume(None)), ("gate-scan-1-abcdefgh", "job"), &source);
        assert_eq!(content["spec"]["source"]["snapshotHandle"], "s-1");
        assert_eq!(content["spec"]["deletionPolicy"], "Retain");
        assert_eq!(snapshot["spec"]["source"]["volumeSnapshotContentName"], content["metadata"]["name"]);
        let claim = serde_json::to_value(claim).unwrap();
        assert_eq!(claim["metadata"]["name"], "gate-scan-1-abcdefgh-0");
        assert_eq!(claim["spec"]["dataSourceRef"]["name"], snapshot["metadata"]["name"]);
        assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "job");
        let mut found = content.clone();
        found["metadata"]["uid"] = json!("x");
        found["spec"]["volumeSnapshotRef"]["uid"] = json!("y");
        assert!(is_as_asked(&content, &found));
        found["spec"]["source"]["snapshotHandle"] = json!("s-2");
        assert!(!is_as_asked(&content, &found));
    }
}
