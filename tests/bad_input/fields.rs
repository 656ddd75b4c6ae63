//! Each field of each kind, one after the other, with something right and with two things that are wrong.

use control_plane::Identity;
use kube::Client;
use kube::api::{DeleteParams, PostParams};
use rehearsal::{eventually, field, kind, text};
use serde_json::{Value, json};

use crate::bench::{Bench, KINDS, cluster, operator_is_up, quarantine};
use crate::schema::{Field, fields};

/// What became of the edits.
#[derive(Debug, Default)]
struct Came {
    fields: usize,
    /// Fields in which something right was taken.
    right: usize,
    /// What was taken although it is of another type.
    of_another_type: Vec<String>,
}

#[tokio::test]
async fn whatever_stands_in_any_field_of_any_kind_the_operator_lives_and_other_plans_go_on() {
    let (bench, bystander) =
        futures::join!(Bench::new("fields", &["web"]), Bench::new("beside", &["web", "db"]));
    let mut plan = bench.plan("plan", json!([bench.service("web", &[])]));
    // Held up by a gate that never passes, so that there is always something to look at.
    plan["spec"]["services"][0]["gates"] = json!({"beforeRestore": [{"name": "never", "http": {"url": "http://127.0.0.1:1/"}, "interval": "500ms"}]});
    bench.apply(&plan).await;
    bench.says("plan", "web", "GatesNotPassed", &[]).await;
    let bystanders = beside(&bystander);
    let goes_on = async {
        bystander.apply(&bystanders).await;
        bystander.recovers("plan", "web").await;
    };
    let (came, ()) = futures::join!(edit_all(&bench, &plan), goes_on);
    eprintln!("{came:?}");
    assert!(came.of_another_type.is_empty(), "taken, though of another type: {:?}", came.of_another_type);
    assert!(came.fields > 200, "{came:?}");
    assert!(came.right * 2 > came.fields, "hardly anything was taken: {came:?}");
    operator_is_up().await;
    // Whatever stood there, what is sound again is looked at again.
    let plans = kind(&bench.admin, KINDS, "RecoveryPlan", Some("fields"));
    plans.delete("plan", &DeleteParams::default()).await.unwrap();
    plan["metadata"]["name"] = json!("sound");
    bench.apply(&plan).await;
    let looked = |o: &Value| field(o, "/status/observedGeneration") == field(o, "/metadata/generation");
    eventually(&plans, "sound", "the plan to be looked at", rehearsal::DEADLINE, looked).await.unwrap();
    bystander.judged(&bystanders).await;
    operator_is_up().await;
}

fn beside(bystander: &Bench) -> Value {
    bystander.plan("plan", json!([bystander.service("db", &[]), bystander.service("web", &["db"])]))
}

async fn edit_all(bench: &Bench, plan: &Value) -> Came {
    let operator = cluster().await.client(Identity::Operator).await.unwrap();
    let incident = json!({
        "apiVersion": KINDS, "kind": "Incident", "metadata": {"name": "fields"},
        "spec": {"title": "Intrusion", "compromisedSince": "2025-11-17T00:00:00Z"},
    });
    let decision = json!({
        "apiVersion": KINDS, "kind": "Decision", "metadata": {"name": "fields", "namespace": "fields"},
        "spec": {"by": "platform-administrator", "plan": "plan", "service": "web", "action": "Retry", "reason": "a test",
            "decidedOn": format!("sha256:{}", "0a".repeat(32))},
    });
    rehearsal::apply(&bench.admin, "platform", &[incident.clone(), decision.clone()]).await.unwrap();
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("fields"));
    let record = rehearsal::object(&records, "plan.web").await.unwrap();
    let mut came = Came::default();
    for sound in [quarantine("fields-web"), plan.clone(), incident, decision, record] {
        let crds = rehearsal::read("crds").unwrap();
        let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == sound["kind"]).unwrap();
        for field in fields(crd) {
            // Nobody but the operator may say what is; if it said nonsense, the next one has to live with it.
            let states = field.part() == "status" || sound["kind"] == "ServiceRecovery";
            let who = if states { &operator } else { &bench.admin };
            came.fields += 1;
            let put = |value| field.put(crd, &sound, value);
            let wrong = put(field.of_another_type());
            if written(who, &field, &wrong).await {
                came.of_another_type.push(format!("{}{}", text(&sound, "/kind"), field.name()));
            }
            written(who, &field, &put(field.out_of_bounds())).await;
            came.right += usize::from(written(who, &field, &put(field.right())).await);
        }
    }
    came
}

/// Puts it in place of what is there. Was it taken?
async fn written(client: &Client, field: &Field, object: &Value) -> bool {
    let namespace = object["metadata"]["namespace"].as_str();
    let api = kind(client, KINDS, text(object, "/kind"), namespace);
    let name = text(object, "/metadata/name");
    let Ok(Some(live)) = api.get_opt(name).await else { return false };
    let mut live = serde_json::to_value(live).unwrap();
    let part = field.part();
    live[part] = object[part].clone();
    let Ok(live) = serde_json::from_value(live) else { return false };
    let params = PostParams::default();
    let outcome = match part {
        "status" => api.replace_status(name, &params, &live).await,
        _ => api.replace(name, &params, &live).await,
    };
    outcome.is_ok()
}
