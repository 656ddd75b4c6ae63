//! The break-glass of docs/isolation.md, command by command, as the people that it names, in a shell.

use std::path::Path;
use std::process::Stdio;

use control_plane::{ControlPlane, Identity};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use resurgam::api::Quarantine;
use resurgam::isolation::list::{CONFIG_MAPS, levels};
use serde_json::json;

use super::support::{api, bare, binary, client, names, namespace, operator, quarantine, ready};
use super::{WORKLOADS, attack, labelled};

/// The commands under this name in the document.
fn commands(name: &str) -> String {
    let text = include_str!("../../../docs/isolation.md");
    let from = format!("<!-- rehearsed: {name} -->\n```sh\n");
    let (_, rest) = text.split_once(&from).unwrap_or_else(|| panic!("docs/isolation.md has no {name}"));
    rest.split_once("\n```").unwrap().0.to_owned()
}

struct Shell<'a> {
    cluster: &'a ControlPlane,
    folder: tempfile::TempDir,
}

impl Shell<'_> {
    fn new(cluster: &ControlPlane) -> Shell<'_> {
        let folder = tempfile::tempdir().unwrap();
        let link = |program: &Path, name: &str| {
            std::os::unix::fs::symlink(program, folder.path().join(name)).unwrap()
        };
        link(&cluster.binary("kubectl").unwrap(), "kubectl");
        link(&binary(), "resurgam");
        Shell { cluster, folder }
    }

    /// Types the commands of that name, as somebody. Every single one has to work.
    async fn types(&self, who: Identity, name: &str) {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-euxo", "pipefail", "-c", &commands(name)]).current_dir(self.folder.path());
        shell
            .env("PATH", path)
            .env("KUBECONFIG", self.cluster.kubeconfig(who))
            .env("HOME", self.folder.path());
        shell.env("NAMESPACE", "glass").env("WHO", "recovery-lead").env("INCIDENT", "nov-2025");
        shell.env("POLICY", "resurgam-write-fence").stdin(Stdio::null());
        let done = tokio::time::timeout(rehearsal::DEADLINE, shell.output()).await.unwrap().unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{name}: {out}\n{err}");
    }

    fn wrote(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap()
    }
}

/// Whether somebody may write in a namespace that is not isolated.
async fn may_write(cluster: &ControlPlane, namespace: &str) -> kube::Result<Secret> {
    let tenant = client(cluster, Identity::TenantAdministrator).await;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let mut secret = Secret::default();
    secret.metadata.name = Some("s".to_owned());
    api::<Secret>(&tenant, namespace).create(&params, &secret).await
}

/// Makes our fence refuse everybody everywhere, and waits until it does.
async fn break_the_fence(cluster: &ControlPlane) {
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let kind = "ValidatingAdmissionPolicy";
    let policies = rehearsal::kind(&admin, "admissionregistration.k8s.io/v1", kind, None);
    let broken = json!({"spec": {
        "matchConstraints": {"namespaceSelector": {"matchExpressions": null}},
        "variables": null,
        "validations": [{"expression": "false", "message": "broken"}],
    }});
    policies.patch("resurgam-write-fence", &PatchParams::default(), &Patch::Merge(broken)).await.unwrap();
    until(async || may_write(cluster, "free").await.is_err()).await;
}

/// A policy's change shows in nothing but what it does.
pub(super) async fn until(is: impl AsyncFn() -> bool) {
    let tried = async {
        while !is().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(rehearsal::DEADLINE, tried).await.unwrap();
}

/// As in a pod, as far as the commands go: the operator itself is not run by it.
const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: resurgam, namespace: resurgam-system}
spec:
  selector: {matchLabels: {app: resurgam}}
  template:
    metadata: {labels: {app: resurgam}}
    spec: {containers: [{name: main, image: registry.example/resurgam}]}
";

