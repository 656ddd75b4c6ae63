//! What gates gather from a real API server, as the plan's service account; one control plane for all tests here.

use std::time::Duration;

use control_plane::{ControlPlane, Identity};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ReplicationController, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use rehearsal::Shared;
use rehearsal::await_condition;
use resurgam::api::gate::{ApprovedFrom, ImageDigestsSpec, WorkloadsSpec};
use resurgam::api::step::ScaleSpec;
use resurgam::api::{
    GateReason, GateSpec, ObjectName, Phase, RECORDED_ANNOTATION, SEAL_ANNOTATION, Verdict, Verdict::*,
};
use resurgam::cluster_cache::ClusterCache;
use resurgam::engine::Answer;
use resurgam::gates::{Account, Asker, Question};
use resurgam::isolation::Seal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

mod backup_before;
mod baseline;
mod condition;
mod credentials;
mod job_result;
mod recovers;

const GOOD: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BAD: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

static CONTROL_PLANE: Shared<ControlPlane> = Shared::new();

async fn control_plane() -> &'static ControlPlane {
    CONTROL_PLANE.get(rehearsal::shared_cluster).await.unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(60), future).await;
    outcome.unwrap_or_else(|_| panic!("{what} took too long"))
}

/// A namespace of its own for each test: plan, account and service in one.
struct Bench {
    namespace: &'static str,
    administrator: Client,
    /// Acts as the service account `recovery` of the namespace.
    account: Account,
    asker: Asker,
    cache: ClusterCache,
}

impl Bench {
    /// A bench whose account may do what `rules` say, in its namespace.
    async fn new(namespace: &'static str, rules: Value) -> Bench {
        let administrator = control_plane().await.client(Identity::PlatformAdministrator).await.unwrap();
        let user = format!("system:serviceaccount:{namespace}:recovery");
        let account = Account { client: impersonating(&user).await, user };
        let cache = ClusterCache::start(&administrator);
        let asker = Asker::new(Vec::new()).unwrap();
        let bench = Bench { namespace, administrator, account, asker, cache };
        let own = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        let namespaces: Api<Namespace> = Api::all(bench.administrator.clone());
        namespaces.create(&PostParams::default(), &own).await.unwrap();
        bench.create::<ServiceAccount>(json!({"metadata": {"name": "recovery"}})).await;
        bench.create::<Role>(json!({"metadata": {"name": "recovery"}, "rules": &rules})).await;
        bench
            .create::<RoleBinding>(json!({
                "metadata": {"name": "recovery"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "recovery"},
                "subjects": [{"kind": "ServiceAccount", "name": "recovery", "namespace": namespace}],
            }))
            .await;
        if let Some(rule) = rules.get(0) {
            bench.is_granted(rule).await;
        }
        bench
    }

