//! One control plane for the whole suite: a namespace at each level with an object of every kind in it, everybody who attacks,
//! and as many operators as a test wants.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::Patch;
use rehearsal::{
    DEADLINE, End, Operator, OperatorOptions, Shared, Stages, condition, documents, eventually, kind, object,
};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::attack::served::{self, Served};

pub const KINDS: &str = "resurgam.dev/v1alpha1";
/// What people would read in a refusal.
pub const REASON: &str = "unusual activity in the shared network";
pub const INCIDENT: &str = "nov-2025";

/// The levels at which a namespace is isolated, and the namespace that is.
pub const LEVELS: [Level; 3] = [
    Level { label: "contained", namespace: "attack-contained" },
    Level { label: "sealed", namespace: "attack-sealed" },
    Level { label: "clean-room", namespace: "attack-room" },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub label: &'static str,
    pub namespace: &'static str,
}

impl Level {
    /// Does a Quarantine of ours stand behind it? The clean room is labelled by hand: no recovery has to be played for it.
    pub fn has_quarantine(self) -> bool {
        self.label != "clean-room"
    }
}

pub struct Rig {
    pub cluster: ControlPlane,
    /// The kinds that can be in a namespace.
    pub served: Vec<Served>,
    /// Held for reading by tests that share the operators there are, for writing by one that needs the rig for itself.
    operators: RwLock<Vec<Operator>>,
    /// Of its operators, in seconds.
    lease: u32,
}

impl End for Rig {
    fn end(&self) {
        if let Ok(mut operators) = self.operators.try_write() {
            operators.clear();
        }
        self.cluster.kill();
    }
}

impl Rig {
    pub async fn client(&self, who: Identity) -> Client {
        self.cluster.client(who).await.unwrap()
    }
}

/// For tests that take the operators as they are.
static SHARED: Shared<Rig> = Shared::new();
/// For tests that kill and start operators, or compare everything before and after.
static ALONE: Stages<Rig> = Stages::new(2);

/// The rig with so many operators at work, beside other tests that want as many.
pub struct SharedStage {
    pub rig: &'static Rig,
    _operators: RwLockReadGuard<'static, Vec<Operator>>,
}

/// A rig for one test alone, which may kill and start operators.
pub struct Stage {
    pub rig: &'static Rig,
    operators: RwLockWriteGuard<'static, Vec<Operator>>,
    /// Dropped last: the next test has the rig then.
    _turn: Option<rehearsal::Stage<Rig>>,
}

/// Takes the rig with so many operators at work, beside other tests that want as many.
pub async fn shared_stage(operators: usize) -> SharedStage {
    let rig = SHARED.get(async || set_up(LONG_LEASE).await).await.unwrap();
    let running = rig.operators.read().await;
    if running.len() == operators {
        return SharedStage { rig, _operators: running };
    }
    drop(running);
    let mut stage = Stage { rig, operators: rig.operators.write().await, _turn: None };
    stage.operators(operators);
    SharedStage { rig, _operators: stage.operators.downgrade() }
}

/// Takes a rig for one test alone, with so many operators at work.
pub async fn stage(operators: usize) -> Stage {
    taken(ALONE.take(async || set_up(SHORT_LEASE).await).await.unwrap(), operators).await
}

/// Takes a rig that no other test has had or will have: what its test does to it is not undone.
pub async fn stage_to_spoil(operators: usize) -> Stage {
    static SPOILT: Stages<Rig> = Stages::new(1);
    taken(SPOILT.take(async || set_up(SHORT_LEASE).await).await.unwrap(), operators).await
}

async fn taken(turn: rehearsal::Stage<Rig>, operators: usize) -> Stage {
    let rig = turn.here();
    let mut stage = Stage { rig, operators: rig.operators.write().await, _turn: Some(turn) };
    stage.operators(operators);
    stage
}

impl SharedStage {
    pub async fn client(&self, who: Identity) -> Client {
        self.rig.client(who).await
    }
}

impl Stage {
    /// Kills operators, without a goodbye, or starts some, until there are so many.
    pub fn operators(&mut self, count: usize) {
        // One that a busy machine made lose its lease ended by itself.
        self.operators.retain_mut(|operator| operator.ended().unwrap().is_none());
        while self.operators.len() > count {
            self.operators.pop().unwrap().kill().unwrap();
        }
        while self.operators.len() < count {
            self.operators.push(operator(&self.rig.cluster, self.rig.lease));
        }
    }

    /// Kills the operator, without a goodbye, and starts one anew, again and again. `turned` counts the leaders that were killed.
    /// An operator that does not lead yet is left to its start.
    pub async fn restart_for_ever(&mut self, turned: &AtomicUsize) {
        let admin = self.client(Identity::PlatformAdministrator).await;
        let leases = kind(&admin, "coordination.k8s.io/v1", "Lease", Some("resurgam-system"));
        let mut last = Value::Null;
        loop {
            let another = |lease: &Value| {
                lease["spec"]["holderIdentity"].is_string() && lease["spec"]["holderIdentity"] != last
            };
            let lease = eventually(&leases, "resurgam", "another leader", DEADLINE, another).await.unwrap();
            last = lease["spec"]["holderIdentity"].clone();
            self.operators(0);
            turned.fetch_add(1, Ordering::Relaxed);
            self.operators(1);
        }
    }

    pub async fn client(&self, who: Identity) -> Client {
        self.rig.client(who).await
    }
}

