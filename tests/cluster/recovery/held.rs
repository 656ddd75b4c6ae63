//! On call holds a namespace that is recovered already: it is isolated again, and comes back by its gates only.

use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams};
use rehearsal::{DEADLINE, condition, documents, eventually, kind, three_boroughs};
use serde_json::{Value, json};

use crate::recovery::judged::judged;
use crate::recovery::{KINDS, stage, start_operator};

/// The smallest plan, with names of its own.
fn smallest() -> Vec<Value> {
    let text = rehearsal::smallest().unwrap();
    let namespace = "kind: Namespace\nmetadata:\n  name: recovery";
    assert!(text.contains(namespace));
    let text = text.replace(namespace, &namespace.replace("recovery", "held-recovery"));
    documents(&text.replace("namespace: recovery", "namespace: held-recovery").replace("library", "held"))
        .unwrap()
}

/// Waits for a service to be as wanted.
async fn service(client: &Client, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let records = kind(client, KINDS, "ServiceRecovery", Some("held-recovery"));
    let what = format!("{name} to be {what}");
    eventually(&records, &format!("held.{name}"), &what, DEADLINE, is).await.unwrap()
}

async fn hold(client: &Client, name: &str, level: Value) -> kube::Result<()> {
    let quarantines = kind(client, KINDS, "Quarantine", None);
    let patch = Patch::Merge(json!({"spec": {"hold": level}}));
    quarantines.patch(name, &PatchParams::default(), &patch).await.map(drop)
}

/// The Quarantine, once it is enforced at a level.
async fn at(cluster: &ControlPlane, client: &Client, name: &str, level: &str) -> Value {
    let quarantines = kind(client, KINDS, "Quarantine", None);
    let is = |q: &Value| {
        q["status"]["isolation"] == level
            && q["status"]["observedGeneration"] == q["metadata"]["generation"]
            && condition(q, "Ready") == "True"
    };
    eventually(&quarantines, name, level, DEADLINE, is).await.unwrap();
    three_boroughs::isolated(cluster, name).await.unwrap()
}

fn needs(record: &Value, reason: &str) -> bool {
    condition(record, "NeedsDecision") == "True" && record["status"]["decision"]["reason"] == reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_namespace_comes_back_by_a_new_attempt_only() {
    let cluster = &*stage().await;
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let responder = cluster.client(Identity::Responder).await.unwrap();
    let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
    let (later, first): (Vec<_>, Vec<_>) = smallest()
        .into_iter()
        .partition(|m| ["Quarantine", "Incident", "RecoveryPlan"].contains(&m["kind"].as_str().unwrap()));
    let plan = later.iter().find(|m| m["kind"] == "RecoveryPlan").unwrap().to_string();
    rehearsal::apply(&admin, "platform", &first).await.unwrap();
    let database = kind(&admin, "apps/v1", "StatefulSet", Some("held-db"));
    let runs = |o: &Value| o["status"]["readyReplicas"] == 1;
    eventually(&database, "postgres", "the database to run", DEADLINE, runs).await.unwrap();
    let operator = start_operator(cluster);
    rehearsal::apply(&admin, "platform", &later).await.unwrap();
    // Held from the start: the one nothing begins in, while the other is recovered.
    hold(&responder, "held-web", json!("Sealed")).await.unwrap();
    service(&lead, "held-db", "recovered", |r| condition(r, "Ready") == "True").await;
    service(&lead, "held-web", "held", |r| needs(r, "Held") && r["status"]["stage"] == "Isolated").await;
    let before = at(cluster, &lead, "held-db", "Open").await;

    // On call holds what is recovered. Easing that, or lifting it, is for who may release it.
    hold(&responder, "held-db", json!("Sealed")).await.unwrap();
    let held = at(cluster, &lead, "held-db", "Sealed").await;
    assert_ne!(held["status"]["capture"]["digest"], before["status"]["capture"]["digest"], "captured again");
    let pods = kind(&admin, "v1", "Pod", Some("held-db")).list(&ListParams::default()).await.unwrap();
    assert_eq!(pods.items.len(), 0);
    let record = service(&lead, "held-db", "held", |r| needs(r, "Held")).await;
    assert_eq!(condition(&record, "Recovered"), "False");
    let said = record["status"]["conditions"].to_string();
    assert!(said.contains("release quarantines/held-db"), "{said}");
    for eased in [json!("Contained"), Value::Null] {
        let Err(kube::Error::Api(refused)) = hold(&responder, "held-db", eased.clone()).await else {
            panic!("a hold was eased to {eased} by who is on call");
        };
        assert!(refused.message.contains("'resurgam-quarantine-lock'"), "{}", refused.message);
    }
    // The one that waits for it may begin, and does not.
    hold(&lead, "held-web", Value::Null).await.unwrap();
    let waits = |r: &Value| {
        let blocks = r["status"]["blockedBy"].as_array();
        blocks.is_some_and(|b| b.iter().any(|b| b["reason"] == "Dependency" && b["name"] == "held-db"))
            && r["status"]["decision"] == Value::Null
    };
    let web = service(&lead, "held-web", "waiting", waits).await;
    assert_eq!(web["status"]["stage"], "Isolated");

    // Lifted: nothing moves before somebody decides, and then everything is proved anew.
    hold(&lead, "held-db", Value::Null).await.unwrap();
    let record = service(&lead, "held-db", "isolated again", |r| needs(r, "IsolatedAgain")).await;
    assert_eq!((&record["status"]["attempt"], &record["status"]["isolation"]), (&json!(1), &json!("Sealed")));
    rehearsal::retry(&lead, "held-recovery", "held", "held-db", "looked at, and clean").await.unwrap();
    let back = service(&lead, "held-db", "back", |r| condition(r, "Ready") == "True").await;
    assert_eq!(back["status"]["attempt"], 2);
    let claim = at(cluster, &lead, "held-db", "Open").await["status"].clone();
    assert_eq!((&claim["claimedBy"]["attempt"], &claim["overruled"]), (&json!(2), &Value::Null));
    service(&lead, "held-web", "back too", |r| condition(r, "Ready") == "True").await;
    let report = judged(cluster, "held", &plan).await;
    drop(operator);
    assert_eq!((report.loosened["held-db"], report.loosened["held-web"]), (4, 2), "{report}");
}
