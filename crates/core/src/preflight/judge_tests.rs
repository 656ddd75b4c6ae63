use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::preflight::Login;

fn nothing() -> ClusterSnapshot {
    ClusterSnapshot {
        daemonsets: Ok(vec![]),
        deployments: Ok(vec![]),
        statefulsets: Ok(vec![]),
        services: Ok(vec![]),
        csi_drivers: Ok(vec![]),
        validating: Ok(vec![]),
        mutating: Ok(vec![]),
        namespaces: Ok(vec![]),
        crds: Ok(vec![]),
        apiservices: Ok(vec![]),
        ingresses: Ok(vec![]),
        routes: Ok(vec![]),
        leases: Ok(vec![]),
        pods: BTreeMap::new(),
        plans: Ok(vec![]),
        login: Login { username: Ok("me".into()), ..Login::default() },
        evidence: Ok(vec![]),
        now: Timestamp::from_second(1_000_000).unwrap(),
    }
}

fn one<T: DeserializeOwned>(value: Value) -> Result<Vec<T>, String> {
    Ok(vec![serde_json::from_value(value).unwrap()])
}

/// A workload in namespace `a` with this in its pod.
fn workload(kind: &str, name: &str, labels: Value, pod: Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": pod});
    json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": "a", "labels": labels},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "serviceName": "x", "template": template},
    })
}

fn mounting(path: &str) -> Value {
    json!({"containers": [{"name": "main"}], "volumes": [{"name": "v", "hostPath": {"path": path}}]})
}

fn running(container: Value) -> Value {
    json!({"containers": [container]})
}

fn service(name: &str, more: Value) -> Value {
    let mut all = json!({"metadata": {"name": name, "namespace": "a"}});
    for (key, value) in more.as_object().unwrap() {
        match all.get_mut(key).and_then(Value::as_object_mut) {
            Some(there) => there.extend(value.as_object().unwrap().clone()),
            None => all[key] = value.clone(),
        }
    }
    all
}

fn ingress(host: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": "i", "namespace": "b"},
        "spec": {"rules": [{"host": host}]},
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
    })
}

