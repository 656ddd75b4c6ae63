//! Gate `jobResult` with Jobs on a real API server. Their pods end as a fake node has it; what the operator says of the inspection namespace
//! the tests say. `isolation::inspection` has both for real, and the fence.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::wait::conditions;
use resurgam::api::gate::{InspectedVolume, JobResultSpec, SnapshotOf};
use resurgam::api::{Aspect, DnsLabel, Quarantine};
use resurgam_core::gates::job_result as core;

use super::backup_before::{SNAPSHOTS, install, of_kind, put, status};
use super::*;

fn spec(namespace: &str, env: &Value) -> JobResultSpec {
    let image = format!("registry.example/scanner@{GOOD}");
    let pod =
        json!({"containers": [{"name": "scan", "image": image, "command": ["scan", "/data"], "env": env}]});
    JobResultSpec {
        inspection_namespace: DnsLabel(namespace.to_owned()),
        looks_at: vec![Aspect::Volumes],
        pod: pod.as_object().unwrap().clone(),
        ..JobResultSpec::default()
    }
}

/// Ends with this code and these words.
fn ends(code: &str, result: &str) -> Value {
    json!([{"name": "KWOK_EXIT_CODE", "value": code}, {"name": "KWOK_RESULT", "value": result}])
}

fn question(bench: &Bench, name: &str, spec: &JobResultSpec, attempt: i64) -> Question {
    let gate = GateSpec { name: name.into(), job_result: Some(spec.clone()), ..GateSpec::default() };
    let mut question = Question::new(bench.namespace, vec!["shop".into()], Phase::BeforeRestore, gate);
    (question.plan, question.service, question.attempt) = ("council".into(), "shop".into(), attempt);
    question
}

/// A bench whose account may do what the gate needs, in its own namespace, which is said to be an inspection namespace.
async fn inspection(namespace: &'static str) -> Bench {
    let rules = json!([
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list", "delete"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]);
    let bench = Bench::new(namespace, rules).await;
    for crd in resurgam::api::crds().into_iter().filter(|crd| crd.name_any().starts_with("quarantines.")) {
        let api: Api<CustomResourceDefinition> = Api::all(bench.administrator.clone());
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await.unwrap();
        within(&name, await_condition(api, &name, conditions::is_crd_established())).await.unwrap();
    }
    quarantine(&bench, "CleanRoom").await;
    bench
}

/// Says that the namespace's Quarantine is Ready at a level.
async fn quarantine(bench: &Bench, level: &str) {
    let api: Api<Quarantine> = Api::all(bench.administrator.clone());
    let head = json!({"apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": bench.namespace}});
    let mut object = head.clone();
    object["spec"] = json!({"isolation": "Sealed", "purpose": "Inspection", "reason": "a test"});
    let params = PatchParams::apply("test").force();
    let generation =
        api.patch(bench.namespace, &params, &Patch::Apply(&object)).await.unwrap().metadata.generation;
    let mut object = head;
    object["status"] = json!({
        "observedGeneration": generation, "isolation": level,
        "controls": [{"name": "Network", "state": "Enforced", "message": ""}],
        "conditions": [{"type": "Ready", "status": "True", "reason": level, "message": "",
            "lastTransitionTime": "2025-11-24T03:00:00Z"}],
    });
    api.patch_status(bench.namespace, &params, &Patch::Apply(&object)).await.unwrap();
}

/// Lets the account do something to objects of the cluster.
async fn grant_in_cluster(bench: &Bench, what: &str, rules: Value) {
    let name = format!("{}-{what}", bench.namespace);
    let head = |kind: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}});
    let (mut role, mut binding) = (head("ClusterRole"), head("ClusterRoleBinding"));
    role["rules"] = rules;
    binding["roleRef"] =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    binding["subjects"] =
        json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": bench.namespace}]);
    rehearsal::apply(&bench.administrator, "platform", &[role, binding]).await.unwrap();
}

/// Lets the account read the Quarantine, which is of the cluster.
async fn grant(bench: &Bench) {
    let rules = json!([{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "verbs": ["get"]}]);
    grant_in_cluster(bench, "quarantine", rules).await;
}

