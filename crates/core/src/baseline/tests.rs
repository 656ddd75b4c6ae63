use std::collections::BTreeSet;

use serde_json::json;

use super::compare::Scope;
use super::ignore::IgnoreList;
use super::*;
use crate::api::gate::BaselineIgnore;

mod isolated;
mod produced;

/// A small estate, as an API server answers.
fn estate() -> Vec<Value> {
    let template = |app: &str| {
        json!({
            "metadata": {"labels": {"app": app}},
            "spec": {
                "serviceAccountName": "web",
                "containers": [{
                    "name": "main", "image": "registry.example/web@sha256:aa", "command": ["serve"],
                    "env": [{"name": "MODE", "value": "live"}],
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
                    "securityContext": {"allowPrivilegeEscalation": false},
                }],
                "volumes": [{"name": "config", "configMap": {"name": "web"}}],
                "hostNetwork": false,
            },
        })
    };
    let object = |api: &str, kind: &str, name: &str, body: Value| {
        let mut object = json!({
            "apiVersion": api, "kind": kind,
            "metadata": {
                "name": name, "namespace": "shop", "uid": format!("uid-{kind}-{name}"), "resourceVersion": "7",
                "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{"manager": "kubectl"}], "labels": {"app": name},
            },
        });
        object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        object
    };
    let of = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("uid-{kind}-{name}"), "controller": true}]);
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let mut namespace = object("v1", "Namespace", "shop", json!({"spec": {"finalizers": ["kubernetes"]}}));
    namespace["metadata"].as_object_mut().unwrap().remove("namespace");
    let mut rolled = template("web");
    rolled["metadata"]["labels"]["pod-template-hash"] = json!("1");
    let mut set =
        object("apps/v1", "ReplicaSet", "web-1", json!({"spec": {"replicas": 2, "template": rolled}}));
    set["metadata"]["ownerReferences"] = of("Deployment", "web");
    set["metadata"]["labels"] = json!({"app": "web", "pod-template-hash": "1"});
    let mut pod =
        object("v1", "Pod", "web-1-x", json!({"spec": rolled["spec"], "status": {"phase": "Running"}}));
    pod["metadata"]["ownerReferences"] = of("ReplicaSet", "web-1");
    pod["spec"]["nodeName"] = json!("node-1");
    vec![
        namespace,
        object(
            "apps/v1",
            "Deployment",
            "web",
            json!({"spec": {"replicas": 2, "selector": selector("web"), "template": template("web")}, "status": {"replicas": 2}}),
        ),
        set,
        pod,
        object(
            "batch/v1",
            "CronJob",
            "nightly",
            json!({"spec": {"schedule": "0 0 * * *", "suspend": false,
            "jobTemplate": {"spec": {"template": template("nightly")}}}}),
        ),
        object(
            "apps/v1",
            "DaemonSet",
            "agent",
            json!({"spec": {"selector": selector("agent"), "template": template("agent")}}),
        ),
        object("v1", "ConfigMap", "web", json!({"data": {"app.properties": "a=1"}})),
        object("v1", "Secret", "web", json!({"type": "Opaque", "digests": {"password": "hmac-sha256:1"}})),
        object(
            "v1",
            "Service",
            "web",
            json!({"spec": {"clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "nodePort": 30_000}]}}),
        ),
        object("v1", "ServiceAccount", "web", json!({"automountServiceAccountToken": false})),
        object(
            "rbac.authorization.k8s.io/v1",
            "Role",
            "web",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "web",
            json!({"spec": {"podSelector": {"matchLabels": {"app": "web"}}}}),
        ),
        object(
            "v1",
            "ResourceQuota",
            "all",
            json!({"spec": {"hard": {"pods": "5", "count/serviceaccounts": "9"}}}),
        ),
    ]
}

fn baseline_of(raw: Vec<Value>) -> Baseline {
    Baseline {
        baseline: FORMAT.to_owned(),
        captured_at: Time("2026-01-01T00:00:00Z".parse().unwrap()),
        source: Source::Cluster,
        namespaces: vec!["shop".to_owned()],
        secret_key: Some("key".to_owned()),
        outside: true,
        kinds: Vec::new(),
        objects: observe(raw, &Marks::default()).objects,
    }
}

fn differences_with(raw: Vec<Value>, marks: Marks, ignore: &[BaselineIgnore]) -> Vec<String> {
    let namespaces = ["shop".to_owned()];
    let scope = Scope {
        namespaces: &namespaces,
        ignore: IgnoreList::parse(ignore).unwrap(),
        marks: marks.clone(),
        secret_values: true,
        outside: true,
        pods_may_be_gone: false,
    };
    let outcome = compare(&baseline_of(estate()), observe(raw, &marks), &scope);
    let line = |of: &Difference| format!("{}: {}", of.object, report::sentence(&of.object, &of.change));
    outcome.differences.iter().map(line).collect()
}

fn differences(raw: Vec<Value>) -> Vec<String> {
    differences_with(raw, Marks::default(), &[])
}

fn find<'a>(raw: &'a mut [Value], kind: &str) -> &'a mut Value {
    raw.iter_mut().find(|object| object["kind"] == kind).unwrap()
}