fn hooked(client: &Value, policy: &str) -> Value {
    let hook = json!({
        "name": "hook.example", "clientConfig": client, "failurePolicy": policy, "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    });
    json!({"metadata": {"name": "hooks"}, "webhooks": [hook]})
}

fn kinds(targets: &[&str], seen: &ClusterSnapshot) -> Vec<(Option<String>, Kind)> {
    let targets: Vec<String> = targets.iter().map(|t| (*t).to_owned()).collect();
    judge(&targets, seen).into_iter().map(|f| (f.namespace, f.kind)).collect()
}

/// What is found of one namespace, isolated alone: and that isolating another finds nothing.
fn found(what: &str, seen: &ClusterSnapshot) -> Vec<Kind> {
    assert_eq!(kinds(&["elsewhere"], seen), [], "{what}");
    let found = kinds(&["a"], seen);
    assert!(found.iter().all(|(namespace, _)| namespace.as_deref() == Some("a")), "{what}: {found:?}");
    found.into_iter().map(|(_, kind)| kind).collect()
}

#[test]
fn cluster_components_are_refused_by_name() {
    for name in ["kube-system", "kube-public", "default", "resurgam-system"] {
        assert_eq!(kinds(&[name], &nothing()), [(Some(name.to_owned()), Kind::Protected)]);
    }
    assert_eq!(kinds(&["web"], &nothing()), []);
}

#[test]
fn network_storage_and_dns_are_known_by_what_they_run() {
    let with = |kind: &str, pod: Value| {
        let object = workload(kind, "x", json!({}), pod);
        match kind {
            "DaemonSet" => ClusterSnapshot { daemonsets: one(object), ..nothing() },
            "Deployment" => ClusterSnapshot { deployments: one(object), ..nothing() },
            _ => ClusterSnapshot { statefulsets: one(object), ..nothing() },
        }
    };
    let told = judge(&["a".to_owned()], &with("DaemonSet", mounting("/etc/cni/net.d")));
    assert!(told[0].message.starts_with("DaemonSet x is the cluster's network plugin"), "{told:?}");
    let sidecar = |name: &str| running(json!({"name": name, "image": "registry.example/x"}));
    for (seen, expected) in [
        (with("DaemonSet", mounting("/etc/cni/net.d")), vec![Kind::Cni]),
        (with("DaemonSet", mounting("/opt/cni/bin/")), vec![Kind::Cni]),
        (with("Deployment", mounting("/opt/cni/bin")), vec![]),
        (with("DaemonSet", mounting("/var/log")), vec![]),
        (with("DaemonSet", mounting("/var/lib/kubelet/plugins/x")), vec![Kind::Csi]),
        (with("DaemonSet", sidecar("node-driver-registrar")), vec![Kind::Csi]),
        (with("StatefulSet", sidecar("csi-provisioner")), vec![Kind::Csi]),
        (
            with("Deployment", running(json!({"name": "c", "image": "sig-storage/csi-attacher:v4"}))),
            vec![Kind::Csi],
        ),
        (with("Deployment", sidecar("main")), vec![]),
        (ClusterSnapshot { services: one(service("kube-dns", json!({}))), ..nothing() }, vec![Kind::Dns]),
        (
            ClusterSnapshot {
                services: one(service("d", json!({"metadata": {"labels": {"k8s-app": "kube-dns"}}}))),
                ..nothing()
            },
            vec![Kind::Dns],
        ),
        (ClusterSnapshot { services: one(service("dns", json!({}))), ..nothing() }, vec![]),
    ] {
        assert_eq!(found(&format!("{seen:?}"), &seen), expected, "{seen:?}");
    }
    // A driver of its own making is known by the name that a CSIDriver gives it.
    let named = ClusterSnapshot {
        csi_drivers: one(json!({"metadata": {"name": "disks.example"}, "spec": {}})),
        ..with("Deployment", running(json!({"name": "main", "args": ["--driver=disks.example"]})))
    };
    assert_eq!(found("driver", &named), [Kind::Csi]);
}

#[test]
fn gitops_is_known_by_its_label_its_name_or_its_image() {
    for (name, labels, image) in [
        ("x", json!({"app.kubernetes.io/part-of": "flux"}), "x"),
        ("x", json!({"app.kubernetes.io/part-of": "argocd"}), "x"),
        ("kustomize-controller", json!({}), "x"),
        ("x", json!({}), "ghcr.example/fluxcd/helm-controller:v1"),
        ("x", json!({}), "quay.example/argoproj/argocd:v3"),
    ] {
        let pod = running(json!({"name": "manager", "image": image}));
        let seen =
            ClusterSnapshot { deployments: one(workload("Deployment", name, labels, pod)), ..nothing() };
        assert_eq!(found(name, &seen), [Kind::Gitops], "{name} {image}");
    }
    let labels =
        json!({"kustomize.toolkit.fluxcd.io/name": "plan", "kustomize.toolkit.fluxcd.io/namespace": "a"});
    let plan = json!({
        "metadata": {"name": "p", "namespace": "b", "labels": labels},
        "spec": {"serviceAccountName": "recovery", "services": []},
    });
    let seen = ClusterSnapshot { plans: one(plan), ..nothing() };
    assert_eq!(found("what delivers the plan", &seen), [Kind::Gitops]);
    assert_eq!(kinds(&["b"], &seen), [(Some("b".to_owned()), Kind::PlanAccount)]);
}

#[test]
fn webhooks_and_aggregated_apis_served_there_are_risks() {
    let here = json!({"service": {"namespace": "a", "name": "s"}});
    let by_url = json!({"url": "https://s.a.svc.cluster.local:443/check"});
    let elsewhere = json!({"url": "https://hooks.example"});
    let conversion = |client: &Value| {
        json!({
            "metadata": {"name": "things.example"},
            "spec": {
                "group": "example", "names": {"kind": "Thing", "plural": "things"}, "scope": "Cluster", "versions": [],
                "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}},
            },
        })
    };
    let api = json!({"metadata": {"name": "v1.metrics"}, "spec": {
        "service": {"namespace": "a", "name": "s"}, "groupPriorityMinimum": 1, "versionPriority": 1}});
    for (seen, expected) in [
        (ClusterSnapshot { validating: one(hooked(&here, "Fail")), ..nothing() }, vec![Kind::Webhook]),
        (ClusterSnapshot { mutating: one(hooked(&by_url, "Ignore")), ..nothing() }, vec![Kind::Webhook]),
        (ClusterSnapshot { validating: one(hooked(&elsewhere, "Fail")), ..nothing() }, vec![]),
        (ClusterSnapshot { crds: one(conversion(&here)), ..nothing() }, vec![Kind::Webhook]),
        (ClusterSnapshot { apiservices: one(api), ..nothing() }, vec![Kind::Apiservice]),
    ] {
        assert_eq!(found(&format!("{seen:?}"), &seen), expected);
    }
    for (policy, refused) in [("Fail", true), ("Ignore", false)] {
        for seen in [
            ClusterSnapshot { validating: one(hooked(&here, policy)), ..nothing() },
            ClusterSnapshot { mutating: one(hooked(&here, policy)), ..nothing() },
        ] {
            let says = judge(&["a".to_owned()], &seen)[0].message.clone();
            assert_eq!(says.contains("every write that it intercepts is refused"), refused, "{says}");
        }
    }
}

#[test]
fn callers_login_is_found_behind_ingress_route_load_balancer() {
    let through = |address: &str| Login {
        username: Ok("me".into()),
        through: vec![("your login".into(), address.into())],
        others: vec!["break-glass".into()],
        ..Login::default()
    };
    let mut here = ingress("id.example", "10.0.0.1");
    here["metadata"]["namespace"] = json!("a");
    let mut wild = here.clone();
    wild["spec"]["rules"][0]["host"] = json!("*.example");
    let balancer = service("lb", json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}));
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "b"},
        "spec": {"hostnames": ["id.example"], "rules": [{"backendRefs": [{"name": "s", "namespace": "a"}]}]},
    });
    let login = through("https://id.example:8443/realm");
    for (what, seen) in [
        ("a Service", ClusterSnapshot { login: through("https://id.a.svc/realm"), ..nothing() }),
        ("an Ingress", ClusterSnapshot { login: login.clone(), ingresses: one(here), ..nothing() }),
        ("a wildcard", ClusterSnapshot { login: login.clone(), ingresses: one(wild), ..nothing() }),
        ("a route's backend", ClusterSnapshot { login: login.clone(), routes: one(route), ..nothing() }),
        (
            "the ingress controller",
            ClusterSnapshot {
                login: login.clone(),
                ingresses: one(ingress("id.example", "10.0.0.1")),
                services: one(balancer),
                ..nothing()
            },
        ),
        (
            "the caller's account",
            ClusterSnapshot {
                login: Login { username: Ok("system:serviceaccount:a:ci".into()), ..Login::default() },
                ..nothing()
            },
        ),
    ] {
        assert_eq!(found(what, &seen), [Kind::Login], "{what}");
    }
    let other = ClusterSnapshot { login, ingresses: one(ingress("other.example", "10.0.0.1")), ..nothing() };
    assert_eq!(kinds(&["a", "b"], &other), []);
}

