//! Edits by anybody of anything, sound and unsound, one after the other; and objects as large as the API server takes.

use std::fmt::Write;

use control_plane::Identity;
use fuzz_input::spoiled;
use kube::api::{DeleteParams, PostParams};
use rehearsal::{SplitMix, eventually, field, kind, seed, text};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, KINDS, cluster, decision, incident, operator_is_up};

/// How many there are.
const EDITS: usize = 150;

/// Kind and name of what is edited; the plan is put right again at the end.
const OBJECTS: [(&str, &str, &str); 7] = [
    (KINDS, "RecoveryPlan", "plan"),
    (KINDS, "Quarantine", "edits-web"),
    (KINDS, "Incident", "edits"),
    (KINDS, "Decision", "edits"),
    (KINDS, "ServiceRecovery", "plan.web"),
    ("v1", "ConfigMap", "approved-images"),
    ("apps/v1", "Deployment", "web"),
];

#[tokio::test]
async fn whatever_anybody_edits_operator_and_other_plans_go_on() {
    let seed = seed(1).unwrap();
    let (bench, bystander) =
        futures::join!(Bench::new("edits", &["web", "db"]), Bench::new("bystander", &["web", "db"]));
    let mut plan = bench.plan("plan", json!([bench.service("db", &[]), bench.service("web", &["db"])]));
    plan["spec"]["incidentRef"]["name"] = json!("edits");
    let (incident, decision) = (incident("edits"), decision("edits"));
    rehearsal::apply(&bench.admin, "platform", std::slice::from_ref(&incident)).await.unwrap();
    bench.apply(&plan).await;
    let bystanders =
        bystander.plan("plan", json!([bystander.service("db", &[]), bystander.service("web", &["db"])]));
    let goes_on = async {
        bystander.apply(&bystanders).await;
        bystander.recovers("plan", "web").await;
    };
    let sound = [incident, decision];
    let (accepted, ()) = futures::join!(edit(seed, &sound), goes_on);
    // All refused, or all accepted, would be no test of anything.
    assert!(
        (EDITS / 10..EDITS).contains(&accepted),
        "{accepted} of {EDITS} were accepted (RESURGAM_SEED={seed})"
    );
    operator_is_up().await;

    // What is made right again is looked at again.
    let plans = kind(&bench.admin, KINDS, "RecoveryPlan", Some("edits"));
    let _ = plans.delete("plan", &DeleteParams::default()).await;
    plan["metadata"]["name"] = json!("sound");
    bench.apply(&plan).await;
    let looked = |o: &Value| field(o, "/status/observedGeneration") == field(o, "/metadata/generation");
    eventually(&plans, "sound", "the plan to be looked at", rehearsal::DEADLINE, looked).await.unwrap();
    bystander.judged(&bystanders).await;
    operator_is_up().await;
}

/// Edits, deletes and makes things anew. Gives how much of it the API server took.
async fn edit(seed: u64, sound: &[Value]) -> usize {
    let mut random = SplitMix::new(seed);
    let people = [Identity::PlatformAdministrator, Identity::RecoveryLead, Identity::GitOps];
    let mut accepted = 0;
    for _ in 0..EDITS {
        let pick = |random: &mut SplitMix, of: usize| usize::try_from(random.between(0, of as u64)).unwrap();
        let who = people[pick(&mut random, people.len())];
        let client = cluster().await.client(who).await.unwrap();
        let (version, what, name) = OBJECTS[pick(&mut random, OBJECTS.len())];
        let namespace = match what {
            "Quarantine" | "Incident" => None,
            "Deployment" => Some("edits-web"),
            _ => Some("edits"),
        };
        let api = kind(&client, version, what, namespace);
        let deletes = pick(&mut random, 8) == 0;
        let bytes: Vec<u8> = (0..4).map(|_| random.between(0, 256) as u8).collect();
        let part = ["spec", "spec", "status", "metadata"][pick(&mut random, 4)];
        let outcome = match api.get_opt(name).await {
            Ok(Some(_)) if deletes => api.delete(name, &DeleteParams::default()).await.map(drop),
            Ok(Some(live)) => {
                let mut edited = serde_json::to_value(live).unwrap();
                let part = if what == "ConfigMap" { "data" } else { part };
                edited[part] = spoiled(&edited[part], &bytes);
                let params = PostParams::default();
                match serde_json::from_value(edited) {
                    Err(_) => continue,
                    Ok(edited) if part == "status" => {
                        api.replace_status(name, &params, &edited).await.map(drop)
                    }
                    Ok(edited) => api.replace(name, &params, &edited).await.map(drop),
                }
            }
            Ok(None) => {
                let Some(sound) = sound.iter().find(|o| text(o, "/kind") == what) else { continue };
                api.create(&PostParams::default(), &serde_json::from_value(sound.clone()).unwrap())
                    .await
                    .map(drop)
            }
            Err(_) => continue,
        };
        accepted += usize::from(outcome.is_ok());
    }
    accepted
}

#[tokio::test]
async fn objects_of_the_largest_size_are_captured_and_recovered() {
    let many = |size: usize| {
        let mut list = String::with_capacity(size);
        for digit in 0_u64.. {
            if list.len() + 80 > size {
                break;
            }
            writeln!(list, "sha256:{digit:064x}").unwrap();
        }
        list
    };
    let bench = Bench::with("huge", &["web"], |all| {
        for object in all.iter_mut() {
            match text(object, "/kind").to_owned().as_str() {
                "ConfigMap" => object["data"]["more"] = json!(many(1_000_000)),
                "Deployment" => {
                    object["metadata"]["annotations"] =
                        json!({"example.org/blob": "é🙃\u{202e}".repeat(28_000)})
                }
                _ => {}
            }
        }
        all.push(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "blob", "namespace": "huge-web"},
            "data": {"blob": "🙃".repeat(250_000)},
        }));
    })
    .await;
    let plan = bench.plan("plan", json!([bench.service("web", &[])]));
    bench.apply(&plan).await;
    let record = bench.recovers("plan", "web").await;
    assert!(record.to_string().contains("Recovered") && DIGEST.starts_with("sha256:"));
    bench.judged(&plan).await;
    operator_is_up().await;
}
