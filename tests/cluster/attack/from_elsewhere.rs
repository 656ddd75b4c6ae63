//! What reaches a quarantined namespace from outside it: rights for its accounts, rights over it, its volumes; and what its accounts
//! do elsewhere.

use serde_json::{Value, json};

use crate::attack::attempt::{Ask, Attack, attack, implant};

const ACCOUNTS: &str = "resurgam-account-guard";
const RIGHTS: &str = "resurgam-rights-guard";
pub const VOLUMES: &str = "resurgam-volume-guard";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A volume that was given to a claim in a namespace.
pub fn volume(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "attack",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": namespace, "name": "given"},
        },
    })
}

/// The attacks of outsiders.
pub fn attacks(namespace: &str) -> Vec<Attack> {
    let binding = |kind: &str, subject: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "attack-new"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [subject],
        })
    };
    let account = json!({"kind": "ServiceAccount", "name": "default", "namespace": namespace});
    let named = |kind: &str, name: String| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let over = |verb: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "attack-new"},
            "rules": [{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": [namespace], "verbs": [verb]}],
        })
    };
    let elsewhere = format!("{RBAC}/namespaces/default/rolebindings");
    let everywhere = format!("{RBAC}/clusterrolebindings");
    let roles = format!("{RBAC}/clusterroles");
    let volume = format!("/api/v1/persistentvolumes/{namespace}");
    let group = named("Group", format!("system:serviceaccounts:{namespace}"));
    let user = named("User", format!("system:serviceaccount:{namespace}:default"));
    let given = json!({"spec": {"claimRef": {"namespace": "default", "name": "stolen"}}});
    let policy = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    vec![
        attack(
            "bind its account elsewhere",
            elsewhere.clone(),
            Ask::Create(binding("RoleBinding", account.clone())),
            RIGHTS,
        ),
        attack(
            "bind its account everywhere",
            everywhere.clone(),
            Ask::Create(binding("ClusterRoleBinding", account)),
            RIGHTS,
        ),
        attack(
            "bind the group of its accounts",
            everywhere,
            Ask::Create(binding("ClusterRoleBinding", group)),
            RIGHTS,
        ),
        attack("bind its account as a user", elsewhere, Ask::Create(binding("RoleBinding", user)), RIGHTS),
        attack("make a role that releases it", roles.clone(), Ask::Create(over("release")), RIGHTS),
        attack("make a role that recovers it", roles.clone(), Ask::Create(over("recover")), RIGHTS),
        attack("make a role that operates it", roles, Ask::Create(over("operate")), RIGHTS),
        attack("give its volume to another claim", volume.clone(), Ask::Merge(given), VOLUMES),
        attack("have its volume deleted with the claim", volume.clone(), Ask::Merge(policy), VOLUMES),
        attack("delete its volume", volume, Ask::Delete, VOLUMES),
    ]
}

/// The account in a namespace that had been given every right before, as implants often are.
pub fn crowned(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:crowned")
}

/// The attacks of such an account, elsewhere.
pub fn of_its_accounts() -> Vec<Attack> {
    let named = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "attack-new"}});
    let mut pod = named("v1", "Pod");
    pod["spec"] = implant();
    let template = json!({"metadata": {"labels": {"app": "attack"}}, "spec": implant()});
    let mut deployment = named("apps/v1", "Deployment");
    deployment["spec"] = json!({"selector": {"matchLabels": {"app": "attack"}}, "template": template});
    let token =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    let label = json!({"metadata": {"labels": {"attack": "new"}}});
    let at = |path: &str| format!("/api/v1/namespaces/default/{path}");
    vec![
        attack(
            "write a ConfigMap elsewhere",
            at("configmaps"),
            Ask::Create(named("v1", "ConfigMap")),
            ACCOUNTS,
        ),
        attack("run a pod elsewhere", at("pods"), Ask::Create(pod), ACCOUNTS),
        attack(
            "run a Deployment elsewhere",
            "/apis/apps/v1/namespaces/default/deployments".to_owned(),
            Ask::Create(deployment),
            ACCOUNTS,
        ),
        attack(
            "ask for a token elsewhere",
            at("serviceaccounts/default/token"),
            Ask::Create(token),
            ACCOUNTS,
        ),
        attack(
            "make a role",
            format!("{RBAC}/clusterroles"),
            Ask::Create(named("rbac.authorization.k8s.io/v1", "ClusterRole")),
            ACCOUNTS,
        ),
        attack(
            "label another namespace",
            "/api/v1/namespaces/kube-public".to_owned(),
            Ask::Merge(label),
            ACCOUNTS,
        ),
        attack("delete all ConfigMaps elsewhere", at("configmaps"), Ask::DeleteAll, ACCOUNTS),
    ]
}
