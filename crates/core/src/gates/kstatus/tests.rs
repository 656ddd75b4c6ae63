use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn moving(message: &str) -> Progress {
    Progress::Moving(message.to_owned())
}

fn lacks(message: &str) -> Progress {
    Progress::Lacking(message.to_owned())
}

fn failed(reason: GateReason, message: &str) -> Progress {
    Progress::Failed { reason, message: message.to_owned() }
}

/// An object that is as it should be, with some of it changed.
fn with(mut object: Value, changes: Value) -> Value {
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    if value.is_null() {
                        into.remove(&key);
                    } else {
                        merge(into.entry(key).or_insert(Value::Null), value);
                    }
                }
            }
            (into, from) => *into = from,
        }
    }
    merge(&mut object, changes);
    object
}

fn check<K: DeserializeOwned>(good: &Value, status: fn(&K) -> WorkloadStatus, cases: Vec<(Value, Progress)>) {
    for (changes, wanted) in cases {
        let got = status(&parsed(with(good.clone(), changes.clone())));
        assert_eq!(got.progress, wanted, "{changes}");
    }
}

const UNSEEN: &str = "its controller has not seen its latest change";
const DELETED: &str = "is being deleted";

#[test]
fn deployments() {
    let good = json!({
        "metadata": {"generation": 4},
        "spec": {"replicas": 3, "selector": {}, "template": {}},
        "status": {
            "observedGeneration": 4, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
        },
    });
    let progressing = |status: &str, reason: &str| json!([{"type": "Progressing", "status": status, "reason": reason, "message": "too slow"}]);
    check(
        &good,
        |object| deployment(object, false),
        vec![
            (json!({}), Progress::Current),
            (json!({"status": {"conditions": null}}), Progress::Current),
            (json!({"metadata": {"generation": 5}}), moving(UNSEEN)),
            (json!({"status": {"observedGeneration": null}}), moving(UNSEEN)),
            (json!({"status": null}), moving(UNSEEN)),
            (json!({"metadata": {"deletionTimestamp": "2026-11-23T00:00:00Z"}}), moving(DELETED)),
            (
                json!({"status": {"conditions": progressing("False", "ProgressDeadlineExceeded")}}),
                failed(GateReason::ProgressDeadlineExceeded, "too slow"),
            ),
            (
                json!({"metadata": {"generation": 5},
            "status": {"conditions": progressing("False", "ProgressDeadlineExceeded")}}),
                moving(UNSEEN),
            ),
            (json!({"status": {"updatedReplicas": 1}}), moving("1 of 3 updated, 3 ready")),
            (
                json!({"status": {"updatedReplicas": null, "readyReplicas": null, "conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}}),
                moving("0 of 3 updated, 0 ready: exceeded quota"),
            ),
            (json!({"status": {"replicas": 4}}), moving("1 old replicas still run")),
            (json!({"status": {"readyReplicas": 2, "availableReplicas": 2}}), lacks("2 of 3 ready")),
            (json!({"status": {"readyReplicas": null, "availableReplicas": null}}), lacks("0 of 3 ready")),
            (
                json!({"status": {"readyReplicas": 2, "conditions": progressing("True", "ReplicaSetUpdated")}}),
                moving("2 of 3 ready"),
            ),
            (json!({"status": {"availableReplicas": 2}}), moving("2 of 3 ready for long enough")),
            // One replica is what an absent number means.
            (
                json!({"spec": {"replicas": null}, "status": {"replicas": 0, "updatedReplicas": 0}}),
                moving("0 of 1 updated, 3 ready"),
            ),
        ],
    );
}

/// Upstream kstatus is not current in these cases, in which all counts are as they should be.
#[test]
fn conditions_and_surplus_count_as_in_upstream_kstatus() {
    let template = json!({"replicas": 2, "serviceName": "x", "selector": {}, "template": {}});
    let good = json!({
        "metadata": {"generation": 1}, "spec": template,
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
            "fullyLabeledReplicas": 2},
    });
    let condition = |type_: &str, status: &str| json!({"status": {"conditions": [{"type": type_, "status": status, "message": "as it says"}]}});
    let surplus = json!({"status": {"replicas": 3, "updatedReplicas": 3}});
    check(
        &good,
        |object| deployment(object, false),
        vec![
            (condition("Available", "False"), moving("is not available: as it says")),
            (condition("Progressing", "False"), moving("does not progress: as it says")),
            (surplus.clone(), moving("1 replicas have yet to end")),
        ],
    );
    check(&good, stateful_set, vec![(surplus.clone(), moving("1 replicas have yet to end"))]);
    check(
        &good,
        replica_set,
        vec![
            (condition("ReplicaFailure", "True"), moving("2 of 2 ready: as it says")),
            (condition("ReplicaFailure", "False"), Progress::Current),
            (
                json!({"status": {"fullyLabeledReplicas": 1}}),
                moving("1 of 2 have the labels of the template"),
            ),
            (surplus, moving("1 replicas have yet to end")),
        ],
    );
}

#[test]
fn stateful_sets() {
    let good = json!({
        "metadata": {"generation": 1},
        "spec": {"replicas": 3, "serviceName": "db", "selector": {}, "template": {}},
        "status": {
            "observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "updatedReplicas": 3,
            "currentRevision": "db-1", "updateRevision": "db-1",
        },
    });
    let partition =
        |partition: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    check(
        &good,
        stateful_set,
        vec![
            (json!({}), Progress::Current),
            (json!({"metadata": {"generation": 2}}), moving(UNSEEN)),
            (json!({"status": {"replicas": 1, "readyReplicas": 1}}), moving("1 of 3 created, 1 ready")),
            (json!({"status": {"readyReplicas": 2}}), lacks("2 of 3 ready")),
            (json!({"status": {"availableReplicas": 1}}), moving("1 of 3 ready for long enough")),
            (
                json!({"status": {"updateRevision": "db-2", "updatedReplicas": 1}}),
                moving("1 of 3 updated, 3 ready"),
            ),
            (
                json!({"spec": {"updateStrategy": partition(2)},
            "status": {"updateRevision": "db-2", "updatedReplicas": 1}}),
                Progress::Current,
            ),
            (
                json!({"spec": {"updateStrategy": partition(1)},
            "status": {"updateRevision": "db-2", "updatedReplicas": 1}}),
                moving("1 of 2 updated, 3 ready"),
            ),
            (
                json!({"spec": {"updateStrategy": partition(5)},
            "status": {"updateRevision": "db-2", "updatedReplicas": 0}}),
                Progress::Current,
            ),
            (
                json!({"spec": {"updateStrategy": {"type": "OnDelete"}},
            "status": {"updateRevision": "db-2", "updatedReplicas": 0}}),
                Progress::Current,
            ),
        ],
    );
}

#[test]
fn daemon_sets() {
    let good = json!({
        "metadata": {"generation": 1},
        "spec": {"selector": {}, "template": {}},
        "status": {
            "observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberMisscheduled": 0,
            "updatedNumberScheduled": 2, "numberReady": 2, "numberAvailable": 2,
        },
    });
    check(
        &good,
        daemon_set,
        vec![
            (json!({}), Progress::Current),
            (json!({"metadata": {"generation": 2}}), moving(UNSEEN)),
            (json!({"status": {"currentNumberScheduled": 1}}), moving("on 1 of 2 nodes")),
            (json!({"status": {"updatedNumberScheduled": 1}}), moving("1 of 2 updated, 2 ready")),
            (
                json!({"spec": {"updateStrategy": {"type": "OnDelete"}}, "status": {"updatedNumberScheduled": 1}}),
                Progress::Current,
            ),
            (json!({"status": {"numberReady": 1, "numberAvailable": 1}}), moving("1 of 2 ready")),
            (json!({"status": {"numberReady": 0, "numberAvailable": null}}), lacks("0 of 2 ready")),
            (json!({"status": {"numberAvailable": 1}}), moving("1 of 2 ready for long enough")),
        ],
    );
}

#[test]
fn replica_sets_and_replication_controllers() {
    let good = json!({
        "metadata": {"generation": 1},
        "spec": {"replicas": 2, "selector": {}},
        "status": {"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "availableReplicas": 2,
            "fullyLabeledReplicas": 2},
    });
    let cases = vec![
        (json!({}), Progress::Current),
        (json!({"metadata": {"generation": 2}}), moving(UNSEEN)),
        (
            json!({"status": {"replicas": 0, "readyReplicas": null, "conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "refused"}]}}),
            moving("0 of 2 created, 0 ready: refused"),
        ),
        (json!({"status": {"readyReplicas": 1}}), lacks("1 of 2 ready")),
        (json!({"status": {"availableReplicas": 1}}), moving("1 of 2 ready for long enough")),
    ];
    check(&good, replica_set, cases.clone());
    check(&good, replication_controller, cases);
}

#[test]
fn jobs() {
    let good = json!({"spec": {"template": {}}, "status": {"startTime": "2026-11-23T00:00:00Z"}});
    let condition =
        |type_: &str| json!({"conditions": [{"type": type_, "status": "True", "message": "why"}]});
    check(
        &good,
        job,
        vec![
            (json!({}), Progress::Current),
            (json!({"status": {"startTime": null}}), moving("has not started")),
            (json!({"status": null}), moving("has not started")),
            (json!({"status": condition("Complete")}), Progress::Current),
            (json!({"status": condition("Failed")}), failed(GateReason::JobFailed, "why")),
            (json!({"status": condition("FailureTarget")}), failed(GateReason::JobFailed, "why")),
            (json!({"status": {"conditions": [{"type": "Failed", "status": "False"}]}}), Progress::Current),
            (json!({"spec": {"suspend": true}}), Progress::Suspended),
            (json!({"spec": {"suspend": true}, "status": condition("Complete")}), Progress::Current),
            (json!({"metadata": {"deletionTimestamp": "2026-11-23T00:00:00Z"}}), moving(DELETED)),
        ],
    );
}

#[test]
fn pods() {
    let good = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let unready = json!([{"type": "Ready", "status": "False"}]);
    let crashing = json!([{"name": "web", "ready": false, "restartCount": 9, "image": "", "imageID": "",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
    check(
        &good,
        pod,
        vec![
            (json!({}), Progress::Current),
            (json!({"status": {"conditions": unready}}), lacks("runs, but is not ready")),
            (json!({"status": {"conditions": null}}), lacks("runs, but is not ready")),
            (
                json!({"status": {"conditions": unready, "containerStatuses": crashing}}),
                failed(GateReason::CrashLoopBackOff, "container web keeps crashing"),
            ),
            (json!({"status": {"phase": "Succeeded"}}), Progress::Current),
            (
                json!({"status": {"phase": "Failed", "reason": "Evicted"}}),
                failed(GateReason::PodFailed, "Evicted"),
            ),
            (
                json!({"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "no node"}]}}),
                moving("is Pending: no node"),
            ),
            (json!({"status": null}), moving("is in no phase yet")),
            (json!({"metadata": {"deletionTimestamp": "2026-11-23T00:00:00Z"}}), moving(DELETED)),
        ],
    );
}

#[test]
fn implausible_replica_counts_get_a_verdict() {
    let status = json!({"observedGeneration": 1, "replicas": i32::MAX, "updatedReplicas": i32::MIN, "readyReplicas": 1});
    let object = |spec| {
        serde_json::from_value(json!({"metadata": {"generation": 1}, "spec": spec, "status": status}))
            .unwrap()
    };
    let template = json!({});
    let looked =
        deployment(&object(json!({"replicas": i32::MIN, "selector": {}, "template": template})), false);
    assert_eq!(looked.progress, moving("2147483647 old replicas still run"));
    let partition = json!({"rollingUpdate": {"partition": i32::MIN}});
    let set = json!({"replicas": 2, "serviceName": "db", "selector": {}, "template": template, "updateStrategy": partition});
    let looked = stateful_set(
        &serde_json::from_value(
            json!({"metadata": {"generation": 1}, "spec": set, "status": {"observedGeneration": 1, "replicas": 2, "updateRevision": "b"}}),
        )
        .unwrap(),
    );
    assert_eq!(looked.progress, moving("0 of 2147483647 updated, 0 ready"));
}
