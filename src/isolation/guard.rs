//! What the guards go by: one ConfigMap, with a key for each quarantined namespace (its level) and one for the ClusterRoles that
//! hold our verbs. The policy `resurgam-own-guard` lets others only add namespaces to it; the operator alone takes them out.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::MANAGED_BY;
use super::label::{self, Writing};
use crate::api::{Isolation, MANAGED_BY_LABEL, OPERATOR_NAMESPACE, QuarantineSpec, field_manager};
use crate::calls::{IoError, call, call_opt};
use batch::{Batch, Keys};

mod batch;

/// Name of the ConfigMap, in the operator's namespace.
pub const CONFIG_MAP: &str = "resurgam-guard";
/// The key that is no namespace: which ClusterRoles hold our verbs, over which namespaces.
pub const ROLES_KEY: &str = "_roles";
/// The verbs by which somebody is let through, or lets out.
const VERBS: [&str; 4] = ["release", "repair", "recover", "operate"];
/// The resources that they are asked on.
const RESOURCES: [&str; 2] = ["quarantines", "incidents"];

/// The ConfigMap with nothing quarantined: it has to be there before the policies are, which refuse without it.
#[must_use]
pub fn empty() -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(CONFIG_MAP.to_owned()),
            namespace: Some(OPERATOR_NAMESPACE.to_owned()),
            labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn api(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), OPERATOR_NAMESPACE)
}

/// Creates the ConfigMap if it is not there. Tells whether it was not.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn ensure(client: &Client) -> Result<bool, IoError> {
    let what = format!("create ConfigMap {OPERATOR_NAMESPACE}/{CONFIG_MAP}");
    if read(client).await?.is_some() {
        return Ok(false);
    }
    let params = PostParams { dry_run: false, field_manager: Some(field_manager::FENCE.to_owned()) };
    match call(what, api(client).create(&params, &empty())).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn read(client: &Client) -> Result<Option<BTreeMap<String, String>>, IoError> {
    let what = format!("get ConfigMap {OPERATOR_NAMESPACE}/{CONFIG_MAP}");
    let found = call_opt(what, api(client).get(CONFIG_MAP)).await?;
    Ok(found.map(|map| map.data.unwrap_or_default()))
}

/// The level that the guards know a namespace at; `None`: not quarantined.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn level(client: &Client, namespace: &str) -> Result<Option<String>, IoError> {
    Ok(read(client).await?.and_then(|mut data| data.remove(namespace)))
}

/// Tells the guards of a namespace, unless they know of it: who has no more rights than to isolate changes no level.
///
/// # Errors
/// The API server refused, or did not answer, and they do not know of it.
pub async fn add(client: &Client, namespace: &str, level: Isolation) -> Result<(), IoError> {
    if self::level(client, namespace).await?.is_some() {
        return Ok(());
    }
    let Err(error) = write(client, key(namespace, level)).await else { return Ok(()) };
    // An operator may have been faster: then it is refused, as it would change a level.
    match self::level(client, namespace).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) | Err(_) => Err(error),
    }
}

/// Do the guards know the namespace at this level, and does it bear label and annotations?
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn is_marked(
    client: &Client,
    namespace: &Namespace,
    spec: &QuarantineSpec,
    level: Isolation,
) -> Result<bool, IoError> {
    if !label::is_labelled(namespace, spec, level) {
        return Ok(false);
    }
    Ok(self::level(client, &namespace.name_any()).await?.as_deref() == level.label())
}

/// Who tells the guards of many namespaces.
pub struct Guards {
    client: Client,
    batch: Batch,
}

impl Guards {
    /// None is told of anything yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, batch: Batch::default() }
    }

    /// Tells the guards of a namespace; `Open` takes it out.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn set(&self, namespace: &str, level: Isolation) -> Result<(), IoError> {
        self.batch.write(namespace, level.label(), |keys| write(&self.client, keys)).await
    }

    /// Tells the guards and writes label and annotations. The guards come first, and are told last that it is over.
    ///
    /// # Errors
    /// The API server's, such as a conflict, or its refusal by the lock.
    pub async fn mark(
        &self,
        namespace: &Namespace,
        spec: &QuarantineSpec,
        level: Isolation,
        writing: Writing,
    ) -> Result<Namespace, IoError> {
        let name = namespace.name_any();
        if level != Isolation::Open {
            self.set(&name, level).await?;
        }
        let labelled = if label::is_labelled(namespace, spec, level) {
            namespace.clone()
        } else {
            label::label(&self.client, namespace, spec, level, writing).await?
        };
        if level == Isolation::Open && label::is_labelled(&labelled, spec, level) {
            self.set(&name, level).await?;
        }
        Ok(labelled)
    }
}

