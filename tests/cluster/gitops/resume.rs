//! Step `resume` with the real Flux: a recovered service is handed back at the approved revision, and at no other.

use std::path::Path;
use std::sync::Mutex;

use control_plane::{ControlPlane, Identity, Options};
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams};
use rehearsal::flux::{self, KUSTOMIZE, NAMESPACE as FLUX, Programs};
use rehearsal::trial::Trial;
use rehearsal::{
    DEADLINE, GitServer, Operator, OperatorOptions, apply, condition, eventually, kind, object, text,
};
use resurgam::steps::{self, StepClients, StepContext};
use serde_json::{Value, json};

const REQUESTED_AT: &str = "/metadata/annotations/reconcile.fluxcd.io~1requestedAt";

/// A control plane with an operator that tests kill.
pub struct Stage {
    pub cluster: ControlPlane,
    pub admin: Client,
    operator: Mutex<Option<Operator>>,
}

impl Stage {
    pub async fn set() -> Self {
        let cluster = ControlPlane::start(Options::default()).await.unwrap();
        rehearsal::install(&cluster).await.unwrap();
        let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
        let stage = Self { cluster, admin, operator: Mutex::new(None) };
        stage.restart().await;
        stage
    }

    /// Kills the operator, if there is one, and starts another.
    pub async fn restart(&self) {
        if let Some(operator) = self.operator.lock().unwrap().take() {
            operator.kill().unwrap();
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_resurgam"));
        let options = OperatorOptions::within(&self.cluster, binary);
        *self.operator.lock().unwrap() = Some(Operator::start(&self.cluster, &options).unwrap());
        rehearsal::leads(&self.cluster).await.unwrap();
    }

    /// Lays an estate down whose database is handed back by this, and isolates it. The plan comes later.
    pub async fn isolated(&self, name: &str) -> Trial<'_> {
        let trial = Trial::lay_down(&self.cluster, name).await.unwrap();
        let first: Vec<Value> =
            trial.begins().iter().filter(|object| object["kind"] != "RecoveryPlan").cloned().collect();
        apply(&self.admin, "platform", &first).await.unwrap();
        trial
    }

    /// Applies the plan of an estate, whose database is handed back by this.
    pub async fn recover(&self, trial: &Trial<'_>, resume: &Value) {
        let mut plan = trial.begins().iter().find(|o| o["kind"] == "RecoveryPlan").unwrap().clone();
        plan["spec"]["services"][0]["restore"] = json!([
            {"name": "start", "scale": {}},
            {"name": "back", "phase": "AfterRelease", "resume": resume},
        ]);
        apply(&self.admin, "platform", &[plan]).await.unwrap();
    }

    /// What the operator has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.cluster.dir().join("operator.log")).unwrap()
    }
}

/// Grants the account of an estate rights in another namespace.
pub async fn grant(admin: &Client, estate: &str, namespace: &str, rules: &Value) {
    let (name, group) = (format!("{estate}-resume"), "rbac.authorization.k8s.io");
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": rules,
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "recovery", "namespace": format!("{estate}-recovery")}],
    });
    apply(admin, "platform", &[role, binding]).await.unwrap();
}

/// Waits until the database of an estate says why it is blocked, in these words.
pub async fn says(trial: &Trial<'_>, reason: &str, words: &[&str]) -> Value {
    let blocked = |record: &Value| {
        let blocks = rehearsal::field(record, "/status/blockedBy").as_array();
        blocks.into_iter().flatten().any(|block| {
            let message = text(block, "/message");
            block["reason"] == reason && words.iter().all(|word| message.contains(word))
        })
    };
    let what = format!("says {reason}: {}", words.join(", "));
    trial.service(&trial.namespaces()[0], &what, blocked).await.unwrap()
}

/// What is missing of a kind that the cluster does not serve, as a start of the step says it.
pub async fn without_kinds(admin: &Client, resume: &Value) -> String {
    let step = json!({"name": "back", "phase": "AfterRelease", "resume": resume});
    let step = serde_json::from_value(step).unwrap();
    steps::start(&StepClients::new(admin.clone()), &step, &StepContext::default())
        .await
        .unwrap_err()
        .to_string()
}

fn flux_rules() -> Value {
    json!([
        {"apiGroups": ["kustomize.toolkit.fluxcd.io"], "resources": ["kustomizations"], "verbs": ["get", "patch"]},
        {"apiGroups": ["source.toolkit.fluxcd.io"], "resources": ["gitrepositories"], "verbs": ["get"]},
    ])
}

