//! GitOps objects in other namespaces that deploy into an isolated namespace. The fence denies their writes in any case. They are also
//! suspended, so that they do not fail continuously, but only if everything they deploy into is isolated.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::{Value, json};

use super::controls::identity::SealMark;
use crate::api::conditions::shorten;
use crate::api::quarantine::{Deliverer, DelivererState};
use crate::api::{EVIDENCE_ANNOTATION, GROUP, Isolation, OPERATOR_NAMESPACE, Quarantine, SEAL_ANNOTATION};

/// Annotation on a suspended object: the previous value in its spec.
pub const WAS_ANNOTATION: &str = "resurgam.dev/was";
/// Maximum number of entries in a status, and maximum length of a message.
const LIMITS: (usize, usize) = (64, 512);
/// Maximum number of namespaces and kinds in a message.
const NAMED: usize = 5;

/// Group and kind of the supported GitOps objects.
pub const KINDS: [(&str, &str); 3] = [
    ("kustomize.toolkit.fluxcd.io", "Kustomization"),
    ("helm.toolkit.fluxcd.io", "HelmRelease"),
    ("argoproj.io", "Application"),
];

/// A GitOps object, and what it deploys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitOpsSource {
    /// `Kustomization`, `HelmRelease` or `Application`.
    pub kind: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Namespaces that it deploys into.
    pub into: BTreeSet<String>,
    /// Namespaces, as objects, that it contains.
    owns: BTreeSet<String>,
    /// Cluster-scoped kinds that it contains.
    cluster: BTreeSet<String>,
    /// Whether it contains an object of ours.
    recovery: bool,
    /// Whether it has an inventory of what it deployed.
    listed: bool,
    run: Automation,
    /// Seal and evidence digest of the sealing that suspended it.
    mark: Option<(String, String)>,
    /// Field of its spec that controls automatic deployment, if that is on.
    was: Value,
}

/// Whether the object deploys automatically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Automation {
    /// It does.
    Yes,
    /// It is suspended.
    Suspended,
    /// Only when a person triggers it.
    ByHand,
}

/// One entry of an inventory.
struct InventoryEntry<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// Isolated namespaces and namespaces of plans, by which a GitOps object is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitOpsContext {
    /// Namespaces with a Quarantine that is not open, with its UID and evidence digest.
    pub isolated: BTreeMap<String, (String, String)>,
    /// Namespaces of RecoveryPlans.
    pub plans: BTreeSet<String>,
}

