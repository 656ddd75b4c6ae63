//! Who holds wildcards. The fence takes none for a grant: whoever relies on one is refused in an isolated namespace.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Subject};
use kube::{Api, Client, ResourceExt};

use super::read::{list, some};
use super::{Check, Fact, Outcome};
use crate::api::GROUP;

const WILDCARDS: Check =
    Check::warning("wildcards", "nobody relies on a wildcard to write where it is isolated");

/// In the order in which they are shown.
pub const CHECKS: [Check; 1] = [WILDCARDS];

/// Holders named in a message.
const NAMED: usize = 8;
/// Always bound to `cluster-admin`, by the API server itself.
const MASTERS: &str = "Group system:masters";

/// What was read.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Who holds all verbs on Quarantines, through a ClusterRole and its bindings.
    pub holders: Fact<BTreeSet<String>>,
}

pub(super) async fn gather(client: &Client) -> Facts {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let (roles, bindings) =
        futures::join!(list(&roles, "ClusterRoles"), list(&bindings, "ClusterRoleBindings"));
    let holders = match (roles, bindings) {
        (Ok(roles), Ok(bindings)) => Ok(holders(&roles, &bindings)),
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    };
    Facts { holders }
}

/// Who is bound to all verbs on Quarantines. Pure.
fn holders(roles: &[ClusterRole], bindings: &[ClusterRoleBinding]) -> BTreeSet<String> {
    let wild: BTreeSet<String> = roles
        .iter()
        .filter(|role| role.rules.iter().flatten().any(is_wild))
        .map(ResourceExt::name_any)
        .collect();
    let bound = bindings.iter().filter(|binding| wild.contains(&binding.role_ref.name));
    bound.flat_map(|binding| binding.subjects.iter().flatten()).map(name).collect()
}

/// Does a rule grant every verb on Quarantines, that which is never granted included?
fn is_wild(rule: &PolicyRule) -> bool {
    let has = |all: &Option<Vec<String>>, wanted: &str| {
        all.iter().flatten().any(|item| item == "*" || item == wanted)
    };
    has(&rule.api_groups, GROUP)
        && has(&rule.resources, "quarantines")
        && rule.verbs.iter().any(|verb| verb == "*" || verb == "never-granted")
}

fn name(subject: &Subject) -> String {
    match &subject.namespace {
        Some(namespace) => format!("{} {namespace}/{}", subject.kind, subject.name),
        None => format!("{} {}", subject.kind, subject.name),
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    vec![wildcards(&facts.holders)]
}

fn wildcards(holders: &Fact<BTreeSet<String>>) -> Outcome {
    let holders = match holders {
        Ok(holders) => holders.iter().filter(|name| *name != MASTERS).collect::<Vec<_>>(),
        Err(why) => return WILDCARDS.unknown(why),
    };
    if holders.is_empty() {
        return WILDCARDS.passes("");
    }
    let (all, lines) = if holders.len() == 1 { ("it", "holds") } else { ("they", "hold") };
    WILDCARDS.fails(format!(
        "{} {lines} every verb by a wildcard. In an isolated namespace {all} will be refused all the same. Whoever of them must write \
         there, such as Flux, Argo CD or Velero, needs a ClusterRole that grants recover or operate on that Quarantine by name; a cluster \
         administrator writes it before the day",
        some(&holders, NAMED)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn whoever_holds_every_verb_on_quarantines_is_named() {
        let rule = |groups: &str, resources: &str, verbs: &str| json!({"apiGroups": [groups], "resources": [resources], "verbs": [verbs]});
        for (rule, wild) in [
            (rule("*", "*", "*"), true),
            (rule("resurgam.dev", "quarantines", "*"), true),
            (rule("*", "quarantines", "never-granted"), true),
            (rule("resurgam.dev", "*", "release"), false),
            (rule("apps", "*", "*"), false),
            (rule("*", "pods", "*"), false),
            (json!({"nonResourceURLs": ["*"], "verbs": ["*"]}), false),
        ] {
            let role = json!({"metadata": {"name": "r"}, "rules": [rule]});
            let subject = |value: Value| json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "", "kind": "ClusterRole", "name": "r"}, "subjects": [value]});
            let bindings = [
                subject(
                    json!({"kind": "ServiceAccount", "namespace": "flux-system", "name": "kustomize-controller"}),
                ),
                subject(json!({"kind": "User", "name": "administrator"})),
            ];
            let bindings = bindings.map(|binding| serde_json::from_value(binding).unwrap());
            let found = holders(&[serde_json::from_value(role.clone()).unwrap()], &bindings);
            let expected = ["ServiceAccount flux-system/kustomize-controller", "User administrator"];
            let expected: Vec<&str> = if wild { expected.into() } else { Vec::new() };
            assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{role}");
        }
    }
}
