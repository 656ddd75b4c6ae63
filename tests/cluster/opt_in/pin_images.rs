//! Step `pinImages`: no pod of the service starts by tag.

use rehearsal::{kind, object, text};
use serde_json::{Value, json};

use super::apply::{extended, granted, reported, writes};
use crate::bad_input::bench::{Bench, DIGEST};

/// A workload whose image is named by tag.
fn tagged(case: &str, of: &str, name: &str, image: &str) -> Value {
    let mut workload = json!({
        "apiVersion": "apps/v1", "kind": of, "metadata": {"name": name, "namespace": format!("{case}-db")},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    });
    if of == "StatefulSet" {
        workload["spec"]["serviceName"] = json!(name);
    }
    workload
}

/// The right to pin what is of these kinds.
fn to_pin(resources: &[&str]) -> Value {
    let deployments = [&["deployments"], resources].concat();
    json!([
        {"apiGroups": ["apps"], "resources": deployments, "verbs": ["patch"]},
        {"apiGroups": ["", "apps", "batch"], "resources": ["replicationcontrollers", "cronjobs"], "verbs": ["list"]},
    ])
}

/// A plan without gates that could refuse a tag first. It ends with the gate that refuses one.
fn plan(bench: &Bench) -> Value {
    let list = json!({"configMap": {"name": "tags"}});
    let gate = |name: &str, more: Value| {
        let mut gate = json!({"name": name, "interval": "500ms", "failureLimit": 1});
        gate.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        gate
    };
    let mut db = bench.service("db", &[]);
    db["restore"] =
        json!([{"name": "pin", "pinImages": {"approvedFrom": list}}, {"name": "start", "scale": {}}]);
    let mut plan = bench.plan("plan", json!([db]));
    plan["spec"]["defaults"]["gates"] = json!({
        "beforeRestore": [gate("listed", json!({"imageDigests": {"approvedFrom": list, "tags": "ProveWhenRunning"}}))],
        "beforeRelease": [
            gate("pinned", json!({"imageDigests": {"approvedFrom": list}})),
            gate("up", json!({"workloads": {}})),
        ],
    });
    plan
}

async fn bench(case: &'static str, list: &str, resources: &[&str]) -> Bench {
    Bench::with(case, &["db"], |all| {
        all.push(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tags", "namespace": case}, "data": {"images": list},
        }));
        all.push(tagged(case, "Deployment", "api", "registry.example/api:1"));
        all.push(tagged(case, "StatefulSet", "store", "registry.example/store:7"));
        all.extend(granted(case, "pin", &to_pin(resources)));
        all.extend(granted(case, "more", &json!([])));
    })
    .await
}

/// The list of all that is in the namespace.
fn whole() -> String {
    format!("{DIGEST}\nregistry.example/api:1 {DIGEST}\nregistry.example/store:7 {DIGEST}\n")
}

async fn image(bench: &Bench, of: &str, name: &str) -> String {
    let api = kind(&bench.admin, "apps/v1", of, Some(&bench.namespace("db")));
    let found = object(&api, name).await.unwrap();
    text(&found, "/spec/template/spec/containers/0/image").to_owned()
}

#[tokio::test]
async fn tags_are_pinned_before_anything_starts() {
    let bench = bench("pins", &whole(), &["statefulsets"]).await;
    let plan = plan(&bench);
    bench.apply(&plan).await;
    bench.recovers("plan", "db").await;
    assert_eq!(image(&bench, "Deployment", "api").await, format!("registry.example/api:1@{DIGEST}"));
    assert_eq!(image(&bench, "StatefulSet", "store").await, format!("registry.example/store:7@{DIGEST}"));
    let pods = kind(&bench.admin, "v1", "Pod", Some("pins-db")).list(&Default::default()).await.unwrap();
    let images = pods.items.iter().map(|pod| {
        let pod = serde_json::to_value(pod).unwrap();
        text(&pod, "/spec/containers/0/image").to_owned()
    });
    let images: Vec<String> = images.collect();
    assert!(images.len() == 3 && images.iter().all(|image| image.ends_with(DIGEST)), "{images:?}");
    reported(
        &bench,
        "2 images pinned: Deployment pins-db/api, container main: registry.example/api:1@sha256:",
    )
    .await;
    bench.judged(&plan).await;
}

#[tokio::test]
async fn image_without_an_approved_digest_fails_the_step_by_name() {
    let bench = bench("pinless", &whole(), &["statefulsets"]).await;
    // The gate passes, and what is approved changes before the step.
    let mut plan = plan(&bench);
    let less = json!([format!("{DIGEST}"), format!("registry.example/api:1 {DIGEST}")]);
    plan["spec"]["services"][0]["restore"][0]["pinImages"] = json!({"approved": less});
    bench.apply(&plan).await;
    let words = "StatefulSet pinless-db/store, container main: the approved list has no entry 'registry.example/store:7 sha256:…'";
    bench.says("plan", "db", "StepFailed", &["pin", words]).await;
    assert_eq!(image(&bench, "Deployment", "api").await, "registry.example/api:1", "all or nothing");
}

/// A step that has pinned one workload, and may not pin the next.
pub struct Interrupted {
    bench: Bench,
    plan: Value,
}

impl Interrupted {
    /// Waits until the step is in its middle.
    pub async fn new() -> Self {
        let bench = bench("pinrbac", &whole(), &[]).await;
        let plan = plan(&bench);
        bench.apply(&plan).await;
        let words =
            ["pin the images of StatefulSet pinrbac-db/store", "pinrbac:recovery", "cannot patch resource"];
        bench.says("plan", "db", "StepDenied", &words).await;
        assert!(image(&bench, "Deployment", "api").await.ends_with(DIGEST), "the first is pinned");
        Self { bench, plan }
    }

    /// Whoever leads now pins what is left, once.
    pub async fn goes_on(self) {
        let Self { bench, plan } = self;
        let more = extended("pinrbac", "more", &to_pin(&["statefulsets"]));
        rehearsal::apply(&bench.admin, "platform", &more).await.unwrap();
        bench.recovers("plan", "db").await;
        assert!(image(&bench, "StatefulSet", "store").await.ends_with(DIGEST));
        // Once to pin it, once to scale it.
        let patched = writes("pinrbac-db", "deployments").await;
        let api = patched.iter().filter(|(_, name, _)| name == "api").count();
        assert_eq!(api, 2, "{patched:?}");
        bench.judged(&plan).await;
    }
}
