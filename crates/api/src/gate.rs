//! Gates as a plan states them: a question with a verdict. `gate_types.rs` has the registry of them.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, ObjectName};

/// A gate's answer. `Unknown` never opens anything, and never seals anything.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Proved.
    Pass,
    /// Disproved.
    Fail,
    /// Neither: missing, empty, timed out, malformed, not permitted, not yet.
    Unknown,
}

impl Verdict {
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "Pass",
            Self::Fail => "Fail",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a process has heard itself of a service's continuous gates, since it leads. What a record says besides may be the word of a
/// leader that is long gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// They pass.
    Healthy,
    /// One does not, or nobody can say.
    Unhealthy,
    /// None says anything else than that it passes, and not all of them have said that, or for long enough, yet.
    #[default]
    Unknown,
}

/// When in a service's life a gate is asked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// On what is about to be restored, before the clean room.
    BeforeRestore,
    /// On what runs in the clean room, before it is open.
    BeforeRelease,
    /// For as long as the service is recovered. Dependents need these to pass.
    Continuous,
}

impl Phase {
    /// As written in a plan.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeRestore => "beforeRestore",
            Self::BeforeRelease => "beforeRelease",
            Self::Continuous => "continuous",
        }
    }
}

/// The gates of a service, by phase.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatesSpec {
    /// Asked of what is about to be restored, before anything of it runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub before_restore: Vec<GateSpec>,
    /// Asked of what runs in the clean room, before it is let out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub before_release: Vec<GateSpec>,
    /// Asked for as long as the service is recovered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub continuous: Vec<GateSpec>,
}

impl GatesSpec {
    /// The gates of one phase.
    #[must_use]
    pub fn of(&self, phase: Phase) -> &[GateSpec] {
        match phase {
            Phase::BeforeRestore => &self.before_restore,
            Phase::BeforeRelease => &self.before_release,
            Phase::Continuous => &self.continuous,
        }
    }
}

/// One gate: a name, exactly one question, and how often and how strictly it is asked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = crate::gate_types::exactly_one())]
pub struct GateSpec {
    /// Its name, unique among the gates of its service's phase.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Integrity: are all images on the approved list, by digest? Before restore of what is specified; later also of what
    /// runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digests: Option<ImageDigestsSpec>,

    /// Health: is every workload current, at no fewer replicas than were recorded?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<WorkloadsSpec>,

    /// Health: does an HTTP endpoint answer with this status?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSpec>,

    /// It passes once it has passed without a break for this long. Default: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_for: Option<Duration>,

    /// It is asked at least this often, and at once when something it looks at changes. Default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,

    /// An answer that takes longer is Unknown. Default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,

    /// So many Fails in a row are a failure, and need a Decision. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub failure_limit: Option<u32>,

    /// Unknown for longer than this, `stableFor` not counted, asks for a person, and gives the slot back; it is still asked. Default 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_deadline: Option<Duration>,
}

/// Approved images, by digest. A tag alone never passes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new("has(self.approved) != has(self.approvedFrom)")
        .message("name exactly one of approved, approvedFrom")
)]
pub struct ImageDigestsSpec {
    /// The digests themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        inner(length(equal = 71), regex(pattern = "^sha256:[0-9a-f]{64}$")),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub approved: Option<Vec<String>>,

    /// A list kept elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_from: Option<ApprovedFrom>,
}

/// Where the approved digests are kept.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovedFrom {
    /// A ConfigMap in the plan's namespace. Every value holds digests, one a line; `#` begins a comment.
    pub config_map: ObjectName,
}

/// Which workloads are looked at.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadsSpec {
    /// Only workloads with these labels. Default: everything in the service's namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
}

/// An endpoint and the status it must answer with. Redirects are not followed; bodies are never shown.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSpec {
    /// `http://` or `https://`; for the latter the certificate must verify against the public roots.
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^https?://[^ ]+$"))]
    pub url: String,
    /// The status that passes. Default 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599), extend("format" = "int32"))]
    pub status: Option<u16>,
}
