//! Steps as a plan declares them: actions that restore a service.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::DnsLabel;

/// One step: a name and exactly one action. Steps run in order, with the plan's ServiceAccount.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = kube::core::Rule::new("[has(self.scale), has(self.job)].filter(x, x).size() == 1").message("a step does exactly one of: scale, job"))]
pub struct StepSpec {
    /// Name, unique in the service.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Phase in which the step runs. Default: `CleanRoom`.
    #[serde(default)]
    pub phase: StepPhase,
    /// Scales workloads up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleSpec>,
    /// Runs a Job to completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStepSpec>,
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
}

impl StepSpec {
    /// Returns the step's action. `None`: no action that this version knows, or more than one.
    #[must_use]
    pub fn action(&self) -> Option<StepAction<'_>> {
        // Destructured in full, so that a new field does not compile before it is listed here.
        let Self { name: _, phase: _, scale, job } = self;
        let actions = [scale.as_ref().map(StepAction::Scale), job.as_ref().map(StepAction::Job)];
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

fn job_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "minProperties": 1,
        "maxProperties": 32,
    })
}
