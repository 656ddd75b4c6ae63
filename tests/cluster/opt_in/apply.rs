//! Step `apply`: manifests of a ConfigMap, applied as the plan's account.

use kube::api::{Patch, PatchParams};
use rehearsal::{DEADLINE, eventually, kind, object, text};
use resurgam::api::StepSpec;
use resurgam::steps::{self, StepClients, StepContext};
use resurgam_core::engine::StepProgress;
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, binding, cluster, role};

const ROUTES: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: routes}\ndata: {upstream: db}\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";

/// The manifests of a case, in its plan's namespace.
fn manifests(case: &str, documents: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop-manifests", "namespace": case},
        "data": {"all.yaml": documents.join("---\n")},
    })
}

/// What the plan's account needs for these kinds in the namespace of `db`.
pub fn granted(case: &str, name: &str, rules: &Value) -> [Value; 2] {
    let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": case}]);
    let name = format!("{case}-{name}");
    [role("ClusterRole", &name, "", rules), binding("ClusterRole", &name, &format!("{case}-db"), &account)]
}

/// Extends what such a role grants. The fence refuses new bindings in an isolated namespace.
pub fn extended(case: &str, name: &str, rules: &Value) -> [Value; 1] {
    [role("ClusterRole", &format!("{case}-{name}"), "", rules)]
}

fn to_apply(group: &str, resources: &[&str]) -> Value {
    json!([{"apiGroups": [group], "resources": resources, "verbs": ["get", "create", "patch"]}])
}

/// An estate whose account may apply ConfigMaps, and these resources of the core.
async fn bench(case: &'static str, documents: &[&str], resources: &[&str]) -> Bench {
    Bench::with(case, &["db", "web"], |all| {
        all.push(manifests(case, documents));
        let resources = [&["configmaps"], resources].concat();
        all.extend(granted(case, "apply", &to_apply("", &resources)));
        all.extend(granted(case, "more", &json!([])));
    })
    .await
}

fn plan(bench: &Bench) -> Value {
    let mut db = bench.service("db", &[]);
    db["restore"] = json!([
        {"name": "configure", "apply": {"configMaps": [{"name": "shop-manifests"}]}},
        {"name": "start", "scale": {}},
    ]);
    bench.plan("plan", json!([db, bench.service("web", &["db"])]))
}

/// Requests in the audit log that changed an object, or tried, as verb, name and code.
pub async fn writes(namespace: &str, resource: &str) -> Vec<(String, String, i64)> {
    let log = std::fs::read_to_string(cluster().await.audit_log()).unwrap();
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains(namespace));
    let events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let is_write = |event: &Value| {
        ["create", "update", "patch", "delete"].contains(&text(event, "/verb"))
            && text(event, "/stage") == "ResponseComplete"
            && text(event, "/objectRef/namespace") == namespace
            && text(event, "/objectRef/resource") == resource
            && text(event, "/impersonatedUser/username").ends_with(":recovery")
    };
    let of = |event: &Value| {
        let code = event["responseStatus"]["code"].as_i64().unwrap_or_default();
        (text(event, "/verb").to_owned(), text(event, "/objectRef/name").to_owned(), code)
    };
    events.filter(is_write).map(|event| of(&event)).collect()
}

/// Starts a step as the operator does: a conflict with a controller that writes the object's status is tried again.
async fn started(bench: &Bench, step: &StepSpec, context: &StepContext) -> StepProgress {
    loop {
        match steps::start(&StepClients::new(bench.admin.clone()), step, context).await {
            Err(steps::StepError::Io(error)) if error.is_conflict() => {}
            started => return started.unwrap(),
        }
    }
}

/// The step's message was in the status of its service, by the audit log.
pub async fn reported(bench: &Bench, words: &str) {
    let log = std::fs::read_to_string(cluster().await.audit_log()).unwrap();
    let mut lines =
        log.lines().filter(|line| line.contains(bench.case) && line.contains("servicerecoveries"));
    assert!(lines.any(|line| line.contains(words)), "no status says: {words}");
}

