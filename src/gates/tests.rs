use std::collections::BTreeMap;

use resurgam_core::gates as judges;
use resurgam_core::gates::images::NodeImages;
use resurgam_core::gates::inventory::Inventory;
use serde_json::json;

use super::*;
use crate::api::gate::{ApprovedFrom, HttpSpec, ImageDigestsSpec, ImageTags, WorkloadsSpec};
use crate::api::{ObjectName, Phase, Verdict};
use crate::cluster_cache::Reduce;
use crate::isolation::Seal;

/// A client of an API server that is not there: nothing listens on the port.
fn nobody() -> Account {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    Account { user: "nobody".to_owned(), client: kube::Client::try_from(config).unwrap() }
}

fn question(spec: GateSpec) -> Question {
    Question::new("recovery", vec!["b".into(), "a".into()], Phase::BeforeRelease, spec)
}

fn workloads() -> GateSpec {
    GateSpec { name: "up".into(), workloads: Some(WorkloadsSpec::default()), ..Default::default() }
}

fn http() -> GateSpec {
    GateSpec {
        name: "login".into(),
        http: Some(HttpSpec { url: "http://example.org".into(), status: None }),
        ..Default::default()
    }
}

fn images() -> GateSpec {
    let config_map = ObjectName { name: "approved".into() };
    GateSpec {
        name: "images".into(),
        image_digests: Some(ImageDigestsSpec {
            approved: None,
            approved_from: Some(ApprovedFrom { config_map }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn interests_are_the_objects_that_alter_the_answer() {
    let namespace = |name: &str| name.to_owned();
    let everything = vec![
        Interest::Workloads { namespace: namespace("a") },
        Interest::Workloads { namespace: namespace("b") },
        Interest::Pods { namespace: namespace("a") },
        Interest::Pods { namespace: namespace("b") },
    ];
    assert_eq!(interests(&question(workloads())), everything);
    let list = Interest::ConfigMap { namespace: "recovery".into(), name: "approved".into() };
    assert_eq!(interests(&question(images())), [everything, vec![list]].concat());
    assert_eq!(interests(&question(http())), []);
    assert_eq!(interests(&question(GateSpec::default())), []);
    assert_eq!(interests(&Question { phase: Phase::BeforeRestore, ..question(workloads()) }), []);
}

#[tokio::test]
async fn a_malformed_gate_is_unknown_and_named() {
    let asker = Asker::new(Vec::new()).unwrap();
    let both = GateSpec { http: http().http, ..workloads() };
    let neither = GateSpec { name: "up".into(), ..Default::default() };
    for spec in [both, neither] {
        let answer = asker.ask(&nobody(), &question(spec)).await;
        assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "Malformed"));
        assert!(answer.message.contains("gate up"), "{}", answer.message);
    }
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_unknown() {
    let asker = Asker::new(Vec::new()).unwrap();
    for spec in [workloads(), images()] {
        let answer = asker.ask(&nobody(), &question(spec)).await;
        assert_eq!(answer.verdict, Verdict::Unknown, "{answer:?}");
        assert!(["ApiUnreachable", "TimedOut"].contains(&answer.reason.as_str()), "{answer:?}");
        assert_eq!(answer.evidence, None);
    }
}

#[tokio::test]
async fn workloads_gate_before_restore_is_reported_as_misplaced() {
    let asker = Asker::new(Vec::new()).unwrap();
    let question = Question { phase: Phase::BeforeRestore, ..question(workloads()) };
    let answer = asker.ask(&nobody(), &question).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NotApplicable"));
}

#[tokio::test]
async fn panic_is_unknown_with_its_message() {
    let answer = guarded(DEFAULT_TIMEOUT, String::new, async { panic!("index {} is missing", 7) }).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "Panicked"));
    assert_eq!(answer.message, "the gate panicked: index 7 is missing");
}

#[tokio::test]
async fn timeout_names_the_endpoint() {
    let answer =
        guarded(Duration::from_millis(5), || "keycloak:443".into(), futures::future::pending()).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "TimedOut"));
    assert_eq!(answer.message, "keycloak:443 did not answer within 5ms");
}

#[tokio::test]
async fn a_message_is_cut_where_the_status_has_no_more_room() {
    let long = async { Answer::unknown(GateReason::NoAnswer, "ä".repeat(600)) };
    let message = guarded(DEFAULT_TIMEOUT, String::new, long).await.message;
    assert_eq!(message.chars().count(), 512);
    assert!(message.ends_with("ä…"));
}

/// An inventory as the cache keeps it.
fn reduced(inventory: &Inventory) -> Inventory {
    fn all<K: Reduce + Clone>(objects: &[K]) -> Vec<K> {
        objects.iter().cloned().map(Reduce::reduced).collect()
    }
    Inventory {
        deployments: all(&inventory.deployments),
        stateful_sets: all(&inventory.stateful_sets),
        daemon_sets: all(&inventory.daemon_sets),
        replica_sets: all(&inventory.replica_sets),
        replication_controllers: all(&inventory.replication_controllers),
        jobs: all(&inventory.jobs),
        cron_jobs: all(&inventory.cron_jobs),
        pods: all(&inventory.pods),
    }
}

