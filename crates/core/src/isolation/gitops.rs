//! GitOps objects elsewhere that deliver into an isolated namespace. The fence refuses what they write in any case. They are
//! suspended too, so that they do not fail for ever, but only where all they carry is isolated: whatever else hangs on one
//! goes on.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::{Value, json};

use super::controls::identity::Mark;
use crate::api::conditions::shorten;
use crate::api::quarantine::{Deliverer, DelivererState};
use crate::api::{EVIDENCE_ANNOTATION, GROUP, Isolation, OPERATOR_NAMESPACE, Quarantine, SEAL_ANNOTATION};

/// Annotation on what we suspended: what its spec said before.
pub const WAS_ANNOTATION: &str = "resurgam.dev/was";
/// As many as a status holds, and the length of a message there.
const LIMITS: (usize, usize) = (64, 512);
/// Namespaces and kinds named in a message.
const NAMED: usize = 5;

/// The kinds that deliver: group and kind.
pub const KINDS: [(&str, &str); 3] = [
    ("kustomize.toolkit.fluxcd.io", "Kustomization"),
    ("helm.toolkit.fluxcd.io", "HelmRelease"),
    ("argoproj.io", "Application"),
];

/// A GitOps object, and what it says of what it delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitOpsSource {
    /// `Kustomization`, `HelmRelease` or `Application`.
    pub kind: String,
    /// Where the object itself is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Namespaces that it says it delivers into.
    pub into: BTreeSet<String>,
    /// Namespaces, as objects, that it carries.
    owns: BTreeSet<String>,
    /// Kinds of the whole cluster that it carries.
    cluster: BTreeSet<String>,
    /// It carries something of ours.
    recovery: bool,
    /// It lists what it has delivered.
    listed: bool,
    run: Run,
    /// Seal and evidence of whoever of us suspended it.
    mark: Option<(String, String)>,
    /// What its spec says of when it delivers, if it would deliver by itself.
    was: Value,
}

/// Does it deliver by itself?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// It does.
    Yes,
    /// It is suspended.
    Suspended,
    /// Only when somebody tells it to.
    ByHand,
}

/// One object that something carries.
struct Carried<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// What else is isolated, and where plans are: what a GitOps object is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Namespaces with a Quarantine that is not open, and the UID and evidence of it.
    pub isolated: BTreeMap<String, (String, String)>,
    /// Namespaces of RecoveryPlans.
    pub plans: BTreeSet<String>,
}

impl Surroundings {
    /// From all Quarantines that can be read, and the namespaces of RecoveryPlans.
    #[must_use]
    pub fn new<'a>(
        quarantines: impl IntoIterator<Item = &'a Quarantine>,
        plans: impl IntoIterator<Item = String>,
    ) -> Self {
        let isolated = quarantines.into_iter().filter_map(|quarantine| {
            let level = quarantine.status.as_ref().and_then(|status| status.isolation)?;
            let isolated = level != Isolation::Open && quarantine.metadata.deletion_timestamp.is_none();
            let Mark { seal, evidence } = Mark::of(quarantine);
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

/// An entry of Flux's inventories: `<namespace>_<name>_<group>_<kind>`, the namespace empty for what belongs to the cluster.
fn inventory(id: &str) -> Option<Carried<'_>> {
    let (namespace, rest) = id.split_once('_')?;
    let (rest, kind) = rest.rsplit_once('_')?;
    let (name, group) = rest.rsplit_once('_')?;
    Some(Carried { group, kind, namespace, name })
}

impl GitOpsSource {
    /// Reads what one object delivers. `None`: that goes to another cluster.
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
            run: Run::Yes,
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
                found.carries(&Carried {
                    group: text(resource, "/group"),
                    kind: text(resource, "/kind"),
                    namespace: text(resource, "/namespace"),
                    name: text(resource, "/name"),
                });
            }
            let automated = object.pointer("/spec/syncPolicy/automated").filter(|a| !a.is_null());
            found.was = json!({"automated": automated});
            if automated.is_none_or(|a| a["enabled"] == json!(false)) {
                found.run = if found.mark.is_some() { Run::Suspended } else { Run::ByHand };
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
                found.run = Run::Suspended;
            }
        }
        found.into.remove("");
        Some(found)
    }

    fn carries(&mut self, carried: &Carried<'_>) {
        self.recovery |= carried.group == GROUP;
        if !carried.namespace.is_empty() {
            self.into.insert(carried.namespace.to_owned());
        } else if carried.group.is_empty() && carried.kind == "Namespace" {
            self.owns.insert(carried.name.to_owned());
        } else {
            self.cluster.insert(carried.kind.to_owned());
        }
    }

    /// Does it deliver into this namespace?
    #[must_use]
    pub fn reaches(&self, namespace: &str) -> bool {
        self.into.contains(namespace) || self.owns.contains(namespace)
    }

    /// Returns what is to be done about it, and what to say of it.
    #[must_use]
    pub fn judge(&self, around: &Surroundings) -> (Verdict, String) {
        let left = |why: String| (Verdict::Leave, why);
        match (self.run, &self.mark) {
            (Run::Suspended, Some(_)) => return (Verdict::Suspended, "by us; people resume it".to_owned()),
            (Run::Suspended, None) => return (Verdict::Suspended, "by somebody else".to_owned()),
            (Run::ByHand, _) => return left("it delivers only when somebody tells it to".to_owned()),
            (Run::Yes, Some(mark)) if around.isolated.values().any(|live| live == mark) => {
                return left("suspended by us, and resumed by somebody".to_owned());
            }
            (Run::Yes, _) => {}
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
        (Verdict::Suspend, "by us; people resume it".to_owned())
    }

    /// Returns the merge patch that suspends it, with what its spec said and whose isolation it is for.
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

    /// Returns it as the status has it.
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

/// What is to be done about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it is suspended.
    Suspended,
    /// It is to be suspended.
    Suspend,
    /// It is left as it is, and refused in the namespace.
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

/// Returns what the status says of a kind that could not be read: nobody knows what its objects deliver.
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

/// Returns them in a steady order, and no more than a status holds.
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
