//! Steps as a plan declares them: actions that restore a service.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::gate::{ApprovalParty, ApprovedFrom};
use super::{DnsLabel, Duration, ObjectName};

/// One step: a name and exactly one action. Steps run in order, with the plan's ServiceAccount.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new(
        "[has(self.scale), has(self.job), has(self.manual), has(self.restoreBackup), has(self.apply), has(self.wait), has(self.pinImages), has(self.resume)].filter(x, x).size() == 1"
    )
    .message("a step does exactly one of: scale, job, manual, restoreBackup, apply, wait, pinImages, resume"),
    validation = kube::core::Rule::new("!has(self.resume) || self.phase == 'AfterRelease'")
        .message("resume hands an open namespace back: it needs phase AfterRelease"),
    validation = kube::core::Rule::new("!has(self.restoreBackup) || self.phase == 'CleanRoom'")
        .message("restoreBackup writes into a clean room: it needs phase CleanRoom"),
    validation = kube::core::Rule::new("!has(self.undo) || self.name.size() <= 58")
        .message("a step with undo has a name of at most 58 characters: '-undo' is appended to it")
)]
pub struct StepSpec {
    /// Name, unique in the service.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Phase in which the step runs. Default: `CleanRoom`.
    #[serde(default)]
    pub phase: StepPhase,
    /// How long it may run before a person is asked. It is followed further, and never started a second time. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How often it is started again by itself after it failed. Default: 0, a person is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<i32>,
    /// Pause before it is started again, doubled each time. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    /// Undoes what an earlier start of the step left half done, before it is started again: by `retries`, or in a later attempt. It runs as
    /// a step of its own, `NAME-undo`. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoSpec>,
    /// Scales workloads up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleSpec>,
    /// Runs a Job to completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStepSpec>,
    /// Waits for people to do something outside the cluster, and to approve that it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<ManualSpec>,
    /// Applies manifests server-side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<ApplySpec>,
    /// Waits until an object is current, or a condition of it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitSpec>,
    /// Pins the images of the service's workloads to approved digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_images: Option<PinImagesSpec>,
    /// Hands the service back to GitOps, at an approved revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<ResumeStepSpec>,
    /// Restores a backup by Velero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_backup: Option<RestoreBackupSpec>,
}

/// What undoes a step.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UndoSpec {
    /// Runs a Job to completion. It has to do no harm where there is nothing to undo.
    pub job: JobStepSpec,
}

/// Phase of a service's recovery in which a step runs.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum StepPhase {
    /// In the clean room, before the gates of `beforeRelease` are evaluated.
    #[default]
    CleanRoom,
    /// After the service is opened, before it counts as recovered.
    AfterRelease,
}

