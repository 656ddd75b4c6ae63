use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};

use super::inventory::is_rollout;
use super::*;

fn workload(kind: Kind, shape: Shape, record: Option<(&str, &str)>) -> Workload {
    let annotations = record.map(|(was, seal)| {
        BTreeMap::from([
            (RECORDED_ANNOTATION.to_owned(), was.to_owned()),
            (SEAL_ANNOTATION.to_owned(), seal.to_owned()),
        ])
    });
    let meta = ObjectMeta {
        name: Some("web".into()),
        namespace: Some("library".into()),
        resource_version: Some("7".into()),
        annotations,
        ..ObjectMeta::default()
    };
    Workload { kind, meta, shape, drops_claims: false, rollout: None }
}

/// What the API server makes of a merge patch, for the few fields at stake.
fn after(mut workload: Workload, patch: &Value) -> Workload {
    if let Some(annotations) = patch["metadata"]["annotations"].as_object() {
        let into = workload.meta.annotations.get_or_insert_default();
        for (key, value) in annotations {
            match value.as_str() {
                Some(value) => into.insert(key.clone(), value.to_owned()),
                None => into.remove(key),
            };
        }
    }
    if let Some(policy) = patch["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"].as_str() {
        workload.drops_claims = policy == "Delete";
    }
    match &mut workload.shape {
        Shape::Replicas(n) => {
            *n = patch["spec"]["replicas"].as_i64().map_or(*n, |to| i32::try_from(to).unwrap());
        }
        Shape::Nodes(nodes) => {
            for (key, value) in patch["spec"]["template"]["spec"]["nodeSelector"].as_object().unwrap() {
                match value.as_str() {
                    Some(value) => nodes.insert(key.clone(), value.to_owned()),
                    None => nodes.remove(key),
                };
            }
        }
        Shape::Suspend(suspended) => *suspended = patch["spec"]["suspend"].as_bool().unwrap(),
    }
    workload
}

#[test]
fn one_patch_stops_and_records_and_the_way_back_restores_it() {
    let nodes = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
    for shape in [Shape::Replicas(3), Shape::Nodes(nodes.clone()), Shape::Nodes(BTreeMap::new())] {
        let kind = if matches!(shape, Shape::Replicas(_)) { Kind::StatefulSet } else { Kind::DaemonSet };
        let running = workload(kind, shape.clone(), None);
        let stopped = after(running.clone(), &running.stop("seal").unwrap());
        assert!(stopped.is_stopped());
        assert_eq!(stopped.stop("seal"), None, "once is enough");
        let started = after(stopped.clone(), &stopped.start(Some("seal"), None).unwrap().unwrap());
        assert_eq!(started.shape, shape);
        assert_eq!(started.start(Some("seal"), None), Ok(None), "started already");
    }
}

#[test]
fn the_patch_that_stops_has_a_precondition_on_what_it_recorded() {
    let patch = workload(Kind::Deployment, Shape::Replicas(3), None).stop("seal").unwrap();
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
}

#[test]
fn released_workload_that_runs_is_recorded_anew() {
    let released = |mut workload: Workload| {
        workload.meta.annotations.get_or_insert_default().insert(RELEASED_ANNOTATION.into(), "true".into());
        workload
    };
    let record = |workload: &Workload, seal: &str| recorded_replicas(&workload.meta, seal);
    let is_marked =
        |workload: &Workload| workload.meta.annotations.as_ref().unwrap().contains_key(RELEASED_ANNOTATION);
    for seal in ["seal", "another"] {
        let runs = released(workload(Kind::Deployment, Shape::Replicas(5), Some(("2", "seal"))));
        let sealed = after(runs.clone(), &runs.stop(seal).unwrap());
        assert_eq!((record(&sealed, seal), is_marked(&sealed)), (Some(5), false), "{seal}");
        // Nobody has started it: what ran before the first sealing is what it is to be started at.
        let stopped = released(workload(Kind::Deployment, Shape::Replicas(0), Some(("2", "seal"))));
        let sealed = after(stopped.clone(), &stopped.stop(seal).unwrap());
        assert_eq!((record(&sealed, seal), is_marked(&sealed)), (Some(2), false), "{seal}");
        assert_eq!(sealed.stop(seal), None, "once is enough");
    }
}

#[test]
fn jobs_and_cronjobs_are_suspended_and_not_resumed() {
    let stopped = {
        let running = workload(Kind::CronJob, Shape::Suspend(false), None);
        after(running.clone(), &running.stop("seal").unwrap())
    };
    assert!(stopped.is_stopped());
    assert_eq!(recorded_suspend(&stopped.meta, "seal"), Some(false));
    assert_eq!(stopped.start(Some("seal"), Some(2)), Ok(None));
}

