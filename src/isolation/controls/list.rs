//! The isolation lists: ConfigMaps in the operator's namespace with a text for each level, a line for each namespace ([`text`]), and
//! one for the ClusterRoles that hold our verbs. The list fence and the guards go by them. There are two copies: losing one changes
//! nothing, and losing both leaves the label. The policy `resurgam-own-guard` lets others only append namespaces; the operator alone
//! takes them out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::label;
use crate::api::{Isolation, MANAGED_BY_LABEL, OPERATOR_NAMESPACE, QuarantineSpec, field_manager};
use crate::calls::{IoError, call, call_opt};
use crate::isolation::MANAGED_BY;
use batch::{Batch, Levels};
pub use text::levels;
use text::{appended, changed};

mod batch;
mod text;

/// Names of the lists, in the operator's namespace. Each holds everything.
pub const CONFIG_MAPS: [&str; 2] = ["resurgam-guard", "resurgam-guard-copy"];
/// Label by which the policies select the lists.
pub const LABEL: &str = "resurgam.dev/isolation-list";
/// The key that is no level: which ClusterRoles hold our verbs, over which namespaces.
pub const ROLES_KEY: &str = "_roles";
/// The verbs by which somebody is let through, or lets out.
const VERBS: [&str; 4] = ["release", "repair", "recover", "operate"];
/// The resources that they are asked on.
const RESOURCES: [&str; 2] = ["quarantines", "incidents"];
/// So often a list is read anew that somebody wrote in between.
const ATTEMPTS: u32 = 20;
/// How long is waited before that, at first.
const PAUSE: Duration = Duration::from_millis(5);

/// Selects the lists.
#[must_use]
pub fn selector() -> LabelSelector {
    LabelSelector {
        match_labels: Some([(LABEL.to_owned(), "true".to_owned())].into()),
        match_expressions: None,
    }
}

/// The lists with nothing isolated: they have to be there before the policies are, some of which refuse without them.
#[must_use]
pub fn empty() -> Vec<ConfigMap> {
    CONFIG_MAPS.iter().map(|name| list(name, None)).collect()
}

fn list(name: &str, data: Option<BTreeMap<String, String>>) -> ConfigMap {
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

fn api(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), OPERATOR_NAMESPACE)
}

/// Makes a list that is lost, from the one that is left, and labels one that lacks the label. Returns whether anything was
/// missing.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn ensure(client: &Client) -> Result<bool, IoError> {
    let there = read(client).await?;
    let left = there.iter().flatten().find_map(|map| map.data.clone());
    let mut written = false;
    for (name, found) in CONFIG_MAPS.iter().zip(&there) {
        let labelled = found.as_ref().is_some_and(|map| map.labels().get(LABEL).is_some_and(|l| l == "true"));
        match found {
            Some(_) if labelled => continue,
            Some(_) => {
                let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: "true"}}}));
                let what = format!("label ConfigMap {OPERATOR_NAMESPACE}/{name}");
                call(what, api(client).patch(name, &manager(), &patch)).await?;
            }
            None => {
                // Who has no more rights than to isolate copies no roles; the operator writes them anew.
                let data = left.clone().map(|mut data| {
                    data.remove(ROLES_KEY);
                    data
                });
                let params =
                    PostParams { dry_run: false, field_manager: Some(field_manager::FENCE.to_owned()) };
                let what = format!("create ConfigMap {OPERATOR_NAMESPACE}/{name}");
                match call(what, api(client).create(&params, &list(name, data))).await {
                    Err(error) if !error.is_conflict() => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        written = true;
    }
    Ok(written)
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(field_manager::FENCE.to_owned()), ..PatchParams::default() }
}

/// Each list as it is, `None` for one that is lost.
async fn read(client: &Client) -> Result<Vec<Option<ConfigMap>>, IoError> {
    let one = |name: &'static str| async move {
        let what = format!("get ConfigMap {OPERATOR_NAMESPACE}/{name}");
        call_opt(what, api(client).get(name)).await
    };
    join_all(CONFIG_MAPS.map(one)).await.into_iter().collect()
}

/// What the lists say of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The level on each list that is there; `None`: not on it.
    each: Vec<Option<String>>,
}

impl Listed {
    /// From the level on each list that is there.
    #[must_use]
    pub fn new<'a>(each: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        Self { each: each.into_iter().map(|level| level.map(str::to_owned)).collect() }
    }

    /// Is it on every list that is there, at this level? `Open`: on none.
    #[must_use]
    pub fn is_at(&self, level: Isolation) -> bool {
        !self.each.is_empty() && self.each.iter().all(|listed| listed.as_deref() == level.label())
    }

    /// Does any list isolate it at this level or a tighter one?
    #[must_use]
    pub fn isolates(&self) -> bool {
        self.each.iter().flatten().any(|level| level == "contained" || level == "sealed")
    }
}

/// Puts namespaces on the lists, by one write of each, unless they are on them: who has no more rights than to isolate changes
/// no level.
///
/// # Errors
/// The API server refused, or did not answer, and some are on no list.
pub async fn add(client: &Client, namespaces: &[String], level: Isolation) -> Result<(), IoError> {
    let writes = CONFIG_MAPS.map(|name| write_one(client, name, |list| appended(list, namespaces, level)));
    join_all(writes).await.into_iter().collect()
}

/// What each list that is there says, or why none could be read.
type Seen = Result<Arc<Vec<BTreeMap<String, String>>>, IoError>;

