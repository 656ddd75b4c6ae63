//! A control plane without an operator, and clients on whose way something happens: right before a request of theirs is sent,
//! somebody else is faster, or the API server does not answer as one would like.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use control_plane::{ControlPlane, Identity, Options};
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ObjectMeta, Status};
use kube::{Api, Client, Config};
use rehearsal::{Shared, Stage, Stages, apply, install_kinds};
use resurgam::api::OPERATOR_NAMESPACE;
use resurgam::isolation::ensure;
use resurgam::isolation::policies::WORKLOAD_LIMIT;
use serde_json::{Value, json};

/// What is there before anything of ours but rights.
pub async fn bare() -> ControlPlane {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let administrator = plane.client(Identity::PlatformAdministrator).await.unwrap();
    apply(&administrator, "install", &rehearsal::rights().unwrap()).await.unwrap();
    plane
}

/// Where the operator would keep its evidence, as its Deployment has it.
pub const STORES: [&str; 3] = ["https://store.example:9000", "minio.store.svc:9000", "s3://council/evidence"];

/// The operator's Deployment, at no replica: while anything is isolated, nobody could make it.
fn operator() -> Value {
    let container = json!({"name": "main", "image": "registry.example/resurgam",
        "args": ["--quiet", STORES[0], STORES[1]], "env": [{"name": "STORE", "value": STORES[2]}]});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "resurgam", "namespace": OPERATOR_NAMESPACE},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "resurgam"}},
            "template": {"metadata": {"labels": {"app": "resurgam"}}, "spec": {"containers": [container]}}},
    })
}

thread_local! {
    /// The control plane that the test on this thread has for itself.
    static OWN: Cell<Option<&'static ControlPlane>> = const { Cell::new(None) };
}

/// A control plane for one test alone, as long as this lives.
pub struct Alone {
    _stage: Stage<ControlPlane>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        OWN.set(None);
    }
}

/// Takes a control plane for the calling test alone: one that counts writes to what all tests write.
pub async fn alone() -> Alone {
    static ALONE: Stages<ControlPlane> = Stages::new(1);
    let stage = Box::pin(ALONE.take(start)).await.unwrap();
    OWN.set(Some(stage.here()));
    Alone { _stage: stage }
}

/// The kinds, rights and policies, and no operator that runs.
pub async fn plane() -> &'static ControlPlane {
    static PLANE: Shared<ControlPlane> = Shared::new();
    match OWN.get() {
        Some(own) => own,
        // On the heap, as it is within the future of every test here, and a thread's stack is small.
        None => Box::pin(PLANE.get(start)).await.unwrap(),
    }
}

async fn start() -> anyhow::Result<ControlPlane> {
    let plane = bare().await;
    let administrator = plane.client(Identity::PlatformAdministrator).await?;
    install_kinds(&administrator).await?;
    apply(&administrator, "install", &[operator()]).await?;
    ensure::ensure(&administrator, false).await?;
    // Controls are tried one by one here, in namespaces that nobody isolated. limits.rs is about what this refuses.
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(administrator);
    bindings.delete(WORKLOAD_LIMIT, &DeleteParams::default()).await?;
    Ok(plane)
}

/// Somebody of that plane.
pub async fn of(who: Identity) -> Client {
    plane().await.client(who).await.unwrap()
}

/// A user of that name, with such rights as a test has granted.
pub async fn somebody(name: &str) -> Client {
    let kubeconfig =
        Kubeconfig::read_from(plane().await.kubeconfig(Identity::PlatformAdministrator)).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(name.to_owned());
    Client::try_from(config).unwrap()
}

/// Makes a namespace there.
pub async fn namespace(name: &str) -> Namespace {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    let all = Api::all(of(Identity::TenantAdministrator).await);
    all.create(&PostParams::default(), &namespace).await.unwrap()
}

/// What happens before a request: nothing; or it is not sent, and this is answered.
pub type Happens = Option<u16>;

/// The requests that something happened before.
#[derive(Clone, Default)]
pub struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    /// How many.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Each: its method, path and query.
    pub fn each(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// One more, which is the how-manieth.
    fn add(&self, request: String) -> usize {
        let mut all = self.0.lock().unwrap();
        all.push(request);
        all.len()
    }
}

/// A client that does something right before each request which begins so (`PATCH /api/v1/namespaces/library`), dry runs apart; it
/// is told the how-manieth that is. Where the beginning has ` dry` at its end, dry runs are meant.
pub fn meanwhile(
    client: Client,
    before: &str,
    act: impl Fn(usize) -> BoxFuture<'static, Happens> + Send + Sync + 'static,
) -> (Client, Asked) {
    let (before, dry) = before.strip_suffix(" dry").map_or((before, false), |before| (before, true));
    let (before, act, all) = (before.to_owned(), Arc::new(act), Asked::default());
    let (namespace, counted) = (client.default_namespace().to_owned(), all.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, act) = (client.clone(), act.clone());
        let asked = format!("{} {}", request.method(), request.uri());
        let met = asked.starts_with(&before) && asked.contains("dryRun=All") == dry;
        let nth = if met { counted.add(asked) } else { 0 };
        async move {
            let answer = if met { act(nth).await } else { None };
            match answer {
                None => client.send(request).await,
                Some(code) => Ok(answered(code)),
            }
        }
    });
    (Client::new(service, namespace), all)
}

fn answered(code: u16) -> Response<Body> {
    let reason = StatusCode::from_u16(code).unwrap().canonical_reason().unwrap();
    let status = Status::failure("as the test has it", reason).with_code(code);
    let body = Body::from(serde_json::to_vec(&status).unwrap());
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
