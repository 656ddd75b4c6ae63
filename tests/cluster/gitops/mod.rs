//! A plan and its Quarantines are delivered by Flux, as it is: the real source-controller and kustomize-controller.

mod argocd;
mod resume;

use std::path::Path;

use control_plane::{ControlPlane, Identity, Options};
use kube::api::{Patch, PatchParams};
use rehearsal::flux::{self, KUSTOMIZE, NAMESPACE as FLUX, Programs};
use rehearsal::trial::Trial;
use rehearsal::{
    DEADLINE, GitServer, Operator, OperatorOptions, apply, condition, eventually, kind, object, text,
};
use serde_json::{Value, json};

/// As Flux's documentation has it for kinds with a condition of their own: the plan is current once it has recovered.
const RECOVERED: &str = "status.conditions.filter(c, c.type == 'Recovered').all(c, c.status == 'True')";

/// Writes by GitOps to our kinds that were no dry-run, each as verb, kind and name.
fn written(cluster: &ControlPlane) -> Vec<String> {
    let log = std::fs::read_to_string(cluster.audit_log()).unwrap();
    let mut all = Vec::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let is_write = ["create", "update", "patch", "delete"].contains(&text(&event, "/verb"));
        let by = text(&event, "/user/username") == "system:serviceaccount:flux-system:kustomize-controller";
        let ours = text(&event, "/objectRef/apiGroup") == "resurgam.dev";
        let done = text(&event, "/stage") == "ResponseComplete"
            && !text(&event, "/requestURI").contains("dryRun=All");
        if is_write && by && ours && done {
            let code = &event["responseStatus"]["code"];
            all.push(format!(
                "{} {} {} {code}",
                text(&event, "/verb"),
                text(&event, "/objectRef/resource"),
                text(&event, "/objectRef/name")
            ));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flux_delivers_a_plan_and_waits_until_it_has_recovered() {
    let Some(programs) = Programs::if_built().unwrap() else { return };
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    flux::install_kinds(&admin).await.unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_resurgam"));
    let _operator = Operator::start(&cluster, &OperatorOptions::within(&cluster, binary)).unwrap();
    rehearsal::leads(&cluster).await.unwrap();
    let trial = Trial::lay_down(&cluster, "gitops").await.unwrap();

    // What begins a recovery is in Git, and nothing else is.
    let manifests: Vec<String> =
        trial.begins().iter().map(|object| serde_yaml::to_string(object).unwrap()).collect();
    let names = ["recovery.yaml".to_owned()];
    let kustomization =
        json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": names});
    let files = [
        ("recovery.yaml", manifests.join("---\n")),
        ("kustomization.yaml", serde_yaml::to_string(&kustomization).unwrap()),
    ];
    let git = GitServer::start(&cluster.dir().join("git"), &files).await.unwrap();
    let _source = programs.start_source(&cluster).unwrap();
    let _kustomize = programs.start_kustomize(&cluster).unwrap();
    let repository = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {"name": "estate", "namespace": FLUX},
        "spec": {"url": git.url(), "interval": "1m", "ref": {"branch": "main"}},
    });
    let delivery = json!({
        "apiVersion": KUSTOMIZE, "kind": "Kustomization", "metadata": {"name": "recovery", "namespace": FLUX},
        "spec": {
            "interval": "10m", "retryInterval": "5s", "timeout": "3m", "path": "./", "prune": true, "wait": true,
            "sourceRef": {"kind": "GitRepository", "name": "estate"},
            "healthCheckExprs": [{
                "apiVersion": "resurgam.dev/v1alpha1", "kind": "RecoveryPlan",
                "current": format!("has(status.conditions) && {RECOVERED}"),
                "inProgress": format!("!has(status.conditions) || !{RECOVERED}"),
            }],
        },
    });
    apply(&admin, "platform", &[repository, delivery]).await.unwrap();

    let deliveries = kind(&admin, KUSTOMIZE, "Kustomization", Some(FLUX));
    // It says Ready first, and which revision that is with its next write.
    let ready = |delivery: &Value| {
        condition(delivery, "Ready") == "True" && !text(delivery, "/status/lastAppliedRevision").is_empty()
    };
    let delivered = eventually(&deliveries, "recovery", "Flux to be content", DEADLINE, ready).await.unwrap();
    let applied = text(&delivered, "/status/lastAppliedRevision");
    assert!(applied.ends_with(&git.commit().unwrap()), "{delivered}");
    // It was not content before the plan had recovered.
    let plans = kind(&admin, "resurgam.dev/v1alpha1", "RecoveryPlan", Some("gitops-recovery"));
    let plan = object(&plans, "gitops").await.unwrap();
    assert_eq!(condition(&plan, "Recovered"), "True", "{plan}");
    trial.recovered().await.unwrap();

    // And it has nothing to put back, however often it looks.
    let begun = written(&cluster);
    assert_eq!(begun.len(), trial.begins().len(), "each object is written once: {begun:?}");
    for round in ["first", "second", "third"] {
        let again = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": round}}});
        deliveries.patch("recovery", &PatchParams::default(), &Patch::Merge(again)).await.unwrap();
        let done = |delivery: &Value| {
            text(delivery, "/status/lastHandledReconcileAt") == round
                && condition(delivery, "Ready") == "True"
        };
        eventually(&deliveries, "recovery", "Flux to look again", DEADLINE, done).await.unwrap();
    }
    assert_eq!(written(&cluster), begun, "nothing changes back and forth");
    trial.end().await.unwrap();
}
