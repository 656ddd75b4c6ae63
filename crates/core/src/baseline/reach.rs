//! What reaches into namespaces from outside: cluster-wide bindings, the roles that bindings name, and what intercepts requests.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde_json::Value;

use super::{Object, ObjectKey, group_of, text};

/// Group of roles and bindings.
pub const RBAC: &str = "rbac.authorization.k8s.io";
/// Group of webhooks and admission policies.
pub const ADMISSION: &str = "admissionregistration.k8s.io";
/// Cluster-wide kinds that may reach in, by group and plural name. Those of the second half may not be served.
pub const KINDS: [(&str, &str); 6] = [
    (RBAC, "clusterroles"),
    (RBAC, "clusterrolebindings"),
    (ADMISSION, "validatingwebhookconfigurations"),
    (ADMISSION, "mutatingwebhookconfigurations"),
    (ADMISSION, "mutatingadmissionpolicies"),
    (ADMISSION, "mutatingadmissionpolicybindings"),
];

/// Returns the objects in these namespaces, and those of the cluster that reach into them. `also`: further objects to keep.
#[must_use]
pub fn within(objects: Vec<Object>, namespaces: &[String], also: &BTreeSet<ObjectKey>) -> Vec<Object> {
    let reach = Reach::of(&objects, namespaces);
    let is_meant = |object: &Object| match object.namespace.as_str() {
        "" if object.kind == "Namespace" => namespaces.contains(&object.name),
        "" => reach.includes(object) || also.contains(&object.key()),
        namespace => namespaces.iter().any(|of| of == namespace),
    };
    objects.into_iter().filter(is_meant).collect()
}

/// What decides whether an object of the cluster reaches in.
#[derive(Debug, Default)]
struct Reach {
    /// Labels of the namespaces.
    labels: Vec<BTreeMap<String, String>>,
    /// ClusterRoles that bindings name.
    roles: BTreeSet<String>,
    /// ClusterRoles that grant nothing in namespaces.
    elsewhere: BTreeSet<String>,
    /// Admission policies that bindings name.
    policies: BTreeSet<String>,
}

impl Reach {
    fn of(objects: &[Object], namespaces: &[String]) -> Self {
        let mut reach = Self::default();
        for object in objects {
            match (group_of(&object.api_version), object.kind.as_str()) {
                ("", "Namespace") if namespaces.contains(&object.name) => {
                    let labels = object.content.pointer("/metadata/labels").cloned();
                    let labels = labels.and_then(|labels| serde_json::from_value(labels).ok());
                    let mut labels: BTreeMap<String, String> = labels.unwrap_or_default();
                    labels.insert("kubernetes.io/metadata.name".to_owned(), object.name.clone());
                    reach.labels.push(labels);
                }
                (RBAC, "ClusterRole") if !grants_in_namespaces(object) => {
                    reach.elsewhere.insert(object.name.clone());
                }
                _ => {}
            }
        }
        for object in objects {
            match (group_of(&object.api_version), object.kind.as_str()) {
                (RBAC, "RoleBinding") if namespaces.contains(&object.namespace) => {
                    reach.roles.extend(role_of(object));
                }
                (RBAC, "ClusterRoleBinding") if reach.includes(object) => reach.roles.extend(role_of(object)),
                (ADMISSION, "MutatingAdmissionPolicyBinding") if reach.includes(object) => {
                    reach.policies.insert(text(&object.content, "/spec/policyName").to_owned());
                }
                _ => {}
            }
        }
        reach
    }

    fn includes(&self, object: &Object) -> bool {
        match (group_of(&object.api_version), object.kind.as_str()) {
            // A binding to a role that is missing grants whatever somebody writes there.
            (RBAC, "ClusterRoleBinding") => {
                role_of(object).is_none_or(|role| !self.elsewhere.contains(&role))
            }
            (RBAC, "ClusterRole") => self.roles.contains(&object.name),
            (ADMISSION, "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
                let hooks = object.content.get("webhooks").and_then(Value::as_array);
                hooks
                    .into_iter()
                    .flatten()
                    .any(|hook| intercepts_in_namespaces(hook) && self.matches(hook.get("namespaceSelector")))
            }
            (ADMISSION, "MutatingAdmissionPolicyBinding") => {
                self.matches(object.content.pointer("/spec/matchResources/namespaceSelector"))
            }
            (ADMISSION, "MutatingAdmissionPolicy") => self.policies.contains(&object.name),
            _ => false,
        }
    }

