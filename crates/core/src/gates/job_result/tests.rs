//! Every way in which a program's result passes, fails or is not known.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::gate::{InspectedVolume, SnapshotOf};
use crate::api::{Aspect, DnsLabel, GateSpec, Quarantine, Verdict};
use crate::isolation::Seal;

const IMAGE: &str =
    "registry.example/yara@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn spec() -> JobResultSpec {
    let pod = json!({"containers": [{"name": "scan", "image": IMAGE, "command": ["yr", "scan", "/data"],
        "env": [{"name": "LEVEL", "value": "1"}]}]});
    JobResultSpec {
        inspection_namespace: DnsLabel("inspection".into()),
        looks_at: vec![Aspect::Volumes],
        pod: pod.as_object().unwrap().clone(),
        volumes: vec![InspectedVolume {
            name: "data".into(),
            from_snapshot_of: SnapshotOf { claim: "data".into(), namespace: None },
            mount_path: "/data".into(),
            storage_class: None,
        }],
        deadline: None,
    }
}

fn question() -> Question {
    let gate = GateSpec { name: "yara".into(), ..GateSpec::default() };
    let mut question = Question::new("recovery", vec!["shop".into()], Phase::BeforeRestore, gate);
    (question.plan, question.service, question.attempt) = ("council".into(), "shop".into(), 2);
    question.seals.insert("shop".into(), Seal { uid: "seal".into(), ..Seal::default() });
    question
}

fn says(answer: &Answer) -> (Verdict, &str) {
    (answer.verdict, answer.reason.as_str())
}

/// Merges a change into an object.
fn with<T: serde::Serialize + serde::de::DeserializeOwned>(object: &T, change: &Value) -> T {
    fn merge(object: &mut Value, change: &Value) {
        match (change, &mut *object) {
            (Value::Object(fields), _) => {
                for (key, field) in fields {
                    match (key.parse::<usize>(), &mut *object) {
                        (Ok(index), Value::Array(items)) => merge(&mut items[index], field),
                        (_, object) => merge(&mut object[key.as_str()], field),
                    }
                }
            }
            (other, _) => *object = other.clone(),
        }
    }
    let mut value = serde_json::to_value(object).unwrap();
    merge(&mut value, change);
    serde_json::from_value(value).unwrap()
}

/// An inspection whose program ended with this code and these words.
fn ended(code: i32, words: &str) -> Inspection {
    let wanted = job(&spec(), &question()).unwrap();
    let template = wanted.spec.as_ref().unwrap().template.spec.clone();
    let condition = if code == 0 { "Complete" } else { "Failed" };
    let job = with(
        &wanted,
        &json!({"metadata": {"uid": "job"}, "status": {"conditions": [{"type": condition, "status": "True"}]}}),
    );
    let pod = Pod { spec: template, ..Pod::default() };
    let terminated =
        json!({"exitCode": code, "message": words, "reason": if code == 0 { "Completed" } else { "Error" }});
    let pod = with(
        &pod,
        &json!({
            "metadata": {"name": "p", "uid": "pod", "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job", "controller": true}]},
            "status": {"phase": "Succeeded", "containerStatuses": [{
                "name": "scan", "image": IMAGE, "imageID": IMAGE, "ready": false, "restartCount": 0,
                "state": {"terminated": terminated}}]},
        }),
    );
    Inspection { job: Some(job), pods: vec![pod], log: Some(Ok("sha256:log".into())) }
}

fn judged(found: &Inspection) -> Answer {
    judge(&spec(), &question(), found)
}

#[test]
fn exit_code_says_whether_something_was_found() {
    use Verdict::{Fail, Pass, Unknown};
    for (code, words, expected) in [
        (0, "12 files, none matches", (Pass, "NothingDetected")),
        (0, "", (Unknown, "ResultEmpty")),
        (0, " \n\t", (Unknown, "ResultEmpty")),
        (1, "miner.elf matches Miner", (Fail, "Detected")),
        (1, "", (Fail, "Detected")),
        (2, "no rules", (Unknown, "NoResult")),
        (127, "", (Unknown, "NoResult")),
        (137, "", (Unknown, "NoResult")),
        (-1, "", (Unknown, "NoResult")),
    ] {
        let answer = judged(&ended(code, words));
        assert_eq!(says(&answer), expected, "{code} {words}: {}", answer.message);
        assert_eq!(answer.evidence.is_some(), answer.verdict != Unknown);
        assert!(answer.message.starts_with("Job inspection/gate-yara-2-"), "{}", answer.message);
    }
    let answer = judged(&ended(1, "a\n  b \u{1b}[31m"));
    assert!(
        answer.message.ends_with("looked at volumes and found something: a b [31m"),
        "{}",
        answer.message
    );
    assert_eq!(judged(&ended(1, &"ü".repeat(4096))).message.matches('ü').count(), WORDS - 1);
}

