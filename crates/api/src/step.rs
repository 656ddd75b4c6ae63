//! Steps as a plan declares them: actions that restore a service.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::gate::ApprovalParty;
use super::{DnsLabel, Duration};

/// One step: a name and exactly one action. Steps run in order, with the plan's ServiceAccount.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = kube::core::Rule::new("[has(self.scale), has(self.job), has(self.manual)].filter(x, x).size() == 1").message("a step does exactly one of: scale, job, manual"))]
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
    /// Scales workloads up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleSpec>,
    /// Runs a Job to completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStepSpec>,
    /// Waits for people to do something outside the cluster, and to approve that it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<ManualSpec>,
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
}

impl StepSpec {
    /// Returns the step's action. `None`: no action that this version knows, or more than one.
    #[must_use]
    pub fn action(&self) -> Option<StepAction<'_>> {
        // Destructured in full, so that a new field does not compile before it is listed here.
        let Self { name: _, phase: _, timeout: _, retries: _, backoff: _, scale, job, manual } = self;
        let actions = [
            scale.as_ref().map(StepAction::Scale),
            job.as_ref().map(StepAction::Job),
            manual.as_ref().map(StepAction::Manual),
        ];
        let mut actions = actions.into_iter().flatten();
        let action = actions.next();
        action.filter(|_| actions.next().is_none())
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

fn job_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "minProperties": 1,
        "maxProperties": 32,
    })
}
