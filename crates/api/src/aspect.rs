//! Aspects of a service that an attacker can change, and whether integrity gates have looked at them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Aspect of a service that an attacker can change.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// Images of its pods.
    Images,
    /// The rest of its pod templates: commands, environments, volumes, access to the host, service accounts.
    PodTemplates,
    /// Its other objects, such as ConfigMaps and Services.
    Configuration,
    /// Values of its Secrets.
    Secrets,
    /// Roles and bindings that grant access to its namespaces.
    #[serde(rename = "RBAC")]
    Rbac,
    /// Webhooks that intercept requests for its objects.
    Webhooks,
    /// Contents of its volumes: databases, files.
    Volumes,
    /// The backups that it is restored from.
    Backups,
}

impl Aspect {
    /// All aspects, in the order in which a status lists them.
    pub const ALL: [Self; 8] = [
        Self::Images,
        Self::PodTemplates,
        Self::Configuration,
        Self::Secrets,
        Self::Rbac,
        Self::Webhooks,
        Self::Volumes,
        Self::Backups,
    ];

    /// Returns the name for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::PodTemplates => "pod templates",
            Self::Configuration => "configuration",
            Self::Secrets => "Secrets",
            Self::Rbac => "RBAC",
            Self::Webhooks => "webhooks",
            Self::Volumes => "volumes",
            Self::Backups => "backups",
        }
    }
}

/// What integrity gates have shown about one aspect in this attempt.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AspectStatus {
    /// The aspect.
    pub aspect: Aspect,
    /// What was shown.
    pub state: AspectState,
    /// Names of the gates that look at it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 48), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub gates: Vec<String>,
}

/// Whether integrity gates have proved an aspect.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AspectState {
    /// All verdicts of the gates that look at it are Pass.
    Proved,
    /// The same, and one of them proves a part only: the rest is among the service's exceptions.
    ProvedWithExceptions,
    /// A gate that looks at it has not passed, or not yet.
    NotProved,
    /// No gate looks at it.
    NotLookedAt,
}
