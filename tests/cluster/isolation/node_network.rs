//! Pods on the network of their node: no NetworkPolicy cuts them off, so nobody is told that they were.

use control_plane::Identity;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use resurgam::api::quarantine::ControlName;
use resurgam::api::{Isolation, Quarantine, QuarantineLevel, conditions};
use serde_json::json;

use crate::isolation::support::{apply, client, controller, isolate, namespace, object, ready, until};
use crate::isolation::{api, live};

const AGENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: agent, namespace: rooted}
spec:
  replicas: 1
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      containers: [{name: main, image: registry.example/agent}]
";

#[tokio::test]
async fn host_network_pod_is_reported_until_sealing_stops_it() {
    let _running = controller().await;
    let tenant = namespace("rooted").await;
    apply(&client(Identity::PlatformAdministrator).await, AGENT).await;
    let agents: Api<Deployment> = api(&tenant, "rooted");
    let runs = |d: &Deployment| d.status.as_ref().and_then(|s| s.available_replicas) == Some(1);
    object(agents, "agent", "available", runs).await;
    let pods = live(&tenant, "rooted").await;

    isolate("rooted", QuarantineLevel::Contained).await;
    let told = until("rooted", "not Ready for its network", |q| {
        let all = q.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        conditions::find(all, conditions::READY)
            .is_some_and(|ready| ready.status == "False" && ready.reason == conditions::HOST_NETWORK_PODS)
    })
    .await;
    let network = |q: &Quarantine| {
        let controls = q.status.clone().unwrap().controls;
        controls.into_iter().find(|control| control.name == ControlName::Network).unwrap()
    };
    assert!(network(&told).message.contains(&pods[0]), "{:?} {pods:?}", network(&told));

    let quarantines: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let sealed = Patch::Merge(json!({"spec": {"isolation": "Sealed"}}));
    quarantines.patch("rooted", &PatchParams::default(), &sealed).await.unwrap();
    let sealed = ready("rooted", Isolation::Sealed).await;
    assert!(!network(&sealed).message.contains("node"), "{:?}", network(&sealed));
    assert_eq!(live(&tenant, "rooted").await, [""; 0]);
}