#[test]
fn whatever_keeps_the_result_from_being_read_is_unknown() {
    let terminated = |field: &str, value: Value| json!({"status": {"containerStatuses": {"0": {"state": {"terminated": {field: value}}}}}});
    let spec_of = |container: Value| json!({"spec": {"containers": {"0": container}}});
    for (change, reason) in [
        (terminated("reason", json!("OOMKilled")), "NoResult"),
        (terminated("reason", json!("StartError")), "NoResult"),
        (terminated("signal", json!(9)), "NoResult"),
        (json!({"status": {"containerStatuses": null}}), "NoResult"),
        (json!({"status": {"containerStatuses": {"0": {"name": "other"}}}}), "NoResult"),
        (json!({"status": null}), "NoResult"),
        (json!({"metadata": {"ownerReferences": null}}), "JobDiffers"),
        (json!({"metadata": {"ownerReferences": {"0": {"uid": "other"}}}}), "JobDiffers"),
        (json!({"metadata": {"ownerReferences": {"0": {"controller": false}}}}), "JobDiffers"),
        (json!({"spec": null}), "JobDiffers"),
        (spec_of(json!({"image": "registry.example/true"})), "JobDiffers"),
        (spec_of(json!({"command": ["true"]})), "JobDiffers"),
        (spec_of(json!({"args": ["--help"]})), "JobDiffers"),
        (spec_of(json!({"env": {"0": {"value": "0"}}})), "JobDiffers"),
        (spec_of(json!({"volumeMounts": {"0": {"readOnly": false}}})), "JobDiffers"),
        (spec_of(json!({"volumeMounts": []})), "JobDiffers"),
        (spec_of(json!({"terminationMessagePolicy": "FallbackToLogsOnError"})), "JobDiffers"),
        (json!({"spec": {"initContainers": [{"name": "first", "image": IMAGE}]}}), "JobDiffers"),
        (
            json!({"spec": {"volumes": {"0": {"persistentVolumeClaim": {"claimName": "other"}}}}}),
            "JobDiffers",
        ),
        (json!({"spec": {"volumes": [{"name": "data", "emptyDir": {}}]}}), "JobDiffers"),
        (json!({"spec": {"hostNetwork": true}}), "JobDiffers"),
    ] {
        for code in [0, 1] {
            let mut found = ended(code, "12 files");
            found.pods = vec![with(&found.pods[0], &change)];
            let answer = judged(&found);
            assert_eq!(says(&answer), (Verdict::Unknown, reason), "{change}: {}", answer.message);
        }
    }
    let condition = |reason: &str| json!({"status": {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}});
    for (change, reason) in [
        (json!({"status": null}), "InProgress"),
        (json!({"status": {"conditions": {"0": {"status": "False"}}}}), "InProgress"),
        (condition("DeadlineExceeded"), "JobDeadline"),
        (json!({"metadata": {"deletionTimestamp": "2025-11-24T03:00:00Z"}}), "PodGone"),
        (json!({"metadata": {"annotations": null}}), "JobDiffers"),
        (json!({"spec": {"template": {"spec": {"containers": {"0": {"command": ["true"]}}}}}}), "JobDiffers"),
    ] {
        let found = ended(0, "12 files");
        let answer = judged(&Inspection { job: Some(with(found.job.as_ref().unwrap(), &change)), ..found });
        assert_eq!(says(&answer), (Verdict::Unknown, reason), "{change}: {}", answer.message);
    }
    let found = ended(0, "12 files");
    let twice = vec![found.pods[0].clone(); 2];
    for (found, reason) in [
        (Inspection::default(), "InProgress"),
        (Inspection { pods: Vec::new(), ..found.clone() }, "PodGone"),
        (Inspection { pods: twice, ..found }, "PodGone"),
    ] {
        assert_eq!(says(&judged(&found)), (Verdict::Unknown, reason));
    }
}

#[test]
fn result_without_its_log_passes_as_an_exception() {
    let found = ended(0, "12 files");
    assert!(judged(&found).exceptions.is_empty());
    for log in [None, Some(Err("no kubelet".to_owned()))] {
        let answer = judged(&Inspection { log, ..found.clone() });
        assert_eq!((answer.verdict, answer.exceptions.len()), (Verdict::Pass, 1));
    }
    let other = judged(&Inspection { log: Some(Ok("sha256:other".into())), ..found.clone() });
    assert_ne!(other.evidence, judged(&found).evidence);
}

