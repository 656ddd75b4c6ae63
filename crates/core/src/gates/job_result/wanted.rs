//! The Job that a gate asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::super::{evidence, images};
use crate::api::GateReason;
use crate::api::gate::JobResultSpec;
use crate::gates::{Answer, Question};

/// Label on a Job: digest of the gate that it is for, whatever the attempt.
pub const GATE_LABEL: &str = "resurgam.dev/inspection";
/// Annotation on a Job: digest of what its result is bound to.
pub(super) const BOUND_ANNOTATION: &str = "resurgam.dev/inspection-of";
/// Maximum number of characters of the gate's name in the Job's name. Kubernetes appends to it for pods and their labels, within 63.
const NAME_LIMIT: usize = 24;
/// Time that a program may run unless the plan says otherwise, in seconds.
const DEFAULT_DEADLINE: i64 = 3600;
/// The file that a program writes its result to.
const RESULT_FILE: &str = "/dev/termination-log";

/// Returns the digest of what a result is bound to: the question, and each namespace's sealing.
fn bound(spec: &JobResultSpec, question: &Question) -> String {
    let seals: BTreeMap<&String, &String> =
        question.seals.iter().map(|(namespace, seal)| (namespace, &seal.uid)).collect();
    evidence::digest(&json!({
        "of": of(question),
        "attempt": question.attempt,
        "compromisedSince": question.compromised_since.map(|since| since.to_string()),
        "seals": seals,
        "spec": spec,
    }))
}

/// Returns what identifies a gate.
fn of(question: &Question) -> serde_json::Value {
    let Question { plan_namespace, plan, service, phase, spec, .. } = question;
    json!([plan_namespace, plan, service, phase.as_str(), spec.name])
}

/// Returns the first digits of a digest.
fn short(digest: &str, digits: usize) -> String {
    digest.trim_start_matches("sha256:").chars().take(digits).collect()
}

/// Returns the Job's name: the same whenever the same is asked, and another in another attempt.
#[must_use]
pub fn name(spec: &JobResultSpec, question: &Question) -> String {
    let gate: String = question.spec.name.chars().take(NAME_LIMIT).collect();
    format!("gate-{}-{}-{}", gate.trim_end_matches('-'), question.attempt, short(&bound(spec, question), 8))
}

/// Returns the value of [`GATE_LABEL`] on all Jobs of the gate, of any attempt.
#[must_use]
pub fn selector(question: &Question) -> String {
    short(&evidence::digest(&of(question)), 32)
}

/// Returns the Job to create.
///
/// # Errors
/// The verdict Unknown: the plan's `pod` is no pod, or would use more than an inspection may.
pub fn job(spec: &JobResultSpec, question: &Question) -> Result<Job, Answer> {
    let malformed = |why: String| Answer::unknown(GateReason::Malformed, format!("pod of the gate: {why}"));
    let mut pod: PodSpec = serde_json::from_value(spec.pod.clone().into())
        .map_err(|error| malformed(format!("is no pod's spec: {error}")))?;
    if let Some(why) = problem(&pod) {
        return Err(malformed(why));
    }
    pod.restart_policy = Some("Never".to_owned());
    pod.automount_service_account_token = Some(false);
    pod.enable_service_links = Some(false);
    let labels: BTreeMap<String, String> = [(GATE_LABEL.to_owned(), selector(question))].into();
    let name = name(spec, question);
    for (index, volume) in spec.volumes.iter().enumerate() {
        pod.volumes.get_or_insert_default().push(Volume {
            name: volume.name.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(&name, index),
                read_only: Some(true),
            }),
            ..Volume::default()
        });
        for container in &mut pod.containers {
            container.volume_mounts.get_or_insert_default().push(VolumeMount {
                name: volume.name.clone(),
                mount_path: volume.mount_path.clone(),
                read_only: Some(true),
                ..VolumeMount::default()
            });
        }
    }
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        container.termination_message_path = Some(RESULT_FILE.to_owned());
        // A log may hold anything, and a message is shown.
        container.termination_message_policy = Some("File".to_owned());
    }
    let deadline = spec
        .deadline
        .map_or(DEFAULT_DEADLINE, |deadline| i64::try_from(deadline.0.as_secs()).unwrap_or(i64::MAX).max(1));
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(spec.inspection_namespace.0.clone()),
            labels: Some(labels.clone()),
            annotations: Some([(BOUND_ANNOTATION.to_owned(), bound(spec, question))].into()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            // One pod, once: its exit code is the result.
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            active_deadline_seconds: Some(deadline),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// Returns why a pod is no inspection.
fn problem(pod: &PodSpec) -> Option<String> {
    let [_] = pod.containers.as_slice() else {
        return Some(format!("has {} containers, and the exit code of one counts", pod.containers.len()));
    };
    if [pod.host_network, pod.host_pid, pod.host_ipc].contains(&Some(true)) {
        return Some("uses network, processes or memory of its node".to_owned());
    }
    if pod.node_name.is_some() {
        return Some("names its node, past the scheduler".to_owned());
    }
    let volumes = pod.volumes.iter().flatten();
    if let Some(volume) = volumes.clone().find(|volume| volume.host_path.is_some()) {
        return Some(format!("volume {} is a path of its node", volume.name));
    }
    // What sources a volume may have is the cluster's to say; that of another claim would be its original.
    if let Some(volume) = volumes.clone().find(|volume| volume.persistent_volume_claim.is_some()) {
        return Some(format!("volume {} is a claim: name it under volumes", volume.name));
    }
    let all = || pod.containers.iter().chain(pod.init_containers.iter().flatten());
    if let Some(container) = all().find(|container| is_privileged(container)) {
        return Some(format!("container {} is privileged", container.name));
    }
    let unpinned = all()
        .find(|container| container.image.as_deref().is_none_or(|image| images::pinned(image).is_none()));
    unpinned.map(|container| {
        format!("the image of container {} is not pinned by a sha256 digest", container.name)
    })
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true))
}

/// Returns the name of the claim in the inspection namespace through which the program sees a volume, by the volume's place in the plan.
#[must_use]
pub fn claim_name(job: &str, index: usize) -> String {
    format!("{job}-{index}")
}
