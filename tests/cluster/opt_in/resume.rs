//! CronJobs and Jobs, suspended by isolating, with Kubernetes' own CronJob controller.

use control_plane::Identity;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rehearsal::{Endpoint, eventually, field, kind, object};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, KINDS, binding, cluster, role};

fn template() -> Value {
    json!({"spec": {"restartPolicy": "Never", "nodeSelector": {"resurgam.example/none": "true"},
        "containers": [{"name": "main", "image": format!("registry.example/web:1@{DIGEST}")}]}})
}

fn cronjob(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "namespace": "resume-db"},
        "spec": {"schedule": "0 0 1 1 *", "timeZone": "Europe/London", "jobTemplate": {"spec": {"template": template()}}},
    })
}

/// As the CronJob controller: only it may write what a CronJob's status says.
async fn as_cronjob_controller() -> Client {
    let path = cluster().await.kubeconfig(Identity::PlatformAdministrator);
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some("system:serviceaccount:kube-system:cronjob-controller".to_owned());
    Client::try_from(config).unwrap()
}

/// State and forecast of each that a service lists.
fn listed(record: &Value) -> Vec<(String, String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let all = field(record, "/status/resumes").as_array().into_iter().flatten();
    all.map(|entry| (text(entry, "name"), text(entry, "state"), text(entry, "fires"))).collect()
}

fn state(record: &Value, name: &str) -> String {
    listed(record).into_iter().find(|entry| entry.0 == name).map(|entry| entry.1).unwrap_or_default()
}

#[tokio::test]
async fn resume_runs_named_cron_jobs_and_missed_runs_by_opt_in() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.answer(0);
    let bench = Bench::with("resume", &["db"], |manifests| {
        manifests.extend(["nightly", "payroll", "backlog", "forgotten"].map(cronjob));
        manifests.push(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "import", "namespace": "resume-db"},
            "spec": {"template": template()},
        }));
        let rules = json!([{"apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": ["patch"]}]);
        manifests.push(role("ClusterRole", "resume-batch", "", &rules));
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": "resume"}]);
        manifests.push(binding("ClusterRole", "resume-batch", "resume-db", &account));
    })
    .await;
    let cronjobs = kind(&bench.admin, "batch/v1", "CronJob", Some("resume-db"));
    let suspended =
        async |name: &str| object(&cronjobs, name).await.unwrap()["spec"]["suspend"] == json!(true);
    // Two of them last ran years ago: resumed, they would start what they missed.
    let clock = kind(&as_cronjob_controller().await, "batch/v1", "CronJob", Some("resume-db"));
    for name in ["payroll", "backlog"] {
        let mut found = object(&cronjobs, name).await.unwrap();
        found["status"]["lastScheduleTime"] = json!("2024-01-01T00:00:00Z");
        clock
            .replace_status(name, &PostParams::default(), &serde_json::from_value(found).unwrap())
            .await
            .unwrap();
    }

    let mut service = bench.service("db", &[]);
    let http =
        json!({"name": "login", "http": {"url": endpoint.url()}, "interval": "200ms", "timeout": "200ms"});
    service["gates"] = json!({"beforeRelease": [http]});
    service["resume"] = json!([
        {"cronJob": "nightly"}, {"cronJob": "payroll"}, {"cronJob": "backlog", "missedRun": "Fire"},
        {"cronJob": "lost"}, {"job": "import"},
    ]);
    let plan = bench.plan("plan", json!([service]));
    bench.apply(&plan).await;
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("resume"));
    let shown = |o: &Value| !listed(o).is_empty();
    let record = eventually(&records, "plan.db", "the list", rehearsal::DEADLINE, shown).await.unwrap();
    assert_eq!(record["status"]["stage"], "PostChecks");
    let all = listed(&record);
    let states: Vec<_> = all.iter().map(|(name, state, _)| (name.as_str(), state.as_str())).collect();
    let expected = [
        ("nightly", "Due"),
        ("payroll", "Held"),
        ("backlog", "Due"),
        ("lost", "Held"),
        ("import", "Due"),
        ("forgotten", "Suspended"),
    ];
    assert_eq!(states, expected);
    assert!(all[0].2.starts_with("next at ") && all[0].2.ends_with("-01-01 00:00 Europe/London"), "{all:?}");
    assert!(all[1].2.starts_with("would start at once: missed "), "{all:?}");
    assert!(all[2].2.starts_with("would start at once: missed "), "{all:?}");
    for name in ["nightly", "payroll", "backlog", "forgotten"] {
        assert!(suspended(name).await, "{name} runs in the clean room");
    }

    endpoint.answer(200);
    bench.recovers("plan", "db").await;
    let done = |o: &Value| ["nightly", "backlog", "import"].iter().all(|name| state(o, name) == "Resumed");
    let record = eventually(&records, "plan.db", "what is due", rehearsal::DEADLINE, done).await.unwrap();
    assert_eq!(
        (state(&record, "payroll"), state(&record, "forgotten")),
        ("Held".to_owned(), "Suspended".to_owned())
    );
    assert!(!suspended("nightly").await && !suspended("backlog").await);
    assert!(suspended("payroll").await && suspended("forgotten").await);
    // Kubernetes' own controller does what was said: of what was missed, what was wanted.
    let jobs = kind(&bench.admin, "batch/v1", "Job", Some("resume-db"));
    let fired = |o: &Value| field(o, "/status/active").as_array().is_some_and(|active| !active.is_empty());
    eventually(&cronjobs, "backlog", "its missed run", rehearsal::DEADLINE, fired).await.unwrap();
    let names: Vec<String> = jobs
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|job| job.metadata.name)
        .collect();
    let made_by =
        |cronjob: &str| names.iter().filter(|name| name.starts_with(&format!("{cronjob}-"))).count();
    assert_eq!(
        (made_by("backlog"), made_by("nightly"), made_by("payroll"), made_by("forgotten")),
        (1, 0, 0, 0)
    );

    let report = bench.judged(&plan).await;
    // Its Deployment, and the three that are due, each of which is tidied up once it is resumed.
    assert_eq!((report.loosenings, report.steps), (2, 7), "{report}");

    // A person suspends one again: it is theirs now.
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    cronjobs.patch("nightly", &PatchParams::default(), &suspend).await.unwrap();
    let mut plan = bench.plan("plan", json!([service]));
    plan["spec"]["maxParallel"] = json!(3);
    bench.apply(&plan).await;
    let held = |o: &Value| state(o, "nightly") == "Held";
    eventually(&records, "plan.db", "to be left alone", rehearsal::DEADLINE, held).await.unwrap();
    assert!(suspended("nightly").await);
}
