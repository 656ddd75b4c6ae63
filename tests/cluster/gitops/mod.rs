//! A plan and its Quarantines are delivered by Flux, as it is: the real source-controller and kustomize-controller.

mod argocd;
mod git;
mod resume;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use control_plane::{ControlPlane, Identity, Options};
use kube::Client;
use kube::api::{Patch, PatchParams};
use rehearsal::trial::Trial;
use rehearsal::{
    DEADLINE, Operator, OperatorOptions, apply, condition, documents, eventually, kind, object, text,
};
use serde_json::{Value, json};

const FLUX: &str = "flux-system";
const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io/v1";
/// As Flux's documentation has it for kinds with a condition of their own: the plan is current once it has recovered.
const RECOVERED: &str = "status.conditions.filter(c, c.type == 'Recovered').all(c, c.status == 'True')";

/// A controller of Flux. Dropped, it is killed.
struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(cluster: &ControlPlane, program: &Path, arguments: &[String]) -> Controller {
    let name = program.file_name().unwrap().to_str().unwrap();
    let log = std::fs::File::create(cluster.dir().join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(program);
    command
        .args([
            "--watch-all-namespaces",
            "--enable-leader-election=false",
            "--events-addr=",
            "--log-level=debug",
        ])
        .args(["--metrics-addr=127.0.0.1:0", "--health-addr=127.0.0.1:0"])
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig(Identity::GitOps))
        .env("RUNTIME_NAMESPACE", FLUX)
        .env("HOME", cluster.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Controller(control_plane::spawn_bound(command).unwrap())
}

/// Starts the source-controller, which keeps what it fetches in a folder.
fn start_source(cluster: &ControlPlane, program: &Path, storage: &Path) -> Controller {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = format!("127.0.0.1:{port}");
    let arguments = [
        format!("--storage-path={}", storage.display()),
        format!("--storage-addr={at}"),
        format!("--storage-adv-addr={at}"),
    ];
    start(cluster, program, &arguments)
}

/// Makes Flux's kinds known, as their modules have them.
async fn install_kinds(admin: &Client) {
    for part in ["source-controller", "kustomize-controller"] {
        let source =
            tokio::task::spawn_blocking(move || control_plane::part_source(part)).await.unwrap().unwrap();
        for file in std::fs::read_dir(source.join("config/crd/bases")).unwrap() {
            let crds = documents(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
            apply(admin, "flux", &crds).await.unwrap();
            let all = kind(admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
            let name = text(&crds[0], "/metadata/name");
            let served = |crd: &Value| condition(crd, "Established") == "True";
            eventually(&all, name, &format!("{name} to be served"), DEADLINE, served).await.unwrap();
        }
    }
}

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
    let parts =
        ["source-controller", "kustomize-controller"].map(|name| control_plane::part_if_built(name).unwrap());
    let [Some(source_controller), Some(kustomize_controller)] = parts else { return };
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    install_kinds(&admin).await;
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
    let git = git::Server::start(&[
        ("recovery.yaml", manifests.join("---\n")),
        ("kustomization.yaml", serde_yaml::to_string(&kustomization).unwrap()),
    ])
    .await;
    let storage = tempfile::tempdir().unwrap();
    let _source = start_source(&cluster, &source_controller, storage.path());
    let _kustomize = start(&cluster, &kustomize_controller, &["--http-retry=2".to_owned()]);
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
    assert!(applied.ends_with(&git.commit()), "{delivered}");
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
