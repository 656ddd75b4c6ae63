//! `resurgam status` where Quarantines fail, on real objects.

use std::path::Path;

use control_plane::{ControlPlane, Identity};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use resurgam::api::Quarantine;
use serde_json::{Value, json};

use super::support::{Ran, client, cluster, namespace, resurgam};

async fn status(kubeconfig: &Path, arguments: &[&str]) -> Ran {
    let mut all = vec!["status", "--namespace", "status-plans", "--lease-namespace", "status-plans"];
    all.extend(arguments);
    resurgam(kubeconfig, &all).await
}

/// What an operator would write.
async fn write(cluster: &ControlPlane, ready: &str, reason: &str, message: &str) {
    let condition = |type_: &str, status: &str| {
        json!({
            "type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2025-11-24T08:00:00Z",
        })
    };
    let conditions =
        [condition("Ready", ready), condition("Stalled", if ready == "False" { "True" } else { "False" })];
    let status = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "status-web"},
        "status": {"isolation": "Contained", "conditions": conditions},
    });
    let quarantines: Api<Quarantine> = Api::all(client(cluster, Identity::Operator).await);
    let params = PatchParams::apply("test").force();
    quarantines.patch_status("status-web", &params, &Patch::Apply(status)).await.unwrap();
}

/// A kubeconfig of the platform administrator who acts as this user.
fn acting_as(cluster: &ControlPlane, user: &str) -> tempfile::NamedTempFile {
    let text = std::fs::read_to_string(cluster.kubeconfig(Identity::PlatformAdministrator)).unwrap();
    let mut kubeconfig: Value = serde_yaml::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"]["as"] = json!(user);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_yaml::to_string(&kubeconfig).unwrap()).unwrap();
    file
}

#[tokio::test]
async fn a_failing_quarantine_is_shown_and_is_exit_code_1() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "status-plans", "").await;
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    // An operator leads, as far as anybody can tell; and a plan that nobody has armed speaks of the namespace.
    let now = format!("{:.6}", Timestamp::now());
    let role = json!([
        {"apiGroups": ["resurgam.dev"], "resources": ["recoveryplans", "servicerecoveries"], "verbs": ["list"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]},
    ]);
    let objects = [
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "resurgam", "namespace": "status-plans"},
            "spec": {"holderIdentity": "resurgam-1", "leaseDurationSeconds": 3600, "renewTime": now},
        }),
        json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "RecoveryPlan", "metadata": {"name": "shown", "namespace": "status-plans"},
            "spec": {"serviceAccountName": "recovery", "services": [{"name": "status-web"}]},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "status-viewer"},
            "rules": role,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "status-viewer"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "status-viewer"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "viewer"}],
        }),
        json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "status-web"},
            "spec": {"reason": "unusual activity", "isolation": "Contained"},
        }),
    ];
    rehearsal::apply(&admin, "test", &objects).await.unwrap();
    let responder = cluster.kubeconfig(Identity::Responder);

    write(cluster, "True", "Contained", "contained").await;
    let ran = status(responder, &[]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("1 namespace isolated · Quarantines: 1 Ready"), "{}", ran.out);

    write(cluster, "False", "NetworkNotEnforced", "CiliumNetworkPolicy allow-world allows ingress").await;
    let ran = status(responder, &[]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines[0], "1 of 1 Quarantine is failing", "{}", ran.out);
    assert!(lines[2].starts_with("status-web  NetworkNotEnforced for "), "{}", ran.out);
    assert_eq!(lines[3], "  CiliumNetworkPolicy allow-world allows ingress");
    let failing = status(responder, &["--output", "json"]).await.json()["quarantines"]["failing"].clone();
    assert_eq!(failing[0]["namespace"], "status-web");

    // Without a plan that names it, too.
    let ran = resurgam(responder, &["status", "--lease-namespace", "status-plans"]).await;
    assert!(ran.code == 1 && ran.out.contains("status-web  NetworkNotEnforced"), "{}{}", ran.out, ran.err);

    // Who may not list Quarantines is told so, and that nobody knows.
    let ran = status(acting_as(cluster, "viewer").path(), &[]).await;
    assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
    assert!(
        ran.out.starts_with("Which namespaces are isolated is not known. list Quarantines: "),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("status-plans/shown"), "{}", ran.out);
}
