//! Steps that take their time: Jobs of the plan, with Kubernetes' own Job controller.

use kube::api::{ListParams, Patch, PatchParams};
use rehearsal::{eventually, field, kind, text};
use serde_json::{Value, json};

use super::{apply, pin_images, wait};
use crate::bad_input::bench::{Bench, DIGEST, KINDS, binding, cluster, kept_log, restart_operator, role};

/// A Job's spec. It runs where a node has this label, and ends well there.
fn spec(label: &str) -> Value {
    let selector = if label.is_empty() { json!({}) } else { json!({label: "true"}) };
    json!({
        "backoffLimit": 0,
        "template": {"spec": {"restartPolicy": "Never", "nodeSelector": selector,
            "containers": [{"name": "main", "image": format!("registry.example/web:1@{DIGEST}")}]}},
    })
}

/// An estate whose account may create Jobs and read them, and has `more` rights.
async fn bench(case: &'static str, more: &Value) -> Bench {
    Bench::with(case, &["db", "web"], |manifests| {
        let jobs = format!("{case}-jobs");
        let mut rules =
            vec![json!({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list"]})];
        rules.extend(more.as_array().unwrap().iter().cloned());
        manifests.push(role("ClusterRole", &jobs, "", &json!(rules)));
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": case}]);
        manifests.push(binding("ClusterRole", &jobs, &format!("{case}-db"), &account));
    })
    .await
}

/// A plan by which `db` is restored so.
fn plan(bench: &Bench, restore: &Value) -> Value {
    let mut db = bench.service("db", &[]);
    db["restore"] = restore.clone();
    bench.plan("plan", json!([db, bench.service("web", &["db"])]))
}

/// The names of all Jobs of `db`, oldest first.
async fn jobs(bench: &Bench) -> Vec<String> {
    let jobs = kind(&bench.admin, "batch/v1", "Job", Some(&bench.namespace("db")));
    let mut found = jobs.list(&ListParams::default()).await.unwrap().items;
    found.sort_by_key(|job| job.metadata.creation_timestamp.clone());
    found.into_iter().filter_map(|job| job.metadata.name).collect()
}

fn step(record: &Value, index: usize) -> (String, String) {
    let at = |key: &str| text(record, &format!("/status/steps/{index}/{key}")).to_owned();
    (at("state"), at("message"))
}

#[tokio::test]
async fn jobs_run_in_the_clean_room_and_after_release() {
    let bench = bench("steps", &json!([])).await;
    let plan = plan(
        &bench,
        &json!([
            {"name": "tell", "phase": "AfterRelease", "job": {"spec": spec("")}},
            {"name": "start", "scale": {}},
            {"name": "load", "job": {"spec": spec("")}},
        ]),
    );
    bench.apply(&plan).await;
    bench.recovers("plan", "db").await;
    bench.recovers("plan", "web").await;
    let names = jobs(&bench).await;
    let begins: Vec<bool> = names
        .iter()
        .zip(["step-load-1-", "step-tell-1-"])
        .map(|(name, start)| name.starts_with(start))
        .collect();
    assert_eq!(begins, [true, true], "{names:?}");
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("steps"));
    let record = serde_json::to_value(records.get("plan.db").await.unwrap()).unwrap();
    for index in 0..3 {
        let (state, message) = step(&record, index);
        // The account may not read logs, which keeps no step from ending.
        let unkept = message.starts_with("no log is kept: log of main: ") && message.contains("pods/log");
        assert!(state == "Done" && unkept == (index != 1), "{state}: {message}");
    }
    let report = bench.judged(&plan).await;
    // A Deployment for each service, and two Jobs.
    assert_eq!(report.steps, 4, "{report}");
}

/// One restart for all steps, as each leaves requests without an answer that other tests' logs then have.
#[tokio::test]
async fn steps_survive_the_operator_and_are_done_once() {
    let others = async {
        tokio::join!(apply::Interrupted::new(), pin_images::Interrupted::new(), wait::Interrupted::new())
    };
    let bench = bench("steplong", &json!([])).await;
    let label = "resurgam.example/steplong";
    let plan = plan(
        &bench,
        &json!([{"name": "start", "scale": {}}, {"name": "load", "job": {"spec": spec(label)}}]),
    );
    bench.apply(&plan).await;
    let record = bench.says("plan", "db", "StepRunning", &["load", "of its pods run"]).await;
    assert_eq!(step(&record, 1).0, "Running");
    let before = jobs(&bench).await;
    let (applying, pinning, waiting) = others.await;
    restart_operator().await;
    // Whoever leads now looks at it again.
    let nodes = kind(&bench.admin, "v1", "Node", None);
    let node = nodes.list(&ListParams::default()).await.unwrap().items.remove(0).metadata.name.unwrap();
    let patch = json!({"metadata": {"labels": {label: "true"}}});
    nodes.patch(&node, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    bench.recovers("plan", "db").await;
    bench.recovers("plan", "web").await;
    assert_eq!((jobs(&bench).await, before.len()), (before, 1));
    bench.judged(&plan).await;
    tokio::join!(applying.goes_on(), pinning.goes_on(), waiting.goes_on());
}

#[tokio::test]
async fn failed_job_asks_a_person_and_retry_runs_another() {
    let bench = bench("stepfail", &json!([])).await;
    let mut late = spec("resurgam.example/none");
    late["activeDeadlineSeconds"] = json!(1);
    let plan =
        plan(&bench, &json!([{"name": "start", "scale": {}}, {"name": "load", "job": {"spec": late}}]));
    bench.apply(&plan).await;
    let first =
        bench.says("plan", "db", "StepFailed", &["load", "active longer than specified deadline"]).await;
    assert_eq!(text(&first, "/status/decision/reason"), "StepFailed");
    rehearsal::retry(&bench.lead().await, "stepfail", "plan", "db", "a test").await.unwrap();
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("stepfail"));
    let failed = |o: &Value| field(o, "/status/attempt") == 2 && step(o, 1).0 == "Failed";
    eventually(&records, "plan.db", "the second attempt's step to fail", rehearsal::DEADLINE, failed)
        .await
        .unwrap();
    let names = jobs(&bench).await;
    assert!(names.len() == 2 && names[1].starts_with("step-load-2-"), "{names:?}");
    bench.judged(&plan).await;
}

#[tokio::test]
async fn failed_job_is_undone_before_it_starts_again() {
    let bench = bench("stepundo", &json!([])).await;
    let mut late = spec("resurgam.example/none");
    late["activeDeadlineSeconds"] = json!(1);
    let load = json!({"name": "load", "job": {"spec": late}, "undo": {"job": {"spec": spec("")}}, "retries": 1, "backoff": "1s"});
    let plan = plan(&bench, &json!([{"name": "start", "scale": {}}, load]));
    bench.apply(&plan).await;
    let first =
        bench.says("plan", "db", "StepFailed", &["load", "active longer than specified deadline"]).await;
    assert_eq!((text(&first, "/status/steps/1/name"), step(&first, 1).0.as_str()), ("load-undo", "Done"));
    rehearsal::retry(&bench.lead().await, "stepundo", "plan", "db", "a test").await.unwrap();
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("stepundo"));
    let failed = |o: &Value| field(o, "/status/attempt") == 2 && step(o, 2).0 == "Failed";
    eventually(&records, "plan.db", "the second attempt's step to fail", rehearsal::DEADLINE, failed)
        .await
        .unwrap();
    let jobs = kind(&bench.admin, "batch/v1", "Job", Some(&bench.namespace("db")));
    let jobs: Vec<Value> =
        jobs.list(&ListParams::default()).await.unwrap().items.iter().map(|job| json!(job)).collect();
    // Of each attempt: at first, and once more by itself.
    let mut begins: Vec<(&str, &str)> = jobs
        .iter()
        .map(|job| {
            (
                text(job, "/metadata/creationTimestamp"),
                text(job, "/metadata/name").rsplit_once('-').unwrap().0,
            )
        })
        .collect();
    begins.sort_unstable();
    let count = |name: &str| begins.iter().filter(|(_, of)| *of == name).count();
    let counts = ["step-load-1", "step-load-undo-1", "step-load-undo-2", "step-load-2"].map(count);
    assert_eq!(counts, [2, 1, 2, 2], "{begins:?}");
    // An undo begins after a start of the step has failed, and has ended before the next one begins.
    for undo in jobs.iter().filter(|job| text(job, "/metadata/name").contains("-undo-")) {
        let (began, ended) =
            (text(undo, "/metadata/creationTimestamp"), text(undo, "/status/completionTime"));
        assert!(!ended.is_empty(), "{undo}");
        let loads = jobs.iter().filter(|job| !text(job, "/metadata/name").contains("-undo-"));
        let overlaps = loads.filter(|load| {
            let failed = field(load, "/status/conditions")
                .as_array()
                .into_iter()
                .flatten()
                .find(|c| c["type"] == "Failed");
            let failed = failed.and_then(|c| c["lastTransitionTime"].as_str()).unwrap();
            text(load, "/metadata/creationTimestamp") < ended && failed > began
        });
        assert_eq!(overlaps.count(), 0, "{jobs:?}");
    }
    bench.judged(&plan).await;
}

#[tokio::test]
async fn failed_job_says_its_exit_code_and_where_its_log_is_kept() {
    const CANARY: &str = "FATAL: password authentication failed for canary-5e1f";
    cluster().await.write_container_logs(&["restoring", CANARY], &[]).unwrap();
    let logs = json!([{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}]);
    let bench = bench("steplogs", &logs).await;
    let mut fails = spec("");
    fails["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "KWOK_EXIT_CODE", "value": "3"}, {"name": "KWOK_RESULT", "value": CANARY}]);
    let plan = plan(&bench, &json!([{"name": "load", "job": {"spec": fails}}]));
    bench.apply(&plan).await;
    let words =
        ["Job step-load-1-", "container main of Pod step-load-1-", "ended with exit code 3", "its log: "];
    let record = bench.says("plan", "db", "StepFailed", &words).await;
    let (state, message) = step(&record, 0);
    let object = message.rsplit("its log: ").next().unwrap();
    assert!(
        state == "Failed" && object.starts_with("steplogs-db/") && object.ends_with(".log.age"),
        "{message}"
    );
    assert!(kept_log(object).await.contains(CANARY));
    // What a program wrote is nowhere else.
    let events = kind(&bench.admin, "events.k8s.io/v1", "Event", Some("steplogs"));
    let events = serde_json::to_string(&events.list(&ListParams::default()).await.unwrap().items).unwrap();
    let log = std::fs::read_to_string(cluster().await.dir().join("operator.log")).unwrap();
    for text in [record.to_string(), events, log] {
        assert!(!text.contains("canary-5e1f"), "{text}");
    }
    bench.judged(&plan).await;
}

#[tokio::test]
async fn job_that_its_account_may_not_create_names_the_right() {
    let bench = Bench::new("stepdenied", &["db", "web"]).await;
    let plan = plan(&bench, &json!([{"name": "load", "job": {"spec": spec("")}}]));
    bench.apply(&plan).await;
    let words = ["create Job stepdenied-db/step-load-1-", "stepdenied:recovery", "cannot create resource"];
    bench.says("plan", "db", "StepDenied", &words).await;
    assert_eq!(jobs(&bench).await, Vec::<String>::new());
}
