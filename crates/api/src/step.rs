//! Steps as a plan states them: an action that restores.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::DnsLabel;

/// One step: a name and exactly one action. Steps run in order, as the plan's service account.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = kube::core::Rule::new("[has(self.scale), has(self.job)].filter(x, x).size() == 1").message("a step does exactly one of: scale, job"))]
pub struct StepSpec {
    /// Its name, unique in its service.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// When it runs. Default: `CleanRoom`.
    #[serde(default)]
    pub phase: StepPhase,
    /// Start workloads again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleSpec>,
    /// Run a Job to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStepSpec>,
}

/// When a step runs.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum StepPhase {
    /// In the clean room, before the gates of `beforeRelease`.
    #[default]
    CleanRoom,
    /// Once the service is open, before it counts as recovered.
    AfterRelease,
}

/// What a step does: one for each field of [`StepSpec`] that is an action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepAction<'a> {
    /// Start workloads again.
    Scale(&'a ScaleSpec),
    /// Run a Job to its end.
    Job(&'a JobStepSpec),
}

impl StepSpec {
    /// What it does. `None`: nothing that this version knows, or more than one thing.
    #[must_use]
    pub fn action(&self) -> Option<StepAction<'_>> {
        // Each field by name: one that is added does not compile before it is here.
        let Self { name: _, phase: _, scale, job } = self;
        let actions = [scale.as_ref().map(StepAction::Scale), job.as_ref().map(StepAction::Job)];
        let mut actions = actions.into_iter().flatten();
        let action = actions.next();
        action.filter(|_| actions.next().is_none())
    }
}

impl StepAction<'_> {
    /// As a plan writes it.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Scale(_) => "scale",
            Self::Job(_) => "job",
        }
    }
}

/// Starts workloads at the replicas recorded when they were stopped, or at a number.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleSpec {
    /// So many replicas, instead of what was recorded. Needed where nothing, or zero, was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub replicas: Option<i32>,
    /// Only workloads with these labels. Default: everything in the service's namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
}

/// Creates a Job, named by plan, service, attempt and step, and follows it to its end.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobStepSpec {
    /// One of the service's namespaces. Default: the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<DnsLabel>,
    /// The Job's `spec`, as `batch/v1` has it. Give it `backoffLimit` and `activeDeadlineSeconds`: a Job without them ends late or never.
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
