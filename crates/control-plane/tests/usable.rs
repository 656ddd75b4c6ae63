//! What everybody who uses the control plane relies on, on one that is shared by all tests here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const DIGEST: &str = "sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1";

static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

async fn control_plane() -> &'static ControlPlane {
    CONTROL_PLANE.get_or_try_init(|| ControlPlane::start(Options::default())).await.unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(60), future).await;
    outcome.unwrap_or_else(|_| panic!("{what} took too long"))
}

async fn namespace(client: &Client, name: &str) {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

fn template(image: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": annotations},
        "spec": {
            "initContainers": [{"name": "init", "image": image}],
            "containers": [{"name": "web", "image": image}],
        },
    })
}

/// The pods of a Deployment of two once it is available.
async fn pods_of(name: &str, image: &str, annotations: Value) -> Vec<Pod> {
    let client = control_plane().await.client(Identity::TenantAdministrator).await.unwrap();
    namespace(&client, name).await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), name);
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(image, &annotations),
        },
    }));
    deployments.create(&PostParams::default(), &deployment.unwrap()).await.unwrap();
    let available = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.available_replicas) == Some(2)
    };
    within("the Deployment", await_condition(deployments, "web", available)).await.unwrap();
    Api::namespaced(client, name).list(&ListParams::default()).await.unwrap().items
}

/// Every `imageID` of the pods, those of init containers included.
fn image_ids(pods: &[Pod]) -> Vec<&str> {
    let status = pods.iter().map(|pod| pod.status.as_ref().unwrap());
    let containers = status.flat_map(|status| {
        let init = status.init_container_statuses.as_ref().unwrap();
        init.iter().chain(status.container_statuses.as_ref().unwrap())
    });
    containers.map(|container| container.image_id.as_str()).collect()
}

#[tokio::test]
async fn a_pod_runs_what_it_specifies_by_digest() {
    let image = format!("registry.example:5000/library/web:1.4@{DIGEST}");
    let pods = pods_of("digest", &image, json!({})).await;
    assert_eq!(pods.len(), 2);
    let runs = format!("registry.example:5000/library/web@{DIGEST}");
    assert_eq!(image_ids(&pods), [runs.as_str(); 4]);
    assert!(pods.iter().all(|pod| pod.status.as_ref().unwrap().pod_ip.is_some()));
}

#[tokio::test]
async fn a_pod_whose_image_has_only_a_tag_runs_no_known_digest() {
    let pods = pods_of("tag", "registry.example/library/web:1.4", json!({})).await;
    assert_eq!(image_ids(&pods), [""; 4]);
}

#[tokio::test]
async fn an_annotation_makes_a_pod_run_something_else() {
    let other = format!("registry.example/library/web@sha256:{}", "0".repeat(64));
    let annotations = json!({"kwok.resurgam.dev/image-id": other});
    let pods = pods_of("override", &format!("registry.example/library/web@{DIGEST}"), annotations).await;
    assert_eq!(image_ids(&pods), [other.as_str(); 4]);
}

