//! `resurgam status` where Quarantines fail, on real objects.

use std::path::Path;

use control_plane::{ControlPlane, Identity};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use resurgam::api::{Quarantine, ServiceRecovery};
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

/// Writes the status of a recovered service with exceptions, and of its Quarantine, as an operator would.
async fn write_recovered(cluster: &ControlPlane) {
    let operator = client(cluster, Identity::Operator).await;
    let params = PatchParams::apply("test").force();
    let at = "2025-11-24T08:00:00Z";
    let condition = |type_: &str, status: &str, reason: &str, message: &str| json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": at});
    let service = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "ServiceRecovery",
        "metadata": {"name": "left.status-left-web", "namespace": "status-left"},
        "spec": {"planRef": {"name": "left", "uid": "u"}, "service": "status-left-web", "namespaces": ["status-left-web"]},
    });
    let services: Api<ServiceRecovery> = Api::namespaced(operator.clone(), "status-left");
    services.patch("left.status-left-web", &params, &Patch::Apply(&service)).await.unwrap();
    let mut status = service;
    status.as_object_mut().unwrap().remove("spec");
    status["status"] = json!({
        "stage": "Recovered", "isolation": "Open",
        "exceptions": ["not enforced: status-left-web/Network: accepted by maria (Decision d-1): agreed"],
        "gates": [{
            "phase": "Continuous", "name": "up", "verdict": "Fail", "reason": "NotReady", "since": at,
            "message": "Deployment status-left-web/a: 0 of 1 ready; Deployment status-left-web/b: 0 of 1 ready",
        }],
        "resumes": [{
            "kind": "CronJob", "namespace": "status-left-web", "name": "nightly", "state": "Suspended",
            "fires": "next at 2025-11-25 02:00 UTC", "message": "the plan does not name it under resume",
        }],
        "conditions": [condition("Healthy", "Unknown", "GateFailing", "up: 0 of 1 ready")],
    });
    services.patch_status("left.status-left-web", &params, &Patch::Apply(&status)).await.unwrap();
    let quarantine = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "status-left-web"},
        "status": {
            "isolation": "Open", "conditions": [condition("Ready", "True", "Open", "")],
            "unmanagedPods": ["debug"], "lostTokenSecrets": {"names": ["ci-token"]},
            "deliverers": [{"kind": "Kustomization", "namespace": "flux-system", "name": "web", "state": "Suspended"}],
        },
    });
    let quarantines: Api<Quarantine> = Api::all(operator);
    quarantines.patch_status("status-left-web", &params, &Patch::Apply(quarantine)).await.unwrap();
}

#[tokio::test]
async fn what_recovery_rests_on_and_left_for_people_is_shown() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "status-left", "").await;
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let objects = [
        json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "RecoveryPlan", "metadata": {"name": "left", "namespace": "status-left"},
            "spec": {"serviceAccountName": "recovery", "services": [{"name": "status-left-web"}]},
        }),
        json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "status-left-web"},
            "spec": {"reason": "unusual activity", "isolation": "Sealed"},
        }),
    ];
    rehearsal::apply(&admin, "test", &objects).await.unwrap();
    write_recovered(cluster).await;
    let responder = cluster.kubeconfig(Identity::Responder);
    let arguments = ["status", "left", "--namespace", "status-left"];
    let ran = resurgam(responder, &arguments).await;
    for line in [
        "status-left-web is unhealthy: recovered, and not all of its continuous gates pass",
        "  up: Fail NotReady: Deployment status-left-web/a: 0 of 1 ready; Deployment status-left-web/b: 0 of 1 ready",
        "Exceptions",
        "  status-left-web: not enforced: status-left-web/Network: accepted by maria (Decision d-1): agreed",
        "Left for people",
    ] {
        assert!(ran.out.lines().any(|shown| shown == line), "{line}: {}{}", ran.out, ran.err);
    }
    let all = resurgam(responder, &[&arguments[..], &["--output", "json"]].concat()).await.json();
    let left: Vec<_> =
        all["left"].as_array().unwrap().iter().map(|of| of["object"].as_str().unwrap()).collect();
    let objects = [
        "CronJob status-left-web/nightly",
        "Kustomization flux-system/web",
        "Pod status-left-web/debug",
        "Secret status-left-web/ci-token",
    ];
    assert_eq!(left, objects);
    for object in objects {
        assert!(ran.out.contains(&format!("  {object}: ")), "{object}: {}", ran.out);
    }
    let service = &all["plans"][0]["services"][0];
    assert_eq!(service["unhealthy"][0]["name"], "up");
    assert_eq!(service["exceptions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_does_not_exist_or_is_forbidden_is_one_line_and_2() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "status-empty", "").await;
    let responder = cluster.kubeconfig(Identity::Responder).to_path_buf();
    let nobody = acting_as(cluster, "status-nobody");
    for (kubeconfig, arguments, line) in [
        (
            &responder,
            vec!["--namespace", "status-nowhere"],
            "there is no namespace status-nowhere (kubectl get namespaces)",
        ),
        (
            &responder,
            vec!["nosuch", "--namespace", "status-empty"],
            "there is no RecoveryPlan nosuch in namespace status-empty (kubectl get rplan -n status-empty)",
        ),
        (
            &responder,
            vec!["nosuch"],
            "there is no RecoveryPlan nosuch in any namespace (kubectl get rplan -A)",
        ),
        (
            &responder,
            vec!["nosuch", "--watch"],
            "there is no RecoveryPlan nosuch in any namespace (kubectl get rplan -A)",
        ),
    ] {
        let ran = resurgam(kubeconfig, &[&["status"][..], &arguments].concat()).await;
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}: {}", ran.err);
        assert_eq!(ran.err, format!("resurgam: {line}\n"), "{arguments:?}");
    }
    // Several kinds are read at the same time: whichever is refused first is named.
    let ran = resurgam(nobody.path(), &["status"]).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (2, "", 1), "{}", ran.err);
    for words in [
        "resurgam: ",
        "User \"status-nobody\" cannot ",
        "a cluster administrator grants it, as the ClusterRole resurgam-responder does",
    ] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
}