#[tokio::test]
async fn documented_break_glass_commands_work() {
    let cluster = bare().await;
    let admin = client(&cluster, Identity::PlatformAdministrator).await;
    rehearsal::install_kinds(&admin).await.unwrap();
    rehearsal::apply(&admin, "install", &rehearsal::documents(DEPLOYMENT).unwrap()).await.unwrap();
    let tenant = namespace(&cluster, "glass", WORKLOADS).await;
    let policies = api::<NetworkPolicy>(&tenant, "glass");
    let before = policies.get("allow-front").await.unwrap();
    namespace(&cluster, "free", "").await;
    let ran = quarantine(&cluster, Identity::Responder, &["glass"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let running = operator(&cluster);
    ready(&cluster, "glass", "Contained").await.unwrap();
    running.kill().unwrap();
    let shell = Shell::new(&cluster);

    // Our own fence refuses everything, everywhere.
    break_the_fence(&cluster).await;
    shell.types(Identity::PlatformAdministrator, "unblock").await;
    until(async || may_write(&cluster, "free").await.is_ok()).await;
    assert!(
        shell.wrote("resurgam-write-fence.yaml").contains("message: broken"),
        "what it was is written down"
    );
    shell.types(Identity::Responder, "refence").await;
    attack(&cluster, Identity::TenantAdministrator, "glass").await;
    may_write(&cluster, "free").await.unwrap();

    // The kinds are gone, Quarantines and all.
    let crds: Api<CustomResourceDefinition> = Api::all(admin.clone());
    let quarantines: Api<Quarantine> = Api::all(client(&cluster, Identity::RecoveryLead).await);
    let old = quarantines.get("glass").await.unwrap();
    lose_the_kinds(&cluster, &crds, &quarantines).await;
    attack(&cluster, Identity::GitOps, "glass").await;
    shell.types(Identity::PlatformAdministrator, "kinds").await;
    shell.types(Identity::Responder, "quarantines").await;
    let new = quarantines.get("glass").await.unwrap();
    assert_ne!(new.metadata.uid, old.metadata.uid);
    let running = operator(&cluster);
    ready(&cluster, "glass", "Contained").await.unwrap();
    running.kill().unwrap();

    // No operator will ever be back, and the namespace must out.
    shell.types(Identity::PlatformAdministrator, "grant").await;
    shell.types(Identity::RecoveryLead, "release").await;
    shell.types(Identity::PlatformAdministrator, "revoke").await;
    assert_eq!(labelled(&cluster, "glass").await, None);
    assert_eq!(names(&policies).await, ["allow-front"]);
    let restored = policies.get("allow-front").await.unwrap();
    assert_eq!((restored.spec, restored.metadata.uid), (before.spec, before.metadata.uid));
    assert!(quarantines.get_opt("glass").await.unwrap().is_none());
    until(async || may_write(&cluster, "glass").await.is_ok()).await;
    for list in CONFIG_MAPS {
        let list = api::<ConfigMap>(&admin, "resurgam-system").get(list).await.unwrap();
        assert!(!levels(&list).contains_key("glass"), "the lists know that it is over");
    }
    assert!(shell.wrote("glass.quarantine.yaml").contains("kind: Quarantine"));
}

/// Takes the kinds away as a broken cluster loses them: nobody carries out a release.
async fn lose_the_kinds(
    cluster: &ControlPlane,
    crds: &Api<CustomResourceDefinition>,
    quarantines: &Api<Quarantine>,
) {
    // Nobody but who takes this away first deletes a kind while anything is quarantined.
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(admin);
    let deleted = bindings.delete("resurgam-install-guard", &DeleteParams::default()).await;
    // A responder could not put it back.
    assert!(matches!(&deleted, Err(kube::Error::Api(status)) if status.code == 404), "{deleted:?}");
    let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
    until(async || crds.delete("quarantines.resurgam.dev", &dry_run).await.is_ok()).await;
    let strip = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    quarantines.patch("glass", &PatchParams::default(), &strip).await.unwrap();
    for crd in resurgam::api::crds() {
        let name = crd.metadata.name.unwrap();
        crds.delete(&name, &DeleteParams::default()).await.unwrap();
        let gone = rehearsal::await_condition(crds.clone(), &name, |c: Option<&CustomResourceDefinition>| {
            c.is_none()
        });
        tokio::time::timeout(rehearsal::DEADLINE, gone).await.unwrap().unwrap();
    }
}
