//! Gates as a plan declares them. `gate_types.rs` has the registry of gate types.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, ObjectName};

mod approval;
mod backup_before;
mod job_result;

pub use approval::{ApprovalParty, ApprovalSpec};
pub use backup_before::{
    BackupBeforeSpec, BackupObject, BackupObjects, BackupSnapshot, CredentialsFrom, VeleroBackup,
};
pub use job_result::{InspectedVolume, JobResultSpec, SnapshotOf};

/// Verdict of a gate. `Unknown` never loosens and never tightens isolation.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The gate's condition is proved.
    Pass,
    /// The gate's condition is disproved.
    Fail,
    /// Neither: the answer is missing, empty, late, malformed, forbidden, or not final yet.
    Unknown,
}

impl Verdict {
    /// Returns the name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "Pass",
            Self::Fail => "Fail",
            Self::Unknown => "Unknown",
        }
    }
}

/// How much of what a gate stands for its Pass proves.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// All of it.
    #[default]
    Full,
    /// The rest is let pass as an exception.
    Partial,
}

impl Proof {
    /// Returns whether nothing is let pass.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

/// Health of a service's continuous gates, as this process has observed it since it became leader. A recorded verdict does not count: a
/// former leader may have written it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// All continuous gates pass.
    Healthy,
    /// At least one continuous gate does not pass, or its verdict is Unknown.
    Unhealthy,
    /// No continuous gate fails, but not all have passed for `stableFor` since this process became leader.
    #[default]
    Unknown,
}

/// Phase of a service's recovery in which a gate is evaluated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Before the clean room: the gate evaluates what is about to be restored.
    BeforeRestore,
    /// In the clean room: the gate evaluates what runs there, before the service is opened.
    BeforeRelease,
    /// While the service is recovered. Dependents need these gates to pass.
    Continuous,
}

impl Phase {
    /// Returns the name in a plan.
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
    /// Gates on what is about to be restored, evaluated before anything is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub before_restore: Vec<GateSpec>,
    /// Gates on what runs in the clean room, evaluated before the service is opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub before_release: Vec<GateSpec>,
    /// Gates evaluated for as long as the service is recovered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub continuous: Vec<GateSpec>,
}

impl GatesSpec {
    /// Returns the gates of one phase.
    #[must_use]
    pub fn of(&self, phase: Phase) -> &[GateSpec] {
        match phase {
            Phase::BeforeRestore => &self.before_restore,
            Phase::BeforeRelease => &self.before_release,
            Phase::Continuous => &self.continuous,
        }
    }
}

/// One gate: a name, exactly one check, and how often and how strictly it is evaluated.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = crate::gate_types::exactly_one())]
pub struct GateSpec {
    /// Name, unique among the gates of the service's phase.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Integrity: all images are on the approved list, by digest. Before restore it checks the images in the specs; in later phases it
    /// checks the running images too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digests: Option<ImageDigestsSpec>,

    /// Integrity: every object in the service's namespaces, and what reaches into them, is as a signed inventory has it: nothing added,
    /// changed or missing. Default `interval`: 30s before the release, 5m after it; default `timeout`: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineSpec>,

    /// Integrity: the values of Secrets are other ones than those that were captured when the namespace was isolated, and were changed
    /// since. While the service is recovered, a captured value that comes back is a regression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_rotated: Option<CredentialsRotatedSpec>,

    /// Integrity: the recovery point is complete, and older than the compromise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_before: Option<BackupBeforeSpec>,

    /// Integrity: a program that looks at what the plan says finds nothing. It is not asked while a service is recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_result: Option<JobResultSpec>,

    /// Health: every workload is up to date and ready. Before release it wants the number of replicas that the steps started; while the
    /// service is recovered, autoscalers and people may change that number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<WorkloadsSpec>,

    /// Health: an HTTP endpoint answers with the expected status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSpec>,

    /// Health: an expression holds for one object. What an object says of itself is no proof of integrity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionSpec>,

    /// People agree, by Decisions. They are asked once all other gates of the phase pass. It is not asked while a service is recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalSpec>,

    /// How long the gate must pass without interruption before it counts as passed. Default: no wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_for: Option<Duration>,

    /// Longest time between two evaluations. The gate is also evaluated at once when an object that it reads changes. Default: 10s,
    /// unless the type says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,

    /// Longest time an evaluation may take. The verdict is Unknown after it. Default: 10s, unless the type says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,

    /// Consecutive Fail verdicts after which the gate counts as failed and the service needs a Decision. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub failure_limit: Option<u32>,