/// Tells the guards which ClusterRoles hold our verbs, unless they know.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn set_holders(client: &Client, holders: &str) -> Result<(), IoError> {
    let known = read(client).await?.unwrap_or_default();
    if known.get(ROLES_KEY).is_some_and(|known| known == holders) {
        return Ok(());
    }
    write(client, [(ROLES_KEY.to_owned(), Some(holders.to_owned()))].into()).await
}

fn key(namespace: &str, level: Isolation) -> Keys {
    [(namespace.to_owned(), level.label().map(str::to_owned))].into()
}

/// Patches these keys, so that writers do not stand in each other's way.
async fn write(client: &Client, keys: Keys) -> Result<(), IoError> {
    let patch = Patch::Merge(json!({"data": keys}));
    let params =
        PatchParams { field_manager: Some(field_manager::FENCE.to_owned()), ..PatchParams::default() };
    // Not of whom: each who asked is told, and is not concerned with the others.
    let what = format!("write ConfigMap {OPERATOR_NAMESPACE}/{CONFIG_MAP}");
    let written = call_opt(what.clone(), api(client).patch(CONFIG_MAP, &params, &patch)).await?;
    if written.is_none() && keys.values().any(Option::is_some) {
        ensure(client).await?;
        call(what, api(client).patch(CONFIG_MAP, &params, &patch)).await?;
    }
    Ok(())
}

/// A line for each ClusterRole that holds one of our verbs explicitly: its name, a blank, and the names that it holds them for,
/// with commas between, or `*`. A rule with a wildcard verb is no grant, as whoever holds it is refused.
#[must_use]
pub fn holders<'a>(roles: impl IntoIterator<Item = &'a ClusterRole>) -> String {
    let lines: BTreeSet<String> = roles
        .into_iter()
        .filter_map(|role| {
            let rules = role.rules.as_deref().unwrap_or_default();
            let names: BTreeSet<&str> = rules.iter().flat_map(holds).collect();
            // The guard reads names so, too: a line break would hide what follows it, or make up a holder.
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

/// For which names a rule holds one of our verbs.
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
    // The names of Incidents are no namespaces.
    let quarantines = rule.resources.iter().flatten().all(|resource| resource == "quarantines");
    match rule.resource_names.as_deref() {
        Some(names) if quarantines && !names.is_empty() => names.iter().map(String::as_str).collect(),
        _ => vec!["*"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, rules: serde_json::Value) -> ClusterRole {
        serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules})).unwrap()
    }

    #[test]
    fn who_holds_our_verbs_explicitly_is_known_with_the_names() {
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
    fn what_the_guards_go_by_is_ours_and_in_the_operators_namespace() {
        let empty = serde_json::to_value(empty()).unwrap();
        let metadata = json!({"name": "resurgam-guard", "namespace": "resurgam-system",
            "labels": {"app.kubernetes.io/managed-by": "resurgam"}});
        assert_eq!((&empty["metadata"], empty.get("data")), (&metadata, None));
    }

    #[test]
    fn whatever_cluster_roles_say_each_holder_is_one_line() {
        let rules = json!([{"apiGroups": ["resurgam.dev"], "verbs": ["release"], "resources": ["quarantines"], "resourceNames": ["a", "b"]}]);
        let sound = json!([{"metadata": {"name": "lead"}, "rules": rules}, {"metadata": {"name": "plan"}, "rules": rules}]);
        let readable = crate::fuzz::Readable::default();
        bolero::check!().with_iterations(crate::fuzz::ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| {
            let Some(roles) = readable.read::<Vec<ClusterRole>>(crate::fuzz::spoiled(&sound, bytes)) else {
                return;
            };
            assert!(holders(&roles).lines().count() <= roles.len());
        });
    }
}
