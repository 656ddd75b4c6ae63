//! What comes back by itself: autoscalers, schedules, controllers, operators, GitOps.

use serde_json::{Value, json};

use crate::attack::{Ask, Attack, FENCE, attack, implant};

/// The attacks on one namespace. `pod`: one that is in it.
pub fn attacks(namespace: &str, pod: &str) -> Vec<Attack> {
    let at =
        |version: &str, rest: &str| format!("{}/namespaces/{namespace}/{rest}", crate::served::root(version));
    let core = |rest: &str| at("v1", rest);
    let apps = |rest: &str| at("apps/v1", rest);
    let batch = |rest: &str| at("batch/v1", rest);
    let up = || json!({"spec": {"replicas": 3}});
    let labels = json!({"app": "implant"});
    let template = json!({"metadata": {"labels": labels}, "spec": implant()});
    let workload = |version: &str, kind: &str, spec: Value| {
        Ask::Create(
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": "attack-new"}, "spec": spec}),
        )
    };
    let selected = || json!({"replicas": 1, "selector": {"matchLabels": labels}, "template": template});
    let once = || {
        let mut once = implant();
        once["restartPolicy"] = json!("Never");
        json!({"template": {"spec": once}})
    };
    let gitops = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}, "spec": {"suspend": false}});
    let pod_named =
        |meta: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": implant()});
    let adopting = json!({"replicas": 1, "selector": {"matchLabels": {"app": "lone"}},
        "template": {"metadata": {"labels": {"app": "lone"}}, "spec": implant()}});
    let hpa = json!({"maxReplicas": 9, "minReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
    let named = |name: &str, path, ask| attack(name, path, ask, FENCE);
    vec![
        named("scale a Deployment by a patch", apps("deployments/web"), Ask::Merge(up())),
        named("scale a Deployment by /scale", apps("deployments/web/scale"), Ask::Merge(up())),
        named("scale a Deployment by replacing /scale", apps("deployments/web/scale"), Ask::Replace(up())),
        named(
            "restart a Deployment",
            apps("deployments/web"),
            Ask::Merge(
                json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}}),
            ),
        ),
        named(
            "change a Deployment's image",
            apps("deployments/web"),
            Ask::Json(
                json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "registry.example/implant"}]),
            ),
        ),
        named("scale a StatefulSet by a patch", apps("statefulsets/db"), Ask::Merge(up())),
        named("scale a StatefulSet by /scale", apps("statefulsets/db/scale"), Ask::Merge(up())),
        named("scale an orphan ReplicaSet", apps("replicasets/lone"), Ask::Merge(up())),
        named("scale an orphan ReplicaSet by /scale", apps("replicasets/lone/scale"), Ask::Merge(up())),
        named("scale a ReplicationController", core("replicationcontrollers/old/scale"), Ask::Merge(up())),
        named(
            "let a DaemonSet run anywhere",
            apps("daemonsets/agent"),
            Ask::Merge(json!({"spec": {"template": {"spec": {"nodeSelector": null}}}})),
        ),
        named("resume a CronJob", batch("cronjobs/nightly"), Ask::Merge(json!({"spec": {"suspend": false}}))),
        named(
            "let a CronJob run every minute",
            batch("cronjobs/nightly"),
            Ask::Merge(json!({"spec": {"schedule": "* * * * *"}})),
        ),
        named("resume a Job", batch("jobs/import"), Ask::Merge(json!({"spec": {"suspend": false}}))),
        named("create a new Job, as a CronJob does", batch("jobs"), workload("batch/v1", "Job", once())),
        named(
            "create a new CronJob",
            batch("cronjobs"),
            workload(
                "batch/v1",
                "CronJob",
                json!({"schedule": "* * * * *", "jobTemplate": {"spec": once()}}),
            ),
        ),
        named("create a new bare pod", core("pods"), Ask::Create(pod_named(json!({"name": "attack-new"})))),
        named(
            "create a new pod of a generated name",
            core("pods"),
            Ask::Create(pod_named(json!({"generateName": "web-"}))),
        ),
        named(
            "apply a new pod",
            core("pods/attack-new"),
            Ask::Apply(pod_named(json!({"name": "attack-new"}))),
        ),
        named("create a new Deployment", apps("deployments"), workload("apps/v1", "Deployment", selected())),
        named(
            "create a new ReplicaSet that adopts pods",
            apps("replicasets"),
            workload("apps/v1", "ReplicaSet", adopting),
        ),
        named(
            "create a new DaemonSet",
            apps("daemonsets"),
            workload(
                "apps/v1",
                "DaemonSet",
                json!({"selector": {"matchLabels": labels}, "template": template}),
            ),
        ),
        named(
            "create a new StatefulSet",
            apps("statefulsets"),
            workload(
                "apps/v1",
                "StatefulSet",
                json!({"replicas": 1, "serviceName": "x", "selector": {"matchLabels": labels}, "template": template}),
            ),
        ),
        named(
            "create a new HorizontalPodAutoscaler",
            at("autoscaling/v2", "horizontalpodautoscalers"),
            workload("autoscaling/v2", "HorizontalPodAutoscaler", hpa),
        ),
        named(
            "let a HorizontalPodAutoscaler want more",
            at("autoscaling/v2", "horizontalpodautoscalers/web"),
            Ask::Merge(json!({"spec": {"minReplicas": 5, "maxReplicas": 9}})),
        ),
        named(
            "let KEDA want more",
            at("keda.sh/v1alpha1", "scaledobjects/web"),
            Ask::Merge(json!({"spec": {"minReplicaCount": 5}})),
        ),
        named("ask an operator for more", at("db.example/v1", "databases/main"), Ask::Merge(up())),
        named(
            "ask an operator for more by /scale",
            at("db.example/v1", "databases/main/scale"),
            Ask::Merge(up()),
        ),
        named(
            "create a new custom resource",
            at("db.example/v1", "databases"),
            Ask::Create(
                json!({"apiVersion": "db.example/v1", "kind": "Database", "metadata": {"name": "attack-new"}}),
            ),
        ),
        named(
            "resume a Flux Kustomization",
            at("kustomize.toolkit.fluxcd.io/v1", "kustomizations/apps"),
            Ask::Merge(gitops.clone()),
        ),
        named(
            "resume a Flux HelmRelease",
            at("helm.toolkit.fluxcd.io/v2", "helmreleases/apps"),
            Ask::Merge(gitops),
        ),
        named(
            "sync an Argo CD Application",
            at("argoproj.io/v1alpha1", "applications/apps"),
            Ask::Merge(json!({"operation": {"sync": {"prune": true}}})),
        ),
        named("delete a pod, so that it starts anew", core(&format!("pods/{pod}")), Ask::Delete),
        named("delete all pods", core("pods"), Ask::DeleteAll),
        named("delete all Deployments", apps("deployments"), Ask::DeleteAll),
    ]
}
