use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::DeserializeGuard;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::api::{GateReason, Phase, RecoveryPlanSpec, Verdict};
use crate::controllers::gate_tasks::GateTask;
use crate::controllers::stores::Guarded;
use crate::engine::{Answer, GateKey, Observation, StepProgress, StepRun};

/// A cluster in which there is nothing but these ServiceRecoveries.
fn stores(records: &[serde_json::Value]) -> Stores {
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for record in records {
        let object: Guarded<ServiceRecovery> = DeserializeGuard::deserialize(record).unwrap();
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    Stores {
        plans: reflector::store().0,
        records: store,
        quarantines: reflector::store().0,
        incidents: reflector::store().0,
        decisions: reflector::store().0,
        accounts: Arc::new(crate::cluster_cache::KindCache::new("serviceaccounts")),
        namespaces: Arc::new(crate::cluster_cache::KindCache::new("namespaces")),
        config_maps: Arc::new(crate::cluster_cache::KindCache::new("configmaps")),
        accepted: reflector::store().0,
    }
}

/// The first service of a plan as it is now, and whether a gate of it is asked what it is not to be asked any more.
fn first(stores: &Stores, plan: &Plan, state: &mut State) -> (ServiceObservation, bool) {
    let observed = service(stores, plan, state, 0, &BTreeMap::new(), Timestamp::now());
    (observed.service, observed.has_stale_gates)
}

fn plan(account: &str, approved: &str) -> Plan {
    let yaml = format!(
        "incidentRef: {{name: nov}}\nserviceAccountName: {account}\nservices:\n- name: db\n  gates:\n    beforeRestore: \
         [{{name: images, imageDigests: {{approvedFrom: {{configMap: {{name: {approved}}}}}}}}}]\n    beforeRelease: \
         [{{name: up, workloads: {{}}}}]"
    );
    let spec: RecoveryPlanSpec = serde_yaml::from_str(&yaml).unwrap();
    Plan::compile("recovery", "p", "uid-1", &spec)
}

fn record() -> serde_json::Value {
    json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "ServiceRecovery",
        "metadata": {"name": "p.db", "namespace": "recovery", "uid": "r", "resourceVersion": "7"},
        "spec": {"planRef": {"name": "p", "uid": "uid-1"}, "service": "db", "namespaces": ["db"], "attempt": 1},
        "status": {"attempt": 1, "stage": "PreChecks"},
    })
}

/// A gate that has passed, asked for a service whose status says this.
fn passed(stores: &Stores, plan: &Plan, status: &ServiceRecoveryStatus) -> (GateKey, GateTask) {
    let service = &plan.services[0];
    let gate = service.gates.iter().find(|gate| gate.spec.name == "images").unwrap();
    let pass = Answer {
        verdict: Verdict::Pass,
        reason: GateReason::Approved,
        message: String::new(),
        evidence: Some("e".to_owned()),
        subject: None,
        exceptions: Vec::new(),
    };
    let key = GateKey { phase: Phase::BeforeRestore, name: "images".to_owned() };
    (key, GateTask::answered(binding(stores, plan, service, gate, status), gate.policy, pass))
}

/// I2: a claim could not be written, and is written later. What was asked in between was asked before it.
#[tokio::test]
async fn a_verdict_from_before_the_claim_was_written_decides_nothing() {
    let plan = plan("recovery", "approved");
    for (asked_for, written, counts) in [("03:00:07", "03:00:07", true), ("03:00:05", "03:00:07", false)] {
        let at = |time: &str| format!("2026-11-24T{time}Z");
        let mut claimed = record();
        claimed["status"]["claimedAt"] = json!(at(written));
        let claimed_at = Some(Time(at(asked_for).parse().unwrap()));
        let decided = ServiceRecoveryStatus { attempt: 1, claimed_at, ..Default::default() };
        let (stores, mut state) = (stores(&[claimed]), State::default());
        let (key, task) = passed(&stores, &plan, &decided);
        state.services.entry("db".to_owned()).or_default().gates.insert(key.clone(), task);
        let (observation, is_stale) = first(&stores, &plan, &mut state);
        assert_eq!(
            (observation.gates.contains_key(&key), is_stale),
            (counts, !counts),
            "asked for {asked_for}"
        );
    }
}

