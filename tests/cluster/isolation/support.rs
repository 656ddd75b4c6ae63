//! One control plane for all tests here, with the product's kinds and rights in it, and a controller that can be stopped.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use control_plane::{ControlPlane, Identity};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind, ObjectMeta, Status};
use kube::runtime::wait::conditions;
use kube::{Api, Client, Config, Resource, ResourceExt};
use rehearsal::await_condition;
use rehearsal::{End, Shared, Stage, Stages};
use resurgam::api::quarantine::{ControlName, ControlState};
use resurgam::api::{Quarantine, QuarantineLevel, QuarantineSpec, RECORDS_NAMESPACE, conditions as ours};
use resurgam::controllers::quarantine::{self, QuarantineOptions};
use resurgam::isolation::evidence::{DigestKey, Evidence, Store};
use resurgam::isolation::network::{DEFAULT_DENY, is_neutralised};
use resurgam::isolation::policies::{FENCES, WRITE_FENCE};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    pub control_plane: ControlPlane,
    pub evidence: tempfile::TempDir,
    /// Held for reading by who needs the controller, for writing by who needs it stopped.
    controller: RwLock<Option<Controller>>,
    /// CSI's snapshot controller, once a test needs it.
    pub snapshot_controller: OnceCell<std::sync::Mutex<std::process::Child>>,
    /// Who may read the logs.
    pub identity: age::x25519::Identity,
}

/// What every container has logged.
pub const LOGGED: &str = "tenancy of Mrs Miggins, 3 Mitre Square";
/// What its run before had.
pub const LOGGED_BEFORE: &str = "arrears of Mr Baldrick";

impl Rig {
    /// Into that store, with logs, and with digests of Secrets.
    pub fn evidence(&self, store: Store) -> Evidence {
        Evidence {
            recipients: vec![self.identity.to_public().to_string().parse().unwrap()],
            key: Some(DigestKey::new(vec![7; 32]).unwrap()),
            ..Evidence::new(store)
        }
    }
}

impl End for Rig {
    fn end(&self) {
        drop(self.controller.try_write().ok().and_then(|mut controller| controller.take()));
        if let Some(child) = self.snapshot_controller.get() {
            let mut child = child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let _ = child.kill();
            let _ = child.wait();
        }
        self.control_plane.kill();
    }
}

static SHARED: Shared<Rig> = Shared::new();
/// For tests that need the controller stopped, or take away what all rest on: policies, lists. On the shared rig, each would wait for all
/// others, and all others for it.
static ALONE: Stages<Rig> = Stages::new(2);

thread_local! {
    /// The rig that the test on this thread has for itself.
    static OWN: Cell<Option<&'static Rig>> = const { Cell::new(None) };
}

/// Takes a rig for the calling test alone, which has to run on one thread: everything here uses that rig, for as long as this lives.
pub async fn alone() -> Alone {
    let stage = ALONE.take(start_rig).await.unwrap();
    // The test before may have left the controller running.
    let left = stage.here().controller.write().await.take();
    tokio::task::spawn_blocking(move || drop(left)).await.unwrap();
    OWN.set(Some(stage.here()));
    Alone { _stage: stage }
}

/// A rig for one test alone.
pub struct Alone {
    _stage: Stage<Rig>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        OWN.set(None);
    }
}

/// A controller on a thread and runtime of its own. Dropped, it stops at once, wherever it is.
pub struct Controller {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts a controller of one's own. The shared one has to be stopped for that.
pub async fn another() -> Controller {
    let rig = rig().await;
    with(rig.evidence(Store::folder(rig.evidence.path()))).await
}

/// The same, with evidence of one's own.
pub async fn with(evidence: Evidence) -> Controller {
    start(rig().await.control_plane.kubeconfig(Identity::Operator).to_owned(), evidence)
}

/// Starts a controller.
pub fn start(kubeconfig: PathBuf, evidence: Evidence) -> Controller {
    // The control plane that is shared lists no API server; a test that lists one lists it there.
    let cluster = Kubeconfig::read_from(&kubeconfig).unwrap().clusters.remove(0).cluster.unwrap();
    let own = cluster.server.unwrap().parse().unwrap();
    start_with(kubeconfig, evidence, [(LISTED.parse().unwrap(), own)].into())
}

/// Where a test may say that the API server is.
pub const LISTED: &str = "192.0.2.7:6443";

/// Where API servers are reached, by the addresses that they are listed at.
pub type Routes = BTreeMap<SocketAddr, http::Uri>;

/// Starts a controller that is told the way to API servers.
pub fn start_with(kubeconfig: PathBuf, evidence: Evidence, routes: Routes) -> Controller {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
            let config =
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            let client = Client::try_from(config.clone()).unwrap();
            let mut options = QuarantineOptions::new(evidence);
            options.probe.routes = routes;
            tokio::select! {
                () = quarantine::run(client, config, options) => {}
                _ = stopped => {}
            }
        });
    });
    Controller { stop: Some(stop), thread: Some(thread) }
}

