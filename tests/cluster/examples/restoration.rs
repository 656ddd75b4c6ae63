//! Three boroughs restore: `examples/three-boroughs/restore` fits together, and is played as `cargo xtask demo --restore` plays it, with the
//! real Velero and the real Flux.

use std::collections::BTreeSet;
use std::path::Path;

use control_plane::{ControlPlane, Options};
use rehearsal::Line;
use rehearsal::restoration::{Programs, Restoration};
use resurgam::api::RecoveryPlan;
use resurgam::plan::Plan;
use serde_json::{Value, json};

use super::manifests::{Manifest, read, three_boroughs};
use super::{approved, digest, lacking};

#[tokio::test(flavor = "multi_thread")]
async fn three_boroughs_restore_by_velero_a_job_and_flux() {
    let Some(programs) = Programs::if_built().unwrap() else { return };
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let told = std::sync::Mutex::new(Vec::new());
    let tell = |line: Line| told.lock().unwrap().push(line);
    let binary = Path::new(env!("CARGO_BIN_EXE_resurgam"));
    let story = Restoration { cluster: &cluster, binary, programs: &programs, tell: &tell };
    let restored =
        story.play().await.unwrap_or_else(|error| panic!("{error:#}\n{:#?}", told.lock().unwrap()));
    drop(restored.operator);
    let file = std::fs::File::open(cluster.audit_log()).unwrap();
    let options =
        judge::Options { operate: vec![rehearsal::velero::USER.to_owned()], ..judge::Options::default() };
    let report = judge::judge(std::io::BufReader::new(file), &restored.plan, &options).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.figures.recovered, report.figures.total), (32, 32), "{report}");
    cluster.stop().await.unwrap();
}

/// The plan of the three boroughs with what restores applied over it: services are merged by name, as the API server does.
fn merged() -> RecoveryPlan {
    let mut plan = read("three-boroughs/plan.yaml").remove(0).value;
    let over = read("three-boroughs/restore/plan.yaml").remove(0).value;
    assert_eq!(over["metadata"], plan["metadata"]);
    assert_eq!(over["spec"].as_object().unwrap().len(), 1, "nothing but services");
    for wanted in over["spec"]["services"].as_array().unwrap() {
        let services = plan["spec"]["services"].as_array_mut().unwrap();
        let service = services.iter_mut().find(|service| service["name"] == wanted["name"]).unwrap();
        for (key, value) in wanted.as_object().unwrap() {
            let before = service.as_object_mut().unwrap().insert(key.clone(), value.clone());
            // A field of another manager would be a conflict.
            assert!(before.is_none() || key == "name", "{}: {key} is in plan.yaml already", wanted["name"]);
        }
    }
    serde_json::from_value(plan).unwrap()
}

#[test]
fn what_restores_merges_into_a_plan_without_problems() {
    let plan = merged();
    let compiled = Plan::from_object(&plan);
    assert_eq!(compiled.problems, []);
    let problems: Vec<_> = compiled.services.iter().flat_map(|service| &service.problems).collect();
    assert!(problems.is_empty(), "{problems:?}");
    let approved = approved(&three_boroughs());
    let text = json!(plan).to_string();
    let images: Vec<&str> =
        text.split("\"image\":\"").skip(1).map(|at| at.split('"').next().unwrap()).collect();
    assert!(!images.is_empty() && images.iter().all(|image| approved.contains(digest(image))), "{images:?}");
}

#[test]
fn rights_to_restore_are_what_the_merged_plan_needs() {
    let mut manifests = three_boroughs();
    manifests.extend(read("three-boroughs/restore/access.yaml"));
    assert_eq!(lacking(&manifests, &merged()), [""; 0]);
}

#[test]
fn rights_to_restore_name_each_clean_room_and_no_wildcard() {
    let namespaces = read("three-boroughs/restore/namespaces.yaml");
    let namespaces: BTreeSet<&str> = namespaces.iter().map(Manifest::name).collect();
    let access = read("three-boroughs/restore/access.yaml");
    access.iter().for_each(Manifest::check);
    let mut holders = 0;
    for role in access.iter().filter(|manifest| manifest.kind().ends_with("Role")) {
        for rule in role.value["rules"].as_array().unwrap() {
            let only_lists = rule["verbs"] == json!(["list"]) && role.kind() == "Role";
            assert!(only_lists || !rule.to_string().contains("\"*\""), "{role}: {rule}");
            if rule["verbs"].to_string().contains("\"recover\"") {
                let names = rule["resourceNames"].as_array().unwrap().iter().filter_map(Value::as_str);
                assert_eq!(names.collect::<BTreeSet<&str>>(), namespaces, "{role}");
                holders += 1;
            }
        }
    }
    assert_eq!(holders, 2, "the plan's account, and Velero's");
}
