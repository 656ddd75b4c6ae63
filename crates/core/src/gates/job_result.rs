//! Gate `jobResult`: a program that looks at something found nothing, by its exit code.
//!
//! It runs as a Job in an inspection namespace, which is isolated itself, once per attempt: the Job's name is derived from all that the
//! verdict is bound to. Its result counts only if the pod that ended is the pod that was asked for.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use serde_json::json;

use super::{Answer, Question, evidence};
use crate::api::gate::JobResultSpec;
use crate::api::{GateReason, Phase};

mod namespace;
mod pod;
pub mod volumes;
mod wanted;

pub use namespace::not_isolated;
pub use wanted::{GATE_LABEL, claim_name, job, name, selector};

/// Exit code with which the program says that it found nothing.
const NOTHING: i32 = 0;
/// Exit code with which the program says that it found something.
const SOMETHING: i32 = 1;
/// Reasons of the kubelet for an exit code that is not the program's own.
const NOT_ITS_OWN: [&str; 6] = [
    "OOMKilled",
    "ContainerCannotRun",
    "StartError",
    "DeadlineExceeded",
    "Evicted",
    "ContainerStatusUnknown",
];
/// Maximum length of the program's own words in a message, in characters.
const WORDS: usize = 240;

/// What was read of an inspection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspection {
    /// The Job of this attempt.
    pub job: Option<Job>,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Digest of the first part of the program's log, or why it could not be read. `None`: it was not read.
    pub log: Option<Result<String, String>>,
}

/// Returns the Unknown for a phase in which the gate is not evaluated.
#[must_use]
pub fn not_applicable(phase: Phase) -> Option<Answer> {
    let message = "it runs once per attempt: the jobResult gate belongs to beforeRestore or beforeRelease";
    (phase == Phase::Continuous).then(|| Answer::unknown(GateReason::NotApplicable, message))
}

/// Returns the pod whose container's log counts. `None`: no pod has ended.
#[must_use]
pub fn ended_pod(found: &Inspection) -> Option<&Pod> {
    let [pod] = found.pods.as_slice() else { return None };
    terminated(pod).map(|_| pod)
}

/// Returns whether the Job waits for its volumes: it has not ended, and none of its pods has begun.
#[must_use]
pub fn awaits_volumes(found: &Inspection) -> bool {
    let conditions = found.job.iter().filter_map(|job| job.status.as_ref()?.conditions.as_ref()).flatten();
    let has_ended = conditions
        .into_iter()
        .any(|c| ["Complete", "Failed"].contains(&c.type_.as_str()) && c.status == "True");
    let is_pending = |pod: &Pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending")
    };
    !has_ended && found.pods.iter().all(is_pending)
}

/// Returns how the program ended.
fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let [container] = pod.spec.as_ref()?.containers.as_slice() else { return None };
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = statuses.iter().find(|status| status.name == container.name)?;
    status.state.as_ref()?.terminated.as_ref()
}