/// Action of a step: one variant per action field of [`StepSpec`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepAction<'a> {
    /// Scales workloads up.
    Scale(&'a ScaleSpec),
    /// Runs a Job to completion.
    Job(&'a JobStepSpec),
    /// Waits for people.
    Manual(&'a ManualSpec),
    /// Applies manifests server-side.
    Apply(&'a ApplySpec),
    /// Waits for an object.
    Wait(&'a WaitSpec),
    /// Pins images.
    PinImages(&'a PinImagesSpec),
    /// Hands the service back to GitOps.
    Resume(&'a ResumeStepSpec),
    /// Restores a backup by Velero.
    RestoreBackup(&'a RestoreBackupSpec),
}

impl StepSpec {
    /// Returns the step's action. `None`: no action that this version knows, or more than one.
    #[must_use]
    pub fn action(&self) -> Option<StepAction<'_>> {
        // Destructured in full, so that a new field does not compile before it is listed here.
        let Self {
            name: _,
            phase: _,
            timeout: _,
            retries: _,
            backoff: _,
            undo: _,
            scale,
            job,
            manual,
            apply,
            wait,
            pin_images,
            resume,
            restore_backup,
        } = self;
        let actions = [
            scale.as_ref().map(StepAction::Scale),
            job.as_ref().map(StepAction::Job),
            manual.as_ref().map(StepAction::Manual),
            apply.as_ref().map(StepAction::Apply),
            wait.as_ref().map(StepAction::Wait),
            pin_images.as_ref().map(StepAction::PinImages),
            resume.as_ref().map(StepAction::Resume),
            restore_backup.as_ref().map(StepAction::RestoreBackup),
        ];
        let mut actions = actions.into_iter().flatten();
        let action = actions.next();
        action.filter(|_| actions.next().is_none())
    }

    /// Returns the name of the step that undoes a step of this name.
    #[must_use]
    pub fn undo_name(step: &str) -> String {
        format!("{step}-undo")
    }

    /// Returns the step that undoes this one, which comes right before it.
    #[must_use]
    pub fn undo_step(&self) -> Option<Self> {
        let undo = self.undo.as_ref()?;
        Some(Self {
            name: Self::undo_name(&self.name),
            phase: self.phase,
            timeout: self.timeout,
            job: Some(undo.job.clone()),
            ..Self::default()
        })
    }
}

impl StepAction<'_> {
    /// Returns the name of the action in a plan.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Scale(_) => "scale",
            Self::Job(_) => "job",
            Self::Manual(_) => "manual",
            Self::Apply(_) => "apply",
            Self::Wait(_) => "wait",
            Self::PinImages(_) => "pinImages",
            Self::Resume(_) => "resume",
            Self::RestoreBackup(_) => "restoreBackup",
        }
    }
}

/// Scales workloads to the replicas recorded when they were stopped, or to a given number.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleSpec {
    /// Number of replicas, instead of the recorded number; 0 leaves them stopped. Required if no number was recorded. It does not apply
    /// to workloads that another controller owns, such as old ReplicaSets of a rollout: they get the recorded number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub replicas: Option<i32>,
    /// Only workloads with these labels. Default: all workloads in the service's namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
}

/// Creates a Job, named after plan, service, attempt and step, and waits for its completion.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobStepSpec {
    /// One of the service's namespaces. Optional if the service has one namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
    /// The Job's `spec` (`batch/v1`). Set `backoffLimit` and `activeDeadlineSeconds`: without them the Job may end late or never.
    #[schemars(schema_with = "job_spec")]
    pub spec: Map<String, Value>,
}

/// Waits for people to do something that Kubernetes cannot, such as a partner's link or a delivery of hardware. It has succeeded when it is
/// approved by Decisions `Approve`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManualSpec {
    /// What people are to do.
    #[schemars(length(min = 1, max = 400))]
    pub instructions: String,
    /// Who has to approve that it is done. Default: one person who may `approve`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub parties: Vec<ApprovalParty>,
}

/// Applies manifests server-side, with a field manager of the step's own. It prunes nothing, and takes no field from another manager.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new("has(self.configMaps) != has(self.oci)")
        .message("name exactly one of configMaps, oci"),
    validation = kube::core::Rule::new("!has(self.digest) || has(self.configMaps)")
        .message("digest is of configMaps: the reference of an artifact has its own")
)]
pub struct ApplySpec {
    /// ConfigMaps in the plan's namespace, in this order. All their values are read, in the order of their keys; each holds one or more
    /// YAML documents. Together at most 1 MiB and 200 objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub config_maps: Vec<ObjectName>,
    /// An OCI artifact of YAML files, as `flux push artifact` and `oras push` make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<OciArtifact>,
    /// Digest that the manifests must have, as the step's message states it. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 71, max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
}

/// An OCI artifact, by digest.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OciArtifact {
    /// `REGISTRY/REPOSITORY@sha256:…`, with the digest of its manifest. The operator reads what `--oci-allow` names, and nothing else.
    #[schemars(
        length(min = 75, max = 512),
        regex(
            pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$"
        )
    )]
    pub reference: String,
    /// Secret of type `kubernetes.io/dockerconfigjson` in the plan's namespace, read with the plan's ServiceAccount. Default: none, the
    /// artifact is public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<ObjectName>,
}

