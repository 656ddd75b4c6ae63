//! The isolation lists: ConfigMaps in the operator's namespace with one text per level, one line per namespace ([`text`]), and one text
//! with the ClusterRoles that grant our verbs. The list fence and the guards read them. There are two copies: losing one changes nothing;
//! if both are lost, the label still isolates.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::ObjectMeta;

use crate::api::{Isolation, MANAGED_BY_LABEL, OPERATOR_NAMESPACE};
use crate::isolation::MANAGED_BY;
pub use text::{Levels, appended, changed, levels};

mod text;

/// Names of the lists, in the operator's namespace. Each has the full content.
pub const CONFIG_MAPS: [&str; 2] = ["resurgam-guard", "resurgam-guard-copy"];
/// Label by which the policies select the lists.
pub const LABEL: &str = "resurgam.dev/isolation-list";
/// Key of the text with the ClusterRoles that grant our verbs, and the names they grant them for.
pub const ROLES_KEY: &str = "_roles";
/// Verbs that exempt their holder from the fence or permit a release.
const VERBS: [&str; 4] = ["release", "repair", "recover", "operate"];
/// Resources that the verbs apply to.
const RESOURCES: [&str; 2] = ["quarantines", "incidents"];

/// Returns the selector of the lists.
#[must_use]
pub fn selector() -> LabelSelector {
    LabelSelector {
        match_labels: Some([(LABEL.to_owned(), "true".to_owned())].into()),
        match_expressions: None,
    }
}

/// Returns empty lists. They must exist before the policies are created, as some policies deny requests without them.
#[must_use]
pub fn empty() -> Vec<ConfigMap> {
    CONFIG_MAPS.iter().map(|name| list(name, None)).collect()
}

/// Returns a list with this data.
#[must_use]
pub fn list(name: &str, data: Option<BTreeMap<String, String>>) -> ConfigMap {
    let labels =
        [(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()), (LABEL.to_owned(), "true".to_owned())];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(OPERATOR_NAMESPACE.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        data,
        ..ConfigMap::default()
    }
}

/// Entries of one namespace on the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The level on each existing list. `None`: the namespace is not on it.
    each: Vec<Option<String>>,
}

impl Listed {
    /// Returns the entries from the level on each existing list.
    #[must_use]
    pub fn new<'a>(each: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        Self { each: each.into_iter().map(|level| level.map(str::to_owned)).collect() }
    }

    /// Returns whether every existing list has the namespace at this level. `Open`: whether no list has it.
    #[must_use]
    pub fn is_at(&self, level: Isolation) -> bool {
        !self.each.is_empty() && self.each.iter().all(|listed| listed.as_deref() == level.label())
    }

    /// Returns whether any list has the namespace at this level or a tighter one.
    #[must_use]
    pub fn isolates(&self) -> bool {
        self.each.iter().flatten().any(|level| level == "contained" || level == "sealed")
    }
}