/// Scaled to zero with `whenScaled: Delete`, a StatefulSet's data would be gone before anybody could look.
#[test]
fn volume_claims_survive_sealing_and_their_policy_is_restored() {
    let running = Workload { drops_claims: true, ..workload(Kind::StatefulSet, Shape::Replicas(3), None) };
    let stopped = after(running.clone(), &running.stop("seal").unwrap());
    assert!(stopped.is_stopped() && !stopped.drops_claims, "by one and the same patch");
    assert_eq!((stopped.stop("seal"), recorded_replicas(&stopped.meta, "seal")), (None, Some(3)));
    let started = after(stopped.clone(), &stopped.start(Some("seal"), None).unwrap().unwrap());
    assert_eq!((&started.shape, started.drops_claims), (&running.shape, true));
    // Sealed again, or set to Delete by somebody while it is sealed: kept again.
    for again in [started, Workload { drops_claims: true, ..stopped.clone() }] {
        let sealed = after(again.clone(), &again.stop("seal").unwrap());
        assert!(sealed.is_stopped() && !sealed.drops_claims);
        assert_eq!(recorded_replicas(&sealed.meta, "seal"), Some(3), "not recorded again");
    }
    // Of another seal, or of a time when only replicas were recorded.
    let patch = stopped.start(None, Some(2)).unwrap().unwrap();
    assert_eq!(patch, json!({"spec": {"replicas": 2}}), "another seal's record says nothing");
    let other = stopped.stop("other").unwrap();
    assert_eq!(other["metadata"]["annotations"][WHEN_SCALED_ANNOTATION], Value::Null);
    let old = workload(Kind::StatefulSet, Shape::Replicas(0), Some(("3", "seal")));
    assert_eq!(old.start(Some("seal"), None).unwrap().unwrap(), json!({"spec": {"replicas": 3}}));
}

#[test]
fn a_record_of_this_seal_is_never_written_again() {
    // Scaled up in the clean room to another number, then sealed again: the first record stays.
    let again = workload(Kind::Deployment, Shape::Replicas(5), Some(("3", "seal")));
    let patch = again.stop("seal").unwrap();
    assert_eq!(patch["metadata"].get("annotations"), None);
    assert_eq!(patch["spec"]["replicas"], 0);
}

#[test]
fn a_record_of_another_seal_is_ignored() {
    let other = workload(Kind::Deployment, Shape::Replicas(2), Some(("9", "other")));
    assert_eq!(recorded_replicas(&other.meta, "seal"), None);
    assert_eq!(other.stop("seal").unwrap()["metadata"]["annotations"][RECORDED_ANNOTATION], "2");
    // A DaemonSet that another seal left nowhere: our mark is not what it was like.
    let nowhere = BTreeMap::from([(NOWHERE.to_owned(), "other".to_owned())]);
    let set = workload(Kind::DaemonSet, Shape::Nodes(nowhere), Some(("{}", "other")));
    assert_eq!(set.stop("seal").unwrap()["metadata"]["annotations"][RECORDED_ANNOTATION], "{}");
}

