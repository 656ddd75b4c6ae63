//! The shapes of public applications, rewritten small, go through isolation and recovery in one plan, and are as they were.

use std::collections::BTreeMap;

use rehearsal::{field, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::DIGEST;
use crate::inventory::{Inventory, as_before, inventory};
use crate::ordinary::estate::{Estate, exceptions, template, workload};

/// What one application consists of, and the workloads that have to be ready before it is isolated.
type Application = (&'static str, Vec<Value>, Vec<(&'static str, &'static str, i64)>);

fn object(version: &str, kind: &str, name: &str, body: Value) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    object
}

/// A Deployment of which something is changed.
fn deployment(name: &str, replicas: i32, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = workload("Deployment", name, replicas);
    change(&mut object);
    object
}

fn job(version_of: &str, name: &str) -> Value {
    let mut template = template(name);
    template["spec"]["restartPolicy"] = json!("Never");
    match version_of {
        "CronJob" => object(
            "batch/v1",
            "CronJob",
            name,
            json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}}),
        ),
        _ => object("batch/v1", "Job", name, json!({"spec": {"backoffLimit": 0, "template": template}})),
    }
}

fn applications() -> Vec<Application> {
    let image = format!("registry.example/web:1@{DIGEST}");
    let native_sidecar = json!([{"name": "logs", "image": image, "restartPolicy": "Always"}]);
    let requests = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}});
    let scaler = json!({"spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "front"}, "minReplicas": 1, "maxReplicas": 5,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
    }});
    let mut partitioned = workload("StatefulSet", "broker", 2);
    partitioned["spec"]["updateStrategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let mut by_hand = workload("StatefulSet", "store", 1);
    by_hand["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let leader = json!({"rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]});
    let elects = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leader"},
        "subjects": [{"kind": "ServiceAccount", "name": "controller"}],
    });
    vec![
        (
            "mesh",
            vec![deployment("web", 2, |web| {
                web["spec"]["template"]["metadata"]["labels"]["inject"] = json!("yes")
            })],
            vec![("Deployment", "web", 2)],
        ),
        (
            "operator",
            vec![
                deployment("manager", 1, |_| {}),
                object("apps.example.org/v1", "Widget", "one", json!({"spec": {"size": 3}})),
            ],
            vec![("Deployment", "manager", 1)],
        ),
        (
            "scaled",
            vec![
                deployment("front", 3, |_| {}),
                object("autoscaling/v2", "HorizontalPodAutoscaler", "front", scaler),
            ],
            vec![("Deployment", "front", 3)],
        ),
        (
            "quota",
            vec![
                object(
                    "v1",
                    "ResourceQuota",
                    "all",
                    json!({"spec": {"hard": {"pods": "2", "requests.cpu": "1", "count/deployments.apps": "1"}}}),
                ),
                object(
                    "v1",
                    "LimitRange",
                    "defaults",
                    json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "200m"}}]}}),
                ),
                deployment("web", 2, |web| {
                    web["spec"]["template"]["spec"]["containers"][0]["resources"] = requests
                }),
            ],
            vec![("Deployment", "web", 2)],
        ),
        (
            "sidecar",
            vec![deployment("app", 1, |app| {
                app["spec"]["template"]["spec"]["initContainers"] = native_sidecar
            })],
            vec![("Deployment", "app", 1)],
        ),
        (
            "hooks",
            vec![job("Job", "install-hook"), job("CronJob", "nightly"), deployment("web", 1, |_| {})],
            vec![("Deployment", "web", 1)],
        ),
        (
            "stateful",
            vec![partitioned, by_hand],
            vec![("StatefulSet", "broker", 2), ("StatefulSet", "store", 1)],
        ),
        ("paused", vec![deployment("web", 1, |_| {})], vec![("Deployment", "web", 1)]),
        ("nodes", vec![workload("DaemonSet", "agent", 0)], vec![]),
        (
            "legacy",
            vec![workload("ReplicationController", "old", 2)],
            vec![("ReplicationController", "old", 2)],
        ),
        (
            "colours",
            vec![deployment("blue", 2, |_| {}), deployment("green", 0, |_| {})],
            vec![("Deployment", "blue", 2)],
        ),
        (
            "leader",
            vec![
                object("v1", "ServiceAccount", "controller", json!({})),
                object("rbac.authorization.k8s.io/v1", "Role", "leader", leader),
                object("rbac.authorization.k8s.io/v1", "RoleBinding", "leader", elects),
                deployment("controller", 2, |of| {
                    of["spec"]["template"]["spec"]["serviceAccountName"] = json!("controller")
                }),
                object(
                    "coordination.k8s.io/v1",
                    "Lease",
                    "controller",
                    json!({"spec": {"holderIdentity": "controller-0"}}),
                ),
            ],
            vec![("Deployment", "controller", 2)],
        ),
    ]
}

