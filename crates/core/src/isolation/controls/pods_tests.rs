use serde_json::{Value, json};

use super::*;

fn pod(metadata: Value, phase: &str, state: Option<Value>) -> Pod {
    let statuses: Vec<_> = state.into_iter().map(|state| json!({"name": "main", "state": state})).collect();
    let mut value = json!({
        "metadata": metadata,
        "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
        "status": {"phase": phase, "containerStatuses": statuses},
    });
    // The types want what the API server always says.
    for status in value["status"]["containerStatuses"].as_array_mut().unwrap() {
        for (key, field) in [
            ("image", json!("i")),
            ("imageID", json!("")),
            ("ready", json!(false)),
            ("restartCount", json!(0)),
        ] {
            status[key] = field;
        }
    }
    serde_json::from_value(value).unwrap()
}

fn running() -> Option<Value> {
    Some(json!({"running": {}}))
}

fn ended() -> Option<Value> {
    Some(json!({"terminated": {"exitCode": 137}}))
}

const NOW: &str = "2026-11-29T00:00:00Z";

#[test]
fn pod_is_alive_until_its_containers_have_terminated() {
    let deleted = json!({"name": "p", "deletionTimestamp": NOW});
    for (metadata, phase, state, live) in [
        (json!({"name": "p"}), "Running", running(), true),
        (json!({"name": "p"}), "Pending", None, true),
        (json!({"name": "p"}), "Succeeded", ended(), false),
        (json!({"name": "p"}), "Failed", ended(), false),
        (json!({"name": "p"}), "Running", ended(), true),
        (deleted.clone(), "Running", running(), true),
        (deleted.clone(), "Running", None, true),
        (deleted.clone(), "Running", Some(json!({"waiting": {}})), true),
        (deleted, "Running", ended(), false),
    ] {
        assert_eq!(is_live(&pod(metadata.clone(), phase, state)), live, "{metadata} {phase}");
    }
    let mut unscheduled = pod(json!({"name": "p", "deletionTimestamp": NOW}), "Pending", None);
    unscheduled.spec.as_mut().unwrap().node_name = None;
    assert!(!is_live(&unscheduled), "no process was ever started");
}

#[test]
fn pods_get_a_second_of_grace_and_are_finalized_at_their_end() {
    let deleting = |grace: i64, finalizers: &[&str]| json!({"name": "p", "deletionTimestamp": NOW, "deletionGracePeriodSeconds": grace, "finalizers": finalizers});
    let finalize = |kept: &[&str]| Some(PodAction::Finalize(kept.iter().map(|f| (*f).to_owned()).collect()));
    for (metadata, phase, state, expected) in [
        (json!({"name": "p"}), "Running", running(), Some(PodAction::Delete)),
        (
            json!({"name": "p", "finalizers": ["mallory.example/keep"]}),
            "Running",
            running(),
            Some(PodAction::Delete),
        ),
        (deleting(3600, &[]), "Running", running(), Some(PodAction::Delete)),
        (deleting(1, &[]), "Running", running(), None),
        (deleting(0, &[]), "Running", running(), None),
        (deleting(1, &["mallory.example/keep"]), "Running", running(), None),
        (deleting(1, &["mallory.example/keep"]), "Running", ended(), finalize(&[])),
        (deleting(3600, &["mallory.example/keep"]), "Running", ended(), finalize(&[])),
        (deleting(1, &["batch.kubernetes.io/job-tracking"]), "Failed", ended(), None),
        (
            deleting(1, &["batch.kubernetes.io/job-tracking", "mallory.example/keep"]),
            "Failed",
            ended(),
            finalize(&["batch.kubernetes.io/job-tracking"]),
        ),
        (json!({"name": "p"}), "Succeeded", ended(), None),
    ] {
        assert_eq!(next_action(&pod(metadata.clone(), phase, state)), expected, "{metadata} {phase}");
    }
}

#[test]
fn a_static_pod_is_one_of_its_node_and_no_annotation_makes_one() {
    let node = json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}]);
    let mirror = json!({"kubernetes.io/config.mirror": "hash"});
    for (owners, annotations, expected) in [
        (node.clone(), mirror.clone(), true),
        (json!([]), mirror.clone(), false),
        (node, json!({}), false),
        (
            json!([{"apiVersion": "nodes.example/v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}]),
            mirror,
            false,
        ),
    ] {
        let metadata = json!({"name": "p", "ownerReferences": owners, "annotations": annotations});
        assert_eq!(is_static(&pod(metadata.clone(), "Running", running())), expected, "{metadata}");
    }
}

#[test]
fn pod_owner_is_identified_by_uid_not_by_kind() {
    let workloads: BTreeSet<String> = ["u1".to_owned()].into();
    let owned = |kind: &str, uid: &str, controller: bool| {
        let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": uid, "controller": controller});
        pod(json!({"name": "p", "ownerReferences": [owner]}), "Running", running())
    };
    assert!(!is_unmanaged(&owned("ReplicaSet", "u1", true), &workloads));
    for (kind, uid, controller) in
        [("ReplicaSet", "u2", true), ("ReplicaSet", "u1", false), ("StatefulSet", "", true)]
    {
        assert!(is_unmanaged(&owned(kind, uid, controller), &workloads), "{kind} {uid} {controller}");
    }
    assert!(is_unmanaged(&pod(json!({"name": "p"}), "Running", running()), &workloads));
}
