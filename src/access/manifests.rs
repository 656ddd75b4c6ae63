//! Rights as manifests: a Role per namespace, and a ClusterRole for cluster-wide rights.
//!
//! Names depend on the plan's alone, and roles are never shared: a binding's role cannot be changed, so that a plan that is
//! amended must find the same names again.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Access, Right, WriterAccount};
use crate::api::{OPERATOR_ACCOUNT, OPERATOR_NAMESPACE};

const API: &str = "rbac.authorization.k8s.io";
/// Longest line of a list.
const WIDTH: usize = 140;

/// One object to apply. As JSON it is the object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Manifest {
    /// Purpose, in one line. Empty: it belongs to the previous manifest.
    #[serde(skip)]
    pub comment: String,
    /// The object.
    pub object: Value,
    /// The rights that it grants; for a binding, those of its role. `None`: the account.
    #[serde(skip)]
    pub grants: BTreeSet<Option<Right>>,
}

impl Manifest {
    fn key(&self) -> [&str; 3] {
        ["/kind", "/metadata/namespace", "/metadata/name"]
            .map(|at| self.object.pointer(at).and_then(Value::as_str).unwrap_or_default())
    }
}

/// Returns what an administrator applies in advance. Plans may share an account.
#[must_use]
pub fn manifests(plans: &[Access]) -> Vec<Manifest> {
    distinct(plans.iter().flat_map(plan_manifests))
}

/// Returns what a recovery lead applies while namespaces are isolated. No Role can be written there, so a ClusterRole grants the rights.
/// RBAC lets a lead grant what the lead holds.
#[must_use]
pub fn late(plans: &[Access]) -> Vec<Manifest> {
    let of = |access: &Access| {
        [access.cluster_manifests(), access.all_namespaces(), access.writer_manifests()].concat()
    };
    distinct(plans.iter().flat_map(of))
}

/// Returns what lets these subjects write plans: the verb `use` on each plan's account, which policy `resurgam-plan-author` requires.
/// `subjects` as in a RoleBinding.
#[must_use]
pub fn authors(plans: &[Access], subjects: &[Value]) -> Vec<Manifest> {
    let of = |access: &Access| {
        let name = format!("resurgam:use:{}", access.account);
        let mut both = grant(
            "Plan authors may use this account.",
            Some(&access.namespace),
            &name,
            &BTreeSet::from([access.authorship()]),
            &Value::Null,
        );
        both[1].object["subjects"] = json!(subjects);
        both
    };
    distinct(plans.iter().flat_map(of))
}

fn plan_manifests(access: &Access) -> Vec<Manifest> {
    let (namespace, account) = (&access.namespace, &access.account);
    let mut all = vec![Manifest {
        comment: "The account as which the plan reads and writes.".to_owned(),
        object: json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": namespace},
        }),
        grants: BTreeSet::from([None]),
    }];
    all.extend(grant(
        "The operator may act as this account.",
        Some(namespace),
        &format!("resurgam:impersonate:{account}"),
        &BTreeSet::from([access.impersonation()]),
        &json!({
            "kind": "ServiceAccount", "name": OPERATOR_ACCOUNT, "namespace": OPERATOR_NAMESPACE,
        }),
    ));
    all.extend(access.cluster_manifests());
    let places: BTreeSet<&str> =
        access.rights.keys().filter_map(|right| right.namespace.as_deref()).collect();
    for place in places {
        let (rights, parts) = access.rights_in(Some(place));
        let comment = format!("In {place}, for: {parts}.");
        all.extend(grant(&comment, Some(place), &access.name(), &rights, &access.subject()));
    }
    all.extend(access.writer_manifests());
    all
}

impl Access {
    /// The name of its roles and bindings.
    fn name(&self) -> String {
        format!("resurgam:{}:{}", self.namespace, self.plan)
    }