pub async fn rig() -> &'static Rig {
    match OWN.get() {
        Some(own) => own,
        None => SHARED.get(start_rig).await.unwrap(),
    }
}

async fn start_rig() -> anyhow::Result<Rig> {
    let _ = tracing_subscriber::fmt().with_env_filter("resurgam=info").with_test_writer().try_init();
    let control_plane = rehearsal::shared_cluster().await?;
    let administrator = control_plane.client(Identity::PlatformAdministrator).await.unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(administrator.clone());
    for crd in resurgam::api::crds() {
        let name = crd.name_any();
        crds.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&crd)).await.unwrap();
        within(&name, await_condition(crds.clone(), &name, conditions::is_crd_established())).await.unwrap();
    }
    // The API server calls a kind established before its storage is ready, and refuses lists until then.
    within("Quarantines to be answered for", async {
        let all: Api<Quarantine> = Api::all(administrator.clone());
        while all.list(&Default::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let rights = tokio::task::spawn_blocking(rehearsal::rights).await.unwrap().unwrap();
    rehearsal::apply(&administrator, "test", &rights).await.unwrap();
    control_plane.write_container_logs(&[LOGGED], &[LOGGED_BEFORE]).unwrap();
    let identity = age::x25519::Identity::generate();
    Ok(Rig {
        control_plane,
        evidence: tempfile::tempdir()?,
        controller: RwLock::new(None),
        snapshot_controller: OnceCell::new(),
        identity,
    })
}

/// Sees to it that the controller runs, for as long as the guard is held.
pub async fn controller() -> RwLockReadGuard<'static, Option<Controller>> {
    let rig = rig().await;
    let running = rig.controller.read().await;
    if running.is_some() {
        return running;
    }
    drop(running);
    // Only to start it: for writing, each test would wait until all others are done.
    let mut controller = rig.controller.write().await;
    if controller.is_none() {
        let kubeconfig = rig.control_plane.kubeconfig(Identity::Operator).to_owned();
        *controller = Some(start(kubeconfig, rig.evidence(Store::folder(rig.evidence.path()))));
        guarded().await;
    }
    controller.downgrade()
}

/// Waits until the operator's account is guarded: the policies are in force some time after the controller has started.
async fn guarded() {
    let accounts: Api<ServiceAccount> = Api::namespaced(client(Identity::GitOps).await, "resurgam-system");
    let request = serde_json::from_value(serde_json::json!({"spec": {"audiences": []}})).unwrap();
    let dry_run = PostParams { dry_run: true, field_manager: None };
    within("the operator's account to be guarded", async {
        while accounts.create_token_request("resurgam", &dry_run, &request).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Stops the controller, for as long as the guard is held. Nobody else is waiting for it then.
pub async fn stopped(
    running: RwLockReadGuard<'static, Option<Controller>>,
) -> RwLockWriteGuard<'static, Option<Controller>> {
    drop(running);
    let mut controller = rig().await.controller.write().await;
    let running = controller.take();
    tokio::task::spawn_blocking(move || drop(running)).await.unwrap();
    controller
}

pub async fn client(who: Identity) -> Client {
    rig().await.control_plane.client(who).await.unwrap()
}

/// As a service account, by the platform administrator's right to impersonate.
pub async fn acting_as(namespace: &str, account: &str) -> Client {
    let path = rig().await.control_plane.kubeconfig(Identity::PlatformAdministrator);
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{account}"));
    Client::try_from(config).unwrap()
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what} took too long"))
}

pub async fn apply(client: &Client, yaml: &str) {
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let object = DynamicObject::deserialize(document).unwrap();
        let types = object.types.as_ref().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap());
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let name = object.name_any();
        let patch = Patch::Apply(&object);
        api.patch(&name, &PatchParams::apply("test").force(), &patch)
            .await
            .unwrap_or_else(|error| panic!("apply {} {name}: {error}", types.kind));
    }
}