    /// How long after the start of the checks before release a Fail does not count towards `failureLimit`, so that a service may warm up.
    /// It applies to health gates of `beforeRelease` only. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_grace: Option<Duration>,

    /// How long the gate may be Unknown, `stableFor` not counted. After it a person is needed and the service gives its slot back; the
    /// gate is still evaluated. Default: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_deadline: Option<Duration>,
}

/// Approved images, by digest. An image that is named by tag alone passes only where `tags` permits it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new("has(self.approved) != has(self.approvedFrom)")
        .message("name exactly one of approved, approvedFrom")
)]
pub struct ImageDigestsSpec {
    /// The approved images, one per entry: `sha256:…` or `NAME:TAG sha256:…`. Several digests in one entry, separated by blanks, are the
    /// same image: its index, and the manifests of its platforms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        inner(
            length(min = 71, max = 1024),
            regex(pattern = "^([A-Za-z0-9][A-Za-z0-9._/:-]*[@ ])?sha256:[0-9a-f]{64}( sha256:[0-9a-f]{64})*$")
        ),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub approved: Option<Vec<String>>,

    /// An object that holds the approved images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_from: Option<ApprovedFrom>,

    /// Whether an image may be named by tag alone. Default: `Forbid`.
    #[serde(default, skip_serializing_if = "ImageTags::is_forbid")]
    pub tags: ImageTags,
}

/// Whether an image may be named by tag alone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageTags {
    /// An image that is named by tag alone fails.
    #[default]
    Forbid,
    /// Before restore, a tag passes as an exception if the list names it. In later phases, what runs under it must be a digest that the
    /// list has for that tag. The service ends `WithExceptions`.
    ProveWhenRunning,
}

impl ImageTags {
    fn is_forbid(&self) -> bool {
        *self == Self::Forbid
    }
}

/// Object that holds the approved images.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovedFrom {
    /// ConfigMap in the plan's namespace. Every value holds entries as in `approved`, one per line; `#` begins a comment.
    pub config_map: ObjectName,
}

/// A signed inventory of what was approved, as `resurgam baseline` makes it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineSpec {
    /// ConfigMaps in the plan's namespace that hold the inventory under the key `baseline`, compressed or not. Of several, each holds the
    /// next part.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub config_maps: Vec<ObjectName>,
    /// Public keys of those who approve an inventory: ed25519 or ECDSA P-256, as PEM (`BEGIN PUBLIC KEY`).
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 64, max = 512), regex(pattern = "^\\s*-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\\s]+-----END PUBLIC KEY-----\\s*$")),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub public_keys: Vec<String>,
    /// How many of the keys must have signed it. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8), extend("format" = "int32"))]
    pub signatures: Option<u32>,
    /// Key of the digests of Secrets' values. Default: the names of the values are compared, and not the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_from: Option<SecretKeyFrom>,
    /// Whether what reaches in from outside is compared, too: ClusterRoleBindings, the roles that bindings name, webhooks. Default: `Compare`.
    #[serde(default, skip_serializing_if = "Outside::is_compare")]
    pub outside: Outside,
    /// Whether the inventory may have been captured from the cluster after the compromise began. Default: `Forbid`.
    #[serde(default, skip_serializing_if = "AfterCompromise::is_forbid")]
    pub after_compromise: AfterCompromise,
    /// What is left out of the comparison. Each entry is a gap: name it as narrowly as possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub ignore: Vec<BaselineIgnore>,
}

/// A value in a Secret in the plan's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyFrom {
    /// Name of the Secret.
    pub secret: ObjectName,
    /// Name of the value: at least 32 random bytes.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Whether what reaches into namespaces from outside is compared with a baseline.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outside {
    /// It is. An inventory without it proves nothing.
    #[default]
    Compare,
    /// It is not. The status of the service says so.
    LeaveOut,
}

impl Outside {
    fn is_compare(&self) -> bool {
        *self == Self::Compare
    }
}

/// Whether an inventory may have been captured from the cluster after the compromise began.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterCompromise {
    /// It proves nothing: it may hold what the attacker wrote.
    #[default]
    Forbid,
    /// Those who signed it have reviewed it. The service ends `WithExceptions`.
    Reviewed,
}

impl AfterCompromise {
    fn is_forbid(&self) -> bool {
        *self == Self::Forbid
    }
}

