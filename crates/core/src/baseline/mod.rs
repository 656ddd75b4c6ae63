//! Baselines: signed inventories of what was approved, and how a cluster differs from one.
//!
//! An inventory holds the content of each object without what the API server, controllers, autoscalers and isolation own
//! ([`content`]), and leaves out what controllers produce ([`produced`]). Values of Secrets are never part of it: a keyed digest is.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod compare;
pub mod content;
mod delta;
pub mod envelope;
pub mod ignore;
mod isolated;
pub mod path;
mod pods;
pub mod produced;
pub mod reach;
pub mod report;
mod schema;

pub use compare::{Change, Comparison, Difference, compare};
pub use content::Marks;
pub use produced::{Observed, observe};
pub use schema::{KindRef, is_captured};

/// Format of an inventory. Another one is not understood.
pub const FORMAT: &str = "resurgam.dev/baseline/v1";
/// Maximum number of objects in an inventory, and in what is compared with it.
pub const MAX_OBJECTS: usize = 20_000;
/// Maximum size of an inventory in bytes, decompressed.
pub const MAX_BYTES: usize = 64 << 20;

/// Where an inventory comes from.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The objects in a cluster.
    Cluster,
    /// The evidence, captured when the namespaces were isolated.
    Evidence,
    /// Rendered manifests, with the defaults that an API server fills in.
    Manifests,
}

impl Source {
    /// Returns whether the inventory holds whatever was in the cluster at the time.
    #[must_use]
    pub const fn is_as_found(self) -> bool {
        matches!(self, Self::Cluster | Self::Evidence)
    }
}

/// An inventory of what was approved.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Baseline {
    /// [`FORMAT`].
    pub baseline: String,
    /// When it was captured, by the clock of whoever captured it.
    pub captured_at: Time,
    /// Where it comes from.
    pub source: Source,
    /// The namespaces, sorted.
    pub namespaces: Vec<String>,
    /// Fingerprint of the key of Secrets' digests. `None`: values of Secrets are not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
    /// Whether it covers what reaches in from outside: ClusterRoleBindings, the roles that bindings name, webhooks.
    pub outside: bool,
    /// The kinds in it, in the version in which they were read.
    pub kinds: Vec<KindRef>,
    /// The objects, sorted.
    pub objects: Vec<Object>,
}

/// One object of an inventory.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object {
    /// API version in which it was read.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace. Empty: an object of the cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its content, normalised.
    pub content: Value,
}

/// Identity of an object, whatever version it is read in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace. Empty: an object of the cluster.
    pub namespace: String,
    /// Kind.
    pub kind: String,
    /// API group; empty for the core's.
    pub group: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        let slash = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{kind} {namespace}{slash}{name}")
    }
}

impl Object {
    /// Returns the identity.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            namespace: self.namespace.clone(),
            kind: self.kind.clone(),
            group: group_of(&self.api_version).to_owned(),
            name: self.name.clone(),
        }
    }
}

impl Baseline {
    /// Parses an inventory.
    ///
    /// # Errors
    /// A message: it is malformed, of another format, or lacks what it says to have.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Format {
            baseline: String,
        }
        let malformed = |error: serde_json::Error| format!("it is malformed: {error}");
        let Format { baseline } = serde_json::from_slice(payload).map_err(malformed)?;
        if baseline != FORMAT {
            return Err(format!("its format is '{}', not {FORMAT}", shortened(&baseline, 64)));
        }
        let all: Self = serde_json::from_slice(payload).map_err(malformed)?;
        if all.objects.len() > MAX_OBJECTS {
            return Err(format!("it has {} objects, more than {MAX_OBJECTS}", all.objects.len()));
        }
        for namespace in &all.namespaces {
            let is_itself = |object: &Object| object.kind == "Namespace" && object.name == *namespace;
            if !all.objects.iter().any(is_itself) {
                return Err(format!("it lacks Namespace {namespace} itself"));
            }
        }
        Ok(all)
    }
}

impl Baseline {
    /// Returns a kind that it has objects of and that is not among the kinds that are served. Nothing follows from its objects being gone: a
    /// part of the API server may be down.
    #[must_use]
    pub fn unserved(&self, served: &[KindRef], ignore: &ignore::IgnoreList) -> Option<&str> {
        let is_unserved = |object: &&Object| {
            let group = group_of(&object.api_version);
            !object.namespace.is_empty()
                && !ignore.leaves_out_kind(&object.kind)
                && !served.iter().any(|of| of.group == group && of.kind == object.kind)
        };
        self.objects.iter().find(is_unserved).map(|object| object.kind.as_str())
    }
}

/// Returns the group of an `apiVersion`; empty for the core's.
pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

/// Returns a text at a JSON pointer, or an empty one.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the first `limit` characters, with a mark if there are more.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
