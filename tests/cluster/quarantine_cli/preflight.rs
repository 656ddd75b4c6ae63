//! What stops the command before it does anything, on real objects.

use control_plane::Identity;
use kube::Api;
use resurgam::api::Quarantine;
use serde_json::{Value, json};

use super::labelled;
use super::support::{client, cluster, namespace, quarantine, quarantine_with};

const NETWORK: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: network-agent, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      nodeSelector: {none: none}
      containers: [{name: main, image: registry.example/agent}]
      volumes: [{name: v, hostPath: {path: /etc/cni/net.d}}]
---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: NAMESPACE, labels: {k8s-app: kube-dns}}
spec: {ports: [{port: 53}]}
";

const SERVING: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: login, namespace: NAMESPACE}
spec:
  rules: [{host: id.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: login, port: {number: 80}}}}]}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kustomize-controller, namespace: NAMESPACE}
spec:
  replicas: 0
  selector: {matchLabels: {app: x}}
  template:
    metadata: {labels: {app: x}}
    spec: {containers: [{name: manager, image: registry.example/x}]}
";

fn kinds(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|f| f["kind"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn vital_namespace_is_refused_and_nothing_else_is_touched() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "network-of-all", NETWORK).await;
    namespace(cluster, "innocent", "").await;
    let all = "gitops,evidence,webhook,apiservice,login,plan-account,leases,unknown";
    let arguments = ["kube-system", "network-of-all", "innocent", "--accept-risk", all, "--yes"];
    let ran = quarantine(cluster, Identity::Responder, &arguments).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    insta::assert_snapshot!("refused", ran.out);
    let responder = client(cluster, Identity::Responder).await;
    for name in ["kube-system", "network-of-all", "innocent"] {
        assert!(Api::<Quarantine>::all(responder.clone()).get_opt(name).await.unwrap().is_none(), "{name}");
    }
}

#[tokio::test]
async fn what_responders_depend_on_takes_their_word_by_kind() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "depended-on", SERVING).await;
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let hook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "hooks"},
        "webhooks": [{
            "name": "check.hooks.example", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "clientConfig": {"service": {"namespace": "depended-on", "name": "hooks", "path": "/"}},
            // Of a kind that nobody here writes.
            "rules": [{"apiGroups": ["none.example"], "apiVersions": ["*"], "resources": ["none"], "operations": ["CREATE"]}],
        }],
    });
    rehearsal::apply(&admin, "platform", &[hook]).await.unwrap();

    // The login of these goes through id.example, by what the kubeconfig says.
    let text = std::fs::read_to_string(cluster.kubeconfig(Identity::GitOps)).unwrap();
    let mut kubeconfig: Value = serde_yaml::from_str(&text).unwrap();
    let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap();
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token},
    });
    let print = format!("echo '{credential}'");
    kubeconfig["users"][0]["user"] = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "sh", "args": ["-c", print, "--oidc-issuer-url=https://id.example/realm"],
    }});
    let login = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(login.path(), serde_yaml::to_string(&kubeconfig).unwrap()).unwrap();
    let store = ["--evidence-endpoint", "http://minio.depended-on.svc:9000"];
    let mut arguments = vec!["depended-on", "--dry-run", "--output", "json"];
    arguments.extend(store);
    let ran = quarantine_with(login.path(), &arguments).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let found = ran.json();
    for kind in ["gitops", "evidence", "webhook", "login"] {
        assert!(kinds(&found).contains(&kind), "{kind}: {found:#}");
    }

    // One kind accepted, the others still stop it.
    let mut arguments = vec!["depended-on", "--accept-risk", "gitops"];
    arguments.extend(store);
    let ran = quarantine(cluster, Identity::Responder, &arguments).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    insta::assert_snapshot!("risks", ran.out);
    let responder = client(cluster, Identity::Responder).await;
    assert!(Api::<Quarantine>::all(responder).get_opt("depended-on").await.unwrap().is_none());
    let mut arguments = vec!["depended-on", "--accept-risk", "gitops,webhook", "--accept-risk", "evidence"];
    arguments.extend(store);
    let ran = quarantine(cluster, Identity::Responder, &arguments).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

#[tokio::test]
async fn what_may_not_be_read_is_a_risk_and_nothing_is_done() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "unread", "").await;
    // A recovery lead sees less of the cluster than a responder does.
    let ran = quarantine(cluster, Identity::RecoveryLead, &["unread", "--output", "json"]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let report = ran.json();
    assert_eq!(report["outcome"], "Stopped");
    assert!(kinds(&report).iter().all(|kind| *kind == "unknown"), "{report:#}");
    assert!(report["findings"].to_string().contains("csidrivers.storage.k8s.io is forbidden"), "{report:#}");
    assert_eq!(labelled(cluster, "unread").await, None);
    let ran = quarantine(cluster, Identity::RecoveryLead, &["unread", "--dry-run", "--output", "json"]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let impact = ran.json()["impacts"][0].clone();
    let tells = |list: &str, text: &str| impact[list].to_string().contains(text);
    for write in ["create NetworkPolicy", "label namespace"] {
        assert!(tells("refused", &format!("{write} unread")), "{impact:#}");
    }
    assert!(!tells("refused", "Quarantine"), "that, it may: {impact:#}");
    assert!(tells("unread", "list ingresses in namespace unread: "), "{impact:#}");
}

#[tokio::test]
async fn intercepting_webhook_is_reported_and_stops_nothing() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "intercepted", "").await;
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let hook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "injector"},
        "webhooks": [{
            "name": "injector.mesh.example", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "clientConfig": {"service": {"namespace": "mesh-system", "name": "injector", "path": "/inject"}},
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["intercepted"]}]},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["serviceaccounts"], "operations": ["CREATE"]}],
        }],
    });
    rehearsal::apply(&admin, "platform", &[hook]).await.unwrap();
    let ran = quarantine(cluster, Identity::Responder, &["intercepted", "--dry-run"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let preflight =
        ran.out.lines().filter(|line| line.starts_with("Preflight") || line.contains("intercepting"));
    insta::assert_snapshot!("intercepted", preflight.collect::<Vec<_>>().join("\n"));
    let ran = quarantine(cluster, Identity::Responder, &["intercepted", "--output", "json"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(kinds(&ran.json()), ["intercepting"]);
    assert_eq!(labelled(cluster, "intercepted").await.as_deref(), Some("contained"));
}
