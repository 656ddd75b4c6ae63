//! Estates of whatever objects a test describes, running before they are isolated.

use rehearsal::{eventually, field, kind, text};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, KINDS, binding, role};

/// A small estate of any objects.
pub struct Estate {
    pub bench: Bench,
}

/// A pod template of one approved container.
pub fn template(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": format!("registry.example/web:1@{DIGEST}")}]},
    })
}

/// A workload of the kind, with so many replicas.
pub fn workload(kind: &str, name: &str, replicas: i32) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)},
    });
    match kind {
        "StatefulSet" => object["spec"]["serviceName"] = json!(name),
        "DaemonSet" => drop(object["spec"].as_object_mut().unwrap().remove("replicas")),
        "ReplicationController" => {
            object["apiVersion"] = json!("v1");
            object["spec"]["selector"] = json!({"app": name});
        }
        _ => {}
    }
    object
}

impl Estate {
    /// Lays services down, `objects` in the namespace of each, and isolates nothing. The plan's account may patch every workload.
    pub async fn open(case: &'static str, services: &[(&str, Vec<Value>)]) -> Self {
        let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
        let bench = Bench::open(case, &names, |manifests| {
            manifests.retain(|object| object["kind"] != "Deployment");
            let restore = format!("{case}-all");
            let rules = json!([
                {"apiGroups": ["", "apps", "batch"], "resources": ["replicationcontrollers", "deployments", "statefulsets", "daemonsets", "replicasets", "cronjobs", "jobs"], "verbs": ["get", "list", "patch"]},
            ]);
            manifests.push(role("ClusterRole", &restore, "", &rules));
            let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": case}]);
            for (name, objects) in services {
                let namespace = format!("{case}-{name}");
                manifests.push(binding("ClusterRole", &restore, &namespace, &account));
                for object in objects {
                    let mut object = object.clone();
                    object["metadata"]["namespace"] = json!(namespace);
                    manifests.push(object);
                }
            }
        })
        .await;
        Self { bench }
    }

    /// Waits until a workload of a service has so many ready replicas.
    pub async fn is_ready(&self, service: &str, of: &str, name: &str, replicas: i64) {
        let version = if of == "ReplicationController" { "v1" } else { "apps/v1" };
        let api = kind(&self.bench.admin, version, of, Some(&self.bench.namespace(service)));
        let ready = |object: &Value| {
            let field = if of == "DaemonSet" { "numberReady" } else { "readyReplicas" };
            object["status"][field].as_i64().unwrap_or(0) == replicas
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        };
        let what = format!("{replicas} replicas of {of} {service}/{name} to be ready");
        eventually(&api, name, &what, rehearsal::DEADLINE, ready).await.unwrap();
    }

    /// Returns an object of a service.
    pub async fn object(&self, service: &str, version: &str, of: &str, name: &str) -> Value {
        let api = kind(&self.bench.admin, version, of, Some(&self.bench.namespace(service)));
        rehearsal::object(&api, name).await.unwrap()
    }

    /// Returns the specified replicas of a workload of `apps/v1`.
    pub async fn replicas(&self, service: &str, of: &str, name: &str) -> i64 {
        field(&self.object(service, "apps/v1", of, name).await, "/spec/replicas").as_i64().unwrap()
    }

    /// A plan whose gates check images before restore, and images and workloads before release and after it.
    pub fn plan(&self, services: Value) -> Value {
        let mut plan = self.bench.plan("plan", services);
        let images = json!({"name": "images", "imageDigests": {"approvedFrom": {"configMap": {"name": "approved-images"}}}, "interval": "500ms", "failureLimit": 1});
        let up = json!({"name": "up", "workloads": {}, "interval": "500ms", "failureLimit": 1});
        plan["spec"]["defaults"]["gates"] =
            json!({"beforeRestore": [images], "beforeRelease": [up, images], "continuous": [up]});
        plan
    }

    /// Waits until a service is recovered and healthy, and returns its ServiceRecovery.
    pub async fn recovers(&self, service: &str) -> Value {
        self.bench.recovers("plan", service).await
    }

    /// Waits until a person is asked about a service, for this reason, and returns its ServiceRecovery.
    pub async fn asks(&self, service: &str, reason: &str) -> Value {
        let records = kind(&self.bench.admin, KINDS, "ServiceRecovery", Some(self.bench.case));
        let asks = |object: &Value| text(object, "/status/decision/reason") == reason;
        let what = format!("{service} to ask about {reason}");
        eventually(&records, &format!("plan.{service}"), &what, rehearsal::DEADLINE, asks).await.unwrap()
    }
}

/// Returns the exceptions of a ServiceRecovery, joined.
pub fn exceptions(record: &Value) -> String {
    let all = field(record, "/status/exceptions").as_array();
    all.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}
