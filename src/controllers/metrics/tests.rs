use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::api::service_recovery::DecisionNeeded;
use crate::api::{Quarantine, Reason, ServiceRecoveryStatus, Stage};

fn service(stage: Stage, decision: Option<Reason>) -> ServiceRecoveryStatus {
    let needed = |reason: Reason| DecisionNeeded {
        reason,
        digest: String::new(),
        actions: Vec::new(),
        since: Time(Timestamp::UNIX_EPOCH),
    };
    ServiceRecoveryStatus { stage, decision: decision.map(needed), ..Default::default() }
}

/// A leader's metrics, with a sample of each.
fn sampled() -> Metrics {
    let metrics = Metrics::default();
    metrics.begin_leading();
    metrics.reconciled(Controller::Plan, Instant::now());
    metrics.failed(Controller::Quarantine, "NetworkFailed");
    metrics.carried_out("Claim", Duration::from_millis(20));
    metrics.answered("http", Verdict::Unknown, Duration::from_secs(10));
    metrics.fenced(2.0);
    let services = [service(Stage::Isolated, Some(Reason::GateFailed)), service(Stage::Recovered, None)];
    let plan = PlanState::new("recovery/boroughs".to_owned(), services.iter());
    metrics.state.set_plans(move || vec![plan.clone()]);
    metrics.state.set_controls(|| count_controls([None].into_iter()));
    REQUESTS.count.get_or_create(&[("verb", "GET"), ("code", "2xx")]).inc();
    REQUESTS.durations.get_or_create(&[("verb", "GET")]).observe(0.01);
    metrics
}

/// By name, the type and the labels of each metric of a text.
fn exported(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, type_)| {
            let name = if type_ == "counter" { format!("{name}_total") } else { name.to_owned() };
            let sample = |line: &&str| {
                let rest = line.strip_prefix(&name).unwrap_or("#");
                rest.starts_with(['{', ' ']) || rest.starts_with("_count")
            };
            let line = text.lines().find(sample).unwrap_or_else(|| panic!("no sample of {name}"));
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            (name.clone(), (type_.to_owned(), labels.collect()))
        })
        .collect()
}

#[test]
fn exported_metrics_are_listed_in_docs() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let bare = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        assert!(!cells[4].trim().is_empty(), "{line}");
        let labels = cells[3].split(',').map(bare).filter(|label| !label.is_empty());
        (bare(cells[1]), (bare(cells[2]), labels.collect()))
    });
    assert_eq!(
        exported(&sampled().encode().unwrap()),
        rows.collect(),
        "left: exported, right: docs/metrics.md"
    );
}

#[test]
fn state_is_exported_by_the_leader_and_complete() {
    let metrics = sampled();
    let state = |metrics: &Metrics| -> Vec<String> {
        let names = ["resurgam_services{", "resurgam_decisions", "resurgam_quarantine_controls{"];
        let text = metrics.encode().unwrap();
        let is_state = |line: &&str| names.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0");
        text.lines().filter(is_state).map(str::to_owned).collect()
    };
    insta::assert_snapshot!(state(&metrics).join("\n"), @r#"
    resurgam_services{plan="recovery/boroughs",stage="Isolated"} 1
    resurgam_services{plan="recovery/boroughs",stage="Recovered"} 1
    resurgam_decisions_needed{plan="recovery/boroughs",reason="GateFailed"} 1
    resurgam_quarantine_controls{control="Lock",state="NotEnforced"} 1
    resurgam_quarantine_controls{control="Fence",state="NotEnforced"} 1
    resurgam_quarantine_controls{control="Guard",state="NotEnforced"} 1
    resurgam_quarantine_controls{control="Network",state="NotEnforced"} 1
    resurgam_quarantine_controls{control="Workloads",state="NotEnforced"} 1
    resurgam_quarantine_controls{control="Identity",state="NotEnforced"} 1
    "#);
    metrics.end_leading();
    assert_eq!(state(&metrics), Vec::<String>::new());
    assert!(metrics.encode().unwrap().contains("resurgam_leader 0"));
}

#[test]
fn controls_are_counted_by_status() {
    let quarantine: Quarantine = serde_json::from_value(json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "a"},
        "spec": {"reason": "breach"},
        "status": {"controls": [{"name": "Fence", "state": "Tested"}, {"name": "Network", "state": "Unverifiable"}]},
    }))
    .unwrap();
    let counted = count_controls([Some(&quarantine)].into_iter());
    let there: Vec<String> =
        counted.iter().filter(|(_, n)| **n > 0).map(|((c, s), n)| format!("{c:?} {s:?} {n}")).collect();
    let wanted = [
        "Lock NotEnforced 1",
        "Fence Tested 1",
        "Guard NotEnforced 1",
        "Network Unverifiable 1",
        "Workloads NotEnforced 1",
        "Identity NotEnforced 1",
    ];
    assert_eq!(there, wanted);
}
