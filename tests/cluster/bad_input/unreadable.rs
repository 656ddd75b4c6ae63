//! A plan of a newer version than the operator: the API server keeps what this one does not know.

use std::path::Path;

use control_plane::{ControlPlane, Identity, Options};
use kube::api::PostParams;
use rehearsal::{Operator, OperatorOptions, eventually, field, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::KINDS;

/// The Ready condition's status, reason and message.
fn ready(object: &Value) -> (String, String, String) {
    let conditions = field(object, "/status/conditions").as_array();
    let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready").cloned().unwrap_or_default();
    let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[tokio::test]
async fn plan_with_an_unknown_field_names_it_and_others_go_on() {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let kinds = kind(&admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let name = "recoveryplans.resurgam.dev";
    let mut newer = kinds.get(name).await.unwrap();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    newer.data.pointer_mut(spec).unwrap()["x-kubernetes-preserve-unknown-fields"] = json!(true);
    kinds.replace(name, &PostParams::default(), &newer).await.unwrap();
    let options = OperatorOptions::within(&cluster, Path::new(env!("CARGO_BIN_EXE_resurgam")));
    let _operator = Operator::start(&cluster, &options).unwrap();

    let plan = |name: &str| {
        json!({
            "apiVersion": KINDS, "kind": "RecoveryPlan", "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "serviceAccountName": "recovery",
                "services": [{"name": "web", "ungated": {"reason": "a test"}}],
            },
        })
    };
    let mut odd = plan("newer");
    odd["spec"]["quorum"] = json!(2);
    rehearsal::apply(&admin, "platform", &[odd, plan("plain")]).await.unwrap();

    let plans = kind(&admin, KINDS, "RecoveryPlan", Some("default"));
    let told = |o: &Value| ready(o).1 == "Unreadable";
    let newer = eventually(&plans, "newer", "the plan to be told", rehearsal::DEADLINE, told).await.unwrap();
    let (status, _, message) = ready(&newer);
    assert!(status == "False" && message.contains("quorum"), "{message}");
    assert_eq!(rehearsal::condition(&newer, "Stalled"), "True");
    let goes_on = |o: &Value| ready(o).0 == "True";
    eventually(&plans, "plain", "the other plan to be looked at", rehearsal::DEADLINE, goes_on)
        .await
        .unwrap();
}