/// The estate after a change of the first object of a kind.
fn changed(kind: &str, change: impl FnOnce(&mut Value)) -> Vec<Value> {
    let mut raw = estate();
    change(find(&mut raw, kind));
    raw
}

#[test]
fn what_controllers_and_autoscalers_change_is_no_difference() {
    let set = |at: &'static str, field: &'static str, value: Value| {
        move |object: &mut Value| object.pointer_mut(at).unwrap()[field] = value
    };
    type Edit = Box<dyn FnOnce(&mut Value)>;
    let edits: Vec<(&str, Edit)> = vec![
        ("Deployment", Box::new(set("/spec", "replicas", json!(9)))),
        ("Deployment", Box::new(set("", "status", json!({"replicas": 9})))),
        (
            "Deployment",
            Box::new(set("/metadata", "annotations", json!({"deployment.kubernetes.io/revision": "4"}))),
        ),
        ("Deployment", Box::new(set("/metadata", "resourceVersion", json!("8")))),
        ("Deployment", Box::new(set("/metadata", "uid", json!("another")))),
        ("ReplicaSet", Box::new(set("/spec", "replicas", json!(0)))),
        ("Pod", Box::new(set("/spec", "nodeName", json!("node-2")))),
        ("Pod", Box::new(set("/spec", "priority", json!(0)))),
        ("Service", Box::new(set("/spec", "clusterIP", json!("10.0.0.8")))),
        ("ServiceAccount", Box::new(set("/metadata/labels", "resurgam.dev/sealed-as", json!("x")))),
        ("Namespace", Box::new(set("/metadata/labels", "resurgam.dev/isolation", json!("sealed")))),
        ("Namespace", Box::new(set("/metadata", "annotations", json!({"resurgam.dev/reason": "breach"})))),
        ("CronJob", Box::new(set("/metadata", "generation", json!(9)))),
    ];
    assert_eq!(differences(estate()), Vec::<String>::new());
    for (kind, edit) in edits {
        let mut raw = changed(kind, edit);
        // What has lost its owner has no pods either.
        if find(&mut raw, "Deployment")["metadata"]["uid"] == "another" {
            raw.retain(|object| object["kind"] != "ReplicaSet" && object["kind"] != "Pod");
        }
        assert_eq!(differences(raw), Vec::<String>::new(), "{kind}");
    }
}

/// All places of values that are no objects or lists.
fn leaves(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, field)| {
            leaves(field, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| leaves(item, &format!("{at}/{index}"), all));
        }
        _ => all.push(at.to_owned()),
    }
}

/// Fields of the estate that are not compared. Everything else is.
const NOT_COMPARED: [&str; 12] = [
    "/apiVersion",
    "/kind",
    "/status",
    "/metadata/uid",
    "/metadata/resourceVersion",
    "/metadata/generation",
    "/metadata/creationTimestamp",
    "/metadata/managedFields",
    "/spec/replicas",
    "/spec/clusterIP",
    "/spec/clusterIPs",
    "/spec/ports/0/nodePort",
];

