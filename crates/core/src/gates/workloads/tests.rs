use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::api::{GateSpec, Verdict};

const SEAL: &str = "seal-1";

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn question(phase: Phase) -> Question {
    Question {
        plan_namespace: "recovery".into(),
        namespaces: vec!["library".into()],
        phase,
        spec: GateSpec::default(),
        seals: [("library".to_owned(), SEAL.to_owned())].into(),
    }
}

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "library", "uid": format!("uid-{name}"), "generation": 1})
}

/// A Deployment of so many replicas, of which so many are ready, stopped at so many by a seal.
fn deployment(name: &str, specified: i32, ready: i32, record: Option<(&str, &str)>) -> Value {
    let mut meta = meta(name);
    if let Some((seal, replicas)) = record {
        meta["annotations"] = json!({SEAL_ANNOTATION: seal, RECORDED_ANNOTATION: replicas});
    }
    json!({
        "metadata": meta,
        "spec": {"replicas": specified, "selector": {}, "template": {}},
        "status": {
            "observedGeneration": 1, "replicas": specified, "updatedReplicas": specified, "readyReplicas": ready,
            "availableReplicas": ready,
        },
    })
}

fn deployments(objects: &[Value]) -> Inventory {
    Inventory { deployments: objects.iter().cloned().map(parsed).collect(), ..Default::default() }
}

fn asked(phase: Phase, inventory: &Inventory) -> Answer {
    judge(&WorkloadsSpec::default(), &question(phase), inventory)
}

#[test]
fn deployment_is_judged_by_specified_recorded_ready_replicas() {
    use Verdict::{Fail, Pass, Unknown};
    let (seal, other) = (Some(SEAL), Some("seal-0"));
    // specified, ready, by which seal, recorded; before release; continuous
    for (specified, ready, by, recorded, release, continuous) in [
        (3, 3, None, "", (Pass, "Current"), (Pass, "Current")),
        (3, 3, seal, "3", (Pass, "Current"), (Pass, "Current")),
        (5, 5, seal, "3", (Pass, "Current"), (Pass, "Current")),
        (3, 2, seal, "3", (Unknown, "InProgress"), (Fail, "NotReady")),
        (3, 2, None, "", (Unknown, "InProgress"), (Fail, "NotReady")),
        // It grows beyond what was recorded.
        (5, 3, seal, "3", (Unknown, "InProgress"), (Unknown, "InProgress")),
        (5, 2, seal, "3", (Unknown, "InProgress"), (Fail, "NotReady")),
        (2, 2, seal, "3", (Unknown, "FewerReplicas"), (Unknown, "FewerReplicas")),
        (0, 0, seal, "3", (Unknown, "FewerReplicas"), (Unknown, "FewerReplicas")),
        (0, 0, seal, "0", (Unknown, "ZeroRecorded"), (Unknown, "ZeroRecorded")),
        (0, 0, None, "", (Unknown, "ZeroReplicas"), (Unknown, "ZeroReplicas")),
        // The plan gave a number instead.
        (2, 2, seal, "0", (Pass, "Current"), (Pass, "Current")),
        // What another seal recorded is ignored.
        (2, 2, other, "3", (Pass, "Current"), (Pass, "Current")),
        (0, 0, other, "0", (Unknown, "ZeroReplicas"), (Unknown, "ZeroReplicas")),
        (3, 3, seal, "three", (Unknown, "MalformedRecord"), (Unknown, "MalformedRecord")),
        (3, 3, seal, "-1", (Unknown, "MalformedRecord"), (Unknown, "MalformedRecord")),
        (3, 3, seal, "", (Unknown, "MalformedRecord"), (Unknown, "MalformedRecord")),
    ] {
        let inventory = deployments(&[deployment("web", specified, ready, by.map(|seal| (seal, recorded)))]);
        for (phase, wanted) in [(Phase::BeforeRelease, release), (Phase::Continuous, continuous)] {
            let answer = asked(phase, &inventory);
            let case = format!("{phase:?}: {ready} of {specified}, {by:?} recorded '{recorded}': {answer:?}");
            assert_eq!((answer.verdict, answer.reason.as_str()), wanted, "{case}");
            assert!(answer.verdict == Pass || answer.message.contains("Deployment library/web"), "{case}");
            assert_eq!(answer.evidence.is_some(), answer.verdict != Unknown, "{case}");
        }
    }
}

#[test]
fn missing_replicas_are_reported_as_n_of_m() {
    let answer = asked(Phase::BeforeRelease, &deployments(&[deployment("web", 3, 2, None)]));
    assert_eq!(answer.message, "Deployment library/web: 2 of 3 ready");
}

