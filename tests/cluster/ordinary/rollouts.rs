//! Rollouts that Kubernetes cannot give back.

use kube::api::{ListParams, Patch, PatchParams};
use rehearsal::{eventually, field, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::DIGEST;
use crate::ordinary::estate::{Estate, exceptions, workload};

async fn patch(estate: &Estate, of: &str, name: &str, patch: Value) {
    let api = kind(&estate.bench.admin, "apps/v1", of, Some(&estate.bench.namespace("shop")));
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Another revision of a workload, which serves no other image.
fn revision() -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {"example.org/revision": "2"}}}}})
}

/// A template that no node can run, so that a rollout to it never completes.
fn unschedulable() -> Value {
    json!({"spec": {"template": {"spec": {"nodeSelector": {"resurgam.example/nowhere": "true"}}}}})
}

/// Recovers the service by an Override, and returns its ServiceRecovery.
async fn accepted(estate: &Estate, plan: &Value, words: &[&str]) -> Value {
    estate.bench.apply(plan).await;
    let record = estate.asks("shop", "RolloutNotRestorable").await;
    let said = record["status"]["blockedBy"][0]["message"].as_str().unwrap().to_owned();
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(record["status"]["stage"], "PreChecks");
    let lead = estate.bench.lead().await;
    rehearsal::decide(&lead, "Override", estate.bench.case, "plan", "shop", "the new one is approved")
        .await
        .unwrap();
    let record = estate.recovers("shop").await;
    assert_eq!(record["status"]["attempt"], 1);
    record
}

#[tokio::test]
async fn stateful_set_of_two_revisions_asks_and_ends_as_an_exception() {
    let mut parted = workload("StatefulSet", "db", 3);
    parted["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let mut by_hand = workload("StatefulSet", "cache", 2);
    by_hand["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let estate = Estate::open("parted", &[("shop", vec![parted, by_hand])]).await;
    estate.is_ready("shop", "StatefulSet", "db", 3).await;
    estate.is_ready("shop", "StatefulSet", "cache", 2).await;
    let revisions = |object: &Value| {
        let status = &object["status"];
        status["observedGeneration"] == object["metadata"]["generation"]
            && status["currentRevision"] != status["updateRevision"]
            && status["readyReplicas"] == object["spec"]["replicas"]
    };
    for (name, updated) in [("db", 1), ("cache", 0)] {
        patch(&estate, "StatefulSet", name, revision()).await;
        let sets = kind(&estate.bench.admin, "apps/v1", "StatefulSet", Some("parted-shop"));
        let rolled = |object: &Value| {
            revisions(object) && object["status"]["updatedReplicas"].as_i64().unwrap_or(0) == updated
        };
        eventually(&sets, name, "two revisions", rehearsal::DEADLINE, rolled).await.unwrap();
    }
    estate.bench.isolate(&["shop"]).await;
    let plan = estate.plan(json!([estate.bench.service("shop", &[])]));
    let record = accepted(&estate, &plan, &["StatefulSet parted-shop/cache", "OnDelete", "and 1 more"]).await;
    let said = exceptions(&record);
    for words in [
        "StatefulSet parted-shop/db",
        "partition 2",
        "2 of 3 pods ran revision db-",
        "accepted by recovery-lead",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn half_rolled_deployment_asks_and_names_both_revisions() {
    let estate = Estate::open("halfway", &[("shop", vec![workload("Deployment", "api", 2)])]).await;
    estate.is_ready("shop", "Deployment", "api", 2).await;
    patch(&estate, "Deployment", "api", unschedulable()).await;
    let deployments = kind(&estate.bench.admin, "apps/v1", "Deployment", Some("halfway-shop"));
    let half = |object: &Value| field(object, "/status/unavailableReplicas").as_i64().unwrap_or(0) > 0;
    eventually(&deployments, "api", "a rollout that is stuck", rehearsal::DEADLINE, half).await.unwrap();
    estate.bench.isolate(&["shop"]).await;
    let plan = estate.plan(json!([estate.bench.service("shop", &[])]));
    estate.bench.apply(&plan).await;
    let record = estate.asks("shop", "RolloutNotRestorable").await;
    let said = record["status"]["blockedBy"][0]["message"].as_str().unwrap().to_owned();
    for word in [
        "Deployment halfway-shop/api",
        "not complete",
        "(revision 1) served",
        "(revision 2) is specified",
        "Override",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    // The owner specifies the revision that served, as whoever may repair.
    let repaired = kind(&estate.bench.lead().await, "apps/v1", "Deployment", Some("halfway-shop"));
    let back = json!({"spec": {"template": {"spec": {"nodeSelector": null}}}});
    repaired.patch("api", &PatchParams::default(), &Patch::Merge(back)).await.unwrap();
    rehearsal::retry(&estate.bench.lead().await, "halfway", "plan", "shop", "rolled back").await.unwrap();
    let record = estate.recovers("shop").await;
    assert_eq!((record["status"]["attempt"].as_i64(), exceptions(&record).as_str()), (Some(2), ""));
    let sets = kind(&estate.bench.admin, "apps/v1", "ReplicaSet", Some("halfway-shop"));
    let all = sets.list(&ListParams::default()).await.unwrap().items;
    let runs: Vec<Value> = all
        .iter()
        .map(|set| serde_json::to_value(set).unwrap())
        .filter(|set| field(set, "/spec/replicas") != 0)
        .map(|set| field(&set, "/metadata/annotations/deployment.kubernetes.io~1revision").clone())
        .collect();
    assert_eq!(runs, ["3"], "the template of revision 1, as the newest one");
    estate.bench.judged(&plan).await;
}

#[tokio::test]
async fn paused_deployment_comes_back_in_the_revision_that_served() {
    let estate = Estate::open("paused", &[("shop", vec![workload("Deployment", "api", 2)])]).await;
    estate.is_ready("shop", "Deployment", "api", 2).await;
    patch(&estate, "Deployment", "api", json!({"spec": {"paused": true}})).await;
    let image = json!([{"name": "main", "image": format!("registry.example/web:2@{DIGEST}")}]);
    patch(&estate, "Deployment", "api", json!({"spec": {"template": {"spec": {"containers": image}}}})).await;
    estate.is_ready("shop", "Deployment", "api", 2).await;
    estate.bench.isolate(&["shop"]).await;
    let plan = estate.plan(json!([estate.bench.service("shop", &[])]));
    let words = ["Deployment paused-shop/api", "paused", "(revision 1) served", "no revision yet"];
    let record = accepted(&estate, &plan, &words).await;
    assert!(exceptions(&record).contains("its rollout is paused"), "{}", exceptions(&record));
    let deployment = estate.object("shop", "apps/v1", "Deployment", "api").await;
    assert_eq!(
        (field(&deployment, "/spec/paused"), field(&deployment, "/spec/replicas")),
        (&json!(true), &json!(2))
    );
    estate.bench.judged(&plan).await;
}