#[test]
fn any_edit_of_any_compared_field_is_found() {
    let (mut edits, raw) = (0, estate());
    for (index, object) in raw.iter().enumerate() {
        let mut all = Vec::new();
        leaves(object, "", &mut all);
        for at in all {
            // What controllers produce is compared by its template alone.
            let is_produced = matches!(object["kind"].as_str(), Some("ReplicaSet" | "Pod"));
            let is_meta = at.starts_with("/metadata") || at.contains("pod-template-hash");
            if NOT_COMPARED.iter().any(|of| at.starts_with(of))
                || (is_produced && is_meta)
                || at == "/spec/nodeName"
            {
                continue;
            }
            for replacement in [Some(json!("edited")), None] {
                let mut edited = estate();
                match &replacement {
                    Some(value) => *edited[index].pointer_mut(&at).unwrap() = value.clone(),
                    None => {
                        let (parent, field) = at.rsplit_once('/').unwrap();
                        let field = field.replace("~1", "/").replace("~0", "~");
                        match edited[index].pointer_mut(parent).unwrap() {
                            Value::Object(fields) => drop(fields.remove(&field)),
                            Value::Array(items) => drop(items.remove(field.parse().unwrap())),
                            _ => unreachable!(),
                        }
                    }
                }
                // The token is mounted or not, a name that is gone is no object's.
                let found = differences(edited);
                assert!(!found.is_empty(), "{} {at}: {replacement:?}", object["kind"]);
                edits += 1;
            }
        }
    }
    assert!(edits > 150, "{edits}");
}

