use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::*;
use crate::isolation::controls::workloads::Lists;

const NOW: &str = "2025-11-24T10:30:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn object<K: serde::de::DeserializeOwned>(name: &str, was: Option<&str>, spec: Value) -> K {
    let annotations = was.map(|was| json!({"resurgam.dev/replicas": was, "resurgam.dev/seal": "seal"}));
    let meta = json!({
        "name": name, "namespace": "library", "annotations": annotations, "creationTimestamp": "2025-01-01T00:00:00Z",
    });
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

fn deployment(name: &str, replicas: i32, was: Option<&str>) -> Deployment {
    object(name, was, json!({"replicas": replicas, "selector": {}, "template": {}}))
}

fn cronjob(name: &str, schedule: &str, suspend: bool, was: Option<&str>) -> CronJob {
    object(name, was, json!({"schedule": schedule, "suspend": suspend, "jobTemplate": {}}))
}

fn read(deployments: Vec<Deployment>, cronjobs: Vec<CronJob>) -> ReleaseRead {
    let lists = Lists { deployments, cronjobs: cronjobs.clone(), ..Lists::default() };
    ReleaseRead {
        inventory: Ok(lists.into()),
        cronjobs,
        jobs: Vec::new(),
        accounts: Ok(Vec::new()),
        policies: Ok(Vec::new()),
    }
}

fn quarantine(level: &str) -> Quarantine {
    serde_json::from_value(json!({
        "metadata": {"name": "library", "uid": "seal"},
        "spec": {"isolation": "Sealed", "reason": "unusual logins"},
        "status": {"isolation": level, "unmanagedPods": ["debug"]},
    }))
    .unwrap()
}

fn whats(starts: &[Start]) -> Vec<&str> {
    starts.iter().map(|start| start.what.as_str()).collect()
}

#[test]
fn what_was_recorded_is_started_and_nothing_else() {
    let all = vec![
        deployment("web", 0, Some("2")),
        deployment("off", 0, Some("0")),
        deployment("runs", 3, Some("3")),
        deployment("full", 0, None),
    ];
    let found = starts(&read(all, Vec::new()), Records::Of("seal"), true, false, now());
    assert_eq!(whats(&found.starts), ["Deployment web ×2"]);
    assert_eq!(found.starts[0].patch, json!({"spec": {"replicas": 2}}));
    assert_eq!(found.starts[0].command, "kubectl -n library scale deployment web --replicas=2");
    let held: Vec<_> = found.held.iter().map(|held| (held.what.as_str(), held.command.as_str())).collect();
    assert_eq!(held, [("Deployment full", "kubectl -n library scale deployment full --replicas=NUMBER")]);
}

#[test]
fn records_of_another_quarantine_count_once_they_are_released() {
    let mut web = deployment("web", 0, Some("2"));
    let found = |web: &Deployment, records| {
        starts(&read(vec![web.clone()], Vec::new()), records, false, false, now()).starts.len()
    };
    assert_eq!((found(&web, Records::Of("another")), found(&web, Records::All)), (0, 1));
    web.metadata.annotations.as_mut().unwrap().insert(RELEASED_ANNOTATION.into(), "true".into());
    assert_eq!(found(&web, Records::Of("another")), 1);
}

#[test]
fn cronjob_with_a_missed_run_stays_suspended_unless_asked_for() {
    let all = || {
        vec![
            cronjob("nightly", "0 2 1 1 *", true, Some("false")),
            cronjob("payroll", "0 2 * * *", true, Some("false")),
            cronjob("off", "0 2 * * *", true, Some("true")),
            cronjob("odd", "whenever", true, Some("false")),
        ]
    };
    let found = starts(&read(Vec::new(), all()), Records::Of("seal"), true, false, now());
    assert_eq!(whats(&found.starts), Vec::<&str>::new(), "all are older than their schedules");
    let held: Vec<_> = found.held.iter().map(|held| (held.what.as_str(), held.by_choice)).collect();
    assert_eq!(held, [("CronJob nightly", true), ("CronJob odd", false), ("CronJob payroll", true)]);
    let found = starts(&read(Vec::new(), all()), Records::Of("seal"), true, true, now());
    assert_eq!(whats(&found.starts), ["CronJob nightly", "CronJob payroll"]);
    assert_eq!(found.starts[1].fires, "would start at once: missed 2025-11-24 02:00 UTC");
}

#[test]
fn forecast_names_what_fires_by_itself_and_what_is_lost() {
    let running = cronjob("payroll", "0 2 * * *", false, None);
    let told = forecast(
        &quarantine("Contained"),
        &read(vec![deployment("web", 2, None)], vec![running]),
        false,
        now(),
    );
    assert_eq!(told.fires, ["CronJob payroll would start at once: missed 2025-11-24 02:00 UTC"]);
    assert_eq!(told.starts, Starts::default());
    assert_eq!(told.lost, ["pod debug: no workload brings it back"]);
    let mut unread = read(Vec::new(), Vec::new());
    unread.accounts = Err("list serviceaccounts: forbidden".into());
    assert_eq!(
        forecast(&quarantine("Sealed"), &unread, false, now()).unread,
        ["list serviceaccounts: forbidden"]
    );
}

#[test]
fn claimed_namespace_names_its_plan() {
    let mut claimed = quarantine("Sealed");
    assert_eq!(claim(&claimed), None);
    claimed.status.as_mut().unwrap().claimed_by = serde_json::from_value(json!({
        "planUid": "u", "planNamespace": "recovery", "plan": "council", "service": "library", "attempt": 2, "display": "",
    }))
    .unwrap();
    let why = claim(&claimed).unwrap();
    assert!(why.contains("plan recovery/council") && why.contains("--even-if-claimed"), "{why}");
}