impl GitOpsContext {
    /// Returns the context from all Quarantines that can be decoded and the namespaces of RecoveryPlans.
    #[must_use]
    pub fn new<'a>(
        quarantines: impl IntoIterator<Item = &'a Quarantine>,
        plans: impl IntoIterator<Item = String>,
    ) -> Self {
        let isolated = quarantines.into_iter().filter_map(|quarantine| {
            let level = quarantine.status.as_ref().and_then(|status| status.isolation)?;
            let isolated = level != Isolation::Open && quarantine.metadata.deletion_timestamp.is_none();
            let SealMark { seal, evidence } = SealMark::of(quarantine);
            isolated.then(|| (quarantine.name_any(), (seal, evidence)))
        });
        Self { isolated: isolated.collect(), plans: plans.into_iter().collect() }
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(object: &'a Value, pointer: &str) -> Option<&'a Vec<Value>> {
    object.pointer(pointer).and_then(Value::as_array)
}

/// Parses an entry of a Flux inventory: `<namespace>_<name>_<group>_<kind>`, with an empty namespace for cluster-scoped objects.
fn inventory(id: &str) -> Option<InventoryEntry<'_>> {
    let (namespace, rest) = id.split_once('_')?;
    let (rest, kind) = rest.rsplit_once('_')?;
    let (name, group) = rest.rsplit_once('_')?;
    Some(InventoryEntry { group, kind, namespace, name })
}

impl GitOpsSource {
    /// Reads what an object deploys. `None`: it deploys to another cluster.
    #[must_use]
    pub fn from_object(kind: &str, object: &Value) -> Option<Self> {
        let at = |pointer: &str| text(object, pointer);
        let annotation =
            |key: &str| object.pointer("/metadata/annotations").and_then(|a| a.get(key)?.as_str());
        let mut found = Self {
            kind: kind.to_owned(),
            namespace: at("/metadata/namespace").to_owned(),
            name: at("/metadata/name").to_owned(),
            into: BTreeSet::new(),
            owns: BTreeSet::new(),
            cluster: BTreeSet::new(),
            recovery: false,
            listed: false,
            run: Automation::Yes,
            mark: annotation(SEAL_ANNOTATION).map(|seal| {
                (seal.to_owned(), annotation(EVIDENCE_ANNOTATION).unwrap_or_default().to_owned())
            }),
            was: Value::Null,
        };
        if kind == "Application" {
            let (server, cluster) = (at("/spec/destination/server"), at("/spec/destination/name"));
            if server != "https://kubernetes.default.svc" && cluster != "in-cluster" {
                return None;
            }
            found.into.insert(at("/spec/destination/namespace").to_owned());
            let resources = items(object, "/status/resources");
            found.listed = resources.is_some();
            for resource in resources.into_iter().flatten() {
                found.carries(&InventoryEntry {
                    group: text(resource, "/group"),
                    kind: text(resource, "/kind"),
                    namespace: text(resource, "/namespace"),
                    name: text(resource, "/name"),
                });
            }
            let automated = object.pointer("/spec/syncPolicy/automated").filter(|a| !a.is_null());
            found.was = json!({"automated": automated});
            if automated.is_none_or(|a| a["enabled"] == json!(false)) {
                found.run = if found.mark.is_some() { Automation::Suspended } else { Automation::ByHand };
            }
        } else {
            if object.pointer("/spec/kubeConfig").is_some_and(|config| !config.is_null()) {
                return None;
            }
            found.into.insert(at("/spec/targetNamespace").to_owned());
            if kind == "HelmRelease" {
                found.into.insert(at("/spec/storageNamespace").to_owned());
                if at("/spec/targetNamespace").is_empty() {
                    found.into.insert(found.namespace.clone());
                }
            }
            let entries = items(object, "/status/inventory/entries");
            found.listed = entries.is_some();
            for entry in entries.into_iter().flatten() {
                match inventory(text(entry, "/id")) {
                    Some(carried) => found.carries(&carried),
                    None => found.listed = false,
                }
            }
            found.was = json!({"suspend": false});
            if object.pointer("/spec/suspend") == Some(&json!(true)) {
                found.run = Automation::Suspended;
            }
        }
        found.into.remove("");
        Some(found)
    }

    fn carries(&mut self, carried: &InventoryEntry<'_>) {
        self.recovery |= carried.group == GROUP;
        if !carried.namespace.is_empty() {
            self.into.insert(carried.namespace.to_owned());
        } else if carried.group.is_empty() && carried.kind == "Namespace" {
            self.owns.insert(carried.name.to_owned());
        } else {
            self.cluster.insert(carried.kind.to_owned());
        }
    }

    /// Returns whether it deploys into this namespace.
    #[must_use]
    pub fn reaches(&self, namespace: &str) -> bool {
        self.into.contains(namespace) || self.owns.contains(namespace)
    }

    /// Returns the action for this object, with its message.
    #[must_use]
    pub fn judge(&self, around: &GitOpsContext) -> (GitOpsAction, String) {
        let left = |why: String| (GitOpsAction::Leave, why);
        match (self.run, &self.mark) {
            (Automation::Suspended, Some(_)) => {
                return (GitOpsAction::Suspended, "by us; people resume it".to_owned());
            }
            (Automation::Suspended, None) => return (GitOpsAction::Suspended, "by a person".to_owned()),
            (Automation::ByHand, _) => return left("it deploys only when a person triggers it".to_owned()),
            (Automation::Yes, Some(mark)) if around.isolated.values().any(|live| live == mark) => {
                return left("suspended by the operator, and resumed by a person".to_owned());
            }
            (Automation::Yes, _) => {}
        }
        let ours = |namespace: &&String| {
            namespace.as_str() == OPERATOR_NAMESPACE || around.plans.contains(namespace.as_str())
        };
        let everywhere = || self.into.iter().chain(&self.owns);
        if self.recovery || everywhere().any(|namespace| ours(&namespace)) {
            return left("it delivers the recovery itself".to_owned());
        }
        if !self.listed {
            return left("what it carries is not known: it lists nothing".to_owned());
        }
        let others: BTreeSet<_> = everywhere().filter(|n| !around.isolated.contains_key(*n)).collect();
        if !others.is_empty() {
            return left(format!("it also carries {}", some("namespace", others.into_iter())));
        }
        if !self.cluster.is_empty() {
            return left(format!(
                "it also carries, for the whole cluster, {}",
                some("kind", self.cluster.iter())
            ));
        }
        (GitOpsAction::Suspend, "by us; people resume it".to_owned())
    }

    /// Returns the merge patch that suspends it, with the previous value and the sealing.
    #[must_use]
    pub fn suspend(&self, version: Option<&str>, seal: &str, evidence: &str) -> Value {
        let spec = if self.kind == "Application" {
            json!({"syncPolicy": {"automated": null}})
        } else {
            json!({"suspend": true})
        };
        let annotations = json!({
            SEAL_ANNOTATION: seal, EVIDENCE_ANNOTATION: evidence, WAS_ANNOTATION: self.was.to_string(),
        });
        json!({"metadata": {"resourceVersion": version, "annotations": annotations}, "spec": spec})
    }

    /// Returns its entry in the status.
    #[must_use]
    pub fn report(&self, state: DelivererState, message: &str) -> Deliverer {
        Deliverer {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            state,
            message: shorten(message, LIMITS.1),
        }
    }
}

/// Action for a GitOps object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitOpsAction {
    /// None: it is suspended already.
    Suspended,
    /// Suspend it.
    Suspend,
    /// Leave it running. The fence denies its writes in the namespace.
    Leave,
}

fn some<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    let plural = if names.len() == 1 { "" } else { "s" };
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{what}{plural} {shown}{rest}")
}

/// Returns the status entry of a kind that could not be listed: it is not known what its objects deploy.
#[must_use]
pub fn unreadable(kind: &str, error: &str) -> Deliverer {
    Deliverer {
        kind: kind.to_owned(),
        namespace: "*".to_owned(),
        name: "*".to_owned(),
        state: DelivererState::Denied,
        message: shorten(&format!("not looked for: {error}"), LIMITS.1),
    }
}

/// Returns the entries in a stable order, truncated to the maximum of a status.
#[must_use]
pub fn bounded(mut all: Vec<Deliverer>) -> Vec<Deliverer> {
    all.sort();
    if all.len() > LIMITS.0 {
        let more = all.len() - (LIMITS.0 - 1);
        all.truncate(LIMITS.0 - 1);
        let message = format!("and {more} more, which this list has no room for");
        all.push(Deliverer { message, ..unreadable("Others", "") });
    }
    all
}

#[cfg(test)]
#[path = "gitops_tests.rs"]
mod tests;