/// Waits until one object is current, as kstatus defines it, or until a condition of it is true. An object that is missing is waited for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new(
        "self.apiVersion != 'v1' || (self.kind.lowerAscii() != 'secret' && (!has(self.resource) || self.resource != 'secrets'))"
    )
    .message("no step waits for a Secret")
)]
pub struct WaitSpec {
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
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9.:_]*[A-Za-z0-9])?$"))]
    pub name: String,
    /// One of the service's namespaces. Optional if the service has one namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
    /// Type of the condition in `status.conditions` that must be `True`. Default: the object must be current by kstatus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 316), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9._/]*[A-Za-z0-9])?$"))]
    pub condition: Option<String>,
}

/// Pins the images of the service's workloads: each tag is replaced by the approved digest. An image without one fails the step.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = kube::core::Rule::new("has(self.approved) != has(self.approvedFrom)")
        .message("name exactly one of approved, approvedFrom")
)]
pub struct PinImagesSpec {
    /// The approved images, as gate `imageDigests` has them. `NAME:TAG sha256:…` pins the tag to the first digest of the entry.
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
}

/// Hands a released service back to GitOps, and follows the controller until it has applied the approved revision.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = kube::core::Rule::new("has(self.flux) != has(self.argocd)").message("name exactly one of flux, argocd"))]
pub struct ResumeStepSpec {
    /// An object of Flux to resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flux: Option<FluxResume>,
    /// An Application of Argo CD to sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argocd: Option<ArgoCdResume>,
}

/// An object of Flux.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FluxResume {
    /// Kind of the object.
    pub kind: FluxKind,
    /// Namespace of the object.
    pub namespace: DnsLabel,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Approved revision of its source, as Flux writes it: `main@sha1:…`, or `sha1:…` or `sha256:…` whatever the branch or tag.
    #[schemars(
        length(min = 45, max = 512),
        regex(pattern = "^([^@ ]+@)?(sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64})$")
    )]
    pub revision: String,
}

/// Kind of an object of Flux.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FluxKind {
    /// `kustomize.toolkit.fluxcd.io/v1`
    #[default]
    Kustomization,
}

/// An Application of Argo CD.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArgoCdResume {
    /// Namespace of the Application.
    pub namespace: DnsLabel,
    /// Name of the Application.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Approved revision: a whole commit hash.
    #[schemars(length(min = 40, max = 64), regex(pattern = "^([0-9a-f]{40}|[0-9a-f]{64})$"))]
    pub revision: String,
}

/// Restores one namespace of a Velero Backup into a namespace of the service that is in the clean room and empty, and follows the Restore
/// to its end. NetworkPolicies are not restored: the network of a clean room follows from the plan.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreBackupSpec {
    /// Name of the Backup.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub backup_name: String,
    /// Namespace of Velero. Default: `velero`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub velero_namespace: Option<DnsLabel>,
    /// ServiceAccount of Velero in its namespace, as which it writes. It needs `recover` on the Quarantine by an explicit grant. Default:
    /// `velero`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub velero_account: Option<DnsLabel>,
    /// Namespace in the Backup. Default: the one that is restored into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DnsLabel>,
    /// One of the service's namespaces, to restore into. Optional if the service has one namespace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
    /// Objects that may be there besides those of the Backup, and those that Kubernetes and Resurgam put there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"])
    )]
    pub expected: Vec<ExpectedObject>,
    /// How long operations of plugins, such as moving a volume's data, may take. Default: what Velero is configured with, mostly 4 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_operation_timeout: Option<Duration>,
}

/// An object of the namespace, by kind and name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedObject {
    /// Kind, such as `RoleBinding`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn job_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "minProperties": 1,
        "maxProperties": 32,
    })
}
