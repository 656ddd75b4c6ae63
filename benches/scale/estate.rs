//! Services that depend on each other, each a namespace with one Deployment, and the plan that recovers them.

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams};
use rehearsal::{eventually, field, kind};
use serde_json::{Value, json};

use crate::{AT_ONCE, DEADLINE};

/// Namespace and account of all plans.
pub const RECOVERY: &str = "recovery";
/// The Incident of all plans.
pub const INCIDENT: &str = "scale";
const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// How services depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each on the one before.
    Chain,
    /// All on the first.
    Fan,
    /// Ten layers: each service on two of the layer before.
    Layers,
}

impl Shape {
    fn dependencies(self, id: usize, size: usize) -> Vec<usize> {
        let layer = (size / 10).max(1);
        match self {
            Self::Chain => id.checked_sub(1).into_iter().collect(),
            Self::Fan => (id > 0).then_some(0).into_iter().collect(),
            Self::Layers if id < layer => Vec::new(),
            Self::Layers => {
                let before = id - id % layer - layer;
                let mut two = vec![before + id % layer, before + (id + 1) % layer];
                two.dedup();
                two
            }
        }
    }
}

/// One estate and its plan.
pub struct Estate {
    pub plan: String,
    pub names: Vec<String>,
    shape: Shape,
}

impl Estate {
    /// Creates the namespaces, and waits until everything runs.
    pub async fn lay_down(admin: &Client, shape: Shape, size: usize) -> Result<Self> {
        let plan = format!("{shape:?}-{size}").to_lowercase();
        let names: Vec<String> = (0..size).map(|id| format!("{plan}-{id}")).collect();
        let namespace =
            |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        apply_all(admin, rights(&names, &plan)).await?;
        apply_all(admin, names.iter().map(|name| namespace(name))).await?;
        apply_all(admin, names.iter().map(|name| deployment(name))).await?;
        for name in &names {
            let deployments = kind(admin, "apps/v1", "Deployment", Some(name));
            let up = |object: &Value| field(object, "/status/readyReplicas") == 1;
            eventually(&deployments, "web", &format!("{name}/web"), DEADLINE, up).await?;
        }
        Ok(Self { plan, names, shape })
    }

    /// Isolates all of it, and waits until it is sealed.
    pub async fn isolate(&self, admin: &Client) -> Result<()> {
        let quarantine = |name: &String| {
            json!({"apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": name},
                   "spec": {"isolation": "Sealed", "reason": "a benchmark"}})
        };
        apply_all(admin, self.names.iter().map(quarantine)).await?;
        let quarantines = kind(admin, "resurgam.dev/v1alpha1", "Quarantine", None);
        for name in &self.names {
            // Fake nodes have no network that could be tried.
            let sealed = |q: &Value| {
                field(q, "/status/isolation") == "Sealed" && rehearsal::condition(q, "Ready") == "True"
            };
            eventually(&quarantines, name, &format!("{name} to be sealed"), DEADLINE, sealed).await?;
        }
        Ok(())
    }

    /// The plan, which is armed as it is applied.
    pub fn plan(&self) -> Value {
        let name = |id: usize| format!("s{id}");
        let services: Vec<Value> = (0..self.names.len())
            .map(|id| {
                let needs: Vec<String> =
                    self.shape.dependencies(id, self.names.len()).into_iter().map(name).collect();
                json!({"name": name(id), "namespaces": [self.names[id]], "dependsOn": needs})
            })
            .collect();
        json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "RecoveryPlan",
            "metadata": {"name": self.plan, "namespace": RECOVERY},
            "spec": {
                "incidentRef": {"name": INCIDENT}, "serviceAccountName": RECOVERY, "maxParallel": 64,
                "defaults": {"gates": {
                    "beforeRestore": [{"name": "images", "imageDigests": {"approved": [DIGEST]}}],
                    "beforeRelease": [{"name": "up", "workloads": {}}],
                    "continuous": [{"name": "runs", "workloads": {}}],
                }},
                "services": services,
            },
        })
    }
}

/// What is there before the day: the plan's namespace, account and rights, and the Incident.
fn rights(names: &[String], plan: &str) -> impl Iterator<Item = Value> {
    let rbac = "rbac.authorization.k8s.io";
    let role = format!("recover-{plan}");
    let subject = json!([{"kind": "ServiceAccount", "name": RECOVERY, "namespace": RECOVERY}]);
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RECOVERY}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": RECOVERY, "namespace": RECOVERY}}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "act-as", "namespace": RECOVERY},
               "rules": [{"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": [RECOVERY], "verbs": ["impersonate"]}]}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "act-as", "namespace": RECOVERY},
               "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "act-as"},
               "subjects": [{"kind": "ServiceAccount", "name": "resurgam", "namespace": "resurgam-system"}]}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": role}, "rules": [
            {"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": names, "verbs": ["recover"]},
            {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "replicasets", "daemonsets"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": [""], "resources": ["replicationcontrollers", "pods"], "verbs": ["get", "list", "watch", "patch"]},
        ]}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": role},
               "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role}, "subjects": subject}),
        json!({"apiVersion": "resurgam.dev/v1alpha1", "kind": "Incident", "metadata": {"name": INCIDENT},
               "spec": {"title": "A benchmark", "compromisedSince": Timestamp::UNIX_EPOCH.to_string()}}),
    ]
    .into_iter()
}

fn deployment(namespace: &str) -> Value {
    let labels = json!({"app": "web"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": format!("registry.example/web@{DIGEST}")}],
            },
        }},
    })
}

/// Applies objects, some at a time.
pub async fn apply_all(admin: &Client, objects: impl Iterator<Item = Value>) -> Result<()> {
    let objects: Vec<Value> = objects.collect();
    // What others are in comes first.
    let (first, rest): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| object["kind"] == "Namespace");
    for part in [first, rest] {
        let one = async |object: Value| {
            let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
            let api = kind(admin, text("/apiVersion"), text("/kind"), namespace);
            let params = PatchParams::apply("bench").force();
            api.patch(text("/metadata/name"), &params, &Patch::Apply(&object)).await?;
            anyhow::Ok(())
        };
        stream::iter(part).map(one).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    }
    Ok(())
}
