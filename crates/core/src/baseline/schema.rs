//! Which kinds belong in an inventory.

use serde::{Deserialize, Serialize};

/// A kind, in one version.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KindRef {
    /// API group; empty for the core's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Plural name.
    pub plural: String,
    /// Version in which it is read.
    pub version: String,
    /// Kind.
    pub kind: String,
}

/// Kinds whose objects Kubernetes itself produces, by group and plural name. `*`: all kinds of the group.
const PRODUCED: [(&str, &str); 9] = [
    ("", "events"),
    ("events.k8s.io", "events"),
    ("", "endpoints"),
    ("discovery.k8s.io", "endpointslices"),
    ("coordination.k8s.io", "leases"),
    ("apps", "controllerrevisions"),
    ("metrics.k8s.io", "*"),
    // A pod's own certificates and requests go with the pod.
    ("certificates.k8s.io", "podcertificaterequests"),
    // Only the operator, and people with rights of their own, write ours.
    ("resurgam.dev", "*"),
];

/// Returns whether objects of a namespaced kind belong in an inventory.
#[must_use]
pub fn is_captured(group: &str, plural: &str) -> bool {
    !PRODUCED.iter().any(|(of, name)| *of == group && (*name == "*" || *name == plural))
}
