//! Gate `backupBefore` on what stands in a bucket, and on VolumeSnapshots and Backups of Velero on a real API server. The kinds are there in
//! their smallest form; what their controllers would write the tests do.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::conditions;
use resurgam::api::gate::{
    BackupBeforeSpec, BackupObject, BackupObjects, BackupSnapshot, CredentialsFrom, VeleroBackup,
};

use super::*;
use bucket::{BUCKET, Server, Version};

mod bucket;
mod versions;

const SINCE: &str = "2025-11-24T03:00:00Z";
/// What no message may hold.
const CANARY: &str = "canary-of-the-secret-key";
const SHA256: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn gate(backup_before: BackupBeforeSpec) -> GateSpec {
    GateSpec { name: "backup".into(), backup_before: Some(backup_before), ..GateSpec::default() }
}

/// Asks as the operator does in attempt 1, with exceptions for loopback.
async fn ask(bench: &Bench, spec: BackupBeforeSpec, since: Option<Timestamp>) -> Answer {
    let asker = Asker::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
    let mut question =
        Question::new(bench.namespace, vec![bench.namespace.into()], Phase::BeforeRestore, gate(spec));
    question.compromised_since = since;
    let answer = asker.ask(&bench.account, &question).await;
    assert!(!format!("{answer:?}").contains(CANARY), "the secret key is in {answer:?}");
    answer
}

fn since() -> Option<Timestamp> {
    Some(SINCE.parse().unwrap())
}

fn key(key: &str) -> BackupObject {
    BackupObject { key: key.into(), ..BackupObject::default() }
}

fn objects(url: &str, secret: &str, keys: Vec<BackupObject>) -> BackupBeforeSpec {
    let secret = ObjectName { name: secret.into() };
    let objects = BackupObjects {
        bucket: BUCKET.into(),
        endpoint: Some(url.into()),
        region: Some("eu-west-2".into()),
        credentials_from: Some(CredentialsFrom { secret }),
        keys,
    };
    BackupBeforeSpec { objects: Some(objects), ..BackupBeforeSpec::default() }
}

/// A bench whose account may read Secret `store`, which holds the credentials of a store.
async fn bench(namespace: &'static str) -> Bench {
    let rules = json!([{"apiGroups": [""], "verbs": ["get"], "resources": ["secrets"],
        "resourceNames": ["store", "wrong", "empty", "missing"]}]);
    let bench = Bench::new(namespace, rules).await;
    for (name, data) in [
        ("store", json!({"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": CANARY})),
        (
            "wrong",
            json!({"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": format!("{CANARY}-of-old")}),
        ),
        ("empty", json!({"AWS_ACCESS_KEY_ID": "access"})),
        ("hidden", json!({"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": CANARY})),
    ] {
        bench.create::<Secret>(json!({"metadata": {"name": name}, "stringData": data})).await;
    }
    bench
}

/// The same, with a server that has these versions.
async fn store(namespace: &'static str, versions: Vec<Version>) -> (Bench, Server) {
    (bench(namespace).await, Server::start(CANARY, versions).await)
}

fn nightly() -> Version {
    Version {
        key: "nightly/db 1.tar",
        id: "v1",
        written: "2025-11-20T02:00:00Z",
        size: 7,
        ..Version::default()
    }
}

