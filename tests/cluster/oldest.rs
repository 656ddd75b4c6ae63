//! In short form, on the oldest Kubernetes that README promises: a namespace is isolated, holds, and recovers through gates; another is
//! isolated and released.

use std::fmt::Debug;
use std::time::Duration;

use control_plane::{ControlPlane, Identity, Kubernetes, Options};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rehearsal::trial::Trial;
use rehearsal::{DEADLINE, apply, eventually, kind, text};
use resurgam::api::{ISOLATION_LABEL, Quarantine};
use resurgam::isolation::list::CONFIG_MAPS;
use resurgam::isolation::policies::{
    ACCOUNT_GUARD, NAMESPACE_LOCK, OWN_GUARD, QUARANTINE_LOCK, RIGHTS_GUARD, SINGLE_WRITER,
};
use serde_json::{Value, json};

use crate::quarantine_cli::support::{Ran, allowing, api, fenced, namespace, operator, ready, resurgam};

const KINDS: &str = "resurgam.dev/v1alpha1";
/// Namespace that is released without a plan.
const RELEASED: &str = "oldest-released";
/// Polling interval for what a cache of the API server delays by milliseconds.
const POLL: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oldest_kubernetes_isolates_recovers_and_releases() {
    if control_plane::part_if_built(Kubernetes::OLDEST_PART).unwrap().is_none() {
        return;
    }
    let options = Options { kubernetes: Kubernetes::Oldest, ..Options::default() };
    let cluster = ControlPlane::start(options).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let _operator = operator(&cluster);
    rehearsal::leads(&cluster).await.unwrap();
    checks_pass(&cluster).await;

    let trial = Trial::lay_down(&cluster, "oldest").await.unwrap();
    let web = trial.namespaces()[1].as_str();
    isolate(&cluster, &trial, web, "Contained").await;
    assert_ne!(pods(&cluster, web).await, 0, "what is contained goes on running");
    isolation_holds(&cluster, web).await;
    let shown = status(&cluster, Identity::Responder).await;
    assert!(shown.out.contains("1 namespace isolated · Quarantines: 1 Ready"), "{}", shown.out);
    checks_pass(&cluster).await;
    isolate(&cluster, &trial, web, "Sealed").await;
    assert_eq!(pods(&cluster, web).await, 0, "nothing runs in what is sealed");
    isolation_holds(&cluster, web).await;

    isolated_and_released(&cluster).await;

    trial.begin().await.unwrap();
    trial.recovered().await.unwrap();
    let shown = status(&cluster, Identity::RecoveryLead).await;
    assert_eq!((shown.code, shown.out.contains("2/2 recovered")), (0, true), "{}{}", shown.out, shown.err);
    let report = trial.end().await.unwrap().report;
    assert_eq!(report.figures.recovered, 2, "{report}");
    cluster.check().unwrap();
}

/// Checks that `resurgam check` finds nothing wrong, and the version supported.
async fn checks_pass(cluster: &ControlPlane) {
    let arguments = ["check", "--output", "json", "--wait", "60s"];
    let ran = resurgam(cluster.kubeconfig(Identity::PlatformAdministrator), &arguments).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let found = ran.json();
    let result = |id: &str| {
        let check = found["checks"].as_array().unwrap().iter().find(|check| check["id"] == id);
        check.unwrap()["result"].as_str().unwrap().to_owned()
    };

    assert!(ran.out.contains("v1.33."), "the control plane is of the oldest release: {}", ran.out);
    for id in
        ["api-version", "admission-policies", "controller-accounts", "kinds", "policies", "operator-rights"]
    {
        assert_eq!(result(id), "passed", "{id}: {}", ran.out);
    }
}

async fn status(cluster: &ControlPlane, who: Identity) -> Ran {
    resurgam(cluster.kubeconfig(who), &["status"]).await
}

/// Applies the trial's Quarantine of a namespace at a level, as on-call staff, and waits until it is enforced.
async fn isolate(cluster: &ControlPlane, trial: &Trial<'_>, namespace: &str, level: &str) {
    let is = |object: &&Value| object["kind"] == "Quarantine" && text(object, "/metadata/name") == namespace;
    let mut quarantine = trial.begins().iter().find(is).unwrap().clone();
    quarantine["spec"]["isolation"] = json!(level);
    let responder = cluster.client(Identity::Responder).await.unwrap();
    apply(&responder, "on-call", &[quarantine]).await.unwrap();
    ready(cluster, namespace, level).await.unwrap();
}

async fn pods(cluster: &ControlPlane, namespace: &str) -> usize {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    api::<Pod>(&admin, namespace).list(&ListParams::default()).await.unwrap().items.len()
}