/// Returns the gate's answer for what was read.
#[must_use]
pub fn judge(spec: &JobResultSpec, question: &Question, found: &Inspection) -> Answer {
    let wanted = match job(spec, question) {
        Ok(wanted) => wanted,
        Err(unknown) => return unknown,
    };
    let name = format!("Job {}/{}", spec.inspection_namespace.0, name(spec, question));
    let unknown = |reason, message: String| Answer::unknown(reason, message);
    let Some(job) = &found.job else {
        return unknown(GateReason::InProgress, format!("{name} is yet to be created"));
    };
    if let Some(why) = pod::other_job(&wanted, job) {
        let message = format!("{name} {why}: delete it, and it is created as the plan has it");
        return unknown(GateReason::JobDiffers, message);
    }
    if job.metadata.deletion_timestamp.is_some() {
        return unknown(GateReason::PodGone, format!("{name} is being deleted"));
    }
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let holds =
        |type_: &str| conditions.into_iter().flatten().find(|c| c.type_ == type_ && c.status == "True");
    let failed = holds("Failed");
    if failed.is_some_and(|failed| failed.reason.as_deref() == Some("DeadlineExceeded")) {
        let deadline = wanted.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or_default();
        return unknown(
            GateReason::JobDeadline,
            format!("{name} did not end within {deadline} s; a Retry runs it again"),
        );
    }
    if failed.is_none() && holds("Complete").is_none() {
        return unknown(GateReason::InProgress, format!("{name} {}", pod::progress(&found.pods)));
    }
    let [pod] = found.pods.as_slice() else {
        let number = found.pods.len();
        let message =
            format!("{name} has ended, and {number} of its pods are left, not 1; a Retry runs it again");
        return unknown(GateReason::PodGone, message);
    };
    let pod_name = pod.metadata.name.as_deref().unwrap_or("?");
    if let Some(why) = pod::other_pod(&wanted, job, pod) {
        let message = format!(
            "pod {pod_name} of {name} {why}: somebody has changed it on its way in, such as a webhook"
        );
        return unknown(GateReason::JobDiffers, message);
    }
    let Some(ended) = terminated(pod) else {
        return unknown(GateReason::NoResult, format!("{name} has ended, and its program never ran"));
    };
    let words = ended.message.as_deref().unwrap_or_default().trim();
    let reason = ended.reason.as_deref().unwrap_or_default();
    let is_its_own = !NOT_ITS_OWN.contains(&reason) && ended.signal.unwrap_or(0) == 0;
    let looks_at: Vec<&str> = spec.looks_at.iter().map(|aspect| aspect.describe()).collect();
    let looks_at = looks_at.join(", ");
    let said = shown(words);
    let facts = || {
        evidence::digest(&json!({
            "gate": "jobResult",
            "job": job.metadata.uid,
            "pod": pod.metadata.uid,
            "asked": spec,
            "attempt": question.attempt,
            "compromisedSince": question.compromised_since.map(|since| since.to_string()),
            "exitCode": ended.exit_code,
            "result": ended.message,
            "log": found.log.as_ref().and_then(|log| log.as_ref().ok()),
        }))
    };
    match ended.exit_code {
        NOTHING if is_its_own && words.is_empty() => unknown(
            GateReason::ResultEmpty,
            format!(
                "{name} ended with 0, and wrote nothing to /dev/termination-log, so nobody knows what it looked at"
            ),
        ),
        NOTHING if is_its_own => {
            let message = format!("{name} looked at {looks_at} and found nothing: {said}");
            let passed = Answer::pass(GateReason::NothingDetected, message, facts());
            Answer { exceptions: without_log(question, &name, found).into_iter().collect(), ..passed }
        }
        SOMETHING if is_its_own => {
            let message = format!("{name} looked at {looks_at} and found something: {said}");
            Answer::fail(GateReason::Detected, message, facts())
        }
        code => {
            let reason = if reason.is_empty() { String::new() } else { format!(", {reason}") };
            let message = format!(
                "{name} could not look at {looks_at} (exit code {code}{reason}): {said}; a Retry runs it again"
            );
            unknown(GateReason::NoResult, message)
        }
    }
}

/// Returns the exception for a result whose log is not part of the evidence.
fn without_log(question: &Question, name: &str, found: &Inspection) -> Option<String> {
    let why = match &found.log {
        Some(Ok(_)) => return None,
        Some(Err(why)) => why.as_str(),
        None => "it was not read",
    };
    let (gate, phase) = (&question.spec.name, question.phase.as_str());
    let why: String = why.chars().take(WORDS).collect();
    Some(format!("gate '{gate}' ({phase}): the log of {name} is not part of the evidence: {why}"))
}

/// Returns the program's own words on one line.
fn shown(words: &str) -> String {
    let mut line: String = words.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|letter| !letter.is_control());
    if line.is_empty() {
        return "it wrote no result".to_owned();
    }
    if line.chars().count() <= WORDS {
        return line;
    }
    line.chars().take(WORDS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