#[tokio::test]
async fn manifests_are_applied_in_the_clean_room() {
    let bench = bench("apply", &[ROUTES, SERVICE], &["services"]).await;
    let plan = plan(&bench);
    bench.apply(&plan).await;
    bench.recovers("plan", "db").await;
    bench.recovers("plan", "web").await;
    for (name, of) in [("routes", "ConfigMap"), ("api", "Service")] {
        let found = object(&kind(&bench.admin, "v1", of, Some("apply-db")), name).await.unwrap();
        let managers = found["metadata"]["managedFields"].as_array().unwrap();
        let ours = |entry: &&Value| text(entry, "/manager").starts_with("resurgam-apply-configure-");
        assert_eq!(managers.iter().filter(ours).count(), 1, "{found}");
    }
    reported(&bench, "2 objects applied, manifests sha256:").await;
    bench.judged(&plan).await;
}

#[tokio::test]
async fn conflict_names_the_field_and_the_other_manager() {
    let other =
        ROUTES.replace("metadata: {name: routes}", "metadata: {name: routes, namespace: applyconf-db}");
    let bench = Bench::with("applyconf", &["db", "web"], |all| {
        all.push(serde_yaml::from_str(&other.replace("upstream: db", "upstream: theirs")).unwrap());
        all.push(manifests("applyconf", &[SERVICE, ROUTES]));
        all.extend(granted("applyconf", "apply", &to_apply("", &["configmaps", "services"])));
    })
    .await;
    bench.apply(&plan(&bench)).await;
    let words = ["configure", "ConfigMap applyconf-db/routes: .data.upstream belongs to 'platform'"];
    bench.says("plan", "db", "StepFailed", &words).await;
    let found = object(&kind(&bench.admin, "v1", "ConfigMap", Some("applyconf-db")), "routes").await.unwrap();
    assert_eq!(found["data"]["upstream"], "theirs");
}

/// A step that has applied one object, and may not apply the next.
pub struct Interrupted {
    bench: Bench,
    plan: Value,
    /// The object that it has applied.
    routes: Value,
}

impl Interrupted {
    /// Waits until the step is in its middle.
    pub async fn new() -> Self {
        let bench = bench("applyrbac", &[ROUTES, SERVICE], &[]).await;
        let plan = plan(&bench);
        bench.apply(&plan).await;
        let words = ["configure", "Service applyrbac-db/api", "applyrbac:recovery", "cannot patch resource"];
        bench.says("plan", "db", "StepDenied", &words).await;
        let routes = Self::routes(&bench).await;
        Self { bench, plan, routes }
    }

    async fn routes(bench: &Bench) -> Value {
        object(&kind(&bench.admin, "v1", "ConfigMap", Some("applyrbac-db")), "routes").await.unwrap()
    }

    /// Whoever leads now applies what is left, once.
    pub async fn goes_on(self) {
        let Self { bench, plan, routes } = self;
        let more = extended("applyrbac", "more", &to_apply("", &["services"]));
        rehearsal::apply(&bench.admin, "platform", &more).await.unwrap();
        bench.recovers("plan", "db").await;
        bench.recovers("plan", "web").await;
        let after = Self::routes(&bench).await;
        assert_eq!(after["metadata"], routes["metadata"], "applying again changes nothing");
        let services = writes("applyrbac-db", "services").await;
        let created: Vec<&(String, String, i64)> =
            services.iter().filter(|(_, _, code)| *code == 201).collect();
        assert_eq!(created.len(), 1, "{services:?}");
        bench.judged(&plan).await;
    }
}