#[test]
fn whatever_objects_say_of_themselves_every_gate_answers() {
    let meta = |name: &str| {
        json!({"name": name, "namespace": "a", "uid": name, "generation": 2, "annotations": {
            crate::api::RECORDED_ANNOTATION: "2", crate::api::SEAL_ANNOTATION: "seal",
        }})
    };
    let digest = format!("registry.example/web@sha256:{}", "0a".repeat(32));
    let template = json!({"spec": {"containers": [{"name": "web", "image": digest}], "initContainers": [{"name": "init", "image": "web"}]}});
    let condition = json!({"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"});
    let replicas = json!({"observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "conditions": [condition]});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "serviceName": "web", "template": template,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}});
    let sound = json!([
        {"metadata": meta("deployment"), "spec": {"replicas": 2, "selector": {}, "template": template}, "status": replicas},
        {"metadata": meta("set"), "spec": spec, "status": replicas},
        {"metadata": meta("daemons"), "spec": {"selector": {}, "template": template},
            "status": {"observedGeneration": 2, "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberMisscheduled": 0,
                "numberReady": 3, "numberAvailable": 3, "updatedNumberScheduled": 3}},
        {"metadata": meta("job"), "spec": {"completions": 3, "parallelism": 1, "template": template}, "status": {"active": 1, "succeeded": 1}},
        {"metadata": meta("pod"), "spec": template["spec"], "status": {"phase": "Running",
            "containerStatuses": [{"name": "web", "image": "web", "imageID": digest, "ready": true, "restartCount": 1}],
            "conditions": [{"type": "Ready", "status": "True"}]}},
        [{"metadata": meta("rs"), "spec": {"replicas": 2, "selector": {}, "template": template}, "status": replicas}],
        [{"metadata": meta("rc"), "spec": {"replicas": 2, "selector": {"app": "web"}, "template": template}, "status": replicas}],
        [{"metadata": meta("cron"), "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}}}],
    ]);
    let readable = fuzz_input::Readable::default();
    let list = Some(vec![format!("web sha256:{}", "0a".repeat(32))]);
    let tags = ImageTags::ProveWhenRunning;
    let spec = ImageDigestsSpec { approved: list, approved_from: None, tags };
    let policy = judges::image_digests::policy(&spec, "recovery", None).unwrap();
    let nodes = NodeImages::default();
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<(u8, Vec<u8>)>().for_each(
        |(phase, bytes)| {
            let Some((deployment, set, daemons, job, pod, replica_sets, replication_controllers, cron_jobs)) =
                readable.read(fuzz_input::spoiled(&sound, bytes))
            else {
                return;
            };
            let inventory = Inventory {
                deployments: vec![deployment],
                stateful_sets: vec![set],
                daemon_sets: vec![daemons],
                jobs: vec![job],
                pods: vec![pod],
                replica_sets,
                replication_controllers,
                cron_jobs,
            };
            let phases = [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous];
            let seals =
                BTreeMap::from([("a".to_owned(), Seal { uid: "seal".to_owned(), ..Seal::default() })]);
            let phase = phases[usize::from(*phase) % phases.len()];
            let question = Question { phase, namespaces: vec!["a".into()], seals, ..question(workloads()) };
            let judged = |inventory: &Inventory| {
                [
                    judges::workloads::judge(&WorkloadsSpec::default(), &question, inventory),
                    judges::image_digests::judge(&policy, &question, inventory, &nodes),
                ]
            };
            // What the cache keeps is judged as the whole is.
            assert_eq!(judged(&inventory), judged(&reduced(&inventory)));
        },
    );
}

#[tokio::test]
async fn program_that_could_never_run_is_known_before_the_day() {
    let asker = Asker::new(Vec::new()).unwrap();
    let check = async |image: &str, phase| {
        let pod = json!({"containers": [{"name": "scan", "image": image}]});
        let spec = json!({"name": "scan", "jobResult": {"inspectionNamespace": "inspection", "looksAt": ["Volumes"], "pod": pod}});
        let question = Question { phase, ..question(serde_json::from_value(spec).unwrap()) };
        asker.check_inputs(&nobody(), &question).await.err().map(|unknown| unknown.reason)
    };
    let pinned = format!("registry.example/scan@sha256:{}", "a".repeat(64));
    assert_eq!(check(&pinned, Phase::BeforeRestore).await, None);
    assert_eq!(check("scan:1", Phase::BeforeRestore).await, Some(GateReason::Malformed));
    assert_eq!(check(&pinned, Phase::Continuous).await, Some(GateReason::NotApplicable));
}
