//! What comes back by itself: autoscalers, schedules, controllers, operators, GitOps.

use control_plane::Identity;
use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use kube::api::{Patch, PatchParams};
use rehearsal::{DEADLINE, eventually, kind};
use resurgam::isolation::policies::FENCES;
use serde_json::{Value, json};

use crate::attack::attempt::{Ask, Attack, FENCE, Outcome, attack, implant, make};
use crate::attack::rig::{isolate, shared_stage};
use crate::attack::who::acting;

/// The attacks on one namespace. `pod`: one that is in it.
pub fn attacks(namespace: &str, pod: &str) -> Vec<Attack> {
    let at = |version: &str, rest: &str| {
        format!("{}/namespaces/{namespace}/{rest}", crate::attack::served::root(version))
    };
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

/// The message of a condition.
fn told(object: &Value, type_: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.map(|condition| condition["message"].to_string()).unwrap_or_default()
}

/// Of the two fences that refuse a write, the API server names either.
fn names_a_fence(message: &str) -> bool {
    FENCES.iter().any(|fence| message.contains(fence))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_controllers_that_want_more_pods_get_none() {
    let stage = shared_stage(1).await;
    let cluster = &stage.rig.cluster;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let name = "attack-wanting";
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": name}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": implant()}}});
    let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": name},
        "spec": {"minReplicas": 2, "maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    let once =
        json!({"template": {"spec": {"restartPolicy": "Never", "containers": implant()["containers"]}}});
    let payroll = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "payroll", "namespace": name},
        "spec": {"schedule": "0 * * * *", "suspend": true, "jobTemplate": {"spec": once}}});
    rehearsal::apply(&admin, "platform", &[namespace, web, hpa, payroll]).await.unwrap();
    // It has missed a run by now: resumed, it starts that at once.
    let crons = kind(&admin, "batch/v1", "CronJob", Some(name));
    let earlier = Timestamp::now() - SignedDuration::from_hours(2);
    let last = Patch::Merge(
        json!({"status": {"lastScheduleTime": earlier.round(Unit::Second).unwrap().to_string()}}),
    );
    crons.patch_status("payroll", &PatchParams::default(), &last).await.unwrap();
    let deployments = kind(&admin, "apps/v1", "Deployment", Some(name));
    let up = |o: &Value| o["status"]["readyReplicas"] == 2;
    eventually(&deployments, "web", "web to run", DEADLINE, up).await.unwrap();
    isolate(cluster, name, "Contained").await.unwrap();
    rehearsal::three_boroughs::isolated(cluster, name).await.unwrap();

    // A pod ends, as on a node that is shut down. It is not replaced.
    let pods = kind(&admin, "v1", "Pod", Some(name));
    let first = pods.list(&Default::default()).await.unwrap().items.remove(0);
    let (first, set) =
        (first.metadata.name.unwrap(), first.metadata.owner_references.unwrap().remove(0).name);
    let node = acting(&admin, "system:node:node-1", &["system:nodes", "system:authenticated"], false);
    let gone = attack("delete a pod", format!("/api/v1/namespaces/{name}/pods/{first}"), Ask::Delete, FENCE);
    assert!(matches!(make(&node, &gone, false).await, Outcome::Through));
    let sets = kind(&admin, "apps/v1", "ReplicaSet", Some(name));
    let refused = |o: &Value| names_a_fence(&told(o, "ReplicaFailure"));
    eventually(&sets, &set, "the ReplicaSet to be refused a pod", DEADLINE, refused).await.unwrap();

    // Fewer than its least: without a look at any metric the autoscaler wants two.
    let lead = stage.client(Identity::RecoveryLead).await;
    let down = Patch::Merge(json!({"spec": {"replicas": 1}}));
    let theirs = kind(&lead, "apps/v1", "Deployment", Some(name));
    theirs.patch("web", &PatchParams::default(), &down).await.unwrap();
    let scalers = kind(&admin, "autoscaling/v2", "HorizontalPodAutoscaler", Some(name));
    let refused = |o: &Value| names_a_fence(&told(o, "AbleToScale"));
    eventually(&scalers, "web", "the autoscaler to be refused", DEADLINE, refused).await.unwrap();

    let resumed = Patch::Merge(json!({"spec": {"suspend": false}}));
    let theirs = kind(&lead, "batch/v1", "CronJob", Some(name));
    theirs.patch("payroll", &PatchParams::default(), &resumed).await.unwrap();
    let told_so = async {
        loop {
            let events = crate::attack::served::get(&admin, &format!("/api/v1/namespaces/{name}/events"))
                .await
                .unwrap();
            let refused = |e: &Value| {
                e["involvedObject"]["name"] == "payroll" && names_a_fence(&e["message"].to_string())
            };
            if events["items"].as_array().unwrap().iter().any(refused) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, told_so).await.expect("the CronJob to be refused its missed run");
    let jobs = kind(&admin, "batch/v1", "Job", Some(name));
    assert_eq!(jobs.list(&Default::default()).await.unwrap().items.len(), 0);

    let web = deployments.get("web").await.unwrap();
    assert_eq!(web.data["spec"]["replicas"], 1);
    assert_eq!(pods.list(&Default::default()).await.unwrap().items.len(), 1);
}
