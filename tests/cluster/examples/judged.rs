//! The judge on a real audit log. A person plays the operator here, and then breaks each rule, which no fence forbids.

use std::time::Duration;

use control_plane::{ControlPlane, Identity};
use judge::{Options, Report, Rule, judge_files};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rehearsal::await_condition;
use resurgam::api::{ISOLATION_LABEL, ServiceRecovery, service_recovery_name};
use serde_json::json;

use crate::examples::cluster::DEADLINE;
use crate::examples::manifests::folder;

async fn label(client: &Client, namespace: &str, isolation: Option<&str>) {
    let api: Api<Namespace> = Api::all(client.clone());
    let change = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: isolation}}}));
    api.patch(namespace, &PatchParams::default(), &change).await.unwrap();
}

/// Writes what the operator would: the stage, and whether the service is Recovered and Healthy.
async fn write_status(client: &Client, service: &str, stage: &str, recovered: bool, healthy: bool) {
    let api: Api<ServiceRecovery> = Api::namespaced(client.clone(), "recovery");
    let name = service_recovery_name("library", service);
    let spec =
        json!({"planRef": {"name": "library", "uid": "x"}, "service": service, "namespaces": [service]});
    let object = json!({"apiVersion": "resurgam.dev/v1alpha1", "kind": "ServiceRecovery",
        "metadata": {"name": name}, "spec": spec});
    if api.get_opt(&name).await.unwrap().is_none() {
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }
    let condition = |type_: &str, holds: bool| Condition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: "Test".to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::now()),
    };
    let conditions = [condition("Recovered", recovered), condition("Healthy", healthy)];
    let change = Patch::Merge(json!({"status": {"stage": stage, "conditions": conditions}}));
    api.patch_status(&name, &PatchParams::default(), &change).await.unwrap();
}

/// Deletes the database's pod, and waits until its controller has made another.
async fn replace_pod(client: &Client) {
    let api: Api<Pod> = Api::namespaced(client.clone(), "library-db");
    let uid = api.get("postgres-0").await.unwrap().uid().unwrap();
    api.delete("postgres-0", &DeleteParams::default().grace_period(0)).await.unwrap();
    let another = await_condition(api, "postgres-0", |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.uid().is_some_and(|found| found != uid))
    });
    tokio::time::timeout(DEADLINE, another).await.unwrap().unwrap();
}

fn judge(cluster: &ControlPlane) -> Report {
    let options = Options { fence_lag: Duration::ZERO, ..Options::default() };
    judge_files(cluster.audit_log(), &folder().join("smallest.yaml"), &options).unwrap()
}

pub async fn check(cluster: &ControlPlane, client: &Client) {
    for namespace in ["library-db", "library-web"] {
        label(client, namespace, Some("sealed")).await;
    }
    for service in ["library-db", "library-web"] {
        write_status(client, service, "PreChecks", false, false).await;
        label(client, service, Some("clean-room")).await;
        if service == "library-db" {
            replace_pod(client).await;
        }
        label(client, service, None).await;
        write_status(client, service, "Recovered", true, true).await;
    }
    let report = judge(cluster);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.loosenings, report.pods, report.figures.recovered), (4, 1, 2), "{report}");
    assert_eq!(report.figures.critical_path, ["library-db", "library-web"]);
    assert!(report.figures.ratio >= 1.0, "{report}");
    assert_eq!(report.figures.edges, 1);

    label(client, "library-db", Some("sealed")).await;
    replace_pod(client).await;
    write_status(client, "library-db", "Recovered", true, false).await;
    label(client, "library-web", Some("sealed")).await;
    let gitops = cluster.client(Identity::GitOps).await.unwrap();
    label(&gitops, "library-web", Some("clean-room")).await;
    let report = judge(cluster);
    let mut rules: Vec<Rule> = report.violations.iter().map(|violation| violation.rule).collect();
    // On a busy machine the pod's controller makes it more than once.
    rules.dedup();
    assert_eq!(rules, [Rule::Pods, Rule::Opener, Rule::Order], "{report}");
}
