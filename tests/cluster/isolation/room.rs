//! The clean room: what it may talk to.

use control_plane::Identity;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use resurgam::api::quarantine::ControlName;
use resurgam::api::{
    ClusterService, Isolation, QuarantineLevel, RecoveryPlan, ServiceRecovery, field_manager,
};
use resurgam::isolation::network;
use serde_json::{Value, json};

use crate::isolation::api;
use crate::isolation::recovery::{ask, claim, plan};
use crate::isolation::support::{apply, client, controller, isolate, namespace, object, ready, until};

/// A namespace in its clean room, empty, claimed by a plan of its own.
async fn clean_room(name: &str) -> RecoveryPlan {
    namespace(name).await;
    isolate(name, QuarantineLevel::Sealed).await;
    ready(name, Isolation::Sealed).await;
    let plan = plan(name, true).await;
    ask(name, &plan, None, 1).await;
    claim(name, &plan).await;
    ask(name, &plan, Some(Isolation::Sealed), 1).await;
    ready(name, Isolation::Sealed).await;
    ask(name, &plan, Some(Isolation::CleanRoom), 1).await;
    ready(name, Isolation::CleanRoom).await;
    plan
}

/// Says, as the operator, what else the clean room is to talk to.
async fn follow(name: &str, reachable: &[&str], egress: &[ClusterService]) {
    follow_with(name, reachable, &json!({"allowEgress": egress})).await;
}

/// The same, by these fields of the spec.
async fn follow_with(name: &str, reachable: &[&str], fields: &Value) {
    let recoveries: Api<ServiceRecovery> = api(&client(Identity::Operator).await, &format!("{name}-plan"));
    let name = format!("council.{name}");
    let mut recovery = recoveries.get(&name).await.unwrap();
    recovery.metadata.managed_fields = None;
    let mut spec = serde_json::to_value(&recovery.spec).unwrap();
    spec["reachable"] = json!(reachable);
    for (key, value) in fields.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let patch = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "ServiceRecovery",
        "metadata": {"name": name, "resourceVersion": recovery.metadata.resource_version}, "spec": spec,
    });
    let params = PatchParams::apply(field_manager::PLAN).force();
    recoveries.patch(&name, &params, &Patch::Apply(&patch)).await.unwrap();
}

/// Waits until the policy of the clean room is as asked.
async fn room_is(name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let policies = api::<NetworkPolicy>(&client(Identity::TenantAdministrator).await, name);
    let spec = |policy: &NetworkPolicy| serde_json::to_value(&policy.spec).unwrap();
    spec(&object(policies, network::CLEAN_ROOM, what, |policy| is(&spec(policy))).await)
}

fn namespaces(rule: &Value) -> Value {
    rule["namespaceSelector"]["matchExpressions"][0]["values"].clone()
}

#[tokio::test]
async fn clean_room_reaches_only_listed_peers_and_follows_the_list() {
    let _running = controller().await;
    clean_room("gallery").await;
    let spec = room_is("gallery", "as first asked", |_| true).await;
    assert_eq!(spec["egress"].as_array().unwrap().len(), 1, "nothing else is let out: {spec}");
    assert_eq!(namespaces(&spec["egress"][0]["to"][0]), json!(["gallery", "shared-dns"]));
    let from = &spec["ingress"][0]["from"];
    assert_eq!(namespaces(&from[0]), json!(["gallery", "shared-dns"]));
    assert_eq!(namespaces(&from[1]), json!(["resurgam-system"]));
    assert_eq!(from[1]["podSelector"]["matchLabels"], json!({"app.kubernetes.io/name": "resurgam"}));
    assert_eq!((spec["ingress"].as_array().unwrap().len(), from.as_array().unwrap().len()), (1, 2));

    // A dependency comes back, another goes: the policy follows, and the room stays one.
    follow("gallery", &["shared-db"], &[]).await;
    let to = |spec: &Value| namespaces(&spec["egress"][0]["to"][0]);
    room_is("gallery", "following", |spec| to(spec) == json!(["gallery", "shared-db"])).await;
    ready("gallery", Isolation::CleanRoom).await;
}