#[tokio::test]
async fn an_annotation_makes_a_running_pod_run_something_else() {
    let image = format!("registry.example/library/web@{DIGEST}");
    let pods = pods_of("swapped", &image, json!({})).await;
    let name = pods[0].metadata.name.as_deref().unwrap();
    let other = format!("registry.example/library/web@sha256:{}", "1".repeat(64));
    let client = control_plane().await.client(Identity::TenantAdministrator).await.unwrap();
    let api: Api<Pod> = Api::namespaced(client, "swapped");
    let patch = json!({"metadata": {"annotations": {"kwok.resurgam.dev/image-id": other}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let swapped = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| image_ids(std::slice::from_ref(pod)) == [other.as_str(); 2])
    };
    within("the other image", await_condition(api, name, swapped)).await.unwrap();
}

#[tokio::test]
async fn a_job_completes_and_its_pod_goes_with_it() {
    let client = control_plane().await.client(Identity::TenantAdministrator).await.unwrap();
    namespace(&client, "job").await;
    let jobs: Api<Job> = Api::namespaced(client.clone(), "job");
    let mut template = template(&format!("registry.example/migrate@{DIGEST}"), &json!({}));
    template["spec"]["restartPolicy"] = json!("Never");
    let job =
        serde_json::from_value(json!({"metadata": {"name": "migrate"}, "spec": {"template": template}}));
    jobs.create(&PostParams::default(), &job.unwrap()).await.unwrap();
    let completed = await_condition(jobs.clone(), "migrate", conditions::is_job_completed());
    within("the Job", completed).await.unwrap();

    let pods: Api<Pod> = Api::namespaced(client, "job");
    let pod = pods.list(&ListParams::default()).await.unwrap().items.remove(0);
    jobs.delete("migrate", &DeleteParams::background()).await.unwrap();
    let uid = pod.metadata.uid.unwrap();
    let gone = await_condition(pods, pod.metadata.name.as_deref().unwrap(), conditions::is_deleted(&uid));
    within("the pod's end", gone).await.unwrap();
}

/// A pod with a grace period of an hour and a finalizer, running.
async fn kept_pod(namespace: &str, annotations: Value) -> Api<Pod> {
    let client = control_plane().await.client(Identity::TenantAdministrator).await.unwrap();
    self::namespace(&client, namespace).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let made = await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
    within("the service account", made).await.unwrap();
    let mut pod = template("registry.example/library/web:1.4", &annotations);
    pod["metadata"]["name"] = json!("kept");
    pod["metadata"]["finalizers"] = json!(["test.example/keep"]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(3600);
    pod["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    within("the pod", await_condition(pods.clone(), "kept", conditions::is_pod_running())).await.unwrap();
    pods
}

/// How the containers of a pod ended; none while one of them lives.
fn exit_codes(pod: &Pod) -> Option<Vec<i32>> {
    let status = pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)).collect()
}

#[tokio::test]
async fn a_deleted_pod_has_its_containers_terminated_before_it_goes() {
    let pods = kept_pod("terminated", json!({})).await;
    pods.delete("kept", &DeleteParams::default()).await.unwrap();
    let ended = |pod: Option<&Pod>| pod.is_some_and(|pod| exit_codes(pod) == Some(vec![143, 143]));
    within("the containers' end", await_condition(pods.clone(), "kept", ended)).await.unwrap();
    let pod = pods.get("kept").await.unwrap();
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Failed"));
    let free = json!({"metadata": {"finalizers": null}});
    pods.patch("kept", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    let gone = await_condition(pods, "kept", |pod: Option<&Pod>| pod.is_none());
    within("the pod's end", gone).await.unwrap();
}

#[tokio::test]
async fn what_ignores_sigterm_lives_until_its_grace_period_is_over() {
    let pods = kept_pod("ignoring", json!({"kwok.resurgam.dev/ignores-sigterm": "true"})).await;
    pods.delete("kept", &DeleteParams::default()).await.unwrap();
    // Another pod that is deleted later, and ends, shows that this one is not merely late.
    let other = kept_pod("ignoring-not", json!({})).await;
    other.delete("kept", &DeleteParams::default()).await.unwrap();
    let ended = |pod: Option<&Pod>| pod.is_some_and(|pod| exit_codes(pod).is_some());
    within("the other's end", await_condition(other, "kept", ended)).await.unwrap();
    assert_eq!(exit_codes(&pods.get("kept").await.unwrap()), None);
    pods.delete("kept", &DeleteParams::default().grace_period(1)).await.unwrap();
    let killed = |pod: Option<&Pod>| pod.is_some_and(|pod| exit_codes(pod) == Some(vec![137, 137]));
    within("the containers' end", await_condition(pods, "kept", killed)).await.unwrap();
}

#[tokio::test]
async fn everybody_authenticates_as_themselves() {
    let expected = [
        (Identity::PlatformAdministrator, "platform-administrator"),
        (Identity::TenantAdministrator, "tenant-administrator"),
        (Identity::Responder, "on-call-responder"),
        (Identity::RecoveryLead, "recovery-lead"),
        (Identity::GitOps, "system:serviceaccount:flux-system:kustomize-controller"),
        (Identity::Operator, "system:serviceaccount:resurgam-system:resurgam"),
    ];
    for (identity, name) in expected {
        let client = control_plane().await.client(identity).await.unwrap();
        let reviews: Api<SelfSubjectReview> = Api::all(client);
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
        let user = review.status.unwrap().user_info.unwrap();
        assert_eq!(user.username.as_deref(), Some(name));
        let groups = user.groups.unwrap();
        let accounts = groups.iter().any(|group| group == "system:serviceaccounts");
        assert_eq!(accounts, name.starts_with("system:serviceaccount:"), "{name}: {groups:?}");
        assert!(!groups.iter().any(|group| group == "system:masters"), "{name}: {groups:?}");
    }
}

async fn may(who: Identity, verb: &str, group: &str, resource: &str) -> bool {
    let client = control_plane().await.client(who).await.unwrap();
    let attributes = json!({"verb": verb, "group": group, "resource": resource});
    let review = serde_json::from_value(json!({"spec": {"resourceAttributes": attributes}})).unwrap();
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

#[tokio::test]
async fn gitops_is_cluster_admin_and_the_tenant_is_not() {
    assert!(may(Identity::PlatformAdministrator, "*", "*", "*").await);
    assert!(may(Identity::GitOps, "*", "*", "*").await);
    assert!(may(Identity::TenantAdministrator, "create", "", "pods").await);
    assert!(may(Identity::TenantAdministrator, "delete", "", "namespaces").await);
    assert!(may(Identity::TenantAdministrator, "update", "apps", "deployments").await);
    assert!(!may(Identity::TenantAdministrator, "impersonate", "", "serviceaccounts").await);
    assert!(!may(Identity::TenantAdministrator, "release", "resurgam.dev", "quarantines").await);
    for nobody_yet in [Identity::Responder, Identity::RecoveryLead, Identity::Operator] {
        assert!(!may(nobody_yet, "create", "", "pods").await, "{nobody_yet:?}");
    }
}

fn audit(log: &str) -> Vec<Value> {
    // The last line may be another request's, half written.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn answered_write_is_in_audit_log_with_body_and_author() {
    let control_plane = control_plane().await;
    let client = control_plane.client(Identity::TenantAdministrator).await.unwrap();
    let data = BTreeMap::from([("colour".to_owned(), "teal".to_owned())]);
    let metadata = ObjectMeta { name: Some("audited".into()), ..ObjectMeta::default() };
    let object = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let created = api.create(&PostParams::default(), &object).await.unwrap();

    let log = audit(&std::fs::read_to_string(control_plane.audit_log()).unwrap());
    let writes: Vec<&Value> = log
        .iter()
        .filter(|event| event["verb"] == "create" && event["objectRef"]["name"] == "audited")
        .collect();
    let [write] = writes.as_slice() else { panic!("{} events", writes.len()) };
    assert_eq!(write["user"]["username"], "tenant-administrator");
    assert_eq!(write["requestObject"]["data"]["colour"], "teal");
    assert_eq!(write["responseObject"]["metadata"]["uid"], created.metadata.uid.unwrap());
    assert_eq!(write["responseStatus"]["code"], 201);
    assert!(write["responseObject"]["metadata"]["managedFields"].is_null());
}

#[tokio::test]
async fn audit_log_has_bodies_of_namespace_reads_only() {
    let control_plane = control_plane().await;
    let client = control_plane.client(Identity::TenantAdministrator).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let read = namespaces.get("default").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    maps.get_opt("not-there").await.unwrap();
    let log = audit(&std::fs::read_to_string(control_plane.audit_log()).unwrap());
    let found = |resource: &str| {
        let is = |event: &&Value| {
            event["verb"] == "get"
                && event["user"]["username"] == "tenant-administrator"
                && event["objectRef"]["resource"] == resource
        };
        log.iter().find(is).unwrap()["responseObject"].clone()
    };
    assert_eq!(found("namespaces")["metadata"]["uid"], read.metadata.uid.unwrap());
    assert_eq!(found("configmaps"), Value::Null);
}

#[tokio::test]
async fn only_the_bootstrap_binding_is_written_by_system_masters() {
    let control_plane = control_plane().await;
    let log = audit(&std::fs::read_to_string(control_plane.audit_log()).unwrap());
    let masters = log.iter().filter(|event| {
        let groups = event["user"]["groups"].as_array();
        groups.is_some_and(|groups| groups.iter().any(|group| group == "system:masters"))
            // The API server's own loopback client, in its own process: it lays down the built-in objects.
            && event["user"]["username"] != "system:apiserver"
    });
    let requests: Vec<String> =
        masters.map(|event| format!("{} {}", event["verb"], event["objectRef"]["name"])).collect();
    assert_eq!(requests, [r#""create" "resurgam-rig-platform-administrator""#]);
    let loopback = log.iter().filter(|event| event["user"]["username"] == "system:apiserver");
    assert!(loopback.count() > 0, "the exemption above has become unnecessary");
}

#[tokio::test]
async fn the_audit_log_holds_no_token() {
    let log = std::fs::read_to_string(control_plane().await.audit_log()).unwrap();
    assert!(log.contains(r#""subresource":"token""#), "tokens were requested");
    assert!(!log.contains("eyJ"), "a token's beginning");
}

#[tokio::test]
async fn only_the_owner_can_read_keys_and_kubeconfigs() {
    let control_plane = control_plane().await;
    for folder in ["certificates", "config", "kubeconfigs"] {
        let entries: Vec<_> = std::fs::read_dir(control_plane.dir().join(folder)).unwrap().collect();
        assert!(!entries.is_empty());
        for entry in entries {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }
}

#[tokio::test]
async fn kubectl_of_the_same_release_reaches_the_server() {
    let control_plane = control_plane().await;
    let mut command = tokio::process::Command::new(control_plane.binary("kubectl").unwrap());
    command.args(["version", "--output=json", "--kubeconfig"]);
    command.arg(control_plane.kubeconfig(Identity::PlatformAdministrator)).kill_on_drop(true);
    let output = within("kubectl", command.output()).await.unwrap();
    let versions: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(versions["clientVersion"]["gitVersion"], versions["serverVersion"]["gitVersion"]);
    assert!(control_plane.binary("kubeadm").unwrap_err().to_string().contains("kubectl"));
}