/// Reads and writes the lists for many namespaces: those that wait share a read, and a write.
pub struct Lists {
    client: Client,
    batch: Batch,
    seen: Mutex<Option<(Instant, Seen)>>,
}

impl Lists {
    /// Nothing waits to be written.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, batch: Batch::default(), seen: Mutex::default() }
    }

    /// What the lists say of a namespace. Whoever asks at about the same time shares one read, which began after they asked.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn of(&self, namespace: &str) -> Result<Listed, IoError> {
        let asked = Instant::now();
        let mut seen = self.seen.lock().await;
        let lists = match seen.as_ref().filter(|(began, _)| *began >= asked) {
            Some((_, lists)) => lists.clone()?,
            None => {
                let began = Instant::now();
                let read = read(&self.client).await;
                let read = read.map(|maps| Arc::new(maps.iter().flatten().map(levels).collect()));
                seen.insert((began, read)).1.clone()?
            }
        };
        Ok(Listed { each: lists.iter().map(|list| list.get(namespace).cloned()).collect() })
    }

    /// Is the namespace on the lists at this level, and does it bear label and annotations?
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn is_marked(
        &self,
        namespace: &Namespace,
        spec: &QuarantineSpec,
        level: Isolation,
    ) -> Result<bool, IoError> {
        Ok(label::is_labelled(namespace, spec, level) && self.of(&namespace.name_any()).await?.is_at(level))
    }

    /// Puts many namespaces on the lists, each at its level, by one write of each list.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn set_all(&self, levels: &Levels) -> Result<(), IoError> {
        self.batch.alone(|| write(&self.client, levels)).await
    }

    /// Puts a namespace on the lists at a level; `Open` takes it off.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn set(&self, namespace: &str, level: Isolation) -> Result<(), IoError> {
        self.batch.write(namespace, level, async |levels| write(&self.client, &levels).await).await
    }

    /// Writes the lists, and label and annotations. The lists come first, and a namespace is taken off them last.
    ///
    /// # Errors
    /// The API server's, such as a conflict, or its refusal by the lock.
    pub async fn mark(
        &self,
        namespace: &Namespace,
        spec: &QuarantineSpec,
        level: Isolation,
    ) -> Result<Namespace, IoError> {
        let name = namespace.name_any();
        if level != Isolation::Open {
            self.set(&name, level).await?;
        }
        let labelled = if label::is_labelled(namespace, spec, level) {
            namespace.clone()
        } else {
            label::label(&self.client, namespace, spec, level, false).await?
        };
        if level == Isolation::Open && label::is_labelled(&labelled, spec, level) {
            self.set(&name, level).await?;
        }
        Ok(labelled)
    }
}

/// Writes which ClusterRoles hold our verbs, where that is not what the lists say.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn set_holders(client: &Client, holders: &str) -> Result<(), IoError> {
    let is_known = |map: &Option<ConfigMap>| {
        let data = map.as_ref().and_then(|map| map.data.as_ref());
        data.and_then(|data| data.get(ROLES_KEY)).is_some_and(|known| known == holders)
    };
    if read(client).await?.iter().all(is_known) {
        return Ok(());
    }
    let change = |_: &ConfigMap| Some(json!({ROLES_KEY: holders}));
    join_all(CONFIG_MAPS.map(|name| write_one(client, name, change))).await.into_iter().collect()
}

/// Writes these levels into every list. One that fails keeps none of the others.
async fn write(client: &Client, wanted: &Levels) -> Result<(), IoError> {
    let writes = CONFIG_MAPS.map(|name| write_one(client, name, |list| changed(list, wanted)));
    join_all(writes).await.into_iter().collect()
}

/// Writes one list. `change`: the data to be merged into what is there, if any is. Whoever writes in between is not overwritten.
async fn write_one(
    client: &Client,
    name: &str,
    change: impl Fn(&ConfigMap) -> Option<Value>,
) -> Result<(), IoError> {
    // Not of whom: each who asked gets the outcome, and is not concerned with the others.
    let what = format!("write ConfigMap {OPERATOR_NAMESPACE}/{name}");
    let mut pause = PAUSE;
    for attempt in 1.. {
        let live =
            call_opt(format!("get ConfigMap {OPERATOR_NAMESPACE}/{name}"), api(client).get(name)).await?;
        let live = match live {
            Some(live) => live,
            // What is not there has nothing to be taken off.
            None if change(&ConfigMap::default()).is_none() => return Ok(()),
            None => {
                ensure(client).await?;
                call(format!("get ConfigMap {OPERATOR_NAMESPACE}/{name}"), api(client).get(name)).await?
            }
        };
        let Some(data) = change(&live) else { return Ok(()) };
        // Without managed fields: with each write that a list decides about, anywhere in the cluster, the API server goes through all of it.
        let metadata = json!({"resourceVersion": live.metadata.resource_version, "managedFields": [{}]});
        let patch = Patch::Merge(json!({"metadata": metadata, "data": data}));
        match call_opt(what.clone(), api(client).patch(name, &manager(), &patch)).await {
            Ok(Some(_)) => return Ok(()),
            Err(error) if !error.is_conflict() || attempt >= ATTEMPTS => return Err(error),
            // Somebody wrote, or took it away.
            Ok(None) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE * 20);
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
    fn whatever_cluster_roles_say_each_holder_is_one_line() {
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