#[tokio::test]
async fn kind_that_is_not_served_or_not_the_services_fails_the_step() {
    for (case, manifest, words) in [
        (
            "applycrd",
            "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: w}\n",
            "Widget applycrd-db/w: the API server does not serve kind Widget in example.org/v1: install its CRD",
        ),
        (
            "applywide",
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: c}\nrules: []\n",
            "ClusterRole applywide-db/c: a ClusterRole is of the whole cluster",
        ),
    ] {
        let bench = bench(case, &[ROUTES, manifest], &[]).await;
        bench.apply(&plan(&bench)).await;
        bench.says("plan", "db", "StepFailed", &["configure", words]).await;
        let maps = kind(&bench.admin, "v1", "ConfigMap", Some(&bench.namespace("db")));
        assert!(maps.get_opt("routes").await.unwrap().is_none(), "nothing is applied before all is checked");
    }
}

#[tokio::test]
async fn field_that_the_kind_does_not_have_fails_the_step() {
    let bench = bench("applytypo", &[&SERVICE.replace("selector:", "selectors:")], &["services"]).await;
    bench.apply(&plan(&bench)).await;
    bench
        .says("plan", "db", "StepFailed", &["configure", "Service applytypo-db/api", ".spec.selectors"])
        .await;
}

/// Started twice, by whoever leads then, and over what isolation and earlier steps wrote.
#[tokio::test]
async fn starting_again_changes_nothing_and_own_fields_are_no_conflict() {
    let web = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 3\n  selector: {{matchLabels: {{app: web}}}}\n  \
         template:\n    metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: web, image: 'registry.example/web:1@{DIGEST}'}}]}}\n"
    );
    let bench =
        Bench::open("applytwice", &["db"], |all| all.push(manifests("applytwice", &[&web, ROUTES]))).await;
    let deployments = kind(&bench.admin, "apps/v1", "Deployment", Some("applytwice-db"));
    let scaled = |manager: &str, replicas: i32| {
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let deployments = deployments.clone();
        async move { deployments.patch("web", &params, &patch).await.unwrap() }
    };
    let step = |name: &str| {
        serde_json::from_value(json!({"name": name, "apply": {"configMaps": [{"name": "shop-manifests"}]}}))
            .unwrap()
    };
    let context = |name: &str| StepContext {
        plan_namespace: "applytwice".to_owned(),
        step: name.to_owned(),
        namespaces: vec!["applytwice-db".to_owned()],
        ..StepContext::default()
    };
    scaled("resurgam-isolation", 0).await;
    let settled = |web: &Value| web["status"]["observedGeneration"] == web["metadata"]["generation"];
    eventually(&deployments, "web", "the Deployment to settle", DEADLINE, |web| {
        settled(web) && web["status"]["replicas"].is_null()
    })
    .await
    .unwrap();
    let first = started(&bench, &step("one"), &context("one")).await;
    let StepProgress::Running(message) = &first else { panic!("{first:?}") };
    let named = "Deployment applytwice-db/web, ConfigMap applytwice-db/routes";
    assert!(
        message.starts_with("2 objects applied, manifests sha256:") && message.ends_with(named),
        "{message}"
    );
    let state = async || {
        let web = object(&deployments, "web").await.unwrap();
        (web["spec"].clone(), web["metadata"]["generation"].clone())
    };
    let before = state().await;
    assert_eq!(before.0["replicas"], 3);
    assert_eq!(started(&bench, &step("one"), &context("one")).await, first);
    assert_eq!(state().await, before);
    let observed =
        steps::observe(&StepClients::new(bench.admin.clone()), &step("one"), &context("one")).await.unwrap();
    assert_eq!(observed, StepProgress::SucceededWith(message.clone()));
    // Another step has not applied it, and somebody else's field is a conflict.
    let observed =
        steps::observe(&StepClients::new(bench.admin.clone()), &step("two"), &context("two")).await.unwrap();
    assert!(matches!(observed, StepProgress::Failed(_)), "{observed:?}");
    scaled("keda", 5).await;
    let again = started(&bench, &step("one"), &context("one")).await;
    let StepProgress::Failed(message) = again else { panic!("{again:?}") };
    assert!(message.contains("Deployment applytwice-db/web: .spec.replicas belongs to 'keda'"), "{message}");
}