#[test]
fn unrecorded_replicas_are_not_guessed() {
    for (was, expected) in [("true", Some(true)), ("false", Some(false)), ("perhaps", None)] {
        let meta = workload(Kind::CronJob, Shape::Suspend(true), Some((was, "seal"))).meta;
        assert_eq!((recorded_suspend(&meta, "seal"), recorded_suspend(&meta, "another")), (expected, None));
    }
    for record in [None, Some(("3", "other")), Some(("-1", "seal")), Some(("many", "seal"))] {
        let stopped = workload(Kind::Deployment, Shape::Replicas(0), record);
        let error = stopped.start(Some("seal"), None).unwrap_err().to_string();
        assert!(error.starts_with("Deployment library/web: "), "{error}");
        assert_eq!(stopped.start(Some("seal"), Some(2)).unwrap().unwrap()["spec"]["replicas"], 2);
    }
    let stopped = workload(Kind::Deployment, Shape::Replicas(0), Some(("3", "seal")));
    assert!(stopped.start(None, None).is_err(), "no seal known");
    let idle = workload(Kind::Deployment, Shape::Replicas(0), Some(("0", "seal")));
    assert_eq!(idle.start(Some("seal"), None).unwrap(), None, "what was at zero stays at zero");
    assert_eq!(idle.start(Some("seal"), Some(2)).unwrap().unwrap()["spec"]["replicas"], 2);
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn replica_set_belongs_to_the_deployment_with_its_owner_uid() {
    let deployments: BTreeSet<String> = ["u1".to_owned()].into();
    for (version, kind, uid, controller, expected) in [
        ("apps/v1", "Deployment", "u1", json!(true), true),
        ("apps/v1", "Deployment", "u1", json!(false), false),
        ("apps/v1", "Deployment", "u1", Value::Null, false),
        ("apps/v1", "Deployment", "u2", json!(true), false),
        ("apps.implant.example/v1", "Deployment", "u2", json!(true), false),
        ("argoproj.io/v1", "Rollout", "u2", json!(true), false),
    ] {
        let owner =
            json!({"apiVersion": version, "kind": kind, "name": "web", "uid": uid, "controller": controller});
        let set = read(json!({"metadata": {"ownerReferences": [owner]}}));
        assert_eq!(
            is_rollout(&set, &deployments),
            expected,
            "{version} {kind} {uid}, controller {controller}"
        );
    }
    assert!(!is_rollout(&ReplicaSet::default(), &deployments));
}

/// A tenant may fill a workload's annotations up to the last byte.
#[test]
fn a_workload_without_room_for_a_record_is_stopped_without() {
    let mut full = workload(Kind::Deployment, Shape::Replicas(3), None);
    full.meta.annotations = Some([("filler".to_owned(), "x".repeat(ANNOTATIONS_LIMIT - 20))].into());
    let stopped = after(full.clone(), &full.halt());
    assert!(stopped.is_stopped());
    assert_eq!(stopped.stop("seal"), None, "nothing more can be written on it");
    assert!(stopped.start(Some("seal"), None).is_err(), "the plan has to say how many");
}

#[test]
fn a_job_may_start_something_until_it_has_ended() {
    assert!(has_not_ended(&Job::default()));
    for (condition, status, expected) in [
        ("Complete", "True", false),
        ("Failed", "True", false),
        ("Failed", "False", true),
        ("Complete", "Unknown", true),
        ("Suspended", "True", true),
    ] {
        let conditions = json!([{"type": condition, "status": status}]);
        let job = read(json!({"metadata": {}, "status": {"conditions": conditions}}));
        assert_eq!(has_not_ended(&job), expected, "{condition} {status}");
    }
}

#[test]
fn stateful_set_drops_claims_only_if_when_scaled_is_delete() {
    for (policy, expected) in [
        (json!({"whenScaled": "Delete"}), true),
        (json!({"whenScaled": "Retain", "whenDeleted": "Delete"}), false),
        (Value::Null, false),
    ] {
        let spec = json!({
            "selector": {}, "serviceName": "", "template": {}, "persistentVolumeClaimRetentionPolicy": policy,
        });
        let set: StatefulSet = read(json!({"metadata": {}, "spec": spec}));
        assert_eq!(Workload::from(set).drops_claims, expected, "{policy}");
    }
}

#[test]
fn any_workload_is_stopped_once() {
    let meta = json!({"name": "web", "namespace": "library", "annotations": {RECORDED_ANNOTATION: "{}", SEAL_ANNOTATION: "seal"}});
    let claims = json!({"whenScaled": "Delete", "whenDeleted": "Retain"});
    let sound = json!([
        {"metadata": meta, "spec": {"replicas": 2, "selector": {}, "serviceName": "web", "template": {}, "persistentVolumeClaimRetentionPolicy": claims}},
        {"metadata": meta, "spec": {"selector": {}, "template": {"spec": {"nodeSelector": {"disk": "ssd"}, "containers": []}}}},
        {"metadata": meta, "spec": {"schedule": "@daily", "suspend": false, "jobTemplate": {}}},
    ]);
    let readable = fuzz_input::Readable::default();
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| {
        let Some((set, daemons, cron)) =
            readable.read::<(StatefulSet, DaemonSet, CronJob)>(fuzz_input::spoiled(&sound, bytes))
        else {
            return;
        };
        for workload in [Workload::from(set), Workload::from(daemons), Workload::from(cron)] {
            let _ = (recorded_replicas(&workload.meta, "seal"), recorded_nodes(&workload.meta, "seal"));
            if let Some(patch) = workload.stop("another") {
                let stopped = after(workload, &patch);
                assert!(stopped.is_stopped(), "{stopped:?}");
                assert_eq!(stopped.stop("another"), None);
            }
        }
    });
}