#[tokio::test]
async fn object_from_before_the_compromise_passes() {
    let overwritten = Version { id: "v2", written: "2025-11-24T03:10:00Z", ..nightly() };
    let locked = Version {
        key: "nightly/manifest",
        sha256: Some(SHA256),
        retained_until: Some("2026-11-20T02:00:00Z"),
        written: "2025-11-21T02:00:00Z",
        ..nightly()
    };
    let in_parts = Version { key: "in-parts", in_parts: true, ..nightly() };
    let empty = Version { key: "empty", size: 0, ..nightly() };
    let deleted = [
        Version { key: "deleted", ..nightly() },
        Version { key: "deleted", id: "m", is_deleted: true, ..nightly() },
    ];
    let mut versions = vec![nightly(), overwritten, locked, in_parts, empty];
    versions.extend(deleted);
    let (bench, server) = store("gates-backup-objects", versions).await;
    let of = |object: BackupObject| objects(&server.url, "store", vec![object]);
    let version = |name: &str, id: &str| BackupObject { version_id: Some(id.into()), ..key(name) };
    let digest = BackupObject { sha256: Some(HEX.into()), ..key("nightly/manifest") };

    let answer = ask(&bench, of(version("nightly/db 1.tar", "v1")), since()).await;
    assert_eq!(says(&answer), (Pass, "BackupOlder"), "{answer:?}");
    assert!(answer.exceptions[0].contains("answered by http"), "{answer:?}");
    let both = objects(&server.url, "store", vec![version("nightly/db 1.tar", "v1"), digest.clone()]);
    let answer = ask(&bench, both, since()).await;
    assert_eq!(says(&answer), (Pass, "BackupOlder"), "{answer:?}");
    assert!(answer.message.contains("1 of 2 locked") || answer.message.contains("COMPLIANCE"), "{answer:?}");

    for (spec, expected) in [
        // Who overwrites it gives it a newer time.
        (of(key("nightly/db 1.tar")), (Fail, "BackupTooNew")),
        (of(BackupObject { sha256: Some("0".repeat(64)), ..digest.clone() }), (Fail, "BackupDiffers")),
        (of(BackupObject { size: Some(8), ..digest }), (Fail, "BackupDiffers")),
        (of(key("empty")), (Fail, "BackupEmpty")),
        (
            of(BackupObject { sha256: Some(HEX.into()), ..version("nightly/db 1.tar", "v1") }),
            (Unknown, "ChecksumUnknown"),
        ),
        (of(key("in-parts")), (Unknown, "UploadEndUnknown")),
        (
            BackupBeforeSpec { older_by: Some("6h".parse().unwrap()), ..of(key("in-parts")) },
            (Pass, "BackupOlder"),
        ),
        (of(key("nobody")), (Unknown, "BackupMissing")),
        (of(version("nightly/db 1.tar", "v3")), (Unknown, "BackupMissing")),
        (of(key("deleted")), (Unknown, "BackupMissing")),
        (of(version("deleted", "v1")), (Pass, "BackupOlder")),
    ] {
        let answer = ask(&bench, spec.clone(), since()).await;
        assert_eq!(says(&answer), expected, "{spec:?}: {answer:?}");
    }
}

#[tokio::test]
async fn moved_time_of_compromise_is_asked_and_bound_again() {
    let (bench, server) = store("gates-backup-moved", vec![nightly()]).await;
    let of = || objects(&server.url, "store", vec![key("nightly/db 1.tar")]);
    let first = ask(&bench, of(), since()).await;
    assert_eq!(says(&first), (Pass, "BackupOlder"), "{first:?}");
    let later = ask(&bench, of(), Some("2025-11-22T03:00:00Z".parse().unwrap())).await;
    assert_eq!(says(&later), (Pass, "BackupOlder"), "{later:?}");
    assert_ne!(first.evidence, later.evidence);
    let earlier = ask(&bench, of(), Some("2025-11-19T03:00:00Z".parse().unwrap())).await;
    assert_eq!(says(&earlier), (Fail, "BackupTooNew"), "{earlier:?}");
    assert_eq!(says(&ask(&bench, of(), None).await), (Unknown, "NoCompromiseTime"));
}

#[tokio::test]
async fn store_that_states_nothing_is_unknown_and_named() {
    let (bench, server) = store("gates-backup-store", vec![nightly()]).await;
    let of = |url: &str, secret: &str| objects(url, secret, vec![key("nightly/db 1.tar")]);
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let anonymous = {
        let mut spec = of(&server.url, "store");
        spec.objects.as_mut().unwrap().credentials_from = None;
        spec
    };
    for (spec, reason, named) in [
        (of(&server.url, "wrong"), "StoreRefused", "credentials are wrong"),
        (anonymous, "StoreRefused", "without credentials"),
        (of(&server.url, "missing"), "CredentialsMissing", "Secret gates-backup-store/missing"),
        (of(&server.url, "empty"), "CredentialsMissing", "AWS_SECRET_ACCESS_KEY"),
        (of(&server.url, "hidden"), "Forbidden", "Secret gates-backup-store/hidden"),
        (of(&closed, "store"), "CannotConnect", "127.0.0.1"),
        (of(&server.url.replace("http:", "https:"), "store"), "CannotConnect", "127.0.0.1"),
        (of("http://169.254.169.254", "store"), "AddressRefused", "link-local"),
        (of("http://[::1]:9", "store"), "AddressRefused", "loopback"),
    ] {
        let answer = ask(&bench, spec, since()).await;
        assert_eq!(says(&answer), (Unknown, reason), "{answer:?}");
        assert!(answer.message.contains(named), "{named}: {answer:?}");
    }
    let mut question = Question::new(
        bench.namespace,
        vec![],
        Phase::BeforeRestore,
        GateSpec { timeout: Some("300ms".parse().unwrap()), ..gate(of(&silent_url, "store")) },
    );
    question.compromised_since = since();
    let asker = Asker::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
    let answer = asker.ask(&bench.account, &question).await;
    assert_eq!(says(&answer), (Unknown, "TimedOut"), "{answer:?}");
    assert!(answer.message.contains("the store of bucket council"), "{answer:?}");
    // Without an exception, loopback is refused as for http gates.
    let answer = bench.asker.ask(&bench.account, &question).await;
    assert_eq!(says(&answer), (Unknown, "AddressRefused"), "{answer:?}");
}

