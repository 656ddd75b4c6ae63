//! What an installation, an upgrade, a rollback and a removal of the chart do to a cluster during an incident: by real Helm, under the
//! chart's own rights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Api, Client};
use rehearsal::{DEADLINE, Operator, OperatorOptions, condition, eventually, kind, repository};
use serde_json::{Value, json};

const KINDS: &str = "resurgam.dev/v1alpha1";
const RBAC: &str = "rbac.authorization.k8s.io";

struct Rig {
    cluster: ControlPlane,
    helm: PathBuf,
    chart: PathBuf,
    /// Where tokens that are not the rig's are.
    folder: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let cluster = ControlPlane::start(Options::default()).await.unwrap();
        let helm = tokio::task::spawn_blocking(|| control_plane::part("helm")).await.unwrap().unwrap();
        Self { cluster, helm, chart: repository("charts/resurgam"), folder: tempfile::tempdir().unwrap() }
    }

    async fn client(&self, who: Identity) -> Client {
        self.cluster.client(who).await.unwrap()
    }

    /// Runs Helm as somebody.
    fn helm(&self, who: Identity, arguments: &[&str]) -> Output {
        let mut helm = Command::new(&self.helm);
        helm.args(arguments).args(["--namespace", "resurgam-system"]);
        helm.env("KUBECONFIG", self.cluster.kubeconfig(who)).env("HOME", self.folder.path());
        helm.output().unwrap()
    }

    fn passes(&self, who: Identity, arguments: &[&str]) {
        let output = self.helm(who, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "helm {arguments:?} as {}: {said}", who.name());
    }

    /// Every object of the chart, without what others write of it.
    async fn objects(&self) -> BTreeMap<String, Value> {
        let admin = self.client(Identity::PlatformAdministrator).await;
        let mut all = BTreeMap::new();
        for wanted in rehearsal::chart(&[]).unwrap() {
            let text = |at: &str| wanted.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (of_kind, name) = (text("/kind"), text("/metadata/name"));
            let namespace = wanted.pointer("/metadata/namespace").and_then(Value::as_str);
            let found = kind(&admin, &text("/apiVersion"), &of_kind, namespace).get_opt(&name).await.unwrap();
            let Some(found) = found else { continue };
            let mut found = serde_json::to_value(found).unwrap();
            found.as_object_mut().unwrap().remove("status");
            let metadata = found["metadata"].as_object_mut().unwrap();
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
            all.insert(format!("{of_kind} {}/{name}", namespace.unwrap_or_default()), found);
        }
        all
    }

    /// An earlier state of the chart: another version, without what keeps a drain from taking every replica.
    fn earlier_chart(&self) -> PathBuf {
        let to = self.folder.path().join("earlier");
        copy(&self.chart, &to);
        let chart = std::fs::read_to_string(to.join("Chart.yaml")).unwrap();
        std::fs::write(to.join("Chart.yaml"), chart.replace("version: 0.1.0", "version: 0.0.9")).unwrap();
        std::fs::remove_file(to.join("templates/availability.yaml")).unwrap();
        let values = std::fs::read_to_string(to.join("values.yaml")).unwrap();
        std::fs::write(to.join("values.yaml"), values.replace("podDisruptionBudget:\n  enabled: true\n", ""))
            .unwrap();
        let schema: Value =
            serde_json::from_str(&std::fs::read_to_string(to.join("values.schema.json")).unwrap()).unwrap();
        let mut schema = schema;
        schema["properties"].as_object_mut().unwrap().remove("podDisruptionBudget");
        std::fs::write(to.join("values.schema.json"), schema.to_string()).unwrap();
        to
    }

    /// A kubeconfig of an account of the operator's namespace, by a token that somebody may issue.
    async fn kubeconfig(&self, issuer: Identity, account: &str) -> PathBuf {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(issuer).await, "resurgam-system");
        let asked = accounts
            .create_token_request(account, &PostParams::default(), &TokenRequest::default())
            .await
            .unwrap();
        let text = std::fs::read_to_string(self.cluster.kubeconfig(Identity::Operator)).unwrap();
        let mut config: Value = serde_yaml::from_str(&text).unwrap();
        config["users"][0]["user"] = json!({"token": asked.status.unwrap().token});
        let path = self.folder.path().join(format!("{account}.yaml"));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    fn operator(&self, kubeconfig: Option<&Path>) -> Operator {
        let options = OperatorOptions::within(&self.cluster, Path::new(env!("CARGO_BIN_EXE_resurgam")));
        Operator::start(
            &self.cluster,
            &OperatorOptions { kubeconfig: kubeconfig.map(Path::to_owned), ..options },
        )
        .unwrap()
    }

    fn test_fence(&self, kubeconfig: &Path) -> (Option<i32>, String) {
        let mut test = Command::new(env!("CARGO_BIN_EXE_resurgam"));
        let output = test.arg("test-fence").env("KUBECONFIG", kubeconfig).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// Is the tenant of an isolated namespace still refused?
    async fn is_isolated(&self, namespace: &str) {
        let tenant = self.client(Identity::TenantAdministrator).await;
        let api = kind(&tenant, "v1", "ConfigMap", Some(namespace));
        let object = serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}}),
        )
        .unwrap();
        let refused = api.create(&PostParams::default(), &object).await.unwrap_err().to_string();
        assert!(
            refused.contains("resurgam-write-fence") || refused.contains("resurgam-list-fence"),
            "{refused}"
        );
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            _ = std::fs::copy(entry.path(), target).unwrap()
        }
    }
}