#[test]
fn one_that_failed_speaks_before_others_that_are_not_yet_there() {
    let mut failed = deployment("z-failed", 3, 1, None);
    failed["status"]["conditions"] = json!([
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too slow"}]);
    let inventory = deployments(&[deployment("a-slow", 2, 1, None), failed, deployment("fine", 1, 1, None)]);
    for phase in [Phase::BeforeRelease, Phase::Continuous] {
        let answer = asked(phase, &inventory);
        assert_eq!(answer.verdict, Verdict::Fail);
        let culprit = if phase == Phase::Continuous { "a-slow" } else { "z-failed" };
        assert!(
            answer.message.starts_with(&format!("Deployment library/{culprit} (and 1 more): ")),
            "{answer:?}"
        );
    }
}

#[test]
fn nothing_found_is_unknown_and_names_where() {
    let answer = asked(Phase::BeforeRelease, &Inventory::default());
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NothingFound"));
    assert!(answer.message.contains("library"));

    // One of two namespaces is empty, perhaps misspelt.
    let mut both = question(Phase::BeforeRelease);
    both.namespaces.push("libary".into());
    let answer = judge(&WorkloadsSpec::default(), &both, &deployments(&[deployment("web", 1, 1, None)]));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NothingFound"));
    assert!(answer.message.contains("namespace libary"), "{}", answer.message);

    let external = Question { namespaces: Vec::new(), ..question(Phase::BeforeRelease) };
    let answer = judge(&WorkloadsSpec::default(), &external, &Inventory::default());
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NothingFound"));
}

#[test]
fn labels_select_workloads_and_an_empty_selection_is_unknown() {
    let mut web = deployment("web", 1, 1, None);
    web["metadata"]["labels"] = json!({"app": "web", "tier": "front"});
    let inventory = deployments(&[web, deployment("slow", 2, 0, None)]);
    let with = |labels: &[(&str, &str)]| {
        let match_labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        judge(&WorkloadsSpec { match_labels }, &question(Phase::BeforeRelease), &inventory)
    };
    assert_eq!(with(&[("app", "web")]).verdict, Verdict::Pass);
    assert_eq!(with(&[("app", "web"), ("tier", "front")]).verdict, Verdict::Pass);
    for labels in [&[("app", "db")][..], &[("app", "web"), ("tier", "back")][..]] {
        let answer = with(labels);
        assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NothingFound"));
    }
    assert_eq!(with(&[]).reason, GateReason::InProgress);
}

#[test]
fn owned_objects_are_skipped_only_if_their_owner_is_listed() {
    let pod = |owner: &str| {
        let mut meta = meta("bare");
        let uid = format!("uid-{owner}");
        meta["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": owner, "uid": uid, "controller": true}]);
        parsed(json!({"metadata": meta, "status": {"phase": "Failed", "reason": "Evicted"}}))
    };
    let mut inventory = deployments(&[deployment("other", 1, 1, None)]);
    let mut stateful_set = deployment("web", 1, 1, None);
    stateful_set["spec"]["serviceName"] = json!("web");
    inventory.stateful_sets = vec![parsed(stateful_set)];
    inventory.pods = vec![pod("web")];
    assert_eq!(asked(Phase::BeforeRelease, &inventory).verdict, Verdict::Pass);
    inventory.pods = vec![pod("forged")];
    let answer = asked(Phase::BeforeRelease, &inventory);
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Fail, "PodFailed"));
    assert_eq!(answer.message, "Pod library/bare: Evicted");
}

#[test]
fn suspended_cron_jobs_and_jobs_are_skipped_and_counted() {
    let job = |name: &str, suspended: bool, seal: Option<&str>| {
        let mut meta = meta(name);
        if let Some(seal) = seal {
            meta["annotations"] = json!({SEAL_ANNOTATION: seal, RECORDED_ANNOTATION: "false"});
        }
        parsed(json!({"metadata": meta, "spec": {"suspend": suspended, "template": {}},
            "status": {"startTime": "2026-11-23T00:00:00Z"}}))
    };
    let mut inventory = deployments(&[deployment("web", 1, 1, None)]);
    inventory.cron_jobs = vec![parsed(json!({"metadata": meta("nightly"), "spec": {"schedule": "0 0 * * *",
        "jobTemplate": {}}}))];
    inventory.jobs = vec![job("import", true, Some(SEAL)), job("running", false, None)];
    let answer = asked(Phase::BeforeRelease, &inventory);
    assert_eq!(answer.verdict, Verdict::Pass);
    assert_eq!(answer.message, "2 workloads are current (besides 2 CronJobs or suspended Jobs, left out)");

    inventory.jobs.push(job("queued", true, Some("seal-0")));
    let answer = asked(Phase::BeforeRelease, &inventory);
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "Suspended"));
    assert!(answer.message.starts_with("Job library/queued"), "{}", answer.message);

    // Left out altogether is nothing shown.
    inventory.deployments.clear();
    inventory.jobs = vec![job("import", true, Some(SEAL))];
    assert_eq!(asked(Phase::BeforeRelease, &inventory).reason, GateReason::NothingFound);
}

#[test]
fn a_daemon_set_that_fits_no_node_is_unknown() {
    let daemon_set = |desired: i32| {
        let mut meta = meta("agent");
        meta["annotations"] = json!({SEAL_ANNOTATION: SEAL, RECORDED_ANNOTATION: "{\"disk\":\"ssd\"}"});
        parsed(json!({"metadata": meta, "spec": {"selector": {}, "template": {}}, "status": {
            "observedGeneration": 1, "desiredNumberScheduled": desired, "currentNumberScheduled": desired,
            "updatedNumberScheduled": desired, "numberReady": desired, "numberAvailable": desired,
            "numberMisscheduled": 0}}))
    };
    let with = |desired| Inventory { daemon_sets: vec![daemon_set(desired)], ..Default::default() };
    let answer = asked(Phase::BeforeRelease, &with(0));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "ZeroReplicas"));
    assert_eq!(answer.message, "DaemonSet library/agent: it fits no node");
    assert_eq!(asked(Phase::BeforeRelease, &with(2)).verdict, Verdict::Pass);
}

#[test]
fn evidence_changes_with_what_was_judged_and_with_nothing_else() {
    let evidence = |object: Value| asked(Phase::BeforeRelease, &deployments(&[object])).evidence.unwrap();
    let web = deployment("web", 1, 1, None);
    let mut touched = web.clone();
    touched["metadata"]["resourceVersion"] = json!("77");
    assert_eq!(evidence(web.clone()), evidence(touched));
    let mut again = web.clone();
    again["metadata"]["uid"] = json!("uid-again");
    for other in [again, deployment("web", 2, 2, None), deployment("web", 1, 1, Some((SEAL, "1")))] {
        assert_ne!(evidence(web.clone()), evidence(other.clone()), "{other}");
    }
}
