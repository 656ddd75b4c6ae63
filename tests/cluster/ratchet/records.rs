//! The records of what was accepted: whom they outlive, and what becomes of them.

use kube::api::{DeleteParams, Patch, PatchParams};
use rehearsal::{kind, object};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, KINDS, incident};
use crate::ratchet::{asked, people, ungated};

async fn record(bench: &Bench, service: &str) -> Option<Value> {
    let records = kind(&bench.admin, "v1", "ConfigMap", Some("resurgam-records"));
    let name = format!("resurgam-accepted.{}", bench.namespace(service));
    records.get_opt(&name).await.unwrap().map(|found| serde_json::to_value(found).unwrap())
}

#[tokio::test]
async fn record_outlives_its_plan_and_goes_with_its_incident() {
    let bench = Bench::with("outlives", &["web"], |manifests| {
        manifests.extend(people("outlives"));
        manifests.push(incident("outlived"));
        for list in manifests.iter_mut().filter(|m| m["kind"] == "ConfigMap") {
            list["data"]["images"] = json!("");
        }
    })
    .await;
    let armed = |mut plan: Value| {
        plan["spec"]["incidentRef"]["name"] = json!("outlived");
        plan
    };
    bench.apply(&armed(bench.plan("plan", json!([bench.service("web", &[])])))).await;
    bench.says("plan", "web", "GateUnknown", &["images"]).await;
    let kept = record(&bench, "web").await.unwrap();
    let incidents = kind(&bench.lead().await, KINDS, "Incident", None);
    let uid = object(&incidents, "outlived").await.unwrap()["metadata"]["uid"].clone();
    assert_eq!((&kept["data"]["incident"], &kept["data"]["incidentUid"]), (&json!("outlived"), &uid));

    let lead = bench.lead().await;
    kind(&bench.admin, KINDS, "RecoveryPlan", Some("outlives"))
        .delete("plan", &DeleteParams::default())
        .await
        .unwrap();
    kind(&lead, KINDS, "ServiceRecovery", Some("outlives"))
        .delete("plan.web", &DeleteParams::default())
        .await
        .unwrap();
    let quarantines = kind(&lead, KINDS, "Quarantine", None);
    let sealed = object(&quarantines, "outlives-web").await.unwrap();
    quarantines.delete("outlives-web", &DeleteParams::default()).await.unwrap();
    rehearsal::await_condition(
        quarantines.clone(),
        "outlives-web",
        kube::runtime::wait::conditions::is_deleted(sealed["metadata"]["uid"].as_str().unwrap()),
    )
    .await
    .unwrap();
    let responder =
        crate::bad_input::bench::cluster().await.client(control_plane::Identity::Responder).await.unwrap();
    rehearsal::apply(&responder, "on-call", &[crate::bad_input::bench::quarantine("outlives-web")])
        .await
        .unwrap();
    rehearsal::three_boroughs::isolated(crate::bad_input::bench::cluster().await, "outlives-web")
        .await
        .unwrap();
    let bare = armed(ungated(&bench, "plan", &[("web", &["web"])]));
    bench.apply(&bare).await;
    asked(&bench, "plan", "web", "Loosened", &["beforeRestore gate 'images' is gone"]).await;
    // Under another Incident it is the same namespace.
    let mut other = ungated(&bench, "other", &[("web", &["web"])]);
    other["spec"]["incidentRef"]["name"] = json!("nov-2025");
    // The Quarantine of now found it stopped.
    other["spec"]["services"][0]["restore"] = json!([{"name": "start", "scale": {"replicas": 1}}]);
    bench.apply(&other).await;
    asked(&bench, "other", "web", "Loosened", &["the plan names Incident nov-2025 instead of outlived"])
        .await;

    // The Incident is over. What was accepted for it is none of the next one's.
    incidents.delete("outlived", &DeleteParams::default()).await.unwrap();
    let records = kind(&bench.admin, "v1", "ConfigMap", Some("resurgam-records"));
    let of_the_next = |o: &Value| o["data"]["incident"] == "nov-2025";
    rehearsal::eventually(
        &records,
        "resurgam-accepted.outlives-web",
        "the next one's record",
        rehearsal::DEADLINE,
        of_the_next,
    )
    .await
    .unwrap();
    bench.recovers("other", "web").await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_blocks_and_asks_a_person() {
    let bench = Bench::with("garbled", &["web"], |manifests| {
        for list in manifests.iter_mut().filter(|m| m["kind"] == "ConfigMap") {
            list["data"]["images"] = json!("");
        }
    })
    .await;
    bench.apply(&bench.plan("plan", json!([bench.service("web", &[])]))).await;
    bench.says("plan", "web", "GateUnknown", &["images"]).await;
    let patch = Patch::Merge(json!({"data": {"requirements": "{}"}}));
    let name = "resurgam-accepted.garbled-web";
    // While anything is isolated it is written by the operator, and by who may release all. Two policies say so, and the API
    // server names one of them.
    let records = kind(&bench.admin, "v1", "ConfigMap", Some("resurgam-records"));
    crate::ratchet::refused(records.patch(name, &PatchParams::default(), &patch).await, &["-guard'", name]);
    let lead = bench.lead().await;
    let records = kind(&lead, "v1", "ConfigMap", Some("resurgam-records"));
    records.patch(name, &PatchParams::default(), &patch).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"images": crate::bad_input::bench::DIGEST}}));
    let lists = kind(&bench.admin, "v1", "ConfigMap", Some("garbled"));
    lists.patch("approved-images", &PatchParams::default(), &patch).await.unwrap();
    asked(&bench, "plan", "web", "Loosened", &["cannot be read", name]).await;
    bench.stays_sealed("web").await;
    rehearsal::decide(&lead, "AcceptLoosening", "garbled", "plan", "web", "compared by hand").await.unwrap();
    let record = bench.recovers("plan", "web").await;
    assert!(record["status"]["exceptions"].to_string().contains("compared by hand"), "{record}");
}