/// Lets a user ask for tokens of the operator's namespace: what makes a cluster's pods does that.
async fn may_issue_tokens(admin: &Client, user: &str) {
    let metadata = json!({"name": "issues-tokens", "namespace": "resurgam-system"});
    let rules = json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}]);
    let role =
        json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "issues-tokens"},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
    });
    rehearsal::apply(admin, "platform", &[role, binding]).await.unwrap();
}

async fn isolate(rig: &Rig, namespace: &str) {
    let admin = rig.client(Identity::PlatformAdministrator).await;
    let it = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    rehearsal::apply(&admin, "tenant", &[it]).await.unwrap();
    let responder = rig.client(Identity::Responder).await;
    let quarantine = json!({
        "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": namespace},
        "spec": {"isolation": "Sealed", "reason": "a test of the chart"},
    });
    rehearsal::apply(&responder, "on-call", &[quarantine]).await.unwrap();
    let all = kind(&responder, KINDS, "Quarantine", None);
    let ready = |quarantine: &Value| condition(quarantine, "Ready") == "True";
    eventually(&all, namespace, "the namespace to be isolated", DEADLINE, ready).await.unwrap();
}

/// Has the API server look at every object that the chart can have, strictly: a field that it does not know is a mistake of ours.
async fn every_object_is_valid(admin: &Client) {
    let values = [
        "evidence.s3.bucket=council",
        "people.responders[0].kind=Group,people.responders[0].name=on-call,people.responders[0].apiGroup=rbac.authorization.k8s.io",
        "networkPolicy.egress[0].ports[0].port=443",
    ];
    for object in rehearsal::chart(&values).unwrap() {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str);
        let (of_kind, name) = (text("/kind").unwrap(), text("/metadata/name").unwrap());
        let api = kind(admin, text("/apiVersion").unwrap(), of_kind, text("/metadata/namespace"));
        let params = PatchParams {
            dry_run: true,
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply("test").force()
        };
        api.patch(name, &params, &Patch::Apply(&object))
            .await
            .unwrap_or_else(|error| panic!("{of_kind} {name}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_opens_nothing_and_removes_nothing_during_an_incident() {
    let rig = Rig::start().await;
    let admin = rig.client(Identity::PlatformAdministrator).await;
    let (platform, upgrader) = (Identity::PlatformAdministrator, Identity::Upgrader);
    let (earlier, chart) = (rig.earlier_chart(), rig.chart.clone());
    let (earlier, chart) = (earlier.to_str().unwrap(), chart.to_str().unwrap());

    // Before the day: an earlier chart is installed, and upgraded by whoever administrates the cluster.
    rig.passes(platform, &["install", "resurgam", earlier, "--create-namespace"]);
    may_issue_tokens(&admin, "upgrader").await;
    let tester = rig.kubeconfig(platform, "resurgam-test").await;
    let operator = rig.operator(None);
    rehearsal::leads(&rig.cluster).await.unwrap();
    rig.passes(platform, &["upgrade", "resurgam", chart]);
    every_object_is_valid(&admin).await;
    let (code, said) = rig.test_fence(&tester);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("refused")).count(), 10, "{said}");

    // The day. Nobody without a grant of release changes anything by Helm.
    isolate(&rig, "shop").await;
    let before = rig.objects().await;
    assert_eq!(before.len(), rehearsal::chart(&[]).unwrap().len(), "all of the chart is there");
    for arguments in [
        &["upgrade", "resurgam", chart, "--set", "log.filter=debug"][..],
        &["upgrade", "resurgam", earlier],
        &["rollback", "resurgam", "1"],
        &["uninstall", "resurgam"],
    ] {
        let output = rig.helm(platform, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        // What refused an uninstall Helm does not say.
        let is_told = said.contains("resurgam-install-guard") || arguments[0] == "uninstall";
        assert!(!output.status.success() && is_told, "helm {arguments:?}: {said}");
        let after = rig.objects().await;
        let changed: Vec<_> =
            before.iter().filter(|(what, was)| after.get(*what) != Some(was)).map(|(what, _)| what).collect();
        assert!(changed.is_empty(), "helm {arguments:?} changed {changed:?}");
    }
    rig.is_isolated("shop").await;
    let (code, said) = rig.test_fence(&tester);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("An incident is on") && said.contains("shop"), "{said}");

    // Who may release all opens nothing by it.
    rig.passes(upgrader, &["upgrade", "resurgam", chart, "--set", "log.filter=debug"]);
    rig.is_isolated("shop").await;
    rig.passes(upgrader, &["rollback", "resurgam", "2"]);
    rig.is_isolated("shop").await;
    rig.passes(upgrader, &["uninstall", "resurgam", "--wait"]);
    drop(operator);
    rig.is_isolated("shop").await;
    let left = rig.objects().await;
    let kept: Vec<&str> = left.keys().map(String::as_str).collect();
    insta::assert_snapshot!(kept.join("\n"));

    // And is not locked out: what was removed is installed again, and the namespace is let out.
    rig.passes(upgrader, &["install", "resurgam", chart]);
    let account = rig.kubeconfig(upgrader, "resurgam").await;
    let operator = rig.operator(Some(&account));
    let lead = rig.client(Identity::RecoveryLead).await;
    let quarantines = kind(&lead, KINDS, "Quarantine", None);
    quarantines.delete("shop", &DeleteParams::default()).await.unwrap();
    let namespaces = kind(&admin, "v1", "Namespace", None);
    let open = |namespace: &Value| !namespace["metadata"]["labels"]["resurgam.dev/isolation"].is_string();
    eventually(&namespaces, "shop", "the namespace to be let out", DEADLINE, open).await.unwrap();
    drop(operator);
}