/// I2: the plan is amended, and what its gates said before is gone by the very first look, not only by the second.
#[tokio::test]
async fn a_verdict_on_another_question_decides_nothing_not_even_once() {
    let stores = stores(&[record()]);
    let asked_of = plan("recovery", "approved");
    for (now, counts) in [
        (plan("recovery", "approved"), true),
        (plan("recovery", "stricter"), false),
        (plan("other", "approved"), false),
    ] {
        let mut state = State::default();
        let status = ServiceRecoveryStatus { attempt: 1, ..Default::default() };
        let (key, task) = passed(&stores, &asked_of, &status);
        state.services.entry("db".to_owned()).or_default().gates.insert(key.clone(), task);
        let (observation, is_stale) = first(&stores, &now, &mut state);
        assert_eq!((observation.gates.contains_key(&key), is_stale), (counts, !counts), "{}", now.account);
    }
}

#[test]
fn step_results_are_dropped_with_their_service_recovery() {
    let plan = plan("recovery", "approved");
    let mut state = State::default();
    let held = state.services.entry("db".to_owned()).or_default();
    held.steps_of = 1;
    held.steps.insert(StepRun { index: 0, retries: 0 }, StepProgress::Succeeded);
    first(&stores(&[]), &plan, &mut state);
    let (observation, _) = first(&stores(&[record()]), &plan, &mut state);
    assert!(observation.exists && observation.steps.is_empty(), "the new first attempt runs its steps");
}

#[test]
fn unreadable_service_recovery_blocks_and_is_kept() {
    let plan = plan("recovery", "approved");
    let mut odd = record();
    odd["status"]["stage"] = json!("Levitating");
    let (observation, _) = first(&stores(&[odd]), &plan, &mut State::default());
    let refused = observation.refused.as_ref().unwrap();
    assert_eq!((observation.exists, refused.reason.as_str()), (false, "Unreadable"));
    assert!(
        refused.message.contains("p.db") && refused.message.contains("Levitating"),
        "{}",
        refused.message
    );
    let (incident, account) = (Presence::Present, Presence::Present);
    let observation = Observation {
        compromised_since: None,
        now: Timestamp::now(),
        incident,
        account,
        services: [observation].into_iter().collect(),
    };
    let decided = crate::engine::decide(&plan, &observation);
    assert_eq!((decided.services[0].effect.as_ref(), decided.services[0].write.as_ref()), (None, None));
    assert!(
        decided.plan.blocked_by[0].message.contains("p.db cannot be read"),
        "{:?}",
        decided.plan.blocked_by
    );
}

/// A record that was written between observing and acting is not written over by what was decided on the one before.
#[test]
fn decision_on_an_older_record_is_taken_back() {
    use super::super::running::Changes;
    use super::super::view::View;
    let plan = std::sync::Arc::new(plan("recovery", "list"));
    let (mut state, everything) = (State::default(), Changes { all: true, ..Changes::default() });
    let before = stores(&[record()]);
    let _decided = View::observe_and_decide(&before, &plan, &mut state, &everything, Timestamp::now());
    let mut newer = record();
    newer["metadata"]["resourceVersion"] = json!("8");
    let after = stores(&[newer]);
    let newest =
        |stores: &Stores| super::record(stores, &plan, &plan.services[0], &mut ServiceState::default());
    let (old, new) = (newest(&before), newest(&after));
    let is_based_on = |state: &mut State, record: Option<&ServiceRecovery>| {
        state.view.as_mut().unwrap().is_based_on(0, record)
    };
    assert!(is_based_on(&mut state, old.as_ref()));
    assert!(!is_based_on(&mut state, new.as_ref()), "it was written since");
    assert!(!is_based_on(&mut state, None), "it was deleted since");
    let decided = View::observe_and_decide(&after, &plan, &mut state, &Changes::default(), Timestamp::now());
    assert_eq!(decided.services.len(), 1, "it is decided again though nothing woke it");
    let by_name = Changes { services: ["db".to_owned()].into(), ..Changes::default() };
    let _decided = View::observe_and_decide(&after, &plan, &mut state, &by_name, Timestamp::now());
    assert!(is_based_on(&mut state, new.as_ref()));
}
