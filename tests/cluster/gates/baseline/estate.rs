//! The estate that is captured.

use serde_json::{Value, json};

use crate::gates::GOOD;

/// The service's namespace.
pub const SHOP: &str = "baseline-shop";
/// Somebody else's.
pub const OTHER: &str = "baseline-other";
/// What no answer, inventory or report may contain.
pub const CANARY: &str = "canary-hunter2";

fn object(version: &str, kind: &str, name: &str, body: Value) -> Value {
    let mut object =
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": SHOP}});
    object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    object
}

fn template(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "serviceAccountName": "web",
            "containers": [{
                "name": "main", "image": format!("registry.example/web:1@{GOOD}"), "command": ["serve"], "args": ["--port=80"],
                "env": [{"name": "MODE", "value": "live"}],
                "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
            }],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}],
        },
    })
}

fn workload(kind: &str, name: &str) -> Value {
    let selector = json!({"matchLabels": {"app": name}});
    let mut object = object(
        "apps/v1",
        kind,
        name,
        json!({"spec": {"replicas": 1, "selector": selector, "template": template(name)}}),
    );
    match kind {
        "StatefulSet" => {
            object["spec"]["serviceName"] = json!("db");
            // No pod waits for the one before it, which has no volume.
            object["spec"]["podManagementPolicy"] = json!("Parallel");
            object["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
        }
        "DaemonSet" => drop(object["spec"].as_object_mut().unwrap().remove("replicas")),
        _ => {}
    }
    object
}

/// Everything: the plan's namespace, the service's and somebody else's.
pub fn objects() -> Vec<Value> {
    let namespace = |name: &str| {
        // No controller approves or removes this label.
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})
    };
    let key = |byte: u8, length: usize| k8s_openapi::ByteString(vec![byte; length]);
    let mut job = template("job");
    job["spec"]["restartPolicy"] = json!("Never");
    let rbac = "rbac.authorization.k8s.io";
    let rbac_version = "rbac.authorization.k8s.io/v1";
    let mut all = vec![
        namespace("baseline-plan"),
        namespace(SHOP),
        namespace(OTHER),
        namespace("baseline-scratch"),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "recovery", "namespace": "baseline-plan"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "digest-key", "namespace": "baseline-plan"},
            "data": {"key": key(7, 32), "short": key(7, 31), "wrong": key(8, 32)}}),
    ];
    all.extend([
        workload("Deployment", "web"),
        workload("StatefulSet", "db"),
        workload("DaemonSet", "agent"),
        object("batch/v1", "CronJob", "nightly", json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": job}}}})),
        object("v1", "ConfigMap", "web", json!({"data": {"mode": "live"}})),
        object("v1", "Secret", "password", json!({"type": "Opaque", "stringData": {"password": CANARY}})),
        object("v1", "Service", "web", json!({"spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}})),
        object("v1", "ServiceAccount", "web", json!({"automountServiceAccountToken": true})),
        object(rbac_version, "Role", "web", json!({"rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]})),
        object(
            rbac_version,
            "RoleBinding",
            "web",
            json!({"roleRef": {"apiGroup": rbac, "kind": "Role", "name": "web"},
                "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": SHOP}]}),
        ),
        object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "web",
            json!({"spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}}),
        ),
        object(
            "networking.k8s.io/v1",
            "Ingress",
            "web",
            json!({"spec": {"rules": [{"host": "shop.example", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"name": "http"}}}}]}}]}}),
        ),
        object("policy/v1", "PodDisruptionBudget", "web", json!({"spec": {"minAvailable": 0, "selector": {"matchLabels": {"app": "web"}}}})),
        object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "web",
            json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}),
        ),
        object("v1", "ResourceQuota", "all", json!({"spec": {"hard": {"pods": "50"}}})),
        object("v1", "LimitRange", "defaults", json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "200m"}}]}})),
    ]);
    all
}
