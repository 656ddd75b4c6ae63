use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// One object of each kind that may own others, in namespace `library`, each with UID `uid-KIND` and name `web`.
fn inventory() -> Inventory {
    let object = |kind: &str| {
        json!({
            "metadata": {"name": "web", "namespace": "library", "uid": format!("uid-{kind}"), "labels": {"app": "web"}},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}}, "serviceName": "web", "template": {},
                "schedule": "0 0 * * *", "jobTemplate": {},
            },
        })
    };
    let mut controller = object("ReplicationController");
    controller["spec"]["selector"] = json!({"app": "web"});
    Inventory {
        deployments: vec![parsed(object("Deployment"))],
        stateful_sets: vec![parsed(object("StatefulSet"))],
        daemon_sets: vec![parsed(object("DaemonSet"))],
        replica_sets: vec![parsed(object("ReplicaSet"))],
        replication_controllers: vec![parsed(controller)],
        jobs: vec![parsed(object("Job"))],
        cron_jobs: vec![parsed(object("CronJob"))],
        pods: Vec::new(),
    }
}

fn reference(api_version: &str, kind: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": "web", "uid": format!("uid-{kind}"), "controller": true})
}

fn owned<K: DeserializeOwned>(references: &Value) -> K {
    parsed(json!({
        "metadata": {"name": "it", "namespace": "library", "labels": {"app": "web"}, "ownerReferences": references},
        "spec": {"selector": {}, "serviceName": "it", "template": {}, "containers": [], "schedule": "x", "jobTemplate": {}},
    }))
}

/// The owner references of all kinds, as their controllers write them.
const CONTROLLERS: [(&str, &str); 7] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "ReplicationController"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
];

#[test]
fn only_the_kinds_that_make_a_kind_own_it() {
    let (inventory, owners_of) = (inventory(), |makers: &[&str]| -> Vec<bool> {
        CONTROLLERS.iter().map(|(_, kind)| makers.contains(kind)).collect()
    });
    let owners = inventory.owners();
    fn judged<K: Resource<DynamicType = ()> + DeserializeOwned>(owners: &Owners<'_>) -> Vec<bool> {
        let of = |(group, kind): &(&str, &str)| json!([reference(group, kind)]);
        CONTROLLERS.iter().map(|controller| owners.has_owner_of(&owned::<K>(&of(controller)))).collect()
    }
    assert_eq!(judged::<ReplicaSet>(&owners), owners_of(&["Deployment"]));
    assert_eq!(judged::<Job>(&owners), owners_of(&["CronJob"]));
    let makers = ["ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController"];
    assert_eq!(judged::<Pod>(&owners), owners_of(&makers));
    assert_eq!(judged::<Deployment>(&owners), owners_of(&[]));
    assert_eq!(judged::<StatefulSet>(&owners), owners_of(&[]));
    assert_eq!(judged::<DaemonSet>(&owners), owners_of(&[]));
    assert_eq!(judged::<CronJob>(&owners), owners_of(&[]));
}

#[test]
fn a_forged_owner_hides_no_replica_set() {
    let inventory = inventory();
    let owners = inventory.owners();
    let with = |field: &str, value: Value| {
        let mut reference = reference("apps/v1", "Deployment");
        reference[field] = value;
        json!([reference])
    };
    let mut unsaid = with("name", json!("web"));
    unsaid[0].as_object_mut().unwrap().remove("controller");
    for (what, references, hidden) in [
        ("the Deployment", json!([reference("apps/v1", "Deployment")]), true),
        ("the Deployment, by an earlier version", with("apiVersion", json!("apps/v1beta1")), true),
        (
            "the Deployment, after an owner that is none",
            json!([
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"},
                reference("apps/v1", "Deployment"),
            ]),
            true,
        ),
        ("no owner", json!([]), false),
        ("another group", with("apiVersion", json!("apps.implant.example/v1")), false),
        ("the core group", with("apiVersion", json!("v1")), false),
        ("no group", with("apiVersion", json!("")), false),
        ("a UID that nothing has", with("uid", json!("00000000-0000-4000-8000-000000000003")), false),
        ("an empty UID", with("uid", json!("")), false),
        ("the UID of a StatefulSet", with("uid", json!("uid-StatefulSet")), false),
        ("the StatefulSet itself", json!([reference("apps/v1", "StatefulSet")]), false),
        ("another kind with its UID", with("kind", json!("StatefulSet")), false),
        ("another name with its UID", with("name", json!("nothing")), false),
        ("not its controller", with("controller", json!(false)), false),
        ("nothing said of its controller", unsaid, false),
    ] {
        let object: ReplicaSet = owned(&references);
        assert_eq!(owners.has_owner_of(&object), hidden, "{what}");
    }
}

#[test]
fn owner_must_match_namespace_and_selector() {
    let inventory = inventory();
    let owners = inventory.owners();
    let references = json!([reference("apps/v1", "Deployment")]);
    let mut elsewhere: ReplicaSet = owned(&references);
    elsewhere.metadata.namespace = Some("archive".to_owned());
    assert!(!owners.has_owner_of(&elsewhere));
    let mut unselected: ReplicaSet = owned(&references);
    unselected.metadata.labels = Some([("app".to_owned(), "miner".to_owned())].into());
    assert!(!owners.has_owner_of(&unselected), "the Deployment lets go of what its selector does not match");
    unselected.metadata.labels = None;
    assert!(!owners.has_owner_of(&unselected));
}

#[test]
fn the_replica_sets_of_a_rollout_stay_hidden() {
    let inventory = inventory();
    let owners = inventory.owners();
    for hash in ["7c9f", "5b6d", "84aa"] {
        let mut object: ReplicaSet = owned(&json!([reference("apps/v1", "Deployment")]));
        let labels = object.metadata.labels.get_or_insert_default();
        labels.insert("pod-template-hash".to_owned(), hash.to_owned());
        assert!(owners.has_owner_of(&object), "{hash}");
    }
}