    /// Returns the rights in one namespace (`None`: cluster-wide), and the parts of the plan that need them.
    fn rights_in(&self, place: Option<&str>) -> (BTreeSet<Right>, String) {
        let here = || self.rights.iter().filter(|(right, _)| right.namespace.as_deref() == place);
        let parts: BTreeSet<&str> = here().flat_map(|(_, parts)| parts).map(String::as_str).collect();
        (here().map(|(right, _)| right.clone()).collect(), parts.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// Returns what grants cluster-wide rights.
    fn cluster_manifests(&self) -> Vec<Manifest> {
        let (rights, parts) = self.rights_in(None);
        if rights.is_empty() {
            return Vec::new();
        }
        let is_quarantine = |right: &Right| right.resource == "quarantines";
        let on = if rights.iter().all(is_quarantine) { "On Quarantines" } else { "In the whole cluster" };
        grant(&format!("{on}, for: {parts}."), None, &self.name(), &rights, &self.subject()).into()
    }

    /// Returns what grants the rights of some namespaces in all namespaces.
    fn all_namespaces(&self) -> Vec<Manifest> {
        let meant: BTreeSet<&Right> = self.rights.keys().filter(|right| right.namespace.is_some()).collect();
        if meant.is_empty() {
            return Vec::new();
        }
        let rights = meant.iter().map(|right| Right { namespace: None, ..(*right).clone() }).collect();
        let comment = "In all namespaces, since no Role can be written in isolated ones. Delete it once the plan is Recovered.";
        let mut both = grant(comment, None, &format!("{}:late", self.name()), &rights, &self.subject());
        for manifest in &mut both {
            manifest.grants = meant.iter().map(|right| Some((*right).clone())).collect();
        }
        both.into()
    }

    /// Returns what lets the accounts of others write into clean rooms.
    fn writer_manifests(&self) -> Vec<Manifest> {
        let of = |(account, rights): (&WriterAccount, &BTreeMap<Right, BTreeSet<String>>)| {
            let WriterAccount { namespace, name } = account;
            let parts: BTreeSet<&str> = rights.values().flatten().map(String::as_str).collect();
            let parts = parts.into_iter().collect::<Vec<_>>().join(", ");
            let comment =
                format!("On Quarantines, for account {namespace}/{name}, which writes for: {parts}.");
            let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
            let role = format!("{}:{namespace}:{name}", self.name());
            grant(&comment, None, &role, &rights.keys().cloned().collect(), &subject)
        };
        self.writers.iter().flat_map(of).collect()
    }

    fn subject(&self) -> Value {
        json!({"kind": "ServiceAccount", "name": self.account, "namespace": self.namespace})
    }
}

/// A role and its binding, both of that name.
fn grant(
    comment: &str,
    namespace: Option<&str>,
    name: &str,
    rights: &BTreeSet<Right>,
    subject: &Value,
) -> [Manifest; 2] {
    let (role, binding, metadata) = match namespace {
        Some(namespace) => ("Role", "RoleBinding", json!({"name": name, "namespace": namespace})),
        None => ("ClusterRole", "ClusterRoleBinding", json!({"name": name})),
    };
    let version = format!("{API}/v1");
    let grants: BTreeSet<Option<Right>> = rights.iter().cloned().map(Some).collect();
    [
        Manifest {
            comment: comment.to_owned(),
            object: json!({"apiVersion": version, "kind": role, "metadata": metadata, "rules": rules(rights)}),
            grants: grants.clone(),
        },
        Manifest {
            comment: String::new(),
            object: json!({
                "apiVersion": version, "kind": binding, "metadata": metadata,
                "roleRef": {"apiGroup": API, "kind": role, "name": name},
                "subjects": [subject],
            }),
            grants,
        },
    ]
}

/// Names, or verbs.
type Names<'a> = BTreeSet<&'a str>;

/// Returns as few rules as possible: rights with the same verbs and names share a rule.
fn rules(rights: &BTreeSet<Right>) -> Vec<Value> {
    let mut verbs: BTreeMap<(&str, &str, Option<&str>), Names<'_>> = BTreeMap::new();
    for right in rights {
        let on = (right.group.as_str(), right.resource.as_str(), right.name.as_deref());
        verbs.entry(on).or_default().insert(right.verb);
    }
    // An object is named with its own verbs only; verbs on all objects are a separate rule.
    let mut names: BTreeMap<(&str, Names<'_>, bool, &str), Names<'_>> = BTreeMap::new();
    for ((group, resource, name), verbs) in verbs {
        names.entry((group, verbs, name.is_some(), resource)).or_default().extend(name);
    }
    let mut resources: BTreeMap<(&str, Names<'_>, Names<'_>), Names<'_>> = BTreeMap::new();
    for ((group, verbs, _, resource), names) in names {
        resources.entry((group, verbs, names)).or_default().insert(resource);
    }
    let rule = |((group, verbs, names), resources)| {
        let (verbs, names, resources): (Names<'_>, Names<'_>, Names<'_>) = (verbs, names, resources);
        let mut rule = json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        if !names.is_empty() {
            rule["resourceNames"] = json!(names);
        }
        rule
    };
    resources.into_iter().map(rule).collect()
}

fn distinct(all: impl Iterator<Item = Manifest>) -> Vec<Manifest> {
    let mut kept: Vec<Manifest> = Vec::new();
    for manifest in all {
        if !kept.iter().any(|other| other.key() == manifest.key()) {
            kept.push(manifest);
        }
    }
    kept
}

/// The manifests as YAML, each with its comment, to apply or to commit: short enough to be reviewed.
///
/// # Errors
/// A manifest cannot be converted to YAML.
pub fn yaml(manifests: &[Manifest]) -> Result<String, serde_yaml::Error> {
    let mut text = String::new();
    for Manifest { comment, object, .. } in manifests {
        text.push_str("---\n");
        if !comment.is_empty() {
            text.push_str(&format!("# {comment}\n"));
        }
        for (key, value) in object.as_object().into_iter().flatten() {
            match value.as_array() {
                Some(items) => {
                    text.push_str(&format!("{key}:\n"));
                    for item in items {
                        text.push_str(&entry(item)?);
                    }
                }
                None => text.push_str(&format!("{key}: {}\n", flow(value)?)),
            }
        }
    }
    Ok(text)
}

/// One entry of a list: on a line of its own, or, where that would be long, on one for each thing in it.
fn entry(item: &Value) -> Result<String, serde_yaml::Error> {
    let line = format!("- {}\n", flow(item)?);
    if line.len() <= WIDTH {
        return Ok(line);
    }
    let mut text = String::new();
    for (index, (key, value)) in item.as_object().into_iter().flatten().enumerate() {
        let indent = if index == 0 { "- " } else { "  " };
        match value.as_array().filter(|values| values.len() > 1) {
            Some(values) => {
                text.push_str(&format!("{indent}{key}:\n"));
                for value in values {
                    text.push_str(&format!("  - {}\n", flow(value)?));
                }
            }
            None => text.push_str(&format!("{indent}{key}: {}\n", flow(value)?)),
        }
    }
    Ok(text)
}

/// A value on one line.
fn flow(value: &Value) -> Result<String, serde_yaml::Error> {
    let joined = |parts: Result<Vec<String>, _>| parts.map(|parts| parts.join(", "));
    Ok(match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| Ok(format!("{key}: {}", flow(value)?)));
            format!("{{{}}}", joined(fields.collect())?)
        }
        Value::Array(values) => format!("[{}]", joined(values.iter().map(flow).collect())?),
        // Quoted where it would be taken for something else, such as the name `no`.
        scalar => serde_yaml::to_string(scalar)?.trim_end().to_owned(),
    })
}

/// The manifests as one `List`.
#[must_use]
pub fn list(manifests: &[Manifest]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": manifests})
}
