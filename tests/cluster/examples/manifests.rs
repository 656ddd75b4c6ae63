//! Reads the manifests in `examples/`, strictly: what a type does not know is an error, where kubectl would only warn.

use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Pod, PodSpec, PodTemplateSpec, ReplicationController, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use resurgam::api::{Incident, Quarantine, RecoveryPlan};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Kinds that run pods, as the examples' README promises them.
pub const WORKLOADS: [&str; 8] = [
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "CronJob",
    "Job",
    "ReplicaSet",
    "ReplicationController",
    "Pod",
];
/// Those of them that a `scale` step can start.
pub const SCALABLE: [&str; 5] =
    ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"];

/// One document of a file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file, relative to `examples/`.
    pub file: String,
    /// As written.
    pub value: Value,
}

impl Manifest {
    pub fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    pub fn parse<T: DeserializeOwned>(&self) -> T {
        serde_json::from_value(self.value.clone()).unwrap_or_else(|error| panic!("{self}: {error}"))
    }

    /// The pod that it runs, and how many of it on a cluster with two nodes.
    pub fn pods(&self) -> Option<(PodSpec, i64)> {
        let template = |template: Option<PodTemplateSpec>| template.and_then(|t| t.spec).unwrap_or_default();
        let replicas = self.value.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        Some(match self.kind() {
            "Deployment" => (template(self.parse::<Deployment>().spec.map(|s| s.template)), replicas),
            "StatefulSet" => (template(self.parse::<StatefulSet>().spec.map(|s| s.template)), replicas),
            "ReplicaSet" => (template(self.parse::<ReplicaSet>().spec.and_then(|s| s.template)), replicas),
            "ReplicationController" => {
                (template(self.parse::<ReplicationController>().spec.and_then(|s| s.template)), replicas)
            }
            "DaemonSet" => (template(self.parse::<DaemonSet>().spec.map(|s| s.template)), 2),
            "Job" => (template(self.parse::<Job>().spec.map(|s| s.template)), 1),
            "CronJob" => {
                let job = self.parse::<CronJob>().spec.and_then(|s| s.job_template.spec);
                (template(job.map(|s| s.template)), 0)
            }
            "Pod" => (self.parse::<Pod>().spec.unwrap_or_default(), 1),
            _ => return None,
        })
    }

    /// All its images, init containers' included.
    pub fn images(&self) -> Vec<String> {
        let Some((pod, _)) = self.pods() else { return Vec::new() };
        let containers = pod.init_containers.into_iter().flatten().chain(pod.containers);
        containers.map(|c| c.image.unwrap_or_default()).collect()
    }

    /// Reads it into its type and fails where something written is not found again in what was read.
    pub fn check(&self) {
        let (api, kind) = (self.text("/apiVersion"), self.kind());
        let read = match (api, kind) {
            ("v1", "Namespace") => self.reread::<Namespace>(),
            ("v1", "Service") => self.reread::<Service>(),
            ("v1", "ServiceAccount") => self.reread::<ServiceAccount>(),
            ("v1", "ConfigMap") => self.reread::<ConfigMap>(),
            ("v1", "Pod") => self.reread::<Pod>(),
            ("v1", "ReplicationController") => self.reread::<ReplicationController>(),
            ("apps/v1", "Deployment") => self.reread::<Deployment>(),
            ("apps/v1", "StatefulSet") => self.reread::<StatefulSet>(),
            ("apps/v1", "DaemonSet") => self.reread::<DaemonSet>(),
            ("apps/v1", "ReplicaSet") => self.reread::<ReplicaSet>(),
            ("batch/v1", "Job") => self.reread::<Job>(),
            ("batch/v1", "CronJob") => self.reread::<CronJob>(),
            ("autoscaling/v2", "HorizontalPodAutoscaler") => self.reread::<HorizontalPodAutoscaler>(),
            ("networking.k8s.io/v1", "NetworkPolicy") => self.reread::<NetworkPolicy>(),
            ("rbac.authorization.k8s.io/v1", "Role") => self.reread::<Role>(),
            ("rbac.authorization.k8s.io/v1", "RoleBinding") => self.reread::<RoleBinding>(),
            ("rbac.authorization.k8s.io/v1", "ClusterRole") => self.reread::<ClusterRole>(),
            ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => self.reread::<ClusterRoleBinding>(),
            ("resurgam.dev/v1alpha1", "Incident") => self.reread::<Incident>(),
            ("resurgam.dev/v1alpha1", "Quarantine") => self.reread::<Quarantine>(),
            ("resurgam.dev/v1alpha1", "RecoveryPlan") => self.reread::<RecoveryPlan>(),
            _ => panic!("{self}: no type is known for {api} {kind}"),
        };
        if let Some(path) = lost(&self.value, &read) {
            panic!("{self}: nothing is known of {path}");
        }
    }

    fn reread<T: DeserializeOwned + Serialize>(&self) -> Value {
        serde_json::to_value(self.parse::<T>()).unwrap()
    }
}

impl std::fmt::Display for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}/{}", self.file, self.kind(), self.namespace(), self.name())
    }
}

/// The path of the first thing that is in `written` and not, or otherwise, in `read`.
pub fn lost(written: &Value, read: &Value) -> Option<String> {
    match (written, read) {
        (Value::Object(a), Value::Object(b)) => a.iter().find_map(|(key, value)| match b.get(key) {
            Some(found) => lost(value, found).map(|path| format!("/{key}{path}")),
            None => Some(format!("/{key}")),
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(index, (value, found))| lost(value, found).map(|path| format!("/{index}{path}"))),
        _ => (written != read).then(String::new),
    }
}

/// The folder `examples/`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// All documents of a file, or of a folder's files in the order of their names.
pub fn read(path: &str) -> Vec<Manifest> {
    let full = folder().join(path);
    if full.is_dir() {
        let mut names: Vec<String> = std::fs::read_dir(&full)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml"))
            .collect();
        names.sort();
        assert!(!names.is_empty(), "{path} is empty");
        return names.iter().flat_map(|name| read(&format!("{path}/{name}"))).collect();
    }
    let text = std::fs::read_to_string(&full).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| {
            let value = serde::Deserialize::deserialize(document).unwrap_or_else(|e| panic!("{path}: {e}"));
            Manifest { file: path.to_owned(), value }
        })
        .collect()
}

/// Every file of the example, in the order in which its README applies them, the tampered variant and repairs aside.
pub fn three_boroughs() -> Vec<Manifest> {
    [
        "namespaces.yaml",
        "estate",
        "access.yaml",
        "people.yaml",
        "approved-images.yaml",
        "payroll-baseline.yaml",
        "quarantines.yaml",
        "incident.yaml",
        "plan.yaml",
    ]
    .iter()
    .flat_map(|file| read(&format!("three-boroughs/{file}")))
    .collect()
}

/// The smallest example, in the order in which its comment says to apply it.
pub fn smallest() -> Vec<Manifest> {
    ["", "-access", "-incident"].iter().flat_map(|part| read(&format!("smallest{part}.yaml"))).collect()
}

/// The one plan among some manifests.
pub fn plan(manifests: &[Manifest]) -> RecoveryPlan {
    let plans: Vec<&Manifest> = manifests.iter().filter(|m| m.kind() == "RecoveryPlan").collect();
    assert_eq!(plans.len(), 1);
    plans[0].parse()
}