/// Returns one line per ClusterRole that grants one of our verbs explicitly: its name, a blank, and the resource names separated by
/// commas, or `*`. A rule with a wildcard verb does not count as a grant: the policies deny its holders.
#[must_use]
pub fn holders<'a>(roles: impl IntoIterator<Item = &'a ClusterRole>) -> String {
    let lines: BTreeSet<String> = roles
        .into_iter()
        .filter_map(|role| {
            let rules = role.rules.as_deref().unwrap_or_default();
            let names: BTreeSet<&str> = rules.iter().flat_map(holds).collect();
            // The guard parses names in the same way: a line break would hide the rest, or forge a holder.
            let line = |text: &str| text.replace('\n', "?");
            let names = if names.contains("*") { "*".to_owned() } else { join(names) };
            (!names.is_empty()).then(|| format!("{} {}", line(&role.name_any()), line(&names)))
        })
        .collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

fn join(names: BTreeSet<&str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(",")
}

/// Returns the resource names for which a rule grants one of our verbs.
fn holds(rule: &PolicyRule) -> Vec<&str> {
    let any = |list: Option<&Vec<String>>, ours: &[&str]| {
        list.is_some_and(|list| list.iter().any(|one| one == "*" || ours.contains(&one.as_str())))
    };
    let explicit = rule.verbs.iter().any(|verb| VERBS.contains(&verb.as_str()));
    if !explicit
        || !any(rule.api_groups.as_ref(), &["resurgam.dev"])
        || !any(rule.resources.as_ref(), &RESOURCES)
    {
        return Vec::new();
    }
    // Names of Incidents are not namespaces.
    let quarantines = rule.resources.iter().flatten().all(|resource| resource == "quarantines");
    match rule.resource_names.as_deref() {
        Some(names) if quarantines && !names.is_empty() => names.iter().map(String::as_str).collect(),
        _ => vec!["*"],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(name: &str, rules: serde_json::Value) -> ClusterRole {
        serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules})).unwrap()
    }

    #[test]
    fn explicit_holders_of_our_verbs_are_listed_with_names() {
        let rule = |verbs: &[&str], resources: &[&str], names: &[&str]| json!({"apiGroups": ["resurgam.dev"], "verbs": verbs, "resources": resources, "resourceNames": names});
        let roles = [
            role("view", json!([rule(&["get", "list"], &["quarantines"], &[])])),
            role("cluster-admin", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}])),
            role(
                "plan",
                json!([
                    rule(&["recover"], &["quarantines"], &["b", "a"]),
                    rule(&["operate"], &["quarantines"], &["c"])
                ]),
            ),
            role(
                "lead",
                json!([
                    rule(&["release", "get"], &["quarantines"], &[]),
                    rule(&["repair"], &["quarantines"], &["a"])
                ]),
            ),
            role("incident", json!([rule(&["release"], &["incidents"], &["nov-2025"])])),
            role(
                "sly\nplan x",
                json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["release"], "resourceNames": ["a"]}]),
            ),
            role("named", json!([rule(&["release"], &["quarantines"], &["a\nlead *"])])),
            role("other", json!([{"apiGroups": ["apps"], "resources": ["*"], "verbs": ["release"]}])),
            ClusterRole::default(),
        ];
        assert_eq!(holders(&roles), "incident *\nlead *\nnamed a?lead *\nplan a,b,c\nsly?plan x *");
        assert_eq!(holders([]), "");
    }

    #[test]
    fn empty_lists_are_labelled_and_in_the_operators_namespace() {
        let empty = serde_json::to_value(empty()).unwrap();
        for (list, name) in empty.as_array().unwrap().iter().zip(CONFIG_MAPS) {
            let metadata = json!({"name": name, "namespace": "resurgam-system",
                "labels": {"app.kubernetes.io/managed-by": "resurgam", "resurgam.dev/isolation-list": "true"}});
            assert_eq!((&list["metadata"], list.get("data")), (&metadata, None));
        }
    }

    #[test]
    fn all_lists_have_to_agree_and_any_isolates() {
        for (each, at, isolates) in [
            (&[Some("sealed"), Some("sealed")][..], Some(Isolation::Sealed), true),
            (&[Some("sealed"), Some("contained")], None, true),
            (&[Some("sealed"), None], None, true),
            (&[Some("sealed")], Some(Isolation::Sealed), true),
            (&[Some("clean-room"), Some("clean-room")], Some(Isolation::CleanRoom), false),
            (&[None, None], Some(Isolation::Open), false),
            (&[], None, false),
        ] {
            let levels = [Isolation::Sealed, Isolation::Contained, Isolation::CleanRoom, Isolation::Open];
            let listed = Listed::new(each.iter().copied());
            assert_eq!(levels.into_iter().find(|level| listed.is_at(*level)), at, "{each:?}");
            assert_eq!(listed.isolates(), isolates, "{each:?}");
        }
    }

    #[test]
    fn any_cluster_role_yields_one_line_per_holder() {
        let rules = json!([{"apiGroups": ["resurgam.dev"], "verbs": ["release"], "resources": ["quarantines"], "resourceNames": ["a", "b"]}]);
        let sound = json!([{"metadata": {"name": "lead"}, "rules": rules}, {"metadata": {"name": "plan"}, "rules": rules}]);
        let readable = fuzz_input::Readable::default();
        bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| {
            let Some(roles) = readable.read::<Vec<ClusterRole>>(fuzz_input::spoiled(&sound, bytes)) else {
                return;
            };
            assert!(holders(&roles).lines().count() <= roles.len());
        });
    }
}