#[test]
fn what_an_attacker_plants_is_named_by_object_and_field() {
    let planted = |object: Value| {
        let mut raw = estate();
        raw.push(object);
        raw
    };
    let container = "/spec/template/spec/containers/0";
    for (raw, expected) in [
        (
            changed("Deployment", |web| {
                web.pointer_mut(container).unwrap()["command"] = json!(["sh", "-c", "x"])
            }),
            r#"Deployment shop/web: spec.template.spec.containers.main.command was ["serve"], is ["sh","-c","x"]"#,
        ),
        (
            changed("Deployment", |web| {
                web.pointer_mut(container).unwrap()["env"][0]["value"] = json!("hunter2")
            }),
            "Deployment shop/web: spec.template.spec.containers.main.env.MODE.value has another value",
        ),
        (
            changed("DaemonSet", |agent| {
                agent["spec"]["template"]["spec"]["volumes"] = json!([{"name": "config", "configMap": {"name": "web"}}, {"name": "root", "hostPath": {"path": "/"}}]);
            }),
            r#"DaemonSet shop/agent: spec.template.spec.volumes.root was added: {"hostPath":{"path":"/"},"name":"root"}"#,
        ),
        (
            changed("ConfigMap", |map| map["data"]["app.properties"] = json!("a=2")),
            "ConfigMap shop/web: data[app.properties] has another value",
        ),
        (
            changed("Secret", |secret| secret["digests"]["password"] = json!("hmac-sha256:2")),
            "Secret shop/web: digests.password has another value",
        ),
        (
            changed("Namespace", |namespace| {
                namespace["metadata"]["finalizers"] = json!(["implant.example/keep"])
            }),
            r#"Namespace shop: metadata.finalizers was added: ["implant.example/keep"]"#,
        ),
        (
            planted(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": "backdoor", "namespace": "shop"}})),
            "RoleBinding shop/backdoor: it is not in the baseline",
        ),
        (
            estate().into_iter().filter(|object| object["kind"] != "NetworkPolicy").collect(),
            "NetworkPolicy shop/web: it is in the baseline, and it is gone",
        ),
        (
            changed("Pod", |pod| pod["spec"]["containers"][0]["image"] = json!("implant")),
            "Pod shop/web-1-x: spec.containers.main.image was 'registry.example/web@sha256:aa', is 'implant'",
        ),
        (
            changed("Pod", |pod| pod["spec"]["ephemeralContainers"] = json!([{"name": "debug"}])),
            r#"Pod shop/web-1-x: spec.ephemeralContainers was added: [{"name":"debug"}]"#,
        ),
    ] {
        // Its ReplicaSet is of the template before, until it is scaled down.
        let mut raw = raw;
        if expected.starts_with("Deployment") {
            raw.retain(|object| object["kind"] != "ReplicaSet" && object["kind"] != "Pod");
        }
        assert_eq!(differences(raw), [expected]);
    }
}

#[test]
fn the_ignore_list_is_a_gap_of_its_own_size() {
    let sidecar = |pod: &mut Value| {
        pod["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "istio-proxy", "image": "proxy"}));
    };
    let entry = |kind: &str, field: &str| BaselineIgnore {
        kind: kind.to_owned(),
        fields: vec![field.to_owned()],
        ..BaselineIgnore::default()
    };
    let marks = Marks::default;
    let injected = changed("Pod", sidecar);
    assert_eq!(differences(injected.clone()).len(), 1);
    let list = [entry("Pod", "spec.containers[istio-proxy]")];
    assert_eq!(differences_with(injected.clone(), marks(), &list), Vec::<String>::new());
    assert_eq!(differences_with(injected, marks(), &[entry("Pod", "spec.containers[other]")]).len(), 1);
    let annotated = changed("Service", |service| {
        service["metadata"]["annotations"] = json!({"lb.example/id": "7", "implant": "x"});
    });
    let found =
        differences_with(annotated, marks(), &[entry("Service", "metadata.annotations[lb.example/*]")]);
    assert_eq!(found, ["Service shop/web: metadata.annotations.implant was added: 'x'"]);
}

#[test]
fn a_kind_that_is_not_served_is_no_missing_object() {
    let baseline = baseline_of(estate());
    let kind = |object: &Object| KindRef {
        group: group_of(&object.api_version).to_owned(),
        plural: String::new(),
        version: String::new(),
        kind: object.kind.clone(),
    };
    let mut served: Vec<KindRef> = baseline.objects.iter().map(kind).collect();
    let none = IgnoreList::default();
    assert_eq!(baseline.unserved(&served, &none), None);
    served.retain(|kind| kind.kind != "NetworkPolicy");
    assert_eq!(baseline.unserved(&served, &none), Some("NetworkPolicy"));
    let entry = BaselineIgnore { kind: "NetworkPolicy".to_owned(), ..BaselineIgnore::default() };
    assert_eq!(baseline.unserved(&served, &IgnoreList::parse(&[entry]).unwrap()), None);
}

#[test]
fn an_inventory_is_read_whole_or_not_at_all() {
    let baseline = baseline_of(estate());
    let bytes = serde_json::to_vec(&baseline).unwrap();
    assert_eq!(Baseline::parse(&bytes).unwrap(), baseline);
    let other = |change: fn(&mut Baseline)| {
        let mut baseline = baseline.clone();
        change(&mut baseline);
        Baseline::parse(&serde_json::to_vec(&baseline).unwrap()).unwrap_err()
    };
    assert!(other(|of| of.baseline = "resurgam.dev/baseline/v9".into()).contains("format"));
    assert!(other(|of| of.namespaces.push("other".into())).contains("Namespace other"));
    assert!(Baseline::parse(&bytes[..bytes.len() - 2]).is_err());
    let mut value = serde_json::to_value(&baseline).unwrap();
    value["surprise"] = json!(true);
    assert!(Baseline::parse(value.to_string().as_bytes()).unwrap_err().contains("surprise"));
}

#[test]
fn differences_are_shown_as_a_review_shows_them() {
    let mut raw = changed("Deployment", |web| {
        let container = web.pointer_mut("/spec/template/spec/containers/0").unwrap();
        container["image"] = json!("registry.example/implant:1");
        container["args"] = json!(["--listen"]);
    });
    find(&mut raw, "Secret")["digests"]["password"] = json!("hmac-sha256:2");
    raw.retain(|object| !["NetworkPolicy", "ReplicaSet", "Pod"].contains(&object["kind"].as_str().unwrap()));
    raw.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "planted", "namespace": "shop"}}));
    let namespaces = ["shop".to_owned()];
    let scope = Scope { namespaces: &namespaces, secret_values: true, ..Scope::default() };
    let outcome = compare(&baseline_of(estate()), observe(raw, &Marks::default()), &scope);
    insta::assert_snapshot!(report::text(&outcome.differences));
}

#[test]
fn whatever_is_read_is_compared_without_panic() {
    let sound = json!(estate());
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| {
        let spoiled = fuzz_input::spoiled(&sound, bytes);
        let raw = spoiled.as_array().cloned().unwrap_or_default();
        let marks = Marks {
            seals: [("shop".to_owned(), "seal".to_owned())].into(),
            isolated: BTreeSet::from(["shop".to_owned()]),
        };
        let _ = differences_with(raw, marks, &[]);
    });
}