#[tokio::test]
async fn dns_and_api_server_egress_is_opt_in_and_reported() {
    let _running = controller().await;
    clean_room("theatre").await;
    follow("theatre", &["theatre"], &[ClusterService::Dns, ClusterService::ApiServer]).await;
    // This control plane has neither: nothing is let through, and that is said.
    let words = |quarantine: &resurgam::api::Quarantine| {
        let controls = quarantine.status.clone().unwrap_or_default().controls;
        controls.into_iter().find(|c| c.name == ControlName::Network).unwrap().message
    };
    let told = until("theatre", "told of both", |q| words(q).contains("APIServer is not let through")).await;
    assert!(words(&told).contains("DNS is not let through, though the plan asks for it"), "{}", words(&told));
    let spec = room_is("theatre", "without a hole", |_| true).await;
    assert_eq!(spec["egress"].as_array().unwrap().len(), 1, "{spec}");

    let administrator = client(Identity::PlatformAdministrator).await;
    apply(
        &administrator,
        r#"
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.7]}]
ports: [{name: https, port: 6443, protocol: TCP}]
"#,
    )
    .await;
    let spec =
        room_is("theatre", "with two holes", |spec| spec["egress"].as_array().unwrap().len() == 3).await;
    let both = [&spec["egress"][1], &spec["egress"][2]];
    assert_eq!(both[0]["ports"], json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]));
    assert_eq!(namespaces(&both[0]["to"][0]), json!(["kube-system"]));
    assert_eq!(both[0]["to"][0]["podSelector"]["matchLabels"], json!({"k8s-app": "kube-dns"}));
    assert_eq!(
        *both[1],
        json!({"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"port": 6443, "protocol": "TCP"}]})
    );
    // One after the other, as the operator heard of them: in between, DNS alone is a hole.
    let holes = ["Hole, by the plan's cleanRoom: DNS", "APIServer, to port 6443 of 192.0.2.7"];
    until("theatre", "told of both holes", |q| holes.iter().all(|hole| words(q).contains(hole))).await;

    // Taken out of the plan: closed again.
    follow("theatre", &["theatre"], &[]).await;
    room_is("theatre", "closed again", |spec| spec["egress"].as_array().unwrap().len() == 1).await;
    until("theatre", "told of none", |q| !words(q).contains("Hole")).await;
    let of = DeleteParams::default();
    Api::<Service>::namespaced(administrator.clone(), "kube-system").delete("kube-dns", &of).await.unwrap();
    Api::<EndpointSlice>::namespaced(administrator, "default").delete("kubernetes", &of).await.unwrap();
}

#[tokio::test]
async fn address_outside_the_cluster_is_let_through_at_its_port() {
    let _running = controller().await;
    clean_room("annexe").await;
    follow_with(
        "annexe",
        &["annexe"],
        &json!({"allowEgressTo": [{"cidr": "192.0.2.7/32", "ports": [5432]}]}),
    )
    .await;
    let spec = room_is("annexe", "with one hole", |spec| spec["egress"].as_array().unwrap().len() == 2).await;
    assert_eq!(
        spec["egress"][1],
        json!({"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"port": 5432, "protocol": "TCP"}]})
    );
    let is_told = |quarantine: &resurgam::api::Quarantine| {
        let controls = quarantine.status.clone().unwrap_or_default().controls;
        let network = controls.into_iter().find(|c| c.name == ControlName::Network);
        network.is_some_and(|network| network.message.contains("port 5432 of 192.0.2.7/32"))
    };
    until("annexe", "told of it", is_told).await;
    follow_with("annexe", &["annexe"], &json!({"allowEgressTo": []})).await;
    room_is("annexe", "closed", |spec| spec["egress"].as_array().unwrap().len() == 1).await;
}