/// Asks until the answer is another than that the Job runs.
async fn result(bench: &Bench, question: &Question) -> Answer {
    within("the result", async {
        loop {
            let answer = bench.asker.ask(&bench.account, question).await;
            let is_on_its_way = ["InProgress", "Forbidden"].contains(&answer.reason.as_str());
            if !is_on_its_way {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
}

async fn jobs(bench: &Bench) -> Vec<String> {
    let found = bench.api::<Job>().list(&ListParams::default()).await.unwrap();
    found
        .items
        .iter()
        .filter(|job| job.metadata.deletion_timestamp.is_none())
        .map(ResourceExt::name_any)
        .collect()
}

#[tokio::test]
async fn program_that_finds_nothing_passes_and_runs_once() {
    let bench = inspection("gates-job").await;
    let spec = spec(bench.namespace, &ends("0", "12 files, none matches"));
    let first = question(&bench, "scan", &spec, 1);
    let answer = bench.asker.ask(&bench.account, &first).await;
    assert_eq!(says(&answer), (Unknown, "Forbidden"), "{answer:?}");
    assert!(answer.message.contains("Quarantine gates-job"), "{answer:?}");
    assert_eq!(jobs(&bench).await, Vec::<String>::new(), "nothing runs before it is known where");
    grant(&bench).await;
    let answer = result(&bench, &first).await;
    assert_eq!(says(&answer), (Pass, "NothingDetected"), "{answer:?}");
    assert!(answer.message.contains("12 files, none matches"), "{answer:?}");
    // The log is evidence by its digest, and a log that is not there is told.
    assert!(answer.exceptions[0].contains("is not part of the evidence"), "{answer:?}");
    control_plane().await.write_container_logs(&["canary-in-the-log"], &[]).unwrap();
    let logged = result(&bench, &first).await;
    assert_eq!((says(&logged), logged.exceptions.len()), ((Pass, "NothingDetected"), 0), "{logged:?}");
    assert!(!format!("{logged:?}").contains("canary"), "{logged:?}");
    assert_ne!(logged.evidence, answer.evidence);
    assert_eq!(result(&bench, &first).await, logged);
    let own = core::name(&spec, &first);
    assert_eq!(jobs(&bench).await, [own.as_str()]);

    // The next attempt runs it again, and what was before goes.
    let second = question(&bench, "scan", &spec, 2);
    let answer = bench.asker.ask(&bench.account, &second).await;
    assert_eq!(says(&answer), (Unknown, "InProgress"), "{answer:?}");
    assert_eq!(says(&result(&bench, &second).await), (Pass, "NothingDetected"));
    assert_eq!(jobs(&bench).await, [core::name(&spec, &second)]);
    // So does another time of compromise, within an attempt.
    let mut moved = question(&bench, "scan", &spec, 2);
    moved.compromised_since = Some("2025-11-20T03:00:00Z".parse().unwrap());
    assert_eq!(says(&bench.asker.ask(&bench.account, &moved).await), (Unknown, "InProgress"));
}

#[tokio::test]
async fn exit_codes_of_real_jobs_are_told_apart() {
    let bench = inspection("gates-job-codes").await;
    grant(&bench).await;
    for (name, code, words, expected) in [
        ("found", "1", "miner.elf matches Miner", (Fail, "Detected")),
        ("broken", "2", "no rules", (Unknown, "NoResult")),
        ("killed", "137", "", (Unknown, "NoResult")),
        ("empty", "0", "", (Unknown, "ResultEmpty")),
    ] {
        let question = question(&bench, name, &spec(bench.namespace, &ends(code, words)), 1);
        let answer = result(&bench, &question).await;
        assert_eq!(says(&answer), expected, "{answer:?}");
        assert!(answer.message.contains(words), "{answer:?}");
    }
}

#[tokio::test]
async fn result_that_was_not_read_in_time_is_unknown() {
    let bench = inspection("gates-job-gone").await;
    grant(&bench).await;
    let spec_of = |env: &Value| spec(bench.namespace, env);
    let gone = spec_of(&ends("0", "12 files"));
    let question_of = |name: &str, spec: &JobResultSpec| question(&bench, name, spec, 1);
    let asked = question_of("gone", &gone);
    assert_eq!(says(&result(&bench, &asked).await), (Pass, "NothingDetected"));
    let pods = bench.api::<Pod>();
    pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    within("the pod to be gone", async {
        while !pods.list(&ListParams::default()).await.unwrap().items.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(says(&result(&bench, &asked).await), (Unknown, "PodGone"));

    // Nowhere can it run, and then its time is over.
    let mut late = spec_of(&ends("0", "12 files"));
    late.pod.insert("nodeSelector".into(), json!({"nobody": "has-this"}));
    late.deadline = Some("2s".parse().unwrap());
    let asked = question_of("late", &late);
    let answer = bench.asker.ask(&bench.account, &asked).await;
    assert_eq!(says(&answer), (Unknown, "InProgress"), "{answer:?}");
    assert!(
        answer.message.contains(&format!("Job gates-job-gone/{}", core::name(&late, &asked))),
        "{answer:?}"
    );
    assert_eq!(says(&result(&bench, &asked).await), (Unknown, "JobDeadline"));

    // A Job of that name that somebody else has created.
    let planted = spec_of(&ends("0", "all is well"));
    let asked = question_of("planted", &planted);
    let name = core::name(&planted, &asked);
    bench
        .create::<Job>(json!({"metadata": {"name": name}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": planted.pod["containers"]}}}}))
        .await;
    let answer = result(&bench, &asked).await;
    assert_eq!(says(&answer), (Unknown, "JobDiffers"), "{answer:?}");

    let malformed = {
        let mut spec = spec_of(&json!([]));
        spec.pod["containers"][0]["image"] = json!("scanner:latest");
        spec
    };
    assert_eq!(says(&result(&bench, &question_of("tag", &malformed)).await), (Unknown, "Malformed"));
}

#[tokio::test]
async fn nothing_is_created_outside_an_inspection_namespace() {
    let bench = inspection("gates-job-where").await;
    grant(&bench).await;
    let spec_in = |namespace: &str| spec(namespace, &ends("0", "12 files"));
    quarantine(&bench, "Sealed").await;
    let asked = question(&bench, "scan", &spec_in(bench.namespace), 1);
    let answer = result(&bench, &asked).await;
    assert_eq!(says(&answer), (Unknown, "NotIsolated"), "{answer:?}");
    let answer = result(&bench, &question(&bench, "scan", &spec_in("default"), 1)).await;
    assert_eq!(says(&answer), (Unknown, "NotIsolated"), "{answer:?}");
    assert!(answer.message.contains("it has no Quarantine"), "{answer:?}");
    let continuous = Question { phase: Phase::Continuous, ..asked };
    let answer = result(&bench, &continuous).await;
    assert_eq!(says(&answer), (Unknown, "NotApplicable"), "{answer:?}");
    assert_eq!(jobs(&bench).await, Vec::<String>::new());
}

/// What a plan's account is granted for volumes, here in all namespaces.
async fn grant_volumes(bench: &Bench) {
    let rules = json!([
        {"apiGroups": [SNAPSHOTS], "resources": ["volumesnapshots", "volumesnapshotcontents"], "verbs": ["get", "list", "create"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "create"]},
    ]);
    grant_in_cluster(bench, "volumes", rules).await;
}

/// The driver is a stand-in: a volume that this test makes for the claim, as a provisioner would of the snapshot that it names.
#[tokio::test]
async fn program_sees_the_volume_as_it_was_when_it_was_sealed() {
    let bench = inspection("gates-job-volumes").await;
    let shop = Bench::new("gates-job-shop", json!([])).await;
    grant(&bench).await;
    install(&bench, SNAPSHOTS).await;
    let mut spec = spec(bench.namespace, &ends("0", "12 files"));
    spec.volumes = vec![InspectedVolume {
        name: "data".into(),
        from_snapshot_of: SnapshotOf { claim: "data".into(), namespace: None },
        mount_path: "/data".into(),
        storage_class: None,
    }];
    let mut asked = question(&bench, "scan", &spec, 1);
    asked.namespaces = vec![shop.namespace.into()];
    asked.seals.insert(shop.namespace.into(), Seal { uid: "seal".into(), ..Seal::default() });
    let reason = async || bench.asker.ask(&bench.account, &asked).await;
    let answer = within("the right to read the Quarantine", async {
        loop {
            let answer = reason().await;
            if !answer.message.contains("quarantines") {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(says(&answer), (Unknown, "Forbidden"), "{answer:?}");
    assert!(answer.message.contains("volumesnapshots in namespace gates-job-shop"), "{answer:?}");
    grant_volumes(&bench).await;
    let missing = result(&bench, &asked).await;
    assert_eq!(says(&missing), (Unknown, "SnapshotMissing"), "{missing:?}");
    assert!(missing.message.contains("claim gates-job-shop/data"), "{missing:?}");

    let (snapshots, contents) =
        (of_kind(&shop, SNAPSHOTS, "VolumeSnapshot"), of_kind(&shop, SNAPSHOTS, "VolumeSnapshotContent"));
    let head = |kind: &str, name: &str| json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": kind, "metadata": {"name": name}});
    let mut snapshot = head("VolumeSnapshot", "resurgam-1-data");
    snapshot["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "resurgam"});
    snapshot["metadata"]["annotations"] = json!({"resurgam.dev/seal": "seal"});
    snapshot["spec"] = json!({"source": {"persistentVolumeClaimName": "data"}});
    let uid = put(&snapshots, snapshot).await.metadata.uid.unwrap();
    let ready = json!({"boundVolumeSnapshotContentName": "gates-job-shop-content", "readyToUse": true});
    status(&snapshots, "resurgam-1-data", ready).await;
    assert_eq!(says(&result(&bench, &asked).await), (Unknown, "SnapshotNotReady"));
    let mut content = head("VolumeSnapshotContent", "gates-job-shop-content");
    content["spec"] =
        json!({"driver": "disks.example", "deletionPolicy": "Retain", "volumeSnapshotRef": {"uid": uid}});
    put(&contents, content).await;
    let cut = json!({"readyToUse": true, "snapshotHandle": "s-1", "restoreSize": 1 << 20});
    status(&contents, "gates-job-shop-content", cut).await;
    assert_eq!(jobs(&bench).await, Vec::<String>::new(), "nothing runs without its volumes");

    let answer = reason().await;
    assert_eq!(says(&answer), (Unknown, "InProgress"), "{answer:?}");
    let job = core::name(&spec, &asked);
    let claim = core::claim_name(&job, 0);
    let copy = contents.get(&format!("gates-job-volumes-{claim}")).await.unwrap();
    assert_eq!(copy.data["spec"]["source"]["snapshotHandle"], "s-1");
    assert_eq!(copy.data["spec"]["deletionPolicy"], "Retain");
    of_kind(&bench, SNAPSHOTS, "VolumeSnapshot").get(&claim).await.unwrap();
    let made = bench.api::<PersistentVolumeClaim>().get(&claim).await.unwrap();
    assert_eq!(made.spec.unwrap().data_source_ref.unwrap().name, claim);
    // Asked again, it creates nothing more and finds what is there.
    assert_eq!(says(&reason().await), (Unknown, "InProgress"));

    let volume = json!({"metadata": {"name": format!("gates-job-volumes-{claim}")}, "spec": {
        "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "", "claimRef": {"namespace": bench.namespace, "name": claim},
        "csi": {"driver": "disks.example", "volumeHandle": "v-1"},
    }});
    let volumes: Api<PersistentVolume> = Api::all(bench.administrator.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    let answer = result(&bench, &asked).await;
    assert_eq!(says(&answer), (Pass, "NothingDetected"), "{answer:?}");
    let pods = bench.api::<Pod>().list(&ListParams::default()).await.unwrap();
    let mounts = pods.items[0].spec.as_ref().unwrap().containers[0].volume_mounts.clone().unwrap();
    assert_eq!((mounts[0].mount_path.as_str(), mounts[0].read_only), ("/data", Some(true)));
}
