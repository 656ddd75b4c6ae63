//! A namespace that is isolated for a second incident: both are recorded, and shown.

use control_plane::Identity;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use resurgam::api::Quarantine;
use serde_json::{Value, json};

use super::WORKLOADS;
use super::break_glass::until;
use super::support::{Ran, api, client, cluster, namespace, operator, ready, resurgam};

#[tokio::test]
async fn second_incident_is_recorded_and_named_by_the_fence() {
    let (cluster, _alone) = cluster().await;
    let tenant = namespace(cluster, "second", WORKLOADS).await;
    let _operator = operator(cluster);
    let isolate = async |incident: &str, reason: &str| -> Ran {
        let arguments = ["quarantine", "second", "--incident", incident, "--reason", reason];
        let ran = resurgam(cluster.kubeconfig(Identity::Responder), &arguments).await;
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        ran
    };
    isolate("inc1", "first").await;
    ready(cluster, "second", "Contained").await.unwrap();
    let ran = isolate("inc2", "again").await;
    assert!(ran.out.contains("Incident inc2 recorded") && !ran.out.contains("not recorded"), "{}", ran.out);

    let responder = client(cluster, Identity::Responder).await;
    let quarantines: Api<Quarantine> = Api::all(responder.clone());
    let spec = serde_json::to_value(quarantines.get("second").await.unwrap().spec).unwrap();
    assert_eq!((&spec["incidentRef"]["name"], &spec["reason"]), (&json!("inc1"), &json!("first")));
    assert_eq!(spec["furtherIncidents"], json!([{"name": "inc2", "reason": "again"}]));
    let namespaces: Api<Namespace> = Api::all(responder.clone());
    let marked = async || {
        let namespace = namespaces.get("second").await.unwrap();
        let marks = namespace.annotations();
        marks.get("resurgam.dev/incident").is_some_and(|named| named == "inc1, inc2")
            && marks.get("resurgam.dev/reason").is_some_and(|reason| reason == "first; again")
    };
    until(marked).await;
    let secret =
        Secret { metadata: serde_json::from_value(json!({"name": "s"})).unwrap(), ..Secret::default() };
    let refusal = api::<Secret>(&tenant, "second").create(&PostParams::default(), &secret).await.unwrap_err();
    assert!(refusal.to_string().contains("first; again. Incident: inc1, inc2"), "{refusal}");

    // The Event, the status, and the overview.
    let events = rehearsal::kind(&responder, "events.k8s.io/v1", "Event", None);
    let announced = async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events.iter().any(|event| {
            event.data["reason"] == "IncidentAdded" && event.data["regarding"]["name"] == "second"
        })
    };
    until(announced).await;
    let drifted = |event: &kube::api::DynamicObject| {
        event.data["reason"] == "DriftPutBack" && event.data["regarding"]["name"] == "second"
    };
    let all = events.list(&ListParams::default()).await.unwrap();
    assert!(!all.iter().any(drifted), "nobody changed anything but by the spec");
    let incidents = quarantines.get("second").await.unwrap().status.unwrap().incidents;
    assert_eq!(incidents, ["inc1", "inc2"]);
    let status = resurgam(cluster.kubeconfig(Identity::Responder), &["status"]).await;
    let shown = "second is isolated for several incidents: inc1, inc2";
    assert!(status.out.contains(shown), "{}{}", status.out, status.err);

    // The same again writes nothing. Another reason for a recorded incident is said not to be recorded.
    let version = async || quarantines.get("second").await.unwrap().metadata.generation;
    let before = version().await;
    let ran = isolate("inc2", "again").await;
    assert!(ran.out.contains("there already") && !ran.out.contains("not recorded"), "{}", ran.out);
    let ran = isolate("inc2", "another reason").await;
    assert!(ran.out.contains("the reason \"another reason\" is not recorded"), "{}", ran.out);
    assert_eq!(version().await, before);

    // Who isolates adds incidents, and removes or changes none.
    let write = async |further: Value| {
        let patch = Patch::Merge(json!({"spec": {"furtherIncidents": further}}));
        quarantines.patch("second", &PatchParams::default(), &patch).await
    };
    for further in [json!(null), json!([]), json!([{"name": "inc2", "reason": "nothing of note"}])] {
        let refusal = write(further).await.unwrap_err().to_string();
        assert!(refusal.contains("resurgam-quarantine-lock"), "{refusal}");
        assert!(refusal.contains("incident: inc1, inc2)"), "{refusal}");
    }
    let third = json!([{"name": "inc2", "reason": "again"}, {"name": "inc3", "reason": "and again"}]);
    write(third).await.unwrap();
}
