//! Step `job`: the Job to create, and its progress.

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::{StepContext, StepProblem, namespace_of};
use crate::api::StepSpec;
use crate::api::step::JobStepSpec;
use crate::engine::StepProgress;

mod logs;

pub use logs::{ContainerLog, KeptLog, Logs, with_logs};

/// Label on a Job with the name of its step.
const STEP_LABEL: &str = "resurgam.dev/step";
/// Annotation on a Job with the digest of what it was created for.
const MADE_FOR_ANNOTATION: &str = "resurgam.dev/step-of";
/// Maximum number of characters of the step's name in the Job's name. Kubernetes appends to it for pods and their labels, within 63.
const NAME_LIMIT: usize = 36;

/// Returns why the Job can never be created.
pub(super) fn problem(spec: &JobStepSpec, namespaces: &[String]) -> Option<String> {
    if let Err(error) = namespace(spec, namespaces) {
        return Some(error.to_string());
    }
    let parsed = match serde_json::from_value::<JobSpec>(spec.spec.clone().into()) {
        Ok(parsed) => parsed,
        Err(error) => return Some(format!("is no Job: spec: {error}")),
    };
    if let Some(field) = unknown_field(&spec.spec.clone().into(), &serde_json::json!(parsed)) {
        return Some(format!("is no Job: spec{field} is no field of batch/v1 that this version knows"));
    }
    let restart_policy = parsed.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    (!matches!(restart_policy, Some("Never" | "OnFailure")))
        .then(|| "is no Job: spec.template.spec.restartPolicy has to be Never or OnFailure".to_owned())
}

/// Returns the path of a field that is written and was not read, since its kind does not have it. An empty list may be left out.
fn unknown_field(written: &Value, read: &Value) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().find_map(|(key, value)| {
            let is_empty = value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty);
            match read.get(key) {
                Some(found) => unknown_field(value, found).map(|rest| format!(".{key}{rest}")),
                None => (!is_empty).then(|| format!(".{key}")),
            }
        }),
        (Value::Array(written), Value::Array(read)) => written
            .iter()
            .zip(read)
            .enumerate()
            .find_map(|(index, (a, b))| unknown_field(a, b).map(|rest| format!("[{index}]{rest}"))),
        _ => None,
    }
}

/// Returns the namespace of the Job.
///
/// # Errors
/// The service does not have it, or the step names none and the service has several.
pub fn namespace<'a>(spec: &'a JobStepSpec, namespaces: &'a [String]) -> Result<&'a str, StepProblem> {
    namespace_of(spec.namespace.as_ref(), namespaces, "Job")
}

/// Returns the Job's name. It is the same for each start within one attempt, and differs between attempts.
#[must_use]
pub fn name(context: &StepContext) -> String {
    // Not `resurgam-`: that prefix belongs to the operator's own objects in an isolated namespace.
    let step: String = context.step.chars().take(NAME_LIMIT).collect();
    format!("step-{}-{}-{}", step.trim_end_matches('-'), context.attempt, &context.digest()[..8])
}

/// Returns the Job to create.
///
/// # Errors
/// The plan's `spec` is not a valid Job spec, or names no namespace.
pub fn wanted(spec: &JobStepSpec, context: &StepContext) -> Result<Job, StepProblem> {
    let namespace = namespace(spec, &context.namespaces)?;
    let parsed = serde_json::from_value(spec.spec.clone().into())
        .map_err(|error| StepProblem::Unusable(format!("is no Job: spec: {error}")))?;
    let metadata = ObjectMeta {
        name: Some(name(context)),
        namespace: Some(namespace.to_owned()),
        labels: Some([(STEP_LABEL.to_owned(), context.step.clone())].into()),
        annotations: Some([(MADE_FOR_ANNOTATION.to_owned(), context.digest())].into()),
        ..ObjectMeta::default()
    };
    Ok(Job { metadata, spec: Some(parsed), status: None })
}

/// Returns the label selector of the Jobs of a step and of its undo, of all attempts.
#[must_use]
pub fn selector(context: &StepContext) -> String {
    let undo = StepSpec::undo_name("");
    let step = context.step.strip_suffix(&undo).unwrap_or(&context.step);
    format!("{STEP_LABEL} in ({step},{})", StepSpec::undo_name(step))
}

/// Returns the name of a Job of an earlier start that still runs: a person skipped it while it ran, for example. Nothing is started beside
/// it. A suspended Job without pods does not run.
#[must_use]
pub fn still_running(jobs: &[Job], context: &StepContext) -> Option<String> {
    let own = name(context);
    let runs = |job: &&Job| {
        let status = job.status.clone().unwrap_or_default();
        let has_pods = status.active.unwrap_or(0) > 0 || status.terminating.unwrap_or(0) > 0;
        let is_suspended = job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true));
        has_pods || !(is_over(job) || is_suspended)
    };
    jobs.iter().filter(|job| job.metadata.name.as_ref() != Some(&own)).find(runs)?.metadata.name.clone()
}

fn is_over(job: &Job) -> bool {
    holds(job, "Failed").or_else(|| holds(job, "Complete")).is_some()
}

/// Returns a condition of the Job that is true.
fn holds<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|c| c.type_ == type_ && c.status == "True")
}

/// Returns the Job if it has ended and belongs to this attempt, so that its logs are the step's.
#[must_use]
pub fn ended<'a>(job: Option<&'a Job>, context: &StepContext) -> Option<&'a Job> {
    job.filter(|job| is_made_for(job, context) && is_over(job))
}

fn is_made_for(job: &Job, context: &StepContext) -> bool {
    let annotations = job.metadata.annotations.as_ref();
    let made_for = annotations.and_then(|all| all.get(MADE_FOR_ANNOTATION));
    made_for == Some(&context.digest()) && context.claimed_at.is_some()
}

/// Returns the progress of the Job. A Job that was created for something else than this attempt fails the step.
#[must_use]
pub fn judge(job: Option<&Job>, context: &StepContext) -> StepProgress {
    let name = name(context);
    let Some(job) = job else {
        return StepProgress::Failed(format!("Job {name} was deleted before it ended"));
    };
    if !is_made_for(job, context) {
        return StepProgress::Failed(format!(
            "Job {name} is there, and not created by this attempt: delete it"
        ));
    }
    let status = job.status.clone().unwrap_or_default();
    if let Some(failed) = holds(job, "Failed") {
        let why = failed.message.as_deref().or(failed.reason.as_deref()).unwrap_or("no reason given");
        return StepProgress::Failed(format!("Job {name} failed: {why}"));
    }
    if holds(job, "Complete").is_some() {
        return StepProgress::Succeeded;
    }
    if job.metadata.deletion_timestamp.is_some() {
        return StepProgress::Failed(format!("Job {name} is being deleted before it ended"));
    }
    if job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)) {
        return StepProgress::Running(format!("Job {name} is suspended"));
    }
    let (active, failed) = (status.active.unwrap_or(0), status.failed.unwrap_or(0));
    let failures = if failed > 0 { format!(", {failed} failed so far") } else { String::new() };
    StepProgress::Running(format!("Job {name}: {active} of its pods run{failures}"))
}

#[cfg(test)]
mod tests;