    /// Waits until the API server knows of a rule: it learns of Roles and RoleBindings by watches.
    async fn is_granted(&self, rule: &Value) {
        let first = |field: &str| rule[field][0].as_str().map(ToOwned::to_owned);
        let asked = ResourceAttributes {
            group: first("apiGroups"),
            resource: first("resources"),
            name: first("resourceNames"),
            verb: first("verbs"),
            namespace: Some(self.namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(asked), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.account.client.clone());
        within("the account's rights", async {
            while !reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.administrator.clone(), self.namespace)
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    async fn reaches<K>(&self, name: &str, done: impl Fn(&K) -> bool)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let condition = |object: Option<&K>| object.is_some_and(&done);
        within(name, await_condition(self.api::<K>(), name, condition)).await.unwrap();
    }

    async fn ask(&self, spec: GateSpec, phase: Phase, seal: &str) -> Answer {
        let mut question = Question::new(self.namespace, vec![self.namespace.into()], phase, spec);
        let seal = Seal { uid: seal.to_owned(), ..Seal::default() };
        question.seals.insert(self.namespace.to_owned(), seal);
        question.started.push(ScaleSpec::default());
        let live = self.asker.ask(&self.account, &question).await;
        self.says_the_same(&question, &live).await;
        live
    }

    /// Waits until the cache answers as the live reads did.
    async fn says_the_same(&self, question: &Question, live: &Answer) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let cached = self.asker.ask_cached(&self.cache, &self.account, question).await.unwrap();
            let mut expected = live.clone();
            // Of all lists that are refused, each names its first.
            if live.reason == GateReason::Forbidden {
                expected.message.clone_from(&cached.message);
            }
            if cached == expected {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "the cache says {cached:?}, and not {live:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A client as the operator makes one for a plan's account.
async fn impersonating(user: &str) -> Client {
    let path = control_plane().await.kubeconfig(Identity::PlatformAdministrator);
    let mut kubeconfig = Kubeconfig::read_from(path).unwrap();
    for named in &mut kubeconfig.auth_infos {
        named.auth_info.as_mut().unwrap().impersonate = Some(user.into());
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// All that gates read.
fn reader() -> Value {
    json!([
        {"apiGroups": ["", "apps", "batch"], "verbs": ["list"], "resources": ["deployments", "statefulsets",
            "daemonsets", "replicasets", "replicationcontrollers", "jobs", "cronjobs", "pods"]},
        {"apiGroups": [""], "verbs": ["get"], "resources": ["configmaps"]},
    ])
}

fn template(digest: &str, annotations: &Value) -> Value {
    let image = format!("registry.example/web:1@{digest}");
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": annotations},
        "spec": {
            "initContainers": [{"name": "init", "image": image}],
            "containers": [{"name": "web", "image": image}],
        },
    })
}

fn workload(name: &str, replicas: i32, template: &Value) -> Value {
    let mut template = template.clone();
    template["metadata"]["labels"] = json!({"app": name});
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    })
}

fn rolled_out(replicas: i32) -> impl Fn(&Deployment) -> bool {
    move |object| {
        let status = object.status.clone().unwrap_or_default();
        status.observed_generation == object.metadata.generation
            && status.available_replicas.unwrap_or(0) == replicas
            && status.replicas.unwrap_or(0) == replicas
    }
}

fn workloads() -> GateSpec {
    GateSpec { name: "up".into(), workloads: Some(WorkloadsSpec::default()), ..Default::default() }
}

fn images(config_map: &str) -> GateSpec {
    let approved_from = Some(ApprovedFrom { config_map: ObjectName { name: config_map.into() } });
    let image_digests = Some(ImageDigestsSpec { approved_from, ..ImageDigestsSpec::default() });
    GateSpec { name: "images".into(), image_digests, ..Default::default() }
}

fn says(answer: &Answer) -> (Verdict, &str) {
    (answer.verdict, answer.reason.as_str())
}

#[tokio::test]
async fn a_deployment_passes_while_it_is_ready_at_what_was_recorded() {
    let bench = Bench::new("gates-deployment", reader()).await;
    let answer = bench.ask(workloads(), Phase::BeforeRelease, "seal").await;
    assert_eq!(says(&answer), (Unknown, "NothingFound"));

    bench.create::<Deployment>(workload("web", 2, &template(GOOD, &json!({})))).await;
    bench.reaches("web", rolled_out(2)).await;
    let answer = bench.ask(workloads(), Phase::BeforeRelease, "seal").await;
    assert_eq!(says(&answer), (Pass, "Current"), "{answer:?}");

    // As the seal leaves it.
    let stop = json!({
        "metadata": {"annotations": {SEAL_ANNOTATION: "seal", RECORDED_ANNOTATION: "2"}},
        "spec": {"replicas": 0},
    });
    let deployments = bench.api::<Deployment>();
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(&stop)).await.unwrap();
    bench.reaches("web", rolled_out(0)).await;
    let answer = bench.ask(workloads(), Phase::BeforeRelease, "seal").await;
    assert_eq!(says(&answer), (Unknown, "FewerReplicas"), "{answer:?}");
    assert!(answer.message.contains("Deployment gates-deployment/web"), "{answer:?}");
    let answer = bench.ask(workloads(), Phase::BeforeRelease, "another seal").await;
    assert_eq!(says(&answer), (Pass, "Current"), "what another seal recorded was not started: {answer:?}");
}

#[tokio::test]
async fn every_built_in_kind_is_current_once_its_controller_is_done() {
    let bench = Bench::new("gates-kinds", reader()).await;
    let template = template(GOOD, &json!({}));
    let mut stateful_set = workload("db", 2, &template);
    stateful_set["spec"]["serviceName"] = json!("db");
    let mut daemon_set = workload("agent", 0, &template);
    daemon_set["spec"].as_object_mut().unwrap().remove("replicas");
    let mut controller = workload("old", 1, &template);
    controller["spec"]["selector"] = json!({"app": "old"});
    let mut job = json!({"metadata": {"name": "import"}, "spec": {"template": template}});
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    let cron_job = json!({"metadata": {"name": "nightly"}, "spec": {"schedule": "0 0 * * *", "suspend": true,
        "jobTemplate": {"spec": job["spec"]}}});
    bench.create::<Deployment>(workload("web", 2, &template)).await;
    bench.create::<StatefulSet>(stateful_set).await;
    bench.create::<DaemonSet>(daemon_set).await;
    bench.create::<ReplicaSet>(workload("set", 1, &template)).await;
    bench.create::<ReplicationController>(controller).await;
    bench.create::<Job>(job).await;
    bench.create::<CronJob>(cron_job).await;
    bench.create::<Pod>(json!({"metadata": {"name": "bare"}, "spec": template["spec"]})).await;

    bench.reaches("web", rolled_out(2)).await;
    bench
        .reaches::<StatefulSet>("db", |it| it.status.as_ref().and_then(|it| it.available_replicas) == Some(2))
        .await;
    bench
        .reaches::<DaemonSet>("agent", |it| it.status.as_ref().and_then(|it| it.number_available) == Some(2))
        .await;
    bench
        .reaches::<ReplicaSet>("set", |it| it.status.as_ref().and_then(|it| it.available_replicas) == Some(1))
        .await;
    bench
        .reaches::<ReplicationController>("old", |it| {
            it.status.as_ref().and_then(|it| it.available_replicas) == Some(1)
        })
        .await;
    bench
        .reaches::<Job>("import", |it| it.status.as_ref().is_some_and(|it| it.completion_time.is_some()))
        .await;
    bench
        .reaches::<Pod>("bare", |it| it.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running"))
        .await;

    let answer = bench.ask(workloads(), Phase::BeforeRelease, "seal").await;
    assert_eq!(says(&answer), (Pass, "Current"), "{answer:?}");
    assert_eq!(answer.message, "7 workloads are current (besides 1 CronJob or Job, left out)");
    bench.create::<ConfigMap>(json!({"metadata": {"name": "approved"}, "data": {"all": GOOD}})).await;
    for phase in [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous] {
        let answer = bench.ask(images("approved"), phase, "seal").await;
        assert_eq!(says(&answer), (Pass, "Approved"), "{phase:?} {answer:?}");
    }
}

#[tokio::test]
async fn running_image_that_differs_from_the_spec_never_passes() {
    let bench = Bench::new("gates-mismatch", reader()).await;
    let annotations = json!({"kwok.resurgam.dev/image-id": format!("registry.example/web@{BAD}")});
    bench.create::<Deployment>(workload("web", 2, &template(GOOD, &annotations))).await;
    bench.create::<ConfigMap>(json!({"metadata": {"name": "approved"}, "data": {"web": GOOD}})).await;
    bench.reaches("web", rolled_out(2)).await;
    let answer = bench.ask(images("approved"), Phase::BeforeRestore, "seal").await;
    assert_eq!(says(&answer), (Pass, "Approved"), "{answer:?}");
    for phase in [Phase::BeforeRelease, Phase::Continuous] {
        let answer = bench.ask(images("approved"), phase, "seal").await;
        assert_eq!(says(&answer), (Unknown, "UnresolvedDigest"), "{answer:?}");
        assert!(answer.message.starts_with("Pod gates-mismatch/web-"), "{answer:?}");
        assert!(answer.message.contains(BAD) && answer.message.contains(GOOD), "{answer:?}");
        assert!(answer.message.contains("cannot read Node"), "the account may not: {answer:?}");
    }
}

#[tokio::test]
async fn forged_owner_hides_no_replica_set_but_a_rollout_does() {
    let bench = Bench::new("gates-owners", reader()).await;
    bench.create::<ConfigMap>(json!({"metadata": {"name": "approved"}, "data": {"web": GOOD}})).await;
    bench.create::<Deployment>(workload("web", 1, &template(BAD, &json!({})))).await;
    bench.reaches("web", rolled_out(1)).await;
    // The ReplicaSet of the image before is history.
    let image = format!("registry.example/web:1@{GOOD}");
    let good = Patch::Strategic(json!({"spec": {"template": {"spec": {
        "initContainers": [{"name": "init", "image": image}], "containers": [{"name": "web", "image": image}],
    }}}}));
    let deployment = bench.api::<Deployment>().patch("web", &PatchParams::default(), &good).await.unwrap();
    bench
        .reaches("web", |d: &Deployment| {
            rolled_out(1)(d) && d.status.as_ref().is_some_and(|status| status.updated_replicas == Some(1))
        })
        .await;
    assert_eq!(bench.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items.len(), 2);
    let judged = async || bench.ask(images("approved"), Phase::BeforeRestore, "seal").await;
    assert_eq!(says(&judged().await), (Pass, "Approved"));

    let mut stateful_set = workload("db", 0, &template(GOOD, &json!({})));
    stateful_set["spec"]["serviceName"] = json!("db");
    let stateful_set = bench.create::<StatefulSet>(stateful_set).await;
    let (web, db) = (deployment.uid().unwrap(), stateful_set.uid().unwrap());
    for (group, kind, name, uid) in [
        ("apps.implant.example/v1", "Deployment", "nothing", "00000000-0000-4000-8000-000000000003"),
        ("apps.implant.example/v1", "Deployment", "web", web.as_str()),
        ("apps/v1", "StatefulSet", "db", db.as_str()),
        // Its labels are not of that Deployment, which lets go of it.
        ("apps/v1", "Deployment", "web", web.as_str()),
    ] {
        let mut miner = workload("miner", 0, &template(BAD, &json!({})));
        miner["metadata"]["ownerReferences"] = json!([
            {"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": false}
        ]);
        bench.create::<ReplicaSet>(miner).await;
        let answer = judged().await;
        assert_eq!(says(&answer), (Fail, "NotApproved"), "{group} {kind}: {answer:?}");
        assert!(answer.message.starts_with("ReplicaSet gates-owners/miner, "), "{answer:?}");
        bench.api::<ReplicaSet>().delete("miner", &Default::default()).await.unwrap();
        within("the miner to be gone", async {
            while bench.api::<ReplicaSet>().get_opt("miner").await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    assert_eq!(says(&judged().await), (Pass, "Approved"));
}

#[tokio::test]
async fn a_list_that_is_missing_empty_or_malformed_is_unknown() {
    let bench = Bench::new("gates-lists", reader()).await;
    bench.create::<Deployment>(workload("web", 0, &template(GOOD, &json!({})))).await;
    bench.create::<ConfigMap>(json!({"metadata": {"name": "empty"}})).await;
    bench.create::<ConfigMap>(json!({"metadata": {"name": "malformed"}, "data": {"web": "web:1"}})).await;
    for (list, reason) in
        [("nobody", "ListMissing"), ("empty", "ListEmpty"), ("malformed", "MalformedDigest")]
    {
        let answer = bench.ask(images(list), Phase::BeforeRestore, "seal").await;
        assert_eq!(says(&answer), (Unknown, reason), "{answer:?}");
        assert!(answer.message.contains(&format!("ConfigMap gates-lists/{list}")), "{answer:?}");
    }
}

#[tokio::test]
async fn an_account_that_may_not_read_is_unknown_and_named() {
    let bench = Bench::new("gates-forbidden", json!([])).await;
    let account = "system:serviceaccount:gates-forbidden:recovery";
    let answer = bench.ask(workloads(), Phase::BeforeRelease, "seal").await;
    assert_eq!(says(&answer), (Unknown, "Forbidden"), "{answer:?}");
    for named in [account, "cannot list resource", "namespace \"gates-forbidden\""] {
        assert!(answer.message.contains(named), "{named}: {answer:?}");
    }
    let namespaces = vec![bench.namespace.into()];
    let question = Question::new(bench.namespace, namespaces, Phase::Continuous, workloads());
    let cached = bench.asker.ask_cached(&bench.cache, &bench.account, &question).await.unwrap();
    let refused = bench.account.client.clone();
    let refused = Api::<Deployment>::namespaced(refused, bench.namespace).list(&Default::default()).await;
    let Err(kube::Error::Api(status)) = refused else { panic!("the account may list") };
    // Word for word.
    let expected = format!("cannot list deployments in namespace gates-forbidden: {}", status.message);
    assert_eq!((says(&cached), &cached.message), ((Unknown, "Forbidden"), &expected));
    let answer = bench.ask(images("approved"), Phase::BeforeRestore, "seal").await;
    assert_eq!(says(&answer), (Unknown, "Forbidden"), "{answer:?}");
    for named in [account, "cannot get resource \"configmaps\"", "ConfigMap gates-forbidden/approved"] {
        assert!(answer.message.contains(named), "{named}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_on_a_later_page_of_a_list_is_judged_as_well() {
    let bench = Bench::new("gates-pages", reader()).await;
    bench.create::<ConfigMap>(json!({"metadata": {"name": "approved"}, "data": {"web": GOOD}})).await;
    let cron_job = |name: String, digest: &str| {
        let mut template = template(digest, &json!({}));
        template["spec"]["restartPolicy"] = json!("Never");
        json!({"metadata": {"name": name}, "spec": {"schedule": "0 0 * * *", "suspend": true,
            "jobTemplate": {"spec": {"template": template}}}})
    };
    // Lists come in order of names, 500 to a page.
    let created: Result<Vec<String>, kube::Error> = futures::stream::iter(0..500)
        .map(|index| {
            let object = serde_json::from_value(cron_job(format!("a-{index}"), GOOD)).unwrap();
            let api = bench.api::<CronJob>();
            async move { Ok(api.create(&PostParams::default(), &object).await?.name_any()) }
        })
        .buffer_unordered(16)
        .try_collect()
        .await;
    assert_eq!(created.unwrap().len(), 500);
    let answer = bench.ask(images("approved"), Phase::BeforeRestore, "seal").await;
    assert_eq!(says(&answer), (Pass, "Approved"), "{answer:?}");
    bench.create::<CronJob>(cron_job("z-last".into(), BAD)).await;
    let answer = bench.ask(images("approved"), Phase::BeforeRestore, "seal").await;
    assert_eq!(says(&answer), (Fail, "NotApproved"), "{answer:?}");
    assert!(answer.message.starts_with("CronJob gates-pages/z-last, container "), "{answer:?}");
}