const KINDS: &str = r"
- {group: snapshot.storage.k8s.io, kind: VolumeSnapshot, plural: volumesnapshots, scope: Namespaced, subresources: {status: {}}}
- {group: snapshot.storage.k8s.io, kind: VolumeSnapshotContent, plural: volumesnapshotcontents, scope: Cluster, subresources: {status: {}}}
- {group: velero.io, kind: Backup, plural: backups, scope: Namespaced, subresources: {}}
";

/// Installs the kinds of one group, as far as they are not there.
pub(super) async fn install(bench: &Bench, group: &str) {
    let kinds: Vec<Value> = serde_yaml::from_str(KINDS).unwrap();
    for kind in kinds.iter().filter(|kind| kind["group"] == group) {
        let name = format!("{}.{group}", kind["plural"].as_str().unwrap());
        let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"}},
            "spec": {
                "group": group, "scope": kind["scope"],
                "names": {"kind": kind["kind"], "plural": kind["plural"]},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": kind["subresources"],
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": any}}}}],
            },
        });
        let api: Api<CustomResourceDefinition> = Api::all(bench.administrator.clone());
        let patch = Patch::Apply(&definition);
        api.patch(&name, &PatchParams::apply("test").force(), &patch).await.unwrap();
        within(&name, await_condition(api, &name, conditions::is_crd_established())).await.unwrap();
    }
}

pub(super) fn of_kind(bench: &Bench, group: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    if kind == "VolumeSnapshotContent" {
        Api::all_with(bench.administrator.clone(), &resource)
    } else {
        Api::namespaced_with(bench.administrator.clone(), bench.namespace, &resource)
    }
}

pub(super) const SNAPSHOTS: &str = "snapshot.storage.k8s.io";

/// Rights to read everything that the gate reads, of the cluster too.
async fn grant_contents(bench: &Bench) {
    let name = format!("{}-contents", bench.namespace);
    let administrator = &bench.administrator;
    let role = json!({"metadata": {"name": name},
        "rules": [{"apiGroups": [SNAPSHOTS], "resources": ["volumesnapshotcontents"], "verbs": ["get"]}]});
    let role = serde_json::from_value(role).unwrap();
    let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(administrator.clone());
    roles.create(&PostParams::default(), &role).await.unwrap();
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "recovery", "namespace": bench.namespace}]});
    let binding = serde_json::from_value(binding).unwrap();
    let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(administrator.clone());
    bindings.create(&PostParams::default(), &binding).await.unwrap();
}

