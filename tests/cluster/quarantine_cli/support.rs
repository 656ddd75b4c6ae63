//! The real binary as real people, on a control plane with the product's rights in it, and no operator unless a test starts one.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::Result;
use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ListParams, PostParams};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::{Api, Client, ResourceExt};
use rehearsal::{Operator, OperatorOptions, Shared, apply, documents, install_kinds};
use resurgam::isolation::network::is_neutralised;
use resurgam::isolation::policies::FENCES;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

static CLUSTER: Shared<ControlPlane> = Shared::new();
/// No operator runs while a test holds it, but its own.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The shared cluster, with the kinds, and no operator.
pub async fn cluster() -> (&'static ControlPlane, MutexGuard<'static, ()>) {
    let cluster = CLUSTER
        .get(async || {
            let cluster = rehearsal::shared_cluster().await?;
            with_rights(&cluster).await;
            install_kinds(&cluster.client(Identity::PlatformAdministrator).await.unwrap()).await.unwrap();
            Ok(cluster)
        })
        .await
        .unwrap();
    let alone = ALONE.lock().await;
    nobody_leads(cluster).await;
    (cluster, alone)
}

/// Waits until the lease of the operator that a test before had has run out.
async fn nobody_leads(cluster: &ControlPlane) {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let leases: Api<Lease> = Api::namespaced(admin, "resurgam-system");
    loop {
        let lease = leases.get_opt("resurgam").await.unwrap().and_then(|lease| lease.spec);
        let Some(lease) = lease else { return };
        let (Some(renewed), Some(seconds)) = (lease.renew_time, lease.lease_duration_seconds) else { return };
        let left = renewed.0 + SignedDuration::from_secs(seconds.into()) - Timestamp::now();
        if Timestamp::now() >= renewed.0 + SignedDuration::from_secs(seconds.into()) {
            return;
        }
        // An operator that is ending may renew it once more: it is read again.
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    }
}

/// A cluster of one's own, with the rights, and without the kinds.
pub async fn bare() -> ControlPlane {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    with_rights(&cluster).await;
    cluster
}

async fn with_rights(cluster: &ControlPlane) {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    apply(&admin, "install", &rehearsal::rights().unwrap()).await.unwrap();
}

pub fn operator(cluster: &ControlPlane) -> Operator {
    Operator::start(cluster, &OperatorOptions::within(cluster, &binary())).unwrap()
}

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_resurgam"))
}

/// What a run of the binary left.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The one JSON document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.out, self.err))
    }
}

/// `resurgam quarantine ARGUMENTS`, as somebody.
pub async fn quarantine(cluster: &ControlPlane, who: Identity, arguments: &[&str]) -> Ran {
    quarantine_with(cluster.kubeconfig(who), arguments).await
}

/// The same, by a kubeconfig.
pub async fn quarantine_with(kubeconfig: &Path, arguments: &[&str]) -> Ran {
    let mut all = vec!["quarantine"];
    all.extend(arguments);
    all.extend(["--incident", "nov-2025", "--reason", "unusual activity in the shared network"]);
    resurgam(kubeconfig, &all).await
}

/// `resurgam ARGUMENTS`, by a kubeconfig.
pub async fn resurgam(kubeconfig: &Path, arguments: &[&str]) -> Ran {
    let mut command = tokio::process::Command::new(binary());
    command.args(arguments);
    command.env("KUBECONFIG", kubeconfig).env_remove("RUST_LOG").stdin(Stdio::null());
    Ran::of(tokio::time::timeout(rehearsal::DEADLINE, command.output()).await.unwrap().unwrap())
}

pub async fn client(cluster: &ControlPlane, who: Identity) -> Client {
    cluster.client(who).await.unwrap()
}

/// Makes a namespace as the tenant, with this in it; NAMESPACE is replaced.
pub async fn namespace(cluster: &ControlPlane, name: &str, content: &str) -> Client {
    let tenant = client(cluster, Identity::TenantAdministrator).await;
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Api::all(tenant.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    apply(&tenant, "tenant", &documents(&content.replace("NAMESPACE", name)).unwrap()).await.unwrap();
    tenant
}

pub fn api<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

/// Names, in order.
pub async fn names<K>(api: &Api<K>) -> Vec<String>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug + ResourceExt,
{
    let list = api.list(&ListParams::default()).await.unwrap();
    list.iter().map(ResourceExt::name_any).collect()
}

/// The network policies that select pods.
pub async fn allowing(client: &Client, namespace: &str) -> Vec<String> {
    let there = api::<NetworkPolicy>(client, namespace).list(&ListParams::default()).await.unwrap();
    there.iter().filter(|policy| !is_neutralised(policy)).map(ResourceExt::name_any).collect()
}

/// Refused by a fence?
pub fn fenced<T: std::fmt::Debug>(what: &str, answer: kube::Result<T>) {
    match answer {
        Err(kube::Error::Api(status)) => {
            let by = |fence: &&str| status.message.contains(&format!("ValidatingAdmissionPolicy '{fence}'"));
            assert!(status.code == 403 && FENCES.iter().any(by), "{what}: {status:?}");
        }
        other => panic!("{what} was not refused: {other:?}"),
    }
}

/// Waits for an object of ours to be as asked.
pub async fn ready(cluster: &ControlPlane, namespace: &str, level: &str) -> Result<Value> {
    let responder = cluster.client(Identity::Responder).await?;
    let quarantines = rehearsal::kind(&responder, "resurgam.dev/v1alpha1", "Quarantine", None);
    rehearsal::eventually(&quarantines, namespace, "it to be Ready", rehearsal::DEADLINE, |q| {
        rehearsal::condition(q, "Ready") == "True" && q["status"]["isolation"] == level
    })
    .await
}
