use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::isolation::controls::workloads::Kind;

fn one<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn service(namespace: &str, name: &str, spec: Value) -> Service {
    one(json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}))
}

fn policy(namespace: &str, name: &str, spec: Value) -> NetworkPolicy {
    one(json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}))
}

#[test]
fn external_endpoints_lose_connectivity() {
    let ingress = |hosts: &[&str]| -> Ingress {
        let rules: Vec<Value> = hosts.iter().map(|host| json!({"host": host})).collect();
        one(json!({"metadata": {"name": "i", "namespace": "web"}, "spec": {"rules": rules}}))
    };
    let services = [
        service("web", "lb", json!({"type": "LoadBalancer"})),
        service("web", "np", json!({"type": "NodePort"})),
        service("web", "inside", json!({"type": "ClusterIP"})),
        service("web", "untold", json!({})),
        service("elsewhere", "lb", json!({"type": "LoadBalancer"})),
    ];
    let ingresses = [ingress(&["b.example", "a.example"]), ingress(&["a.example"])];
    let all = ["LoadBalancer lb", "NodePort np", "a.example", "b.example"];
    assert_eq!(external_endpoints("web", &ingresses, &services), all);
    assert_eq!(external_endpoints("web", &[], &[]), Vec::<String>::new());
}

#[test]
fn foreign_policies_are_listed_and_ours_are_not() {
    let policies = [
        policy("web", "theirs", json!({})),
        policy("web", network::DEFAULT_DENY, json!({})),
        policy("web", network::CLEAN_ROOM, json!({})),
        policy("elsewhere", "allow", json!({})),
    ];
    assert_eq!(others("web", &policies), ["theirs"]);
}

#[test]
fn explicit_referrers_are_listed_and_wildcards_are_not() {
    let namespace: Namespace = one(json!({"metadata": {"name": "web", "labels": {"team": "a"}}}));
    let external = |name: &str| json!({"type": "ExternalName", "externalName": name});
    let team = |team: &str| json!([{"namespaceSelector": {"matchLabels": {"team": team}}}]);
    let elsewhere = References {
        services: vec![
            service("front", "short", external("api.web.svc")),
            service("front", "long", external("api.web.svc.cluster.local")),
            service("front", "other", external("api.web2.svc")),
            service("front", "alike", external("api.web.svcs.example")),
            service("front", "none", json!({})),
            service("web", "itself", external("api.web.svc")),
        ],
        policies: vec![
            policy("front", "to", json!({"podSelector": {}, "egress": [{"to": team("a")}]})),
            policy("front", "from", json!({"podSelector": {}, "ingress": [{"from": team("a")}]})),
            policy("front", "another", json!({"podSelector": {}, "ingress": [{"from": team("b")}]})),
            policy(
                "front",
                "all",
                json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]}),
            ),
            policy(
                "front",
                "malformed",
                json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {
                    "matchExpressions": [{"key": "team", "operator": "Resembles", "values": ["a"]}]}}]}]}),
            ),
            policy("web", "own", json!({"podSelector": {}, "ingress": [{"from": team("a")}]})),
        ],
        unread: Vec::new(),
    };
    let found = referrers(&namespace, &elsewhere);
    let all =
        ["NetworkPolicy front/from", "NetworkPolicy front/to", "Service front/long", "Service front/short"];
    assert_eq!(found, all);
}

#[test]
fn failed_reads_are_reported_and_the_rest_is_judged() {
    let namespace: Namespace =
        one(json!({"metadata": {"name": "web", "labels": {"resurgam.dev/isolation": "contained"}}}));
    let read = NamespaceRead {
        namespace: Ok(namespace),
        inventory: Ok(Inventory::default()),
        pods: Err("list pods: no answer".to_owned()),
        ingresses: Err("list ingresses: forbidden".to_owned()),
    };
    let elsewhere =
        References { unread: vec!["list services: forbidden".to_owned()], ..References::default() };
    let impact = judge("web", read, &elsewhere);
    assert_eq!(impact.already.as_deref(), Some("contained"));
    let unread = ["list services: forbidden", "list pods: no answer", "list ingresses: forbidden"];
    assert_eq!(impact.unread, unread);
}

#[test]
fn workloads_are_listed_by_what_stops() {
    let workload = |kind, shape| {
        let meta = one(json!({"name": "w"}));
        describe(&Workload { kind, meta, shape, drops_claims: false, rollout: None })
    };
    assert_eq!(workload(Kind::Deployment, Shape::Replicas(3)), "Deployment w ×3");
    assert_eq!(workload(Kind::DaemonSet, Shape::Nodes([].into())), "DaemonSet w on every node it fits");
    assert_eq!(workload(Kind::CronJob, Shape::Suspend(false)), "CronJob w");
}
