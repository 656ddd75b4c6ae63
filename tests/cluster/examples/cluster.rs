//! The examples on a real API server.

use std::time::Duration;

use control_plane::{ControlPlane, Identity, Options};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use rehearsal::await_condition;
use serde_json::Value;

use crate::examples::judged;
use crate::examples::manifests::{Manifest, read, smallest, three_boroughs};

/// How long the control plane may take to bring up what a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(120);

fn api(client: &Client, manifest: &Manifest) -> Api<DynamicObject> {
    let api_version = manifest.text("/apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, manifest.kind()));
    match manifest.namespace() {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}

/// Applies a manifest server-side; the API server too is asked to be strict.
async fn apply(client: &Client, manifest: &Manifest, manager: &str) -> DynamicObject {
    let params = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply(manager)
    };
    let params = params.force();
    let applied = api(client, manifest).patch(manifest.name(), &params, &Patch::Apply(&manifest.value)).await;
    applied.unwrap_or_else(|error| panic!("{manifest}: {error}"))
}

/// Does the object say that it runs all it should?
fn runs(kind: &str, object: &DynamicObject) -> bool {
    let at = |pointer: &str| object.data.pointer(pointer).and_then(Value::as_i64);
    let generation = object.metadata.generation;
    match kind {
        "Pod" => object.data.pointer("/status/phase").and_then(Value::as_str) == Some("Running"),
        "Job" => at("/status/succeeded") == Some(1),
        "DaemonSet" => {
            let wanted = at("/status/desiredNumberScheduled");
            wanted > Some(0) && at("/status/numberReady") == wanted
        }
        "CronJob" => true,
        _ => {
            at("/status/observedGeneration") == generation
                && at("/status/readyReplicas") == at("/spec/replicas")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_applies_becomes_ready_and_can_be_judged() {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    let client = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    rehearsal::install_kinds(&client).await.unwrap();

    let manifests: Vec<Manifest> = three_boroughs().into_iter().chain(smallest()).collect();
    for manifest in &manifests {
        apply(&client, manifest, "test").await;
    }
    for manifest in manifests.iter().filter(|m| m.pods().is_some()) {
        let ready =
            await_condition(api(&client, manifest), manifest.name(), |object: Option<&DynamicObject>| {
                object.is_some_and(|object| runs(manifest.kind(), object))
            });
        match tokio::time::timeout(DEADLINE, ready).await {
            Ok(outcome) => outcome.map(drop).unwrap_or_else(|error| panic!("{manifest}: {error}")),
            Err(_) => panic!("{manifest} did not become ready"),
        }
    }

    payrolls_baseline_is_of_its_manifests(&cluster).await;

    // The attacker's images, and the repair: as an additional manager it changes the image and nothing else.
    let (tampered, repairs) = (read("three-boroughs/tampered"), read("three-boroughs/repair"));
    for (bad, repair) in tampered.iter().zip(&repairs) {
        let before = apply(&client, bad, "test").await;
        let after = apply(&client, repair, "repair").await;
        let image = |object: &DynamicObject| {
            let image = object.data.pointer("/spec/template/spec/containers/0/image");
            image.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        assert_eq!(image(&before), bad.text("/spec/template/spec/containers/0/image"));
        assert_eq!(image(&after), repair.text("/spec/template/spec/containers/0/image"));
        let without_image = |object: &DynamicObject| {
            let mut spec = object.data["spec"].clone();
            spec["template"]["spec"]["containers"][0]["image"] = Value::Null;
            spec
        };
        assert_eq!(without_image(&before), without_image(&after), "{repair}");
    }
    judged::check(&cluster, &client).await;
    cluster.stop().await.unwrap();
}

/// The committed baseline of payroll is what its manifests say, and signed with the key in the plan. Who changes them captures and signs
/// again, with a new key: examples/three-boroughs/README.md, "More than images".
async fn payrolls_baseline_is_of_its_manifests(cluster: &ControlPlane) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let example = |name: &str| {
        crate::examples::manifests::folder().join("three-boroughs").join(name).display().to_string()
    };
    let baseline = async |line: &[&str]| {
        let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_resurgam"))
            .arg("baseline")
            .args(line)
            .env("KUBECONFIG", cluster.kubeconfig(Identity::PlatformAdministrator))
            .output()
            .await
            .unwrap();
        let told = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(ran.status.success(), "resurgam baseline {}: {}", line.join(" "), told.concat());
    };
    let plan = read("three-boroughs/plan.yaml").remove(0).value;
    let services = plan["spec"]["services"].as_array().unwrap();
    let payroll = services.iter().find(|service| service["name"] == "payroll").unwrap();
    let key = payroll["gates"]["beforeRestore"][0]["baseline"]["publicKeys"][0].as_str().unwrap();
    std::fs::write(at("key.pub"), key).unwrap();
    let (committed, key, captured) = (example("payroll-baseline.yaml"), at("key.pub"), at("payroll.json"));
    let [namespaces, access, estate] = ["namespaces.yaml", "access.yaml", "estate"].map(example);
    let mut line =
        vec!["capture", "--namespace", "shared-payroll", "--scratch", "default", "--output", &captured];
    line.extend(["--from-manifests", &namespaces, "--from-manifests", &access, "--from-manifests", &estate]);
    baseline(&line).await;
    baseline(&["diff", &committed, &captured, "--key", &key]).await;
}