/// A Kustomization of the one repository.
fn delivery(name: &str, suspend: bool) -> Value {
    json!({
        "apiVersion": KUSTOMIZE, "kind": "Kustomization", "metadata": {"name": name, "namespace": FLUX},
        "spec": {
            "interval": "10m", "retryInterval": "5s", "timeout": "1m", "path": "./", "prune": true, "wait": true,
            "suspend": suspend, "sourceRef": {"kind": "GitRepository", "name": "estate"},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flux_is_resumed_at_the_approved_revision_and_no_other() {
    let Some(programs) = Programs::if_built().unwrap() else { return };
    let stage = Stage::set().await;
    let by = |name: &str, revision: &str| json!({"flux": {"kind": "Kustomization", "namespace": FLUX, "name": name, "revision": revision}});
    let none = format!("sha1:{}", "0".repeat(40));
    let missing = without_kinds(&stage.admin, &by("handback", &none)).await;
    let words = "Kustomization flux-system/handback: the API server does not serve kustomizations in kustomize.toolkit.fluxcd.io/v1";
    assert!(missing.starts_with(words), "{missing}");
    flux::install_kinds(&stage.admin).await.unwrap();

    // What Flux delivers into the database's namespace, before the day.
    let admin = stage.admin.clone();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "handback-db"}});
    apply(&admin, "platform", &[namespace]).await.unwrap();
    let routes = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: routes, namespace: handback-db}\ndata: {upstream: db}\n";
    let files = [("routes.yaml", routes.to_owned())];
    let git = GitServer::start(&stage.cluster.dir().join("git"), &files).await.unwrap();
    let _source = programs.start_source(&stage.cluster).unwrap();
    let kustomize = programs.start_kustomize(&stage.cluster).unwrap();
    let repository = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {"name": "estate", "namespace": FLUX},
        "spec": {"url": git.url(), "interval": "1m", "ref": {"branch": "main"}},
    });
    apply(&admin, "platform", &[repository, delivery("handback", false)]).await.unwrap();
    let deliveries = kind(&admin, KUSTOMIZE, "Kustomization", Some(FLUX));
    let ready = |delivery: &Value| {
        condition(delivery, "Ready") == "True" && !text(delivery, "/status/lastAppliedRevision").is_empty()
    };
    eventually(&deliveries, "handback", "Flux to be content", DEADLINE, ready).await.unwrap();

    // The day. Isolation suspends what delivers here and nowhere else; then Flux is away for a while.
    let trial = stage.isolated("handback").await;
    let suspended = |delivery: &Value| delivery["spec"]["suspend"] == true;
    eventually(&deliveries, "handback", "the operator to suspend it", DEADLINE, suspended).await.unwrap();
    drop(kustomize);
    let approved = format!("main@sha1:{}", git.commit().unwrap());
    stage.recover(&trial, &by("handback", &approved)).await;
    let words =
        ["read Kustomization flux-system/handback", "handback-recovery:recovery", "cannot get resource"];
    says(&trial, "StepDenied", &words).await;
    assert!(suspended(&object(&deliveries, "handback").await.unwrap()));
    grant(&admin, "handback", FLUX, &flux_rules()).await;
    let words = ["Kustomization flux-system/handback has not handled the request yet"];
    says(&trial, "StepRunning", &words).await;
    let before = object(&deliveries, "handback").await.unwrap();
    assert!(!suspended(&before) && text(&before, REQUESTED_AT).starts_with("resurgam-1-"), "{before}");
    stage.restart().await;
    says(&trial, "StepRunning", &words).await;
    let after = object(&deliveries, "handback").await.unwrap();
    assert_eq!(after["metadata"], before["metadata"], "it is asked for once");
    let kustomize = programs.start_kustomize(&stage.cluster).unwrap();
    trial.recovered().await.unwrap();
    let done = object(&deliveries, "handback").await.unwrap();
    assert_eq!(done["status"]["lastHandledReconcileAt"], before.pointer(REQUESTED_AT).unwrap().clone());
    let digest = text(&done, "/status/history/0/digest");
    let message =
        format!("Kustomization flux-system/handback applied revision {approved}, manifests {digest}");
    let records = kind(&admin, "resurgam.dev/v1alpha1", "ServiceRecovery", None);
    let records = serde_json::to_string(&records.list(&ListParams::default()).await.unwrap()).unwrap();
    assert!(digest.starts_with("sha256:") && records.contains(&message), "{message}: {records}");

    // Another revision than the approved one is not resumed.
    apply(&admin, "platform", &[delivery("other", true)]).await.unwrap();
    grant(&admin, "other", FLUX, &flux_rules()).await;
    let trial = stage.isolated("other").await;
    stage.recover(&trial, &by("other", &none)).await;
    let has =
        format!("GitRepository flux-system/estate has revision {approved}, and the plan approves {none}");
    says(&trial, "StepFailed", &[&has]).await;
    assert!(suspended(&object(&deliveries, "other").await.unwrap()), "Flux stays where it was");

    // Nor is one that comes before Flux has applied the approved one.
    drop(kustomize);
    apply(&admin, "platform", &[delivery("moves", true)]).await.unwrap();
    grant(&admin, "moves", FLUX, &flux_rules()).await;
    let trial = stage.isolated("moves").await;
    stage.recover(&trial, &by("moves", &approved)).await;
    says(&trial, "StepRunning", &["Kustomization flux-system/moves has not handled the request yet"]).await;
    git.push("routes.yaml", &routes.replace("upstream: db", "upstream: evil")).unwrap();
    let now = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}});
    let sources = kind(&admin, "source.toolkit.fluxcd.io/v1", "GitRepository", Some(FLUX));
    sources.patch("estate", &PatchParams::default(), &Patch::Merge(now)).await.unwrap();
    let moved =
        format!("has now revision main@sha1:{}, and the plan approves {approved}", git.commit().unwrap());
    says(&trial, "StepFailed", &[&moved]).await;
}
