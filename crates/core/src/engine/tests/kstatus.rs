//! What must hold of every status ever written, by the conventions of kstatus and by the schema's bounds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::conditions::{
    HEALTHY, NEEDS_DECISION, READY, RECONCILING, RECOVERED, STALLED, find, is_true,
};
use crate::api::{RecoveryPlanStatus, ServiceRecoveryStatus, Stage};

fn state<'a>(conditions: &'a [Condition], type_: &str) -> &'a str {
    find(conditions, type_).map_or("", |c| &c.status)
}

fn conditions(conditions: &[Condition]) {
    let mut types: Vec<&str> = conditions.iter().map(|c| c.type_.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), conditions.len(), "a condition twice: {conditions:?}");
    for c in conditions {
        assert!(["True", "False", "Unknown"].contains(&c.status.as_str()), "{c:?}");
        let word = |ch: char| ch.is_ascii_alphanumeric() || "_,:".contains(ch);
        let starts = c.reason.starts_with(|ch: char| ch.is_ascii_alphabetic());
        assert!(starts && c.reason.chars().all(word) && c.reason.len() <= 1024, "a reason is a word: {c:?}");
        assert!(c.message.len() <= 32_768);
    }
    let (reconciling, stalled) = (is_true(conditions, RECONCILING), is_true(conditions, STALLED));
    assert!(!(reconciling && stalled), "Reconciling and Stalled both True: {conditions:?}");
    match state(conditions, READY) {
        "True" => assert!(!reconciling && !stalled, "Ready, and yet on the way or stuck: {conditions:?}"),
        "False" | "Unknown" => {
            assert!(reconciling || stalled, "neither Ready nor on the way nor stuck: {conditions:?}");
        }
        other => panic!("Ready is {other:?}"),
    }
}

/// Checks one status of a ServiceRecovery.
pub(crate) fn check(status: &ServiceRecoveryStatus) {
    let of = &status.conditions;
    conditions(of);
    let recovered_and_healthy = is_true(of, RECOVERED) && is_true(of, HEALTHY);
    let needs = status.decision.is_some();
    assert_eq!(is_true(of, READY), recovered_and_healthy && !needs, "{status:?}");
    assert_eq!(is_true(of, NEEDS_DECISION), needs, "{status:?}");
    if is_true(of, RECOVERED) {
        assert_eq!(status.stage, Stage::Recovered);
    }
    assert!(status.observed_generation.is_some(), "absent means current to kstatus");
    assert!(of.iter().all(|c| c.observed_generation == status.observed_generation), "{status:?}");
    if needs {
        assert!(is_true(of, STALLED) && state(of, READY) == "False", "{status:?}");
        let first = status.blocked_by.first().map(|b| b.reason.as_str());
        assert_eq!(first, status.decision.as_ref().map(|d| d.reason.as_str()), "{status:?}");
    }
    let why = |type_: &str| find(of, type_).map(|c| (c.reason.clone(), c.message.clone()));
    for told in [RECONCILING, STALLED] {
        assert!(!is_true(of, told) || why(told) == why(READY), "{told} says something else: {status:?}");
    }
    let mut blocks = status.blocked_by.clone();
    blocks.dedup();
    assert_eq!(blocks, status.blocked_by, "the same block twice");
    assert!(status.blocked_by.len() <= 16 && status.gates.len() <= 64 && status.history.len() <= 20);
    assert!(status.waiting_for.as_ref().is_none_or(|w| w.len() <= 256));
    assert!(status.attempt >= 1);
    let read: ServiceRecoveryStatus = serde_json::from_value(serde_json::to_value(status).unwrap()).unwrap();
    let whole = |s: &ServiceRecoveryStatus| {
        (s.gates.clone(), s.decision.clone(), s.claimed_at.clone(), s.recovered_at.clone(), s.history.clone())
    };
    assert_eq!(whole(&read), whole(status), "what is read back differs from what was written");
}

/// Checks one status of a plan.
pub(crate) fn check_plan(status: &RecoveryPlanStatus) {
    conditions(&status.conditions);
    if is_true(&status.conditions, READY) && find(&status.conditions, READY).unwrap().reason != "Dormant" {
        assert!(is_true(&status.conditions, RECOVERED), "{status:?}");
    }
    assert!(
        status.recovered + status.running + status.waiting <= status.total && status.blocked_by.len() <= 10,
        "{status:?}"
    );
}
