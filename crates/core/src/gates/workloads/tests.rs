use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::api::quarantine::Contents;
use crate::api::step::ScaleSpec;
use crate::api::{GateSpec, Verdict};
use crate::isolation::Seal;

const SEAL: &str = "seal-1";

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn question(phase: Phase) -> Question {
    Question {
        seals: [("library".to_owned(), Seal { uid: SEAL.to_owned(), ..Seal::default() })].into(),
        started: vec![ScaleSpec::default()],
        ..Question::new("recovery", vec!["library".into()], phase, GateSpec::default())
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
fn deployment_is_judged_by_what_was_started_and_later_by_its_spec() {
    use Verdict::{Fail, Pass, Unknown};
    let (seal, other) = (Some(SEAL), Some("seal-0"));
    // specified, ready, by which seal, recorded; before release; continuous
    for (specified, ready, by, recorded, release, continuous) in [
        (3, 3, None, "", (Pass, "Current"), (Pass, "Current")),
        (3, 3, seal, "3", (Pass, "Current"), (Pass, "Current")),
        (5, 5, seal, "3", (Pass, "Current"), (Pass, "Current")),
        // Some are ready: a rollout, or an autoscaler at work, just as well as a loss.
        (3, 2, seal, "3", (Unknown, "InProgress"), (Unknown, "InProgress")),
        (5, 3, seal, "3", (Unknown, "InProgress"), (Unknown, "InProgress")),
        (3, 0, seal, "3", (Unknown, "InProgress"), (Fail, "NotReady")),
        // After the release autoscalers and people may change the number.
        (2, 2, seal, "3", (Unknown, "FewerReplicas"), (Pass, "Current")),
        (0, 0, seal, "3", (Unknown, "FewerReplicas"), (Pass, "Current")),
        // Zero comes back as zero, and is complete.
        (0, 0, seal, "0", (Pass, "Current"), (Pass, "Current")),
        (0, 0, None, "", (Pass, "Current"), (Pass, "Current")),
        (2, 2, seal, "0", (Pass, "Current"), (Pass, "Current")),
        // What another seal recorded is ignored.
        (2, 2, other, "3", (Pass, "Current"), (Pass, "Current")),
        (3, 3, seal, "three", (Unknown, "MalformedRecord"), (Pass, "Current")),
        (3, 3, seal, "-1", (Unknown, "MalformedRecord"), (Pass, "Current")),
        (3, 3, seal, "", (Unknown, "MalformedRecord"), (Pass, "Current")),
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
fn number_of_the_plan_counts_instead_of_the_record() {
    let with = |number: Option<i32>, labels: &[(&str, &str)], specified: i32| {
        let match_labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let started = vec![ScaleSpec { replicas: number, match_labels }];
        let question = Question { started, ..question(Phase::BeforeRelease) };
        let inventory = deployments(&[deployment("web", specified, specified, Some((SEAL, "3")))]);
        judge(&WorkloadsSpec::default(), &question, &inventory).reason
    };
    assert_eq!(with(None, &[], 1), GateReason::FewerReplicas);
    assert_eq!(with(Some(1), &[], 1), GateReason::Current);
    assert_eq!(with(Some(0), &[], 0), GateReason::Current, "the plan leaves it at zero");
    assert_eq!(with(Some(4), &[], 3), GateReason::FewerReplicas);
    assert_eq!(with(None, &[("app", "db")], 0), GateReason::Current, "no step starts it");
}

#[test]
fn nothing_to_run_passes_only_if_nothing_ran() {
    let with = |contents: Option<(i32, i32)>, inventory: &Inventory| {
        let contents = contents.map(|(workloads, unmanaged_pods)| Contents { workloads, unmanaged_pods });
        let mut question = question(Phase::BeforeRelease);
        question.seals.insert("library".into(), Seal { uid: SEAL.into(), contents, ..Seal::default() });
        judge(&WorkloadsSpec::default(), &question, inventory)
    };
    let cron_jobs = Inventory {
        cron_jobs: vec![parsed(
            json!({"metadata": meta("nightly"), "spec": {"schedule": "0 0 * * *", "jobTemplate": {}}}),
        )],
        ..Inventory::default()
    };
    for inventory in [&Inventory::default(), &cron_jobs] {
        for (contents, passes) in
            [(None, false), (Some((0, 0)), true), (Some((2, 0)), false), (Some((0, 1)), false)]
        {
            let answer = with(contents, inventory);
            let wanted = if passes { GateReason::NothingToRun } else { GateReason::NothingFound };
            assert_eq!((answer.reason, answer.verdict == Verdict::Pass), (wanted, passes), "{contents:?}");
        }
    }
    // The operator of a custom resource has started its pod.
    let owner = json!([{"apiVersion": "db.example/v1", "kind": "Cluster", "name": "c", "uid": "c", "controller": true}]);
    let mut meta = meta("db-1");
    meta["ownerReferences"] = owner;
    let pod = |status: Value| Inventory {
        pods: vec![parsed(json!({"metadata": meta, "status": status}))],
        ..Inventory::default()
    };
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    assert_eq!(with(Some((0, 1)), &pod(ready)).reason, GateReason::Current);
    assert_eq!(with(Some((0, 1)), &pod(json!({"phase": "Pending"}))).reason, GateReason::InProgress);
    assert_eq!(with(Some((1, 0)), &pod(json!({"phase": "Failed"}))).reason, GateReason::NothingFound);
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
        assert!(answer.message.starts_with("Deployment library/z-failed: "), "{answer:?}");
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
        judge(
            &WorkloadsSpec { match_labels, ..WorkloadsSpec::default() },
            &question(Phase::BeforeRelease),
            &inventory,
        )
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
    assert_eq!(answer.message, "2 workloads are current (besides 2 CronJobs or Jobs, left out)");

    inventory.jobs.push(job("queued", true, Some("seal-0")));
    let answer = asked(Phase::BeforeRelease, &inventory);
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "Suspended"));
    assert!(answer.message.starts_with("Job library/queued"), "{}", answer.message);
}

#[test]
fn what_has_ended_is_not_judged_unless_the_plan_asks_for_jobs() {
    let condition =
        |type_: &str| json!({"conditions": [{"type": type_, "status": "True", "message": "as it said"}]});
    let job = |name: &str, type_: &str| {
        parsed(json!({"metadata": meta(name), "spec": {"template": {}}, "status": condition(type_)}))
    };
    let pod = |name: &str, phase: &str, owner: Option<Value>| {
        let mut meta = meta(name);
        if let Some(owner) = owner {
            meta["ownerReferences"] = json!([owner]);
        }
        parsed(json!({"metadata": meta, "status": {"phase": phase, "reason": "Error"}}))
    };
    let cluster = json!({"apiVersion": "db.example/v1", "kind": "Cluster", "name": "c", "uid": "c", "controller": true});
    let mut inventory = deployments(&[deployment("web", 1, 1, None)]);
    inventory.jobs = vec![job("migrate-41", "Failed"), job("migrate-42", "Complete")];
    inventory.pods = vec![pod("smoke-test", "Failed", None), pod("hook", "Succeeded", None)];
    let with = |jobs, inventory: &Inventory| {
        judge(&WorkloadsSpec { jobs, ..WorkloadsSpec::default() }, &question(Phase::Continuous), inventory)
            .reason
    };
    assert_eq!(with(JobChecks::Ignore, &inventory), GateReason::Current);
    assert_eq!(with(JobChecks::Fail, &inventory), GateReason::JobFailed);
    // One that a controller runs is to run.
    inventory.pods.push(pod("db-1", "Failed", Some(cluster)));
    assert_eq!(with(JobChecks::Ignore, &inventory), GateReason::PodFailed);
}

#[test]
fn a_daemon_set_that_fits_no_node_is_current() {
    let daemon_set = |desired: i32, observed: i64| {
        let mut meta = meta("agent");
        meta["annotations"] = json!({SEAL_ANNOTATION: SEAL, RECORDED_ANNOTATION: "{\"disk\":\"ssd\"}"});
        parsed(json!({"metadata": meta, "spec": {"selector": {}, "template": {}}, "status": {
            "observedGeneration": observed, "desiredNumberScheduled": desired, "currentNumberScheduled": desired,
            "updatedNumberScheduled": desired, "numberReady": desired, "numberAvailable": desired,
            "numberMisscheduled": 0}}))
    };
    for (desired, observed, wanted) in
        [(0, 1, GateReason::Current), (2, 1, GateReason::Current), (0, 0, GateReason::InProgress)]
    {
        let inventory = Inventory { daemon_sets: vec![daemon_set(desired, observed)], ..Default::default() };
        assert_eq!(asked(Phase::BeforeRelease, &inventory).reason, wanted, "{desired} {observed}");
    }
}

#[test]
fn paused_rollout_that_a_person_accepted_is_current_in_its_old_revision() {
    let mut paused = deployment("web", 2, 2, None);
    paused["spec"]["paused"] = json!(true);
    paused["status"]["updatedReplicas"] = json!(0);
    let inventory = deployments(&[paused]);
    let with = |accepted: &[&str]| {
        let accepted_rollouts = accepted.iter().map(|&name| name.to_owned()).collect();
        let question = Question { accepted_rollouts, ..question(Phase::BeforeRelease) };
        judge(&WorkloadsSpec::default(), &question, &inventory).reason
    };
    assert_eq!(with(&[]), GateReason::InProgress);
    assert_eq!(with(&["Deployment library/other"]), GateReason::InProgress);
    assert_eq!(with(&["Deployment library/web"]), GateReason::Current);
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