/// Makes a namespace as the tenant, who also fills it.
pub async fn namespace(name: &str) -> Client {
    let tenant = client(Identity::TenantAdministrator).await;
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Api::all(tenant.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    tenant
}

/// Quarantines a namespace, as who is on call.
pub async fn isolate(name: &str, level: QuarantineLevel) {
    let api: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let spec = QuarantineSpec {
        isolation: level,
        reason: "unusual activity in the shared network".into(),
        incident_ref: Some(resurgam::api::ObjectName { name: "nov-2025".into() }),
        ..QuarantineSpec::default()
    };
    api.create(&PostParams::default(), &Quarantine::new(name, spec)).await.unwrap();
}

pub async fn quarantine(name: &str) -> Quarantine {
    let api: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    api.get(name).await.unwrap()
}

/// Waits until a Quarantine is as asked; says what it was if it is not in time.
pub async fn until(name: &str, what: &str, is: impl Fn(&Quarantine) -> bool) -> Quarantine {
    let api: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let condition = await_condition(api, name, |q: Option<&Quarantine>| q.is_some_and(&is));
    match tokio::time::timeout(PATIENCE, condition).await {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => panic!("Quarantine {name} is not {what}: {:#?}", quarantine(name).await.status),
    }
}

/// Waits until a Quarantine is Ready at a level.
pub async fn ready(name: &str, level: resurgam::api::Isolation) -> Quarantine {
    until(name, level.as_str(), |q| {
        let status = q.status.clone().unwrap_or_default();
        status.isolation == Some(level)
            && ours::is_true(&status.conditions, ours::READY)
            && status.observed_generation == q.metadata.generation
    })
    .await
}

/// Waits until one object is as asked.
pub async fn object<K>(api: Api<K>, name: &str, what: &str, is: impl Fn(&K) -> bool) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let condition = await_condition(api.clone(), name, |k: Option<&K>| k.is_some_and(&is));
    match tokio::time::timeout(PATIENCE, condition).await {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => panic!("{name} is not {what}: {:#?}", api.get_opt(name).await.unwrap()),
    }
}

/// The network policies that select pods.
pub async fn allowing(client: &Client, namespace: &str) -> Vec<String> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let there = api.list(&ListParams::default()).await.unwrap();
    there.iter().filter(|policy| !is_neutralised(policy)).map(ResourceExt::name_any).collect()
}

/// The pages of the records of a namespace.
pub async fn records_of(client: &Client, namespace: &str) -> Vec<String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), RECORDS_NAMESPACE);
    let of_it = ListParams::default().labels(&format!("resurgam.dev/namespace={namespace}"));
    api.list(&of_it).await.unwrap().iter().map(ResourceExt::name_any).collect()
}

/// Did this policy refuse? Of the two fences either does: the API server's message names one, its causes all.
fn is_refused_by(status: &Status, policy: &str) -> bool {
    let causes =
        status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str());
    let texts: Vec<_> = std::iter::once(status.message.as_str()).chain(causes).collect();
    let by = |policy: &str| {
        texts.iter().any(|text| text.contains(&format!("ValidatingAdmissionPolicy '{policy}'")))
    };
    by(policy) || (policy == WRITE_FENCE && FENCES.into_iter().any(by))
}

/// The refusal, which has to be by this policy.
pub fn refused<T: Debug>(what: &str, policy: &str, outcome: kube::Result<T>) -> Box<Status> {
    match outcome {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 403, "{what}: {status:?}");
            assert!(is_refused_by(&status, policy), "{what}: {status:?}");
            status
        }
        other => panic!("{what} was not refused: {other:?}"),
    }
}

/// A namespace with a little of everything that a sealing stops, cuts off or voids.
pub struct Estate {
    pub name: &'static str,
    pub tenant: Client,
    /// UIDs of its ServiceAccounts, by name.
    accounts: BTreeMap<String, Option<String>>,
}

