//! Every way in which a recovery point passes, fails or is not known.

use serde_json::json;

use super::*;
use crate::api::gate::{BackupObject, BackupObjects, BackupSnapshot, VeleroBackup};
use crate::api::{GateSpec, Phase, Verdict};

const SINCE: &str = "2025-11-24T03:00:00Z";
/// SHA-256 of nothing, as S3 and as a plan write it.
const BASE64: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn question() -> Question {
    let spec = GateSpec { name: "backup".into(), ..GateSpec::default() };
    let mut question = Question::new("recovery", vec!["shop".into()], Phase::BeforeRestore, spec);
    question.compromised_since = Some(SINCE.parse().unwrap());
    question
}

fn says(answer: &Answer) -> (Verdict, &str) {
    (answer.verdict, answer.reason.as_str())
}

fn headers(changes: &[(&str, &str)]) -> StoredObject {
    let mut all = vec![
        ("last-modified", "Thu, 20 Nov 2025 02:00:00 GMT"),
        ("content-length", "7"),
        ("etag", "\"d41d8cd98f00b204e9800998ecf8427e\""),
        ("x-amz-version-id", "v1"),
    ];
    all.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    all.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    StoredObject::from_headers(|name| all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
}

fn of_bucket(keys: Vec<BackupObject>, older_by: Option<&str>) -> BackupBeforeSpec {
    let objects = BackupObjects { bucket: "council".into(), keys, ..BackupObjects::default() };
    BackupBeforeSpec {
        objects: Some(objects),
        older_by: older_by.map(|by| by.parse().unwrap()),
        ..BackupBeforeSpec::default()
    }
}

fn key(key: &str) -> BackupObject {
    BackupObject { key: key.into(), ..BackupObject::default() }
}

fn judged(spec: &BackupBeforeSpec, encrypted: bool, objects: Vec<StoredObject>) -> Answer {
    let objects = objects.into_iter().map(Ok).collect();
    judge(spec, &question(), &RecoveryPoint::Objects { encrypted, objects })
}

#[test]
fn object_passes_only_if_complete_and_older() {
    use Verdict::{Fail, Pass, Unknown};
    let exactly = BackupObject { size: Some(7), sha256: Some(HEX.into()), ..key("db") };
    let version = BackupObject { version_id: Some("v1".into()), ..key("db") };
    let parts = ("etag", "\"d41d8cd98f00b204e9800998ecf8427e-3\"");
    let digest = ("x-amz-checksum-sha256", BASE64);
    for (asked, older_by, changes, expected) in [
        (key("db"), None, vec![], (Pass, "BackupOlder")),
        (version.clone(), None, vec![], (Pass, "BackupOlder")),
        (version.clone(), None, vec![("x-amz-version-id", "v2")], (Unknown, "StoreError")),
        (version, None, vec![("x-amz-version-id", "")], (Unknown, "StoreError")),
        (exactly.clone(), None, vec![digest], (Pass, "BackupOlder")),
        (exactly.clone(), None, vec![digest, ("content-length", "8")], (Fail, "BackupDiffers")),
        (
            exactly.clone(),
            None,
            vec![("x-amz-checksum-sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
            (Fail, "BackupDiffers"),
        ),
        (exactly.clone(), None, vec![], (Unknown, "ChecksumUnknown")),
        (exactly.clone(), None, vec![("x-amz-checksum-sha256", "no base64")], (Unknown, "ChecksumUnknown")),
        (exactly, None, vec![("x-amz-checksum-sha256", "47DEQpj8HBSa-3")], (Unknown, "ChecksumUnknown")),
        (key("db"), None, vec![("content-length", "0")], (Fail, "BackupEmpty")),
        (key("db"), None, vec![("content-length", "")], (Unknown, "StoreError")),
        (key("db"), None, vec![("content-length", "-1")], (Unknown, "StoreError")),
        (key("db"), None, vec![("last-modified", "")], (Unknown, "BackupTimeUnknown")),
        (key("db"), None, vec![("last-modified", "yesterday")], (Unknown, "BackupTimeUnknown")),
        (key("db"), None, vec![("last-modified", "Mon, 24 Nov 2025 02:59:59 GMT")], (Pass, "BackupOlder")),
        (key("db"), None, vec![("last-modified", "Mon, 24 Nov 2025 03:00:00 GMT")], (Fail, "BackupTooNew")),
        (key("db"), Some("5d"), vec![], (Fail, "BackupTooNew")),
        (key("db"), Some("4d"), vec![], (Pass, "BackupOlder")),
        (key("db"), Some("500000000w"), vec![], (Fail, "BackupTooNew")),
        (key("db"), None, vec![parts], (Unknown, "UploadEndUnknown")),
        (
            key("db"),
            None,
            vec![parts, ("last-modified", "Mon, 24 Nov 2025 04:00:00 GMT")],
            (Fail, "BackupTooNew"),
        ),
        (key("db"), Some("1d"), vec![parts], (Pass, "BackupOlder")),
    ] {
        let answer = judged(&of_bucket(vec![asked.clone()], older_by), true, vec![headers(&changes)]);
        assert_eq!(says(&answer), expected, "{asked:?} {changes:?}: {}", answer.message);
        assert_eq!(answer.evidence.is_some(), answer.verdict != Unknown);
        assert!(answer.verdict == Pass || answer.message.starts_with("council/db: "), "{}", answer.message);
        assert!(answer.exceptions.is_empty());
    }
}

#[test]
fn all_objects_have_to_exist_and_the_newest_counts() {
    let spec = of_bucket(vec![key("a"), key("b")], None);
    let newer = ("last-modified", "Fri, 21 Nov 2025 02:00:00 GMT");
    let locked = [
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-object-lock-retain-until-date", "2026-11-20T02:00:00Z"),
    ];
    let answer = judged(&spec, true, vec![headers(&[]), headers(&[newer, locked[0], locked[1]])]);
    assert_eq!(
        answer.message,
        "2 objects are complete, the newest, council/b, of 2025-11-21T02:00:00Z, older than 2025-11-24T03:00:00Z; version v1; 1 of 2 \
         locked"
    );
    let answer = judged(&of_bucket(vec![key("a")], None), true, vec![headers(&locked)]);
    assert!(answer.message.ends_with("locked, COMPLIANCE until 2026-11-20T02:00:00Z"), "{}", answer.message);
    let missing = EndpointError { reason: GateReason::BackupMissing, message: "is missing".into() };
    let objects = vec![Ok(headers(&[])), Err(missing)];
    let answer = judge(&spec, &question(), &RecoveryPoint::Objects { encrypted: true, objects });
    assert_eq!(
        (says(&answer), answer.message.as_str()),
        ((Verdict::Unknown, "BackupMissing"), "council/b: is missing")
    );
    for (keys, objects) in [(vec![], vec![]), (vec![key("a")], vec![]), (vec![], vec![headers(&[])])] {
        let answer = judged(&of_bucket(keys, None), true, objects);
        assert_eq!(says(&answer), (Verdict::Unknown, "Malformed"));
    }
}

#[test]
fn answer_without_tls_passes_as_an_exception() {
    let answer = judged(&of_bucket(vec![key("a")], None), false, vec![headers(&[])]);
    assert_eq!(answer.verdict, Verdict::Pass);
    assert_eq!(
        answer.exceptions,
        [
            "gate 'backup' (beforeRestore): bucket council: the store answered by http, which whoever is on the way can forge"
        ]
    );
}

#[test]
fn another_time_of_compromise_is_another_answer() {
    let spec = of_bucket(vec![key("a")], None);
    let point = || RecoveryPoint::Objects { encrypted: true, objects: vec![Ok(headers(&[]))] };
    let at = |since: Option<&str>| {
        let since = since.map(|since| since.parse().unwrap());
        judge(&spec, &Question { compromised_since: since, ..question() }, &point())
    };
    let (later, sooner) = (at(Some(SINCE)), at(Some("2025-11-23T03:00:00Z")));
    assert_eq!((later.verdict, sooner.verdict), (Verdict::Pass, Verdict::Pass));
    assert_ne!(later.evidence, sooner.evidence);
    assert_eq!(says(&at(Some("2025-11-19T03:00:00Z"))), (Verdict::Fail, "BackupTooNew"));
    assert_eq!(says(&at(None)), (Verdict::Unknown, "NoCompromiseTime"));
}

#[test]
fn a_key_that_a_url_does_not_keep_is_a_problem() {
    for key in ["backups/db/base.tar", "a b/ü?#%2e", "..a/b..", "/a//b/"] {
        assert_eq!(key_problem(key), None, "{key}");
    }
    for key in ["", "..", "a/../b", "./a", "a/.", "a\nb"] {
        assert!(key_problem(key).is_some(), "{key}");
    }
}

fn of_snapshot() -> BackupBeforeSpec {
    let volume_snapshot = Some(BackupSnapshot { name: "db".into(), namespace: None });
    BackupBeforeSpec { volume_snapshot, ..BackupBeforeSpec::default() }
}

fn snapshot() -> Value {
    json!({
        "metadata": {"uid": "u"},
        "status": {"boundVolumeSnapshotContentName": "content", "readyToUse": true},
    })
}

fn content() -> Value {
    json!({
        "metadata": {"uid": "c", "managedFields": [{
            "manager": "snapshotter", "time": "2025-11-20T02:00:05Z", "fieldsV1": {"f:status": {"f:creationTime": {}}},
        }]},
        "spec": {"driver": "disks", "volumeSnapshotRef": {"name": "db", "namespace": "shop", "uid": "u"}},
        // 2025-11-20T02:00:00Z
        "status": {"creationTime": 1_763_604_000_000_000_000_i64, "readyToUse": true, "snapshotHandle": "h"},
    })
}

/// Merges a change into an object.
fn with(mut object: Value, change: &Value) -> Value {
    fn merge(object: &mut Value, change: &Value) {
        match change {
            Value::Object(fields) => {
                fields.iter().for_each(|(key, field)| merge(&mut object[key.as_str()], field))
            }
            other => *object = other.clone(),
        }
    }
    merge(&mut object, change);
    object
}

#[test]
fn snapshot_passes_only_if_bound_ready_and_older() {
    use Verdict::{Fail, Pass, Unknown};
    let none = json!({});
    let status = |field: &str, value: Value| json!({"status": {field: value}});
    let reference = |field: &str, value: Value| json!({"spec": {"volumeSnapshotRef": {field: value}}});
    let fields = |entry: Value| json!({"metadata": {"managedFields": [entry]}});
    let late = json!({"manager": "curl", "time": "2025-11-24T03:00:00Z", "fieldsV1": {"f:status": {"f:creationTime": {}}}});
    for (of_snapshot_change, of_content, expected) in [
        (none.clone(), none.clone(), (Pass, "BackupOlder")),
        (status("boundVolumeSnapshotContentName", json!(null)), none.clone(), (Unknown, "BackupNotReady")),
        (status("boundVolumeSnapshotContentName", json!("")), none.clone(), (Unknown, "BackupNotReady")),
        (json!({"status": null}), none.clone(), (Unknown, "BackupNotReady")),
        (status("readyToUse", json!(false)), none.clone(), (Unknown, "BackupNotReady")),
        (status("readyToUse", json!("true")), none.clone(), (Unknown, "BackupNotReady")),
        (status("error", json!({"message": "disk full"})), none.clone(), (Unknown, "BackupNotReady")),
        (json!({"metadata": {"deletionTimestamp": SINCE}}), none.clone(), (Unknown, "BackupNotReady")),
        (json!({"metadata": {"uid": null}}), none.clone(), (Unknown, "BackupNotReady")),
        (json!({"metadata": {"uid": "v"}}), none.clone(), (Fail, "BackupMismatch")),
        (none.clone(), reference("name", json!("other")), (Fail, "BackupMismatch")),
        (none.clone(), reference("namespace", json!("other")), (Fail, "BackupMismatch")),
        (none.clone(), reference("uid", json!(null)), (Unknown, "BackupNotReady")),
        (none.clone(), json!({"spec": null}), (Fail, "BackupMismatch")),
        (none.clone(), status("readyToUse", json!(null)), (Unknown, "BackupNotReady")),
        (none.clone(), status("error", json!({"message": null})), (Unknown, "BackupNotReady")),
        (none.clone(), status("creationTime", json!(null)), (Unknown, "BackupTimeUnknown")),
        (none.clone(), status("creationTime", json!("2025-11-20T02:00:00Z")), (Unknown, "BackupTimeUnknown")),
        (none.clone(), status("creationTime", json!(0)), (Unknown, "BackupTimeUnknown")),
        (none.clone(), status("creationTime", json!(1_763_953_200_000_000_000_i64)), (Fail, "BackupTooNew")),
        (none.clone(), json!({"metadata": {"managedFields": null}}), (Unknown, "BackupTimeUnknown")),
        (none.clone(), fields(late), (Unknown, "RecordedLate")),
    ] {
        let point = RecoveryPoint::Snapshot {
            snapshot: Some(with(snapshot(), &of_snapshot_change)),
            content: Some(with(content(), &of_content)),
        };
        let answer = judge(&of_snapshot(), &question(), &point);
        assert_eq!(says(&answer), expected, "{of_snapshot_change} {of_content}: {}", answer.message);
        assert!(answer.message.contains("VolumeSnapshot"), "{}", answer.message);
    }
    for (snapshot, content) in [(None, None), (None, Some(content())), (Some(snapshot()), None)] {
        let answer = judge(&of_snapshot(), &question(), &RecoveryPoint::Snapshot { snapshot, content });
        assert_eq!(says(&answer), (Unknown, "BackupMissing"));
    }
}

#[test]
fn snapshot_of_a_service_of_several_namespaces_names_its_own() {
    let point = || RecoveryPoint::Snapshot { snapshot: Some(snapshot()), content: Some(content()) };
    let several = Question { namespaces: vec!["shop".into(), "bank".into()], ..question() };
    assert_eq!(says(&judge(&of_snapshot(), &several, &point())), (Verdict::Unknown, "Malformed"));
    let mut spec = of_snapshot();
    spec.volume_snapshot.as_mut().unwrap().namespace = Some(crate::api::DnsLabel("shop".into()));
    assert_eq!(judge(&spec, &several, &point()).verdict, Verdict::Pass);
}

#[test]
fn velero_backup_passes_as_an_exception_only() {
    use Verdict::{Fail, Pass, Unknown};
    let velero = Some(VeleroBackup { backup: "nightly".into(), namespace: None });
    let spec = BackupBeforeSpec { velero, ..BackupBeforeSpec::default() };
    let backup = json!({
        "metadata": {"uid": "b", "managedFields": [{
            "manager": "velero-server", "time": "2025-11-20T02:10:00Z", "fieldsV1": {"f:status": {"f:completionTimestamp": {}}},
        }]},
        "status": {"phase": "Completed", "completionTimestamp": "2025-11-20T02:10:00Z"},
    });
    let status = |field: &str, value: &str| json!({"status": {field: value}});
    for (change, expected) in [
        (json!({}), (Pass, "BackupOlder")),
        (json!({"metadata": {"managedFields": null}}), (Pass, "BackupOlder")),
        (status("phase", "PartiallyFailed"), (Fail, "BackupFailed")),
        (status("phase", "Failed"), (Fail, "BackupFailed")),
        (status("phase", "FailedValidation"), (Fail, "BackupFailed")),
        (status("phase", "InProgress"), (Unknown, "BackupNotReady")),
        (status("phase", "WaitingForPluginOperations"), (Unknown, "BackupNotReady")),
        (status("phase", "Finalizing"), (Unknown, "BackupNotReady")),
        (status("phase", "Deleting"), (Unknown, "BackupNotReady")),
        (status("phase", "completed"), (Unknown, "BackupNotReady")),
        (json!({"status": null}), (Unknown, "BackupNotReady")),
        (json!({"metadata": {"deletionTimestamp": SINCE}}), (Unknown, "BackupNotReady")),
        (status("completionTimestamp", ""), (Unknown, "BackupTimeUnknown")),
        (status("completionTimestamp", "yesterday"), (Unknown, "BackupTimeUnknown")),
        (status("completionTimestamp", SINCE), (Fail, "BackupTooNew")),
    ] {
        let answer = judge(&spec, &question(), &RecoveryPoint::Velero(Some(with(backup.clone(), &change))));
        assert_eq!(says(&answer), expected, "{change}: {}", answer.message);
        assert_eq!(answer.exceptions.len(), usize::from(answer.verdict == Pass));
        assert!(answer.message.contains("Backup velero/nightly"), "{}", answer.message);
    }
    let answer = judge(&spec, &question(), &RecoveryPoint::Velero(Some(backup)));
    assert_eq!(
        answer.exceptions,
        [
            "gate 'backup' (beforeRestore): Backup velero/nightly: that it is of 2025-11-20T02:10:00Z was written at \
          2025-11-20T02:10:00Z by 'velero-server'; whoever may update Backups or write the bucket can write it"
        ]
    );
    let answer = judge(&spec, &question(), &RecoveryPoint::Velero(None));
    assert_eq!(says(&answer), (Unknown, "BackupMissing"));
    // What was read is not what was asked.
    let answer = judge(&of_snapshot(), &question(), &RecoveryPoint::Velero(None));
    assert_eq!(says(&answer), (Unknown, "Malformed"));
}