/// A kind whose operator is among the applications, with a webhook that answers only while that runs; and what injects a sidecar.
fn cluster_wide() -> Vec<Value> {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let kind = json!({"spec": {
        "group": "apps.example.org", "scope": "Namespaced",
        "names": {"kind": "Widget", "listKind": "WidgetList", "plural": "widgets", "singular": "widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": any}}],
    }});
    let inject = json!({"spec": {
        "reinvocationPolicy": "Never", "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "objectSelector": {"matchLabels": {"inject": "yes"}}},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
            format!("[JSONPatch{{op: 'add', path: '/spec/containers/-', value: Object.spec.containers{{name: 'proxy', image: 'registry.example/web:1@{DIGEST}'}}}}]")}}],
    }});
    let bound = json!({"spec": {"policyName": "apps-inject",
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "apps-mesh"}}}}});
    vec![
        object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.apps.example.org", kind),
        object("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "apps-inject", inject),
        object("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding", "apps-inject", bound),
    ]
}

#[tokio::test]
async fn twelve_shapes_of_applications_come_back_as_they_were() {
    let admin = crate::bad_input::bench::cluster()
        .await
        .client(control_plane::Identity::PlatformAdministrator)
        .await
        .unwrap();
    rehearsal::apply(&admin, "platform", &cluster_wide()).await.unwrap();
    let kinds = kind(&admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let served = |object: &Value| rehearsal::condition(object, "Established") == "True";
    rehearsal::eventually(&kinds, "widgets.apps.example.org", "the kind", rehearsal::DEADLINE, served)
        .await
        .unwrap();
    let applications = applications();
    let services: Vec<(&str, Vec<Value>)> =
        applications.iter().map(|(name, objects, _)| (*name, objects.clone())).collect();
    let estate = Estate::open("apps", &services).await;
    for (service, _, ready) in &applications {
        for (of, name, replicas) in ready {
            estate.is_ready(service, of, name, *replicas).await;
        }
    }
    // The operator's webhook: from now on it does not answer while the operator is away.
    let hook = json!({"webhooks": [{
        "name": "widgets.apps.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail", "timeoutSeconds": 1,
        "clientConfig": {"service": {"namespace": "apps-operator", "name": "manager", "path": "/validate"}},
        "rules": [{"apiGroups": ["apps.example.org"], "apiVersions": ["v1"], "resources": ["widgets"], "operations": ["*"]}],
    }]});
    let hook =
        object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "apps-operator", hook);
    rehearsal::apply(&admin, "platform", &[hook]).await.unwrap();
    let deployments = kind(&admin, "apps/v1", "Deployment", Some("apps-paused"));
    let paused = kube::api::Patch::Merge(json!({"spec": {"paused": true}}));
    deployments.patch("web", &kube::api::PatchParams::default(), &paused).await.unwrap();
    estate.is_ready("paused", "Deployment", "web", 1).await;
    let jobs = kind(&admin, "batch/v1", "Job", Some("apps-hooks"));
    let complete = |object: &Value| rehearsal::condition(object, "Complete") == "True";
    rehearsal::eventually(&jobs, "install-hook", "the hook", rehearsal::DEADLINE, complete).await.unwrap();
    let sets = kind(&admin, "apps/v1", "DaemonSet", Some("apps-nodes"));
    let runs = |object: &Value| field(object, "/status/numberReady").as_i64().unwrap_or(0) > 0;
    rehearsal::eventually(&sets, "agent", "a pod", rehearsal::DEADLINE, runs).await.unwrap();

    let mut before: BTreeMap<&str, Inventory> = BTreeMap::new();
    for (service, ..) in &applications {
        before.insert(service, inventory(&admin, &estate.bench.namespace(service)).await);
    }
    let agent = estate.object("nodes", "apps/v1", "DaemonSet", "agent").await;
    let names: Vec<&str> = applications.iter().map(|(name, ..)| *name).collect();
    estate.bench.isolate(&names).await;
    let services: Vec<Value> = names
        .iter()
        .map(|name| {
            let mut service = estate.bench.service(name, &[]);
            if *name == "hooks" {
                service["resume"] = json!([{"cronJob": "nightly"}]);
            }
            service
        })
        .collect();
    let plan = estate.plan(json!(services));
    estate.bench.apply(&plan).await;
    for name in &names {
        let record = estate.recovers(name).await;
        assert_eq!(exceptions(&record), "", "{name}");
    }
    for name in names.iter().filter(|name| **name != "nodes") {
        as_before(&admin, &estate.bench.namespace(name), &before[name]).await;
    }
    // Its controller counts revisions: what it is to run is the same.
    let now = estate.object("nodes", "apps/v1", "DaemonSet", "agent").await;
    assert_eq!(field(&agent, "/spec/template/spec"), field(&now, "/spec/template/spec"));
    let pods = kind(&admin, "v1", "Pod", Some("apps-mesh")).list(&Default::default()).await.unwrap();
    let injected =
        pods.items.iter().filter(|pod| serde_json::to_string(pod).unwrap().contains("\"proxy\"")).count();
    assert_eq!(injected, 2, "the sidecar is back");
    estate.bench.judged(&plan).await;
}