const ESTATE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: registry.example/web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: NAMESPACE}
spec: {containers: [{name: main, image: registry.example/bare}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: worker, namespace: NAMESPACE, labels: {team: library}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-all, namespace: NAMESPACE}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
"#;

impl Estate {
    /// Makes it, with what else is given, and waits until it runs.
    pub async fn new(name: &'static str, also: &str) -> Self {
        let tenant = namespace(name).await;
        let administrator = client(Identity::PlatformAdministrator).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(tenant.clone(), name);
        object(accounts.clone(), "default", "made", |_| true).await;
        apply(&administrator, &ESTATE.replace("NAMESPACE", name)).await;
        if !also.is_empty() {
            apply(&administrator, &also.replace("NAMESPACE", name)).await;
        }
        let runs = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        object::<Pod>(Api::namespaced(tenant.clone(), name), "bare", "running", runs).await;
        object::<Deployment>(Api::namespaced(tenant.clone(), name), "web", "available", |web| {
            web.status.as_ref().and_then(|status| status.available_replicas) == Some(1)
        })
        .await;
        let accounts = accounts.list(&ListParams::default()).await.unwrap().into_iter();
        let accounts = accounts.map(|account| (account.name_any(), account.uid())).collect();
        Self { name, tenant, accounts }
    }

    /// Is nothing allowed any more?
    pub async fn is_cut_off(&self) -> bool {
        allowing(&self.tenant, self.name).await == [DEFAULT_DENY]
    }

    /// Pods that live.
    pub async fn live(&self) -> Vec<String> {
        crate::isolation::live(&self.tenant, self.name).await
    }

    /// The accounts whose tokens of before are still good.
    pub async fn trusted(&self) -> Vec<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.tenant.clone(), self.name);
        let now = api.list(&ListParams::default()).await.unwrap();
        let is_old =
            |account: &&ServiceAccount| self.accounts.get(&account.name_any()) == Some(&account.uid());
        now.iter().filter(is_old).map(ResourceExt::name_any).collect()
    }

    /// The fence refuses the tenant.
    pub async fn is_fenced(&self) {
        let secrets: Api<Secret> = Api::namespaced(self.tenant.clone(), self.name);
        let secret = Secret {
            metadata: ObjectMeta { name: Some("implant".into()), ..ObjectMeta::default() },
            ..Secret::default()
        };
        let dry = PostParams { dry_run: true, field_manager: None };
        refused("create a Secret", WRITE_FENCE, secrets.create(&dry, &secret).await);
    }

    /// Sealed, whole: fenced, cut off, nothing runs, and every account that there was is another by now.
    pub async fn is_sealed(&self) {
        self.is_fenced().await;
        assert!(self.is_cut_off().await, "{}: {:?}", self.name, allowing(&self.tenant, self.name).await);
        assert_eq!(self.live().await, [""; 0], "{}", self.name);
        assert_eq!(self.trusted().await, [""; 0], "{}", self.name);
        let api: Api<ServiceAccount> = Api::namespaced(self.tenant.clone(), self.name);
        for account in self.accounts.keys() {
            api.get(account).await.unwrap();
        }
    }

    /// Lets it out, and waits until it is.
    pub async fn release(&self) {
        let lead: Api<Quarantine> = Api::all(client(Identity::RecoveryLead).await);
        let uid = lead.get(self.name).await.unwrap().uid().unwrap();
        lead.delete(self.name, &DeleteParams::default()).await.unwrap();
        let gone = kube::runtime::conditions::is_deleted(&uid);
        within("the release", await_condition(lead, self.name, gone)).await.unwrap();
    }
}

/// What a Quarantine says is not enforced, with its message.
pub fn not_enforced(quarantine: &Quarantine) -> BTreeMap<ControlName, String> {
    let controls = quarantine.status.clone().unwrap_or_default().controls.into_iter();
    let amiss = controls.filter(|control| control.state == ControlState::NotEnforced);
    amiss.map(|control| (control.name, control.message)).collect()
}

/// Status, reason and message of a Quarantine's Ready condition.
pub fn readiness(quarantine: &Quarantine) -> (String, String, String) {
    let conditions = quarantine.status.clone().unwrap_or_default().conditions;
    let ready = ours::find(&conditions, ours::READY).cloned();
    ready.map(|ready| (ready.status, ready.reason, ready.message)).unwrap_or_default()
}
