//! Holders of wildcards. The fence does not accept a wildcard as a grant, so accounts that rely on one are refused in isolated
//! namespaces.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Subject};
use kube::{Api, Client, ResourceExt};

use super::read::{first_few, list};
use super::{Check, Fact, Outcome};
use crate::api::{GROUP, OPERATOR_NAMESPACE};

const WILDCARDS: Check =
    Check::warning("wildcards", "no account relies on a wildcard to write in an isolated namespace");
const RELEASE: Check = Check::warning("release-holders", "someone may release an isolated namespace");

/// The checks, in display order.
pub const CHECKS: [Check; 2] = [WILDCARDS, RELEASE];

/// Maximum number of holders named in a message.
const NAMED: usize = 8;
/// The API server always binds this group to `cluster-admin`.
const MASTERS: &str = "Group system:masters";

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Subjects with all verbs on Quarantines by a ClusterRole.
    pub holders: Fact<BTreeSet<String>>,
    /// Subjects with an explicit grant of `release` on Quarantines, without the accounts of this installation.
    pub releasers: Fact<BTreeSet<String>>,
}

pub(super) async fn gather(client: &Client) -> Facts {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let (roles, bindings) =
        futures::join!(list(&roles, "ClusterRoles"), list(&bindings, "ClusterRoleBindings"));
    let read: Fact<_> = match (roles, bindings) {
        (Ok(roles), Ok(bindings)) => Ok((roles, bindings)),
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    };
    let (roles, bindings) = match read {
        Ok(read) => read,
        Err(why) => return Facts { holders: Err(why.clone()), releasers: Err(why) },
    };
    Facts { holders: Ok(holders(&roles, &bindings)), releasers: Ok(releasers(&roles, &bindings)) }
}

/// Returns the subjects with all verbs on Quarantines. Pure.
fn holders(roles: &[ClusterRole], bindings: &[ClusterRoleBinding]) -> BTreeSet<String> {
    bound(roles, bindings, is_wild).map(name).collect()
}

/// Returns the subjects with an explicit grant of `release` and no wildcard, for which the lock would refuse them. Excludes the operator
/// and the account of `helm test`, which release nothing for people. Pure.
fn releasers(roles: &[ClusterRole], bindings: &[ClusterRoleBinding]) -> BTreeSet<String> {
    let wild = holders(roles, bindings);
    let ours = |subject: &&Subject| {
        subject.kind == "ServiceAccount" && subject.namespace.as_deref() == Some(OPERATOR_NAMESPACE)
    };
    let others = bound(roles, bindings, releases).filter(|subject| !ours(subject));
    others.map(name).filter(|name| !wild.contains(name)).collect()
}

/// Returns the subjects of ClusterRoles with such a rule.
fn bound<'a>(
    roles: &'a [ClusterRole],
    bindings: &'a [ClusterRoleBinding],
    wanted: fn(&PolicyRule) -> bool,
) -> impl Iterator<Item = &'a Subject> {
    let with: BTreeSet<String> = roles
        .iter()
        .filter(|role| role.rules.iter().flatten().any(wanted))
        .map(ResourceExt::name_any)
        .collect();
    let bound = bindings.iter().filter(move |binding| with.contains(&binding.role_ref.name));
    bound.flat_map(|binding| binding.subjects.iter().flatten())
}

/// Returns whether a rule grants `release` by name, on all Quarantines or some.
fn releases(rule: &PolicyRule) -> bool {
    is_on_quarantines(rule) && rule.verbs.iter().any(|verb| verb == "release")
}

/// Returns whether a rule grants every verb on Quarantines, including `never-granted`.
fn is_wild(rule: &PolicyRule) -> bool {
    is_on_quarantines(rule) && rule.verbs.iter().any(|verb| verb == "*" || verb == "never-granted")
}

fn is_on_quarantines(rule: &PolicyRule) -> bool {
    let has = |all: &Option<Vec<String>>, wanted: &str| {
        all.iter().flatten().any(|item| item == "*" || item == wanted)
    };
    has(&rule.api_groups, GROUP) && has(&rule.resources, "quarantines")
}

fn name(subject: &Subject) -> String {
    match &subject.namespace {
        Some(namespace) => format!("{} {namespace}/{}", subject.kind, subject.name),
        None => format!("{} {}", subject.kind, subject.name),
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    vec![wildcards(&facts.holders), release(&facts.releasers)]
}

fn release(releasers: &Fact<BTreeSet<String>>) -> Outcome {
    match releasers {
        Err(why) => RELEASE.unknown(why),
        Ok(releasers) if releasers.is_empty() => RELEASE.fails(
            "no subject has an explicit grant of release on Quarantines, and a wildcard is none: what is isolated could not be let out \
             again. A cluster administrator names recovery leads before the day, by the chart's value \
             people.recoveryLeads, or binds them to ClusterRole resurgam-recovery-lead",
        ),
        Ok(releasers) => {
            let names: Vec<&String> = releasers.iter().collect();
            RELEASE.passes(first_few(&names, NAMED))
        }
    }
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
        "{} {lines} every verb by a wildcard. In an isolated namespace {all} will be refused all the same. Those of them that must write \
         there, such as Flux, Argo CD or Velero, needs a ClusterRole that grants recover or operate on that Quarantine by name; a cluster \
         administrator writes it before the day",
        first_few(&holders, NAMED)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn releaser_is_bound_by_a_grant_of_its_own() {
        let role = |name: &str, verb: &str| {
            let rule = json!({"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "verbs": [verb]});
            serde_json::from_value(json!({"metadata": {"name": name}, "rules": [rule]})).unwrap()
        };
        let roles = [role("lead", "release"), role("administrator", "*"), role("responder", "create")];
        let bind = |role: &str, subjects: Value| {
            let binding = json!({"metadata": {"name": "b"}, "subjects": subjects,
                "roleRef": {"apiGroup": "", "kind": "ClusterRole", "name": role}});
            serde_json::from_value(binding).unwrap()
        };
        let (user, both) =
            (json!({"kind": "User", "name": "lead"}), json!({"kind": "Group", "name": "both"}));
        let operator = json!({"kind": "ServiceAccount", "namespace": "resurgam-system", "name": "resurgam"});
        let bindings = [
            bind("administrator", json!([both])),
            bind("responder", json!([{"kind": "User", "name": "on-call"}])),
            bind("lead", json!([operator, both])),
        ];
        assert_eq!(releasers(&roles, &bindings), BTreeSet::new());
        assert_eq!(
            releasers(&roles, &[bind("lead", json!([user, operator]))]),
            BTreeSet::from(["User lead".to_owned()])
        );
    }

    #[test]
    fn holders_of_all_verbs_on_quarantines_are_named() {
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