/// Objects, or fields of objects, that are left out of the comparison with a baseline.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineIgnore {
    /// Kind of the objects.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Namespace of the objects; a `*` at its end stands for anything. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name of the objects; a `*` at its end stands for anything. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Paths of fields, as messages of the gate name them: `spec.template.spec.containers[istio-proxy]`. A `*` at the end of a name stands
    /// for anything. Default: the whole object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)), extend("x-kubernetes-list-type" = "atomic"))]
    pub fields: Vec<String>,
}

/// Secrets that must have been rotated. Times of change, of certificates (`notBefore`) and of JWTs (`iat`, unverified) must be later than
/// the isolation of the namespace and than `compromisedSince`, and no value may be one that was captured.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsRotatedSpec {
    /// The Secrets.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub secrets: Vec<RotatedSecret>,

    /// Where the digests of the captured values are.
    pub captured_from: CapturedFrom,
}

/// One Secret that must have been rotated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotatedSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,

    /// One of the service's namespaces. Default: its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,

    /// Keys whose values must have been rotated. Default: all keys that the Secret has. The certificate and the private key of a Secret of
    /// type `kubernetes.io/tls` are checked in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub keys: Option<Vec<String>>,

    /// Name that the Secret had when it was captured. Default: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub captured_as: Option<String>,
}

/// Object that holds the digests of captured values.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CapturedFrom {
    /// ConfigMap in the plan's namespace, as `resurgam evidence digests` prints it: one record for each namespace. Each is authenticated by
    /// the operator's `--evidence-key`.
    pub config_map: ObjectName,
}

/// One object, and what must hold for it. The object is read as the plan's account. An object that is missing, is being deleted, or whose
/// status is of an earlier generation is Unknown. Secrets are not read.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new(
        "self.apiVersion != 'v1' || (self.kind.lowerAscii() != 'secret' && (!has(self.resource) || self.resource != 'secrets'))"
    )
    .message("no condition looks into a Secret"),
    validation = kube::core::Rule::new("!has(self.namespace) || !has(self.scope) || self.scope != 'Cluster'")
        .message("an object of the cluster has no namespace")
)]
pub struct ConditionSpec {
    /// Group and version of the object, such as `postgresql.cnpg.io/v1`; `v1` for the core's.
    #[schemars(
        length(min = 2, max = 317),
        regex(pattern = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[0-9]+((alpha|beta)[0-9]+)?$")
    )]
    pub api_version: String,

    /// Kind of the object, such as `Cluster`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z][A-Za-z0-9]*$"))]
    pub kind: String,

    /// Plural name of the kind in the API, such as `clusters`. Needed only where it is not the regular plural of `kind`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z][-a-z0-9]*$"))]
    pub resource: Option<String>,

    /// Whether the object is in a namespace. Default: `Namespaced`.
    #[serde(default, skip_serializing_if = "ObjectScope::is_namespaced")]
    pub scope: ObjectScope,

    /// Namespace of the object. Default: the service's only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,

    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9.:_]*[A-Za-z0-9])?$"))]
    pub name: String,

    /// Expression in CEL that must be true. `object` is the object, without managed fields. A field that is absent, and every other error,
    /// is Unknown: `has(object.status.phase) && …` where absence is to fail. There are no functions on times and no regular expressions.
    #[schemars(length(min = 1, max = 1024))]
    pub cel: String,
}

/// Whether objects of a kind are in namespaces.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectScope {
    /// In a namespace.
    #[default]
    Namespaced,
    /// Of the cluster.
    Cluster,
}

impl ObjectScope {
    fn is_namespaced(&self) -> bool {
        *self == Self::Namespaced
    }
}

/// Selection of the workloads that the gate checks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadsSpec {
    /// Only workloads with these labels. Default: all workloads in the service's namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
    /// Whether a failed Job fails the gate.
    #[serde(default, skip_serializing_if = "JobChecks::is_default")]
    pub jobs: JobChecks,
}

/// Whether a failed Job fails a `workloads` gate. Jobs of CronJobs never do: a missed run is no failure.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobChecks {
    /// It does not. What has ended can start nothing any more.
    #[default]
    Ignore,
    /// It does.
    Fail,
}

impl JobChecks {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An HTTP endpoint and its expected status. Redirects are not followed, and response bodies are not recorded.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSpec {
    /// URL with scheme `http` or `https`. With `https` the certificate must verify against the public root certificates.
    #[schemars(length(min = 8, max = 2048), regex(pattern = "^https?://[^ ]+$"))]
    pub url: String,
    /// Expected status code. Default: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599), extend("format" = "int32"))]
    pub status: Option<u16>,
}
