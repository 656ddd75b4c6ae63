//! Step `wait`: an object of the service's namespace is current, or a condition of it is true.

use kube::api::{ListParams, Patch, PatchParams, PostParams};
use rehearsal::kind;
use resurgam::steps::{self, StepClients, StepContext};
use resurgam_core::engine::StepProgress;
use serde_json::{Value, json};

use super::apply::{extended, granted};
use crate::bad_input::bench::{Bench, DIGEST};

/// A Deployment whose pods run where a node has this label.
fn slow(case: &str, label: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "slow", "namespace": format!("{case}-db")},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "slow"}},
            "template": {
                "metadata": {"labels": {"app": "slow"}},
                "spec": {
                    "nodeSelector": {label: "true"},
                    "containers": [{"name": "slow", "image": format!("registry.example/slow:1@{DIGEST}")}],
                },
            },
        },
    })
}

fn plan(bench: &Bench, wait: &Value) -> Value {
    let mut db = bench.service("db", &[]);
    db["restore"] = json!([{"name": "start", "scale": {}}, {"name": "is-up", "wait": wait}]);
    bench.plan("plan", json!([db, bench.service("web", &["db"])]))
}

fn to_read(group: &str, resource: &str) -> Value {
    json!([{"apiGroups": [group], "resources": [resource], "verbs": ["get"]}])
}

/// A step that waits for a Deployment whose pods find no node.
pub struct Interrupted {
    bench: Bench,
    plan: Value,
}

impl Interrupted {
    const LABEL: &str = "resurgam.example/waits";

    /// Waits until the step waits.
    pub async fn new() -> Self {
        let bench = Bench::with("waits", &["db", "web"], |all| all.push(slow("waits", Self::LABEL))).await;
        let plan = plan(&bench, &json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "slow"}));
        bench.apply(&plan).await;
        let waiting = Self { bench, plan };
        waiting.waits().await;
        waiting
    }

    async fn waits(&self) {
        let words = ["is-up", "Deployment waits-db/slow: 0 of 1"];
        self.bench.says("plan", "db", "StepRunning", &words).await;
    }

    /// Whoever leads now waits, too, until a node fits.
    pub async fn goes_on(self) {
        self.waits().await;
        let Self { bench, plan } = self;
        let nodes = kind(&bench.admin, "v1", "Node", None);
        let node = nodes.list(&ListParams::default()).await.unwrap().items.remove(0).metadata.name.unwrap();
        let patch = json!({"metadata": {"labels": {Self::LABEL: "true"}}});
        nodes.patch(&node, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        bench.recovers("plan", "db").await;
        bench.recovers("plan", "web").await;
        bench.judged(&plan).await;
    }
}

#[tokio::test]
async fn kind_without_crd_and_missing_right_are_named() {
    let bench = Bench::with("waitcrd", &["db", "web"], |all| {
        all.extend(granted("waitcrd", "wait", &to_read("postgresql.cnpg.io", "clusters")));
    })
    .await;
    let wait = json!({"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "name": "benefits", "condition": "Ready"});
    bench.apply(&plan(&bench, &wait)).await;
    let words = "Cluster waitcrd-db/benefits: the API server does not serve clusters in postgresql.cnpg.io/v1: install its CRD";
    bench.says("plan", "db", "StepFailed", &["is-up", words]).await;

    let nothing = granted("waitrbac", "wait", &json!([]));
    let bench = Bench::with("waitrbac", &["db", "web"], |all| all.extend(nothing)).await;
    let wait = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "ready"});
    bench.apply(&plan(&bench, &wait)).await;
    let words = ["is-up", "read ConfigMap waitrbac-db/ready", "waitrbac:recovery", "cannot get resource"];
    bench.says("plan", "db", "StepDenied", &words).await;
    // With the right, it waits for what does not exist.
    let grant = extended("waitrbac", "wait", &to_read("", "configmaps"));
    rehearsal::apply(&bench.admin, "platform", &grant).await.unwrap();
    bench
        .says("plan", "db", "StepRunning", &["is-up", "ConfigMap waitrbac-db/ready does not exist yet"])
        .await;
}

#[tokio::test]
async fn condition_is_waited_for_and_a_failed_object_fails() {
    let bench = Bench::open("waitcond", &["db"], |_| {}).await;
    let jobs = kind(&bench.admin, "batch/v1", "Job", Some("waitcond-db"));
    let observed = async |name: &str, condition: Option<&str>| {
        let mut wait = json!({"apiVersion": "batch/v1", "kind": "Job", "name": name});
        if let Some(condition) = condition {
            wait["condition"] = json!(condition);
        }
        let step = serde_json::from_value(json!({"name": "wait", "wait": wait})).unwrap();
        let namespaces = vec!["waitcond-db".to_owned()];
        let context = StepContext { namespaces, ..StepContext::default() };
        steps::start(&StepClients::new(bench.admin.clone()), &step, &context).await.unwrap()
    };
    assert_eq!(
        observed("load", Some("Complete")).await,
        StepProgress::Running("Job waitcond-db/load does not exist yet".to_owned())
    );
    let job = |name: &str, more: Value| {
        let image = format!("registry.example/web:1@{DIGEST}");
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}},
        });
        job["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(job).unwrap()
    };
    let params = PostParams::default();
    jobs.create(&params, &job("load", json!({"suspend": true}))).await.unwrap();
    assert_eq!(
        observed("load", Some("Complete")).await,
        StepProgress::Running("Job waitcond-db/load: it has no condition Complete yet".to_owned())
    );
    let open = Patch::Merge(json!({"spec": {"suspend": false}}));
    jobs.patch("load", &PatchParams::default(), &open).await.unwrap();
    let ended = |type_: &'static str| move |job: &Value| rehearsal::condition(job, type_) == "True";
    rehearsal::eventually(&jobs, "load", "the Job to end", rehearsal::DEADLINE, ended("Complete"))
        .await
        .unwrap();
    assert_eq!(observed("load", Some("Complete")).await, StepProgress::Succeeded);
    assert_eq!(observed("load", None).await, StepProgress::Succeeded);
    let late = json!({"activeDeadlineSeconds": 1, "suspend": false, "template": {"spec": {
        "restartPolicy": "Never", "nodeSelector": {"resurgam.example/none": "true"},
        "containers": [{"name": "c", "image": format!("registry.example/web:1@{DIGEST}")}],
    }}});
    jobs.create(&params, &job("late", late)).await.unwrap();
    rehearsal::eventually(&jobs, "late", "the Job to fail", rehearsal::DEADLINE, ended("Failed"))
        .await
        .unwrap();
    let StepProgress::Failed(message) = observed("late", None).await else { panic!() };
    assert!(message.contains("Job waitcond-db/late has failed: Job was active longer"), "{message}");
}
