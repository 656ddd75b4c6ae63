//! Conditions with a real operator, which evaluates expressions by its own program.

use rehearsal::{eventually, field, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, KINDS};

/// A plan that wants this of the Deployment before release.
fn plan(bench: &Bench, cel: &str) -> Value {
    let mut plan = bench.plan("plan", json!([bench.service("web", &[])]));
    let gates = &mut plan["spec"]["defaults"]["gates"];
    let condition = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "cel": cel});
    let says = json!({"name": "says", "condition": condition, "interval": "500ms", "failureLimit": 1, "startupGrace": "0s",
        "unknownDeadline": "1s"});
    gates["beforeRelease"] = json!([gates["beforeRelease"][0], says]);
    plan
}

#[tokio::test]
async fn service_recovers_once_its_object_says_so() {
    let bench = Bench::new("condition-recovers", &["web"]).await;
    let plan = plan(&bench, "object.status.readyReplicas == object.spec.replicas");
    bench.apply(&plan).await;
    bench.recovers("plan", "web").await;
    bench.judged(&plan).await;
}

#[tokio::test]
async fn service_whose_expression_runs_away_asks_a_person() {
    let bench = Bench::new("condition-stuck", &["web"]).await;
    let doubling = (0..28).fold("'xxxxxxxx'".to_owned(), |inner, _| format!("[{inner}].map(s, s + s)[0]"));
    bench.apply(&plan(&bench, &format!("size({doubling}) > 0"))).await;
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some(bench.case));
    // Whoever is asked for a rollout that takes long sees in the end what does not end.
    let is_asked = |o: &Value| {
        let gates = field(o, "/status/gates").as_array();
        let says = gates.and_then(|gates| gates.iter().find(|gate| gate["name"] == "says"));
        field(o, "/status/decision/reason") == "GateUnknown"
            && says.is_some_and(|says| says["verdict"] == "Unknown" && says["reason"] == "LimitExceeded")
    };
    eventually(&records, "plan.web", "a person to be asked", rehearsal::DEADLINE, is_asked).await.unwrap();
    let namespaces = kind(&bench.admin, "v1", "Namespace", None);
    let namespace = rehearsal::object(&namespaces, &bench.namespace("web")).await.unwrap();
    assert_eq!(rehearsal::text(&namespace, "/metadata/labels/resurgam.dev~1isolation"), "clean-room");
    crate::bad_input::bench::operator_is_up().await;
}