/// Checks that a policy refused a request.
fn refused<T: Debug>(what: &str, policy: &str, answer: kube::Result<T>) {
    match answer {
        Err(kube::Error::Api(status)) => {
            let by = format!("ValidatingAdmissionPolicy '{policy}'");
            assert!(status.code == 403 && status.message.contains(&by), "{what}: {status:?}");
        }
        other => panic!("{what} was not refused: {other:?}"),
    }
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Checks that fence, locks and guards refuse administrators and GitOps.
async fn isolation_holds(cluster: &ControlPlane, isolated: &str) {
    let (patch, create, delete) = (PatchParams::default(), PostParams::default(), DeleteParams::default());
    for who in [Identity::TenantAdministrator, Identity::GitOps, Identity::PlatformAdministrator] {
        let attacker = cluster.client(who).await.unwrap();
        let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
        fenced("scale", api::<Deployment>(&attacker, isolated).patch("catalogue", &patch, &scale).await);
        let secret = object::<Secret>(json!({"metadata": {"name": "implant"}}));
        fenced("create a Secret", api::<Secret>(&attacker, isolated).create(&create, &secret).await);
        let policies = api::<NetworkPolicy>(&attacker, isolated);
        fenced("open the network", policies.delete("resurgam-default-deny", &delete).await);
        let unlabel = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: null}}}));
        let namespaces = Api::<Namespace>::all(attacker);
        refused("unlabel", NAMESPACE_LOCK, namespaces.patch(isolated, &patch, &unlabel).await);
        refused("delete the namespace", NAMESPACE_LOCK, namespaces.delete(isolated, &delete).await);
    }

    let gitops = cluster.client(Identity::GitOps).await.unwrap();
    let quarantines = Api::<Quarantine>::all(gitops.clone());
    refused("delete the Quarantine", QUARANTINE_LOCK, quarantines.delete(isolated, &delete).await);
    let open = Patch::Merge(json!({"status": {"isolation": "Open"}}));
    refused("write its status", SINGLE_WRITER, quarantines.patch_status(isolated, &patch, &open).await);
    let binding = json!({
        "metadata": {"name": "implant"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "namespace": isolated, "name": "default"}],
    });
    let bindings = api::<RoleBinding>(&gitops, "default");
    refused("bind its account", RIGHTS_GUARD, bindings.create(&create, &object(binding)).await);
    let lists = api::<ConfigMap>(&gitops, "resurgam-system");
    for list in CONFIG_MAPS {
        refused("delete a list", OWN_GUARD, lists.delete(list, &delete).await);
    }
}

/// A client of the platform administrator who acts as an account.
async fn acting_as(cluster: &ControlPlane, namespace: &str, account: &str) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig(Identity::PlatformAdministrator)).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{account}"));
    Client::try_from(config).unwrap()
}

/// Isolates a namespace whose account administers the cluster, and releases it as a recovery lead.
async fn isolated_and_released(cluster: &ControlPlane) {
    let tenant = namespace(cluster, RELEASED, include_str!("quarantine_cli/workloads.yaml")).await;
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let crown = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": RELEASED},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": RELEASED, "name": "default"}],
    });
    apply(&admin, "platform", &[crown]).await.unwrap();
    let deployments = kind(&admin, "apps/v1", "Deployment", Some(RELEASED));
    let runs = |deployment: &Value| deployment["status"]["readyReplicas"] == 2;
    eventually(&deployments, "web", "the workload to run", DEADLINE, runs).await.unwrap();
    let before = allowing(&tenant, RELEASED).await;
    assert_eq!(before, ["allow-front"]);

    let quarantine = json!({
        "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": RELEASED},
        "spec": {"isolation": "Sealed", "reason": "a drill"},
    });
    let responder = cluster.client(Identity::Responder).await.unwrap();
    apply(&responder, "on-call", &[quarantine]).await.unwrap();
    ready(cluster, RELEASED, "Sealed").await.unwrap();
    assert_eq!(allowing(&tenant, RELEASED).await, ["resurgam-default-deny"]);
    let account = acting_as(cluster, RELEASED, "default").await;
    let implant = object::<ConfigMap>(json!({"metadata": {"name": "implant"}}));
    let elsewhere = api::<ConfigMap>(&account, "default");
    let create = PostParams { dry_run: true, ..PostParams::default() };
    refused("its account, elsewhere", ACCOUNT_GUARD, elsewhere.create(&create, &implant).await);

    let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
    let quarantines = Api::<Quarantine>::all(lead);
    quarantines.delete(RELEASED, &DeleteParams::default()).await.unwrap();
    let namespaces = kind(&admin, "v1", "Namespace", None);
    let is_open = |namespace: &Value| namespace["metadata"]["labels"][ISOLATION_LABEL].is_null();
    eventually(&namespaces, RELEASED, "the label to go", DEADLINE, is_open).await.unwrap();
    let released = async {
        while quarantines.get_opt(RELEASED).await.unwrap().is_some()
            || elsewhere.create(&create, &implant).await.is_err()
            || api::<ConfigMap>(&tenant, RELEASED).create(&create, &implant).await.is_err()
        {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(DEADLINE, released).await.unwrap();
    assert_eq!(allowing(&tenant, RELEASED).await, before, "its network is as before");
    // A release starts nothing: whoever the namespace belongs to does.
    let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let web = api::<Deployment>(&tenant, RELEASED);
    web.patch("web", &PatchParams::default(), &scale).await.unwrap();
    eventually(&deployments, "web", "the workload to run again", DEADLINE, runs).await.unwrap();
}
