//! Each field of each kind, one after the other, with something right and with two things that are wrong.

use control_plane::Identity;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rehearsal::{eventually, field, kind, text};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, KINDS, cluster, decision, incident, operator_is_up, quarantine};
use crate::bad_input::schema::{Field, fields};

/// What became of the edits.
#[derive(Debug, Default)]
struct Came {
    fields: usize,
    /// Fields in which something right was taken.
    right: usize,
    /// The others: it was not right for another reason.
    refused: Vec<String>,
    /// What was taken although it is of another type.
    of_another_type: Vec<String>,
}

#[tokio::test]
async fn whatever_a_field_holds_operator_and_other_plans_go_on() {
    let (bench, bystander) =
        futures::join!(Bench::new("fields", &["web"]), Bench::new("beside", &["web", "db"]));
    let mut plan = bench.plan("plan", json!([bench.service("web", &[])]));
    // Held up by a gate that never passes, so that there is always something to look at.
    plan["spec"]["services"][0]["gates"] = json!({"beforeRestore": [{"name": "never", "http": {"url": "http://127.0.0.1:1/"}, "interval": "500ms"}]});
    bench.apply(&plan).await;
    bench.says("plan", "web", "GateUnknown", &["never"]).await;
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
    let (incident, decision) = (incident("fields"), decision("fields"));
    rehearsal::apply(&bench.admin, "platform", std::slice::from_ref(&incident)).await.unwrap();
    let decisions = kind(&bench.lead().await, KINDS, "Decision", Some("fields"));
    let decides = serde_json::from_value(decision.clone()).unwrap();
    decisions.create(&PostParams::default(), &decides).await.unwrap();
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("fields"));
    let record = rehearsal::object(&records, "plan.web").await.unwrap();
    let mut came = Came::default();
    for sound in [quarantine("fields-web"), plan.clone(), incident, decision, record] {
        let crds = rehearsal::read("charts/resurgam/files/crds").unwrap();
        let crd = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == sound["kind"]).unwrap();
        // Who holds a namespace, the judge asks of the whole cluster: a false claim would be laid to the operator's charge in every other test.
        for field in fields(crd).into_iter().filter(|field| !field.name().starts_with(".status.claimedBy")) {
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
            let right = written(who, &field, &put(field.right())).await;
            if !right {
                came.refused.push(format!("{}{}", text(&sound, "/kind"), field.name()));
            }
            came.right += usize::from(right);
        }
    }
    came
}

/// Puts it in place of what is there. Was it taken?
async fn written(client: &Client, field: &Field, object: &Value) -> bool {
    let namespace = object["metadata"]["namespace"].as_str();
    let api = kind(client, KINDS, text(object, "/kind"), namespace);
    let (name, part) = (text(object, "/metadata/name"), field.part());
    loop {
        let Ok(live) = api.get(name).await else { return false };
        let version = live.metadata.resource_version.clone();
        let params = PatchParams::default();
        let outcome = if part == "status" {
            let patch = json!({"metadata": {"resourceVersion": version}, "status": object["status"]});
            api.patch_status(name, &params, &Patch::Merge(patch)).await
        } else {
            let mut edited = serde_json::to_value(live).unwrap();
            edited[part] = object[part].clone();
            api.replace(name, &PostParams::default(), &serde_json::from_value(edited).unwrap()).await
        };
        match outcome {
            // The operator wrote in between.
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            outcome => return outcome.is_ok(),
        }
    }
}