pub(super) async fn put(api: &Api<DynamicObject>, object: Value) -> DynamicObject {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

pub(super) async fn status(api: &Api<DynamicObject>, name: &str, status: Value) {
    let patch = json!({"status": status});
    api.patch_status(name, &PatchParams::apply("snapshotter").clone(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test]
async fn volume_snapshot_passes_once_bound_ready_and_older() {
    let rules = json!([{"apiGroups": [SNAPSHOTS], "verbs": ["get"], "resources": ["volumesnapshots"]}]);
    let bench = Bench::new("gates-backup-volume", rules).await;
    install(&bench, SNAPSHOTS).await;
    let (snapshots, contents) =
        (of_kind(&bench, SNAPSHOTS, "VolumeSnapshot"), of_kind(&bench, SNAPSHOTS, "VolumeSnapshotContent"));
    let named = |name: &str| BackupSnapshot { name: name.into(), namespace: None };
    let spec = || BackupBeforeSpec { volume_snapshot: Some(named("db")), ..BackupBeforeSpec::default() };
    let hour = SignedDuration::from_hours(1);
    let now = Timestamp::now();
    let (soon, ago) = (Some(now + hour), Some(now - hour));

    let answer = ask(&bench, spec(), soon).await;
    assert_eq!(says(&answer), (Unknown, "BackupMissing"), "{answer:?}");
    let head = |kind: &str| json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": kind});
    let mut snapshot = head("VolumeSnapshot");
    snapshot["metadata"] = json!({"name": "db", "namespace": bench.namespace});
    snapshot["spec"] = json!({"source": {"persistentVolumeClaimName": "db"}});
    let uid = put(&snapshots, snapshot).await.metadata.uid.unwrap();
    let answer = ask(&bench, spec(), soon).await;
    assert_eq!(says(&answer), (Unknown, "BackupNotReady"), "{answer:?}");

    let content = "gates-backup-volume-db";
    status(&snapshots, "db", json!({"boundVolumeSnapshotContentName": content, "readyToUse": true})).await;
    let answer = ask(&bench, spec(), soon).await;
    assert_eq!(says(&answer), (Unknown, "Forbidden"), "{answer:?}");
    assert!(answer.message.contains(content), "{answer:?}");
    grant_contents(&bench).await;
    within("the right to read contents", async {
        while says(&ask(&bench, spec(), soon).await) != (Unknown, "BackupMissing") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let mut object = head("VolumeSnapshotContent");
    object["metadata"] = json!({"name": content});
    object["spec"] = json!({"driver": "disks.example", "deletionPolicy": "Retain",
        "volumeSnapshotRef": {"name": "db", "namespace": bench.namespace, "uid": uid}});
    put(&contents, object).await;
    let answer = ask(&bench, spec(), soon).await;
    assert_eq!(says(&answer), (Unknown, "BackupNotReady"), "{answer:?}");

    let made = i64::try_from((now - 2 * hour).as_nanosecond()).unwrap();
    status(&contents, content, json!({"readyToUse": true, "creationTime": made, "snapshotHandle": "s-1"}))
        .await;
    let answer = ask(&bench, spec(), soon).await;
    assert_eq!(says(&answer), (Pass, "BackupOlder"), "{answer:?}");
    assert!(answer.exceptions.is_empty(), "{answer:?}");
    // It says that it is older, and said so too late to be believed.
    let answer = ask(&bench, spec(), ago).await;
    assert_eq!(says(&answer), (Unknown, "RecordedLate"), "{answer:?}");
    let answer = ask(&bench, spec(), Some(now - 3 * hour)).await;
    assert_eq!(says(&answer), (Fail, "BackupTooNew"), "{answer:?}");

    let patch = json!({"spec": {"volumeSnapshotRef": {"uid": "another"}}});
    contents.patch(content, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let answer = ask(&bench, spec(), soon).await;
    assert_eq!(says(&answer), (Fail, "BackupMismatch"), "{answer:?}");
}

#[tokio::test]
async fn velero_backup_passes_as_an_exception_where_it_is_served() {
    let rules = json!([{"apiGroups": ["velero.io"], "verbs": ["get"], "resources": ["backups"]}]);
    let bench = Bench::new("gates-backup-velero", rules).await;
    let spec = || {
        let namespace = Some(resurgam::api::DnsLabel(bench.namespace.to_owned()));
        let velero = Some(VeleroBackup { backup: "nightly".into(), namespace });
        BackupBeforeSpec { velero, ..BackupBeforeSpec::default() }
    };
    let answer = ask(&bench, spec(), since()).await;
    assert_eq!(says(&answer), (Unknown, "KindMissing"), "{answer:?}");
    assert!(answer.message.contains("does not serve backups.velero.io"), "{answer:?}");
    install(&bench, "velero.io").await;
    let answer = ask(&bench, spec(), since()).await;
    assert_eq!(says(&answer), (Unknown, "BackupMissing"), "{answer:?}");
    let backups = of_kind(&bench, "velero.io", "Backup");
    put(
        &backups,
        json!({"apiVersion": "velero.io/v1", "kind": "Backup",
        "metadata": {"name": "nightly", "namespace": bench.namespace}, "spec": {}}),
    )
    .await;
    let completed = "2025-11-20T02:10:00Z";
    for (phase, completed, expected) in [
        ("InProgress", None, (Unknown, "BackupNotReady")),
        ("PartiallyFailed", Some(completed), (Fail, "BackupFailed")),
        ("Completed", None, (Unknown, "BackupTimeUnknown")),
        ("Completed", Some("2025-11-24T03:00:01Z"), (Fail, "BackupTooNew")),
        ("Completed", Some(completed), (Pass, "BackupOlder")),
    ] {
        let patch = json!({"status": {"phase": phase, "completionTimestamp": completed}});
        let params = PatchParams { field_manager: Some("velero-server".into()), ..PatchParams::default() };
        backups.patch("nightly", &params, &Patch::Merge(&patch)).await.unwrap();
        let answer = ask(&bench, spec(), since()).await;
        assert_eq!(says(&answer), expected, "{phase} {completed:?}: {answer:?}");
        if answer.verdict == Pass {
            assert!(answer.exceptions[0].contains("by 'velero-server'"), "{answer:?}");
        }
    }
    let other = Bench::new("gates-backup-velero-other", json!([])).await;
    let answer = ask(&other, spec(), since()).await;
    assert_eq!(says(&answer), (Unknown, "Forbidden"), "{answer:?}");
}