#[test]
fn result_of_another_question_is_of_another_job() {
    let own = name(&spec(), &question());
    assert_eq!(own, name(&spec(), &question()), "it is created once");
    let changes: [fn(&mut Question); 7] = [
        |q| q.attempt = 3,
        |q| q.plan = "other".into(),
        |q| q.service = "other".into(),
        |q| q.phase = Phase::BeforeRelease,
        |q| q.compromised_since = Some(Timestamp::UNIX_EPOCH),
        |q| q.seals.clear(),
        |q| q.spec.name = "x".repeat(63),
    ];
    for change in changes {
        let mut other = question();
        change(&mut other);
        let name = name(&spec(), &other);
        assert_ne!(name, own);
        assert!(name.len() <= 52, "there is room for the pod's suffix: {name}");
        // The verdict of one is not that of the other.
        assert_eq!(says(&judge(&spec(), &other, &ended(0, "12 files"))), (Verdict::Unknown, "JobDiffers"));
    }
    let amended = JobResultSpec { looks_at: vec![Aspect::Backups], ..spec() };
    assert_ne!(name(&amended, &question()), own);
    let next = Question { attempt: 3, ..question() };
    assert_eq!(selector(&question()), selector(&next), "earlier attempts are found");
    assert!(not_applicable(Phase::Continuous).is_some() && not_applicable(Phase::BeforeRelease).is_none());
}

#[test]
fn pod_that_is_no_inspection_is_malformed() {
    for (change, named) in [
        (json!({"containers": []}), "has 0 containers"),
        (
            json!({"containers": [{"name": "a", "image": IMAGE}, {"name": "b", "image": IMAGE}]}),
            "has 2 containers",
        ),
        (json!({"containers": [{"name": "a", "image": "yara:4"}]}), "not pinned"),
        (json!({"containers": [{"name": "a"}]}), "not pinned"),
        (json!({"containers": "none"}), "no pod's spec"),
        (json!({"initContainers": [{"name": "a", "image": "busybox"}]}), "container a is not pinned"),
        (
            json!({"containers": [{"name": "a", "image": IMAGE, "securityContext": {"privileged": true}}]}),
            "privileged",
        ),
        (json!({"hostNetwork": true}), "its node"),
        (json!({"hostPID": true}), "its node"),
        (json!({"nodeName": "n"}), "names its node"),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "volume v is a path"),
        (
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            "volume v is a claim",
        ),
    ] {
        let mut spec = spec();
        for (key, value) in change.as_object().unwrap() {
            spec.pod.insert(key.clone(), value.clone());
        }
        let answer = judge(&spec, &question(), &ended(0, "12 files"));
        assert_eq!(says(&answer), (Verdict::Unknown, "Malformed"), "{change}");
        assert!(answer.message.contains(named), "{named}: {}", answer.message);
    }
    let job = job(&spec(), &question()).unwrap().spec.unwrap();
    let pod = job.template.spec.unwrap();
    assert_eq!((job.backoff_limit, job.active_deadline_seconds), (Some(0), Some(3600)));
    assert_eq!(
        (pod.automount_service_account_token, pod.restart_policy.as_deref()),
        (Some(false), Some("Never"))
    );
}

#[test]
fn nothing_is_inspected_where_the_namespace_is_not_isolated_for_it() {
    let good = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "inspection", "generation": 1},
        "spec": {"isolation": "Sealed", "purpose": "Inspection", "reason": "a test"},
        "status": {
            "observedGeneration": 1, "isolation": "CleanRoom",
            "controls": [{"name": "Network", "state": "Tested"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "CleanRoom", "message": "",
                "lastTransitionTime": "2025-11-24T03:00:00Z"}],
        },
    });
    let good: Quarantine = serde_json::from_value(good).unwrap();
    let refused = |quarantine: Option<&Quarantine>| not_isolated("inspection", &question(), quarantine);
    assert_eq!(refused(Some(&good)), None);
    let claim = json!({"planUid": "u", "planNamespace": "n", "plan": "p", "service": "s", "attempt": 1});
    for change in [
        json!({"metadata": {"name": "other"}}),
        json!({"metadata": {"deletionTimestamp": "2025-11-24T03:00:00Z"}}),
        json!({"metadata": {"generation": 2}}),
        json!({"spec": {"purpose": "Isolation"}}),
        json!({"status": null}),
        json!({"status": {"isolation": null}}),
        json!({"status": {"isolation": "Sealed"}}),
        json!({"status": {"isolation": "Contained"}}),
        json!({"status": {"isolation": "Open"}}),
        json!({"status": {"claimedBy": claim}}),
        json!({"status": {"controls": []}}),
        json!({"status": {"controls": {"0": {"state": "NotEnforced"}}}}),
        json!({"status": {"controls": {"0": {"state": "NotRequired"}}}}),
        json!({"status": {"conditions": {"0": {"status": "False"}}}}),
        json!({"status": {"conditions": []}}),
    ] {
        let answer = refused(Some(&with(&good, &change))).unwrap();
        assert_eq!(says(&answer), (Verdict::Unknown, "NotIsolated"), "{change}");
        assert!(
            answer.message.starts_with("namespace inspection is no inspection namespace: "),
            "{}",
            answer.message
        );
    }
    assert!(refused(None).is_some());
    let own = Question { namespaces: vec!["inspection".into()], ..question() };
    assert!(
        not_isolated("inspection", &own, Some(&good)).is_some(),
        "the service's own evidence stays as it is"
    );
}
