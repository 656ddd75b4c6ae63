//! Step `job`: the Job to create, and its progress.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{StepContext, StepProblem, namespace_of};
use crate::api::step::JobStepSpec;
use crate::engine::StepProgress;

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
    let parsed = serde_json::from_value::<JobSpec>(spec.spec.clone().into());
    parsed.err().map(|error| format!("is no Job: spec: {error}"))
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

/// Returns the progress of the Job. A Job that was created for something else than this attempt fails the step.
#[must_use]
pub fn judge(job: Option<&Job>, context: &StepContext) -> StepProgress {
    let name = name(context);
    let Some(job) = job else {
        return StepProgress::Failed(format!("Job {name} was deleted before it ended"));
    };
    let annotations = job.metadata.annotations.as_ref();
    let is_made_for_it = annotations.and_then(|all| all.get(MADE_FOR_ANNOTATION)) == Some(&context.digest());
    if !is_made_for_it || context.claimed_at.is_none() {
        return StepProgress::Failed(format!(
            "Job {name} is there, and not created by this attempt: delete it"
        ));
    }
    let status = job.status.clone().unwrap_or_default();
    let holds =
        |type_: &str| status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True");
    if let Some(failed) = holds("Failed") {
        let why = failed.message.as_deref().or(failed.reason.as_deref()).unwrap_or("no reason given");
        return StepProgress::Failed(format!("Job {name} failed: {why}"));
    }
    if holds("Complete").is_some() {
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
mod tests {
    use serde_json::json;

    use super::*;

    fn context() -> StepContext {
        StepContext {
            plan_uid: "u".to_owned(),
            service: "db".to_owned(),
            step: "import".to_owned(),
            attempt: 2,
            claimed_at: Some("2026-11-30T10:00:00Z".parse().unwrap()),
            namespaces: vec!["db".to_owned()],
            ..StepContext::default()
        }
    }

    fn spec(namespace: Option<&str>) -> JobStepSpec {
        let spec = json!({"backoffLimit": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
        let namespace = namespace.map(|name| crate::api::DnsLabel(name.to_owned()));
        JobStepSpec { namespace, spec: spec.as_object().unwrap().clone() }
    }

    #[test]
    fn name_is_derived_from_plan_service_attempt_and_step() {
        let names = |change: fn(&mut StepContext)| {
            let mut other = context();
            change(&mut other);
            name(&other)
        };
        let own = name(&context());
        assert!(own.starts_with("step-import-2-"), "{own}");
        assert_eq!(own, names(|_| {}), "starting twice creates one Job");
        let others = [
            names(|c| c.plan_uid = "v".to_owned()),
            names(|c| c.service = "web".to_owned()),
            names(|c| c.attempt = 3),
            names(|c| c.claimed_at = Some("2026-11-30T10:00:01Z".parse().unwrap())),
            names(|c| c.step = "export".to_owned()),
            names(|c| c.retries = 1),
        ];
        assert!(!others.contains(&own), "{others:?}");
        assert!(names(|c| c.step = "x".repeat(63)).len() <= 58, "a pod's suffix has room");
    }

    #[test]
    fn job_outside_the_services_namespaces_is_a_plan_problem() {
        let namespaces = ["a".to_owned(), "b".to_owned()];
        assert_eq!(problem(&spec(Some("b")), &namespaces), None);
        assert_eq!(problem(&spec(None), &namespaces[..1]), None);
        let message = problem(&spec(None), &namespaces).unwrap();
        assert_eq!(message, "must name the namespace of its Job: one of a, b");
        let message = problem(&spec(Some("c")), &namespaces).unwrap();
        assert_eq!(message, "names namespace c, which is none of the service's");
        let mut malformed = spec(None);
        malformed.spec.insert("backoffLimit".to_owned(), json!("many"));
        let message = problem(&malformed, &namespaces[..1]).unwrap();
        assert!(message.starts_with("is no Job: spec: "), "{message}");
    }

    #[test]
    fn job_counts_only_if_this_attempt_created_it() {
        let context = context();
        let created = |status: serde_json::Value| {
            let mut job = wanted(&spec(None), &context).unwrap();
            job.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                "2026-11-30T10:00:00Z".parse().unwrap(),
            ));
            job.status = serde_json::from_value(status).unwrap();
            job
        };
        let condition =
            |type_: &str| json!({"conditions": [{"type": type_, "status": "True", "message": "as it said"}]});
        let name = name(&context);
        for (status, expected) in [
            (json!(null), StepProgress::Running(format!("Job {name}: 0 of its pods run"))),
            (
                json!({"active": 1, "failed": 2}),
                StepProgress::Running(format!("Job {name}: 1 of its pods run, 2 failed so far")),
            ),
            (
                condition("SuccessCriteriaMet"),
                StepProgress::Running(format!("Job {name}: 0 of its pods run")),
            ),
            (condition("Complete"), StepProgress::Succeeded),
            (condition("Failed"), StepProgress::Failed(format!("Job {name} failed: as it said"))),
        ] {
            assert_eq!(judge(Some(&created(status.clone())), &context), expected, "{status}");
        }
        let failed = |job: Option<&Job>| matches!(judge(job, &context), StepProgress::Failed(_));
        assert!(failed(None), "it was deleted");
        let complete = created(condition("Complete"));
        let unclaimed = StepContext { claimed_at: None, ..context.clone() };
        let of_nobody = wanted(&spec(None), &unclaimed).unwrap();
        let progress = judge(Some(&of_nobody), &unclaimed);
        assert!(matches!(progress, StepProgress::Failed(_)), "no claim is on record");
        let mut other = complete;
        other.metadata.annotations = None;
        assert!(failed(Some(&other)), "it was created for something else");
    }
}
