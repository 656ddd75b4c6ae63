use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn template(image: &str, hash: Option<&str>) -> Value {
    let mut labels = json!({"app": "api"});
    if let Some(hash) = hash {
        labels[HASH] = json!(hash);
    }
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn set(hash: &str, image: &str, revision: &str, replicas: i32) -> ReplicaSet {
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "api", "uid": "d", "controller": true});
    parsed(json!({
        "metadata": {"name": format!("api-{hash}"), "annotations": {REVISION: revision}, "ownerReferences": [owner]},
        "spec": {"replicas": replicas, "selector": {}, "template": template(image, Some(hash))},
        "status": {"replicas": replicas, "readyReplicas": replicas},
    }))
}

fn deployment(image: &str, paused: bool) -> Deployment {
    parsed(json!({
        "metadata": {"name": "api", "uid": "d"},
        "spec": {"replicas": 2, "paused": paused, "selector": {}, "template": template(image, None)},
    }))
}

#[test]
fn deployment_names_the_revision_that_served_and_the_one_that_starts() {
    let half = "its rollout is not complete: ReplicaSet api-1 (revision 1) and ReplicaSet api-2 (revision 2) served, \
                and ReplicaSet api-2 (revision 2) is specified";
    let stuck = "its rollout is not complete: ReplicaSet api-1 (revision 1) served, and ReplicaSet api-2 (revision 2) is specified";
    let paused = "its rollout is paused: ReplicaSet api-1 (revision 1) served, and a template that has no revision yet is specified";
    for (sets, specified, is_paused, wanted) in [
        (vec![set("1", "a", "1", 0), set("2", "b", "2", 2)], "b", false, None),
        (vec![set("1", "a", "1", 0), set("2", "b", "2", 2)], "b", true, None),
        (vec![set("1", "a", "1", 2), set("2", "b", "2", 1)], "b", false, Some(half)),
        (vec![set("1", "a", "1", 2), set("2", "b", "2", 0)], "b", false, Some(stuck)),
        (vec![set("1", "a", "1", 2)], "b", true, Some(paused)),
        // Nothing serves, so nothing is lost.
        (vec![set("1", "a", "1", 0)], "b", true, None),
        (vec![], "a", false, None),
    ] {
        let got = of_deployment(&deployment(specified, is_paused), &sets).map(|record| record.message);
        assert_eq!(got.as_deref(), wanted, "{sets:?}");
    }
    // What is not ready does not serve.
    let mut unready = set("2", "b", "2", 1);
    unready.status.as_mut().unwrap().ready_replicas = None;
    let sets = [set("1", "a", "1", 2), unready];
    let record = of_deployment(&deployment("b", false), &sets).unwrap();
    assert_eq!((record.serving.clone(), record.message.as_str()), (vec!["api-1".to_owned()], stuck));
    assert!(!is_mended_deployment(&deployment("b", false), &sets, &record));
    assert!(
        is_mended_deployment(&deployment("a", false), &sets, &record),
        "the revision that served is specified"
    );
    let mut others = set("1", "a", "1", 2);
    others.metadata.owner_references.as_mut().unwrap()[0].uid = "another".into();
    assert_eq!(of_deployment(&deployment("b", false), &[others]), None, "it belongs to another Deployment");
}

#[test]
fn stateful_set_names_how_many_pods_ran_another_revision() {
    let of = |strategy: Value, current: &str, replicas: i32, updated: i32| {
        let object: StatefulSet = parsed(json!({
            "metadata": {"name": "db"},
            "spec": {"selector": {}, "serviceName": "db", "template": {}, "updateStrategy": strategy},
            "status": {"replicas": replicas, "updatedReplicas": updated, "currentRevision": current, "updateRevision": "db-2"},
        }));
        of_stateful_set(&object)
    };
    let rolling =
        |partition: i32| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    let on_delete = json!({"type": "OnDelete"});
    for (strategy, current, replicas, updated, wanted) in [
        (rolling(0), "db-2", 3, 3, None),
        (rolling(2), "db-2", 3, 3, None),
        (rolling(2), "db-1", 0, 0, None),
        // OnDelete keeps the name of the old revision after all pods were replaced.
        (on_delete.clone(), "db-1", 3, 3, None),
        (
            rolling(2),
            "db-1",
            3,
            1,
            Some("its rollout has the partition 2: 2 of 3 pods ran revision db-1, and db-2 is specified"),
        ),
        (
            on_delete,
            "db-1",
            3,
            0,
            Some("its update strategy is OnDelete: 3 of 3 pods ran revision db-1, and db-2 is specified"),
        ),
        (
            rolling(0),
            "db-1",
            3,
            2,
            Some("its rollout is not complete: 1 of 3 pods ran revision db-1, and db-2 is specified"),
        ),
    ] {
        let got = of(strategy.clone(), current, replicas, updated).map(|record| record.message);
        assert_eq!(got.as_deref(), wanted, "{strategy} {current} {replicas} {updated}");
    }
}