/// An operator that one test kills and starts. The lease of one that was killed runs out soon: the next waits for that by itself.
const SHORT_LEASE: u32 = 8;
/// One that many tests share: a busy machine does not lose this lease.
const LONG_LEASE: u32 = 15;

fn operator(cluster: &ControlPlane, lease_seconds: u32) -> Operator {
    let within = OperatorOptions::within(cluster, Path::new(env!("CARGO_BIN_EXE_resurgam")));
    Operator::start(cluster, &OperatorOptions { lease_seconds, ..within }).unwrap()
}

async fn set_up(lease: u32) -> anyhow::Result<Rig> {
    let cluster = rehearsal::shared_cluster().await?;
    rehearsal::install(&cluster).await?;
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let kinds = documents(include_str!("kinds.yaml"))?;
    rehearsal::apply(&admin, "platform", &kinds).await?;
    let crds = kind(&admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    for crd in &kinds {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        let is = |o: &Value| condition(o, "Established") == "True";
        eventually(&crds, name, &format!("{name} to be served"), DEADLINE, is).await?;
    }
    rehearsal::apply(&admin, "platform", &documents(include_str!("access.yaml"))?).await?;
    let operators = RwLock::new(vec![operator(&cluster, lease)]);
    let levels = LEVELS.map(|level| lay_down(&cluster, &admin, level));
    futures::future::try_join_all(levels).await?;
    let served = served::discover(&admin).await;
    Ok(Rig { cluster, served, operators, lease })
}

/// The estate of one namespace.
pub fn estate(namespace: &str) -> Vec<Value> {
    documents(&include_str!("estate.yaml").replace("NAMESPACE", namespace)).unwrap()
}

/// A namespace with an object of every kind, isolated.
async fn lay_down(cluster: &ControlPlane, admin: &Client, level: Level) -> anyhow::Result<()> {
    let namespace = level.namespace;
    let itself = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    rehearsal::apply(admin, "platform", &[itself]).await?;
    // Accounts first: a token Secret of an account that is not there is taken away by its controller.
    let (accounts, others): (Vec<_>, Vec<_>) =
        estate(namespace).into_iter().partition(|object| object["kind"] == "ServiceAccount");
    rehearsal::apply(admin, "platform", &accounts).await?;
    rehearsal::apply(admin, "platform", &others).await?;
    let secrets = kind(admin, "v1", "Secret", Some(namespace));
    let issued = |secret: &Value| secret.pointer("/data/token").is_some();
    eventually(&secrets, "web-token", &format!("the token of {namespace}/web"), DEADLINE, issued).await?;
    rehearsal::apply(admin, "platform", &[crate::attack::from_elsewhere::volume(namespace)]).await?;
    for (version, what, name, at) in [
        ("apps/v1", "Deployment", "web", "/status/readyReplicas"),
        ("apps/v1", "StatefulSet", "db", "/status/readyReplicas"),
        ("apps/v1", "ReplicaSet", "lone", "/status/readyReplicas"),
        ("apps/v1", "DaemonSet", "agent", "/status/numberReady"),
        ("v1", "ReplicationController", "old", "/status/readyReplicas"),
        ("v1", "Pod", "bare", "/status/phase"),
        ("batch/v1", "Job", "done", "/status/completionTime"),
        ("autoscaling/v2", "HorizontalPodAutoscaler", "web", "/status/conditions"),
    ] {
        let api = kind(admin, version, what, Some(namespace));
        let is = |o: &Value| match o.pointer(at) {
            Some(Value::String(phase)) => phase != "Pending",
            found => found.is_some(),
        };
        eventually(&api, name, &format!("{what} {namespace}/{name} to run"), DEADLINE, is).await?;
    }
    // As a kubelet that can resize tells, which kwok does not.
    let pods = kind(admin, "v1", "Pod", Some(namespace));
    let mut bare = object(&pods, "bare").await?;
    bare["status"]["containerStatuses"][0]["resources"] = json!({"requests": {"cpu": "1m"}});
    let told = json!({"status": {"containerStatuses": bare["status"]["containerStatuses"]}});
    pods.patch_status("bare", &Default::default(), &Patch::Merge(told)).await?;
    if level.has_quarantine() {
        let isolation = if level.label == "sealed" { "Sealed" } else { "Contained" };
        isolate(cluster, namespace, isolation).await?;
        rehearsal::three_boroughs::isolated(cluster, namespace).await?;
        return Ok(());
    }
    label(cluster, namespace, level.label).await
}

/// On call: isolates a namespace, without waiting.
pub async fn isolate(cluster: &ControlPlane, namespace: &str, isolation: &str) -> anyhow::Result<()> {
    let responder = cluster.client(Identity::Responder).await?;
    let quarantine = json!({
        "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": namespace},
        "spec": {"isolation": isolation, "reason": REASON, "incidentRef": {"name": INCIDENT}},
    });
    rehearsal::apply(&responder, "on-call", &[quarantine]).await
}

/// Labels a namespace as the operator would.
pub async fn label(cluster: &ControlPlane, namespace: &str, label: &str) -> anyhow::Result<()> {
    let operator = cluster.client(Identity::Operator).await?;
    let namespaces = kind(&operator, "v1", "Namespace", None);
    let patch = json!({"metadata": {
        "labels": {"resurgam.dev/isolation": label},
        "annotations": {"resurgam.dev/reason": REASON, "resurgam.dev/incident": INCIDENT},
    }});
    namespaces.patch(namespace, &Default::default(), &Patch::Merge(patch)).await?;
    Ok(())
}