    /// Returns whether a selector matches one of the namespaces. One that is missing or cannot be read matches all.
    fn matches(&self, selector: Option<&Value>) -> bool {
        let Some(selector) = selector else { return true };
        let Ok(selector) = serde_json::from_value::<LabelSelector>(selector.clone()) else { return true };
        let Ok(selector) = Selector::try_from(selector) else { return true };
        self.labels.iter().any(|labels| selector.matches(labels))
    }
}

/// Returns the ClusterRole that a binding names.
fn role_of(binding: &Object) -> Option<String> {
    let is_cluster_role = text(&binding.content, "/roleRef/kind") == "ClusterRole";
    is_cluster_role.then(|| text(&binding.content, "/roleRef/name").to_owned())
}

/// Returns whether a role grants anything that reaches into namespaces, directly or by what it lets its holder do. What is only about URLs
/// does not, nor do rights on our own kinds, which have guards of their own.
fn grants_in_namespaces(role: &Object) -> bool {
    let rules = role.content.get("rules").and_then(Value::as_array);
    let is_ours = |rule: &Value| {
        let groups = rule.get("apiGroups").and_then(Value::as_array);
        groups.is_some_and(|groups| groups.iter().all(|group| group == crate::api::GROUP))
    };
    let reaches = |rule: &Value| rule.get("resources").is_some() && !is_ours(rule);
    role.content.get("aggregationRule").is_some() || rules.into_iter().flatten().any(reaches)
}

fn intercepts_in_namespaces(hook: &Value) -> bool {
    let rules = hook.get("rules").and_then(Value::as_array);
    rules.into_iter().flatten().any(|rule| text(rule, "/scope") != "Cluster")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(api: &str, kind: &str, name: &str, content: Value) -> Object {
        Object {
            api_version: format!("{api}/v1").trim_start_matches('/').to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
            content,
        }
    }

    #[test]
    fn only_what_reaches_into_the_namespaces_is_kept() {
        let role = |name: &str, rules: Value| object(RBAC, "ClusterRole", name, json!({"rules": rules}));
        let binding = |name: &str, role: &str| {
            object(
                RBAC,
                "ClusterRoleBinding",
                name,
                json!({"roleRef": {"kind": "ClusterRole", "name": role}}),
            )
        };
        let hook = |name: &str, selector: Value, scope: &str| {
            let hook = json!({"namespaceSelector": selector, "rules": [{"scope": scope}]});
            object(ADMISSION, "MutatingWebhookConfiguration", name, json!({"webhooks": [hook]}))
        };
        let here = json!({"matchLabels": {"team": "shop"}});
        let local = Object {
            namespace: "shop".into(),
            ..object(
                RBAC,
                "RoleBinding",
                "local",
                json!({"roleRef": {"kind": "ClusterRole", "name": "edit"}}),
            )
        };
        let all = vec![
            object("", "Namespace", "shop", json!({"metadata": {"labels": {"team": "shop"}}})),
            object("", "Namespace", "other", json!({})),
            role("reader", json!([{"resources": ["pods"], "verbs": ["get"]}])),
            role("urls", json!([{"nonResourceURLs": ["*"], "verbs": ["get"]}])),
            role("edit", json!([])),
            role("unused", json!([{"resources": ["*"]}])),
            binding("reads", "reader"),
            binding("discovers", "urls"),
            role(
                "recover",
                json!([{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "verbs": ["recover"]}]),
            ),
            binding("recovers", "recover"),
            binding("dangles", "missing"),
            hook("here", here.clone(), "*"),
            hook("cluster", here, "Cluster"),
            hook("elsewhere", json!({"matchLabels": {"team": "x"}}), "*"),
            local,
        ];
        let kept = within(all, &["shop".to_owned()], &BTreeSet::new());
        let names: Vec<String> = kept.iter().map(|object| object.key().to_string()).collect();
        assert_eq!(
            names,
            [
                "Namespace shop",
                "ClusterRole reader",
                "ClusterRole edit",
                "ClusterRoleBinding reads",
                "ClusterRoleBinding dangles",
                "MutatingWebhookConfiguration here",
                "RoleBinding shop/local",
            ]
        );
    }
}