#[test]
fn the_evidence_store_is_found_by_its_address() {
    for (address, expected) in [
        ("--evidence-endpoint=http://minio.a.svc:9000", vec![Kind::Evidence]),
        ("https://minio.a.svc.cluster.local", vec![Kind::Evidence]),
        ("minio.a.svc:9000", vec![Kind::Evidence]),
        ("https://s3.example", vec![]),
        ("minio.svc", vec![]),
    ] {
        let seen = ClusterSnapshot { evidence: Ok(vec![address.into()]), ..nothing() };
        assert_eq!(found(address, &seen), expected, "{address}");
    }
}

#[test]
fn lease_held_from_another_namespace_is_a_risk() {
    let lease = |holder: &str, at: i64| {
        let renewed = Timestamp::from_second(at).unwrap().to_string();
        let renewed = renewed.replace('Z', ".000000Z");
        json!({"metadata": {"name": "l", "namespace": "a"}, "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}})
    };
    let pods = || BTreeMap::from([("a".to_owned(), Ok(vec!["web-1".to_owned()]))]);
    for (holder, at, expected) in [
        ("scheduler-7_uuid", 999_995, vec![Kind::Leases]),
        ("scheduler-7_uuid", 999_970, vec![Kind::Leases]),
        ("scheduler-7_uuid", 999_969, vec![]),
        ("web-1_uuid", 999_995, vec![]),
    ] {
        let seen = ClusterSnapshot { leases: one(lease(holder, at)), pods: pods(), ..nothing() };
        assert_eq!(found(holder, &seen), expected, "{holder} {at}");
    }
}

#[test]
fn failed_reads_are_unknown_and_need_their_own_acceptance() {
    let why = || "services is forbidden: User \"me\" cannot list".to_owned();
    let full = nothing();
    let cases: Vec<(&str, ClusterSnapshot)> = vec![
        ("daemonsets", ClusterSnapshot { daemonsets: Err(why()), ..full.clone() }),
        ("deployments", ClusterSnapshot { deployments: Err(why()), ..full.clone() }),
        ("statefulsets", ClusterSnapshot { statefulsets: Err(why()), ..full.clone() }),
        ("services", ClusterSnapshot { services: Err(why()), ..full.clone() }),
        ("csidrivers", ClusterSnapshot { csi_drivers: Err(why()), ..full.clone() }),
        ("validating", ClusterSnapshot { validating: Err(why()), ..full.clone() }),
        ("mutating", ClusterSnapshot { mutating: Err(why()), ..full.clone() }),
        ("crds", ClusterSnapshot { crds: Err(why()), ..full.clone() }),
        ("apiservices", ClusterSnapshot { apiservices: Err(why()), ..full.clone() }),
        ("ingresses", ClusterSnapshot { ingresses: Err(why()), ..full.clone() }),
        ("routes", ClusterSnapshot { routes: Err(why()), ..full.clone() }),
        ("leases", ClusterSnapshot { leases: Err(why()), ..full.clone() }),
        ("plans", ClusterSnapshot { plans: Err(why()), ..full.clone() }),
        ("evidence", ClusterSnapshot { evidence: Err(why()), ..full.clone() }),
        ("pods", ClusterSnapshot { pods: BTreeMap::from([("a".to_owned(), Err(why()))]), ..full.clone() }),
        (
            "who",
            ClusterSnapshot { login: Login { username: Err(why()), ..Login::default() }, ..full.clone() },
        ),
        (
            "login",
            ClusterSnapshot { login: Login { unclear: Some(why()), ..full.login.clone() }, ..full.clone() },
        ),
    ];
    for (what, seen) in cases {
        let found = judge(&["a".to_owned()], &seen);
        assert_eq!(found.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::Unknown], "{what}");
        assert!(found[0].message.contains("is forbidden"), "{what} says why: {}", found[0].message);
        assert!(found[0].stops(&[Kind::Login, Kind::Webhook]), "{what}");
        assert!(!found[0].stops(&[Kind::Unknown]), "{what}");
    }
}

#[test]
fn refusals_cannot_be_accepted() {
    for kind in [Kind::Protected, Kind::Cni, Kind::Csi, Kind::Dns] {
        let finding = Finding { namespace: None, kind, message: String::new() };
        assert!(finding.stops(&[kind]));
    }
}

/// A webhook that watches these of namespaces of tier 1, served from namespace `mesh`.
fn intercepting(resources: &[&str]) -> Value {
    let mut hooks = hooked(&json!({"service": {"namespace": "mesh", "name": "injector"}}), "Fail");
    hooks["webhooks"][0]["namespaceSelector"] = json!({"matchLabels": {"tier": "1"}});
    hooks["webhooks"][0]["rules"] = json!([
        {"apiGroups": [""], "apiVersions": ["v1"], "resources": resources, "operations": ["CREATE", "UPDATE"]}
    ]);
    hooks
}

#[test]
fn intercepting_webhooks_are_notes() {
    let namespaces = ["a", "b", "c", "d", "e"].map(|name| {
        let tier = if name == "e" { "2" } else { "1" };
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"tier": tier}}})).unwrap()
    });
    let seen = ClusterSnapshot {
        namespaces: Ok(namespaces.into()),
        mutating: one(intercepting(&["namespaces", "pods"])),
        ..nothing()
    };
    assert_eq!(kinds(&["e"], &seen), []);
    assert_eq!(kinds(&["a", "e"], &seen), [(Some("a".to_owned()), Kind::Intercepting)]);
    let targets = ["a", "b", "c", "d", "e"].map(str::to_owned);
    let many = judge(&targets, &seen);
    assert_eq!(many.len(), 1, "one line for each webhook: {many:?}");
    assert_eq!((many[0].namespace.as_ref(), many[0].stops(&[])), (None, false));
    // What is served from there is a risk as before, and says what it intercepts.
    let both = judge(&["a".to_owned(), "mesh".to_owned()], &seen);
    assert!(both[0].stops(&[]) && !both[1].stops(&[]));
    // Of what is never isolated, nothing else is told.
    assert_eq!(
        kinds(
            &["kube-system"],
            &ClusterSnapshot { mutating: one(hooked(&json!({"url": "https://x"}), "Fail")), ..nothing() }
        )
        .len(),
        1
    );
    let texts = many.iter().chain(&both).map(|finding| format!("{}: {}", finding.kind, finding.message));
    insta::assert_snapshot!(texts.collect::<Vec<_>>().join("\n"));
}
