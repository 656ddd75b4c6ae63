//! Progress of a workload, by the rules that kstatus publishes for the built-in kinds.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::GateReason;

/// Progress of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything that the spec asks for is there.
    Current,
    /// The controller is still working on it, or has not observed the latest spec yet: the status proves nothing.
    Moving(String),
    /// The controller has finished, but not all replicas are ready.
    Lacking(String),
    /// It has failed, and does not recover without a change.
    Failed {
        /// Reason.
        reason: GateReason,
        /// Message.
        message: String,
    },
    /// A suspended Job.
    Suspended,
}

/// Progress of a workload, with its replicas if it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadStatus {
    pub progress: Progress,
    pub replicas: Option<Replicas>,
}

/// Specified and ready replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    pub specified: i32,
    pub ready: i32,
}

/// Returns the status of a Deployment. `accepts_old`: a person has accepted that its paused rollout runs an old revision.
pub fn deployment(object: &Deployment, accepts_old: bool) -> WorkloadStatus {
    let specified = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = object.status.clone().unwrap_or_default();
    let is_paused = object.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
    let updated = match status.updated_replicas.unwrap_or(0) {
        _ if accepts_old && is_paused => status.replicas.unwrap_or(0),
        updated => updated,
    };
    let ready = status.ready_replicas.unwrap_or(0);
    let conditions = status.conditions.unwrap_or_default();
    let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    let progressing = condition("Progressing");
    // Without that condition (there is no deadline), a roll-out cannot be distinguished from a loss.
    let rolled_out = progressing.is_none_or(|condition| {
        condition.status == "True" && condition.reason.as_deref() == Some("NewReplicaSetAvailable")
    });
    let why = condition("ReplicaFailure")
        .filter(|condition| condition.status == "True")
        .and_then(|condition| condition.message.as_deref());
    let progress = if let Some(moving) = unsettled(&object.metadata, status.observed_generation) {
        moving
    } else if let Some(condition) =
        progressing.filter(|condition| condition.reason.as_deref() == Some("ProgressDeadlineExceeded"))
    {
        Progress::Failed {
            reason: GateReason::ProgressDeadlineExceeded,
            message: condition.message.clone().unwrap_or_default(),
        }
    } else if let Some(condition) = progressing.filter(|condition| condition.status == "False") {
        Progress::Moving(because("does not progress".to_owned(), condition.message.as_deref()))
    } else if updated < specified {
        Progress::Moving(because(format!("{updated} of {specified} updated, {ready} ready"), why))
    } else if status.replicas.unwrap_or(0) > updated {
        let old = status.replicas.unwrap_or(0).saturating_sub(updated);
        Progress::Moving(format!("{old} old replicas still run"))
    } else if let Some(surplus) = surplus(specified, status.replicas.unwrap_or(0)) {
        surplus
    } else {
        let available = condition("Available").filter(|condition| condition.status == "False");
        match (lacking(specified, ready, status.available_replicas.unwrap_or(0), rolled_out, why), available)
        {
            // All its pods are there, and its controller says all the same that it is not available.
            (Progress::Current, Some(condition)) => {
                Progress::Moving(because("is not available".to_owned(), condition.message.as_deref()))
            }
            (progress, _) => progress,
        }
    };
    WorkloadStatus { progress, replicas: Some(Replicas { specified, ready }) }
}

/// Returns the status of a StatefulSet.
pub fn stateful_set(object: &StatefulSet) -> WorkloadStatus {
    let spec = object.spec.clone().unwrap_or_default();
    let specified = spec.replicas.unwrap_or(1);
    let status = object.status.clone().unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or(0);
    let updated = status.updated_replicas.unwrap_or(0);
    let strategy = spec.update_strategy.unwrap_or_default();
    let on_delete = strategy.type_.as_deref() == Some("OnDelete");
    let partition = strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or(0);
    // Below the partition the old revision is intended.
    let to_update = if on_delete { 0 } else { specified.saturating_sub(partition).max(0) };
    let progress = if let Some(moving) = unsettled(&object.metadata, status.observed_generation) {
        moving
    } else if status.replicas < specified {
        Progress::Moving(format!("{} of {specified} created, {ready} ready", status.replicas))
    } else if status.update_revision != status.current_revision && updated < to_update {
        Progress::Moving(format!("{updated} of {to_update} updated, {ready} ready"))
    } else if let Some(surplus) = surplus(specified, status.replicas) {
        surplus
    } else {
        lacking(specified, ready, status.available_replicas.unwrap_or(0), true, None)
    };
    WorkloadStatus { progress, replicas: Some(Replicas { specified, ready }) }
}

/// Returns the status of a DaemonSet. Its specified replicas are the nodes that it fits.
pub fn daemon_set(object: &DaemonSet) -> WorkloadStatus {
    let status = object.status.clone().unwrap_or_default();
    let specified = status.desired_number_scheduled;
    let ready = status.number_ready;
    let on_delete = object
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref())
        .is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete"));
    let updated = status.updated_number_scheduled.unwrap_or(0);
    let progress = if let Some(moving) = unsettled(&object.metadata, status.observed_generation) {
        moving
    } else if status.current_number_scheduled < specified {
        Progress::Moving(format!("on {} of {specified} nodes", status.current_number_scheduled))
    } else if !on_delete && updated < specified {
        Progress::Moving(format!("{updated} of {specified} updated, {ready} ready"))
    } else {
        // Nodes come and go, but no ready pod at all is a loss.
        lacking(specified, ready, status.number_available.unwrap_or(0), ready == 0, None)
    };
    WorkloadStatus { progress, replicas: Some(Replicas { specified, ready }) }
}

/// Returns the status of a ReplicaSet.
pub fn replica_set(object: &ReplicaSet) -> WorkloadStatus {
    let specified = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = object.status.clone().unwrap_or_default();
    let why = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
        .map(|condition| condition.message.as_deref().unwrap_or("ReplicaFailure"));
    replicas(
        unsettled(&object.metadata, status.observed_generation),
        specified,
        (status.replicas, status.fully_labeled_replicas.unwrap_or(0)),
        status.ready_replicas,
        status.available_replicas,
        why,
    )
}

/// Returns the status of a ReplicationController.
pub fn replication_controller(object: &ReplicationController) -> WorkloadStatus {
    let specified = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = object.status.clone().unwrap_or_default();
    let why = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
        .map(|condition| condition.message.as_deref().unwrap_or("ReplicaFailure"));
    replicas(
        unsettled(&object.metadata, status.observed_generation),
        specified,
        (status.replicas, status.fully_labeled_replicas.unwrap_or(0)),
        status.ready_replicas,
        status.available_replicas,
        why,
    )
}

/// Returns the status of a kind that only counts replicas: those that exist, and those of them with all labels of the template.
fn replicas(
    unsettled: Option<Progress>,
    specified: i32,
    (created, labelled): (i32, i32),
    ready: Option<i32>,
    available: Option<i32>,
    why: Option<&str>,
) -> WorkloadStatus {
    let ready = ready.unwrap_or(0);
    let progress = unsettled.unwrap_or_else(|| {
        if created < specified {
            Progress::Moving(because(format!("{created} of {specified} created, {ready} ready"), why))
        } else if labelled < specified {
            Progress::Moving(format!("{labelled} of {specified} have the labels of the template"))
        } else if let Some(why) = why {
            Progress::Moving(format!("{ready} of {specified} ready: {why}"))
        } else if let Some(surplus) = surplus(specified, created) {
            surplus
        } else {
            lacking(specified, ready, available.unwrap_or(0), true, why)
        }
    });
    WorkloadStatus { progress, replicas: Some(Replicas { specified, ready }) }
}

/// Returns the status of a Job. By kstatus a running or completed Job is current.
pub fn job(object: &Job) -> WorkloadStatus {
    let status = object.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let holds = |type_: &str| {
        conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
    };
    let suspended = object.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true));
    let progress = if object.metadata.deletion_timestamp.is_some() {
        Progress::Moving("is being deleted".to_owned())
    } else if let Some(condition) = holds("Failed").or_else(|| holds("FailureTarget")) {
        let message = condition.message.clone().or_else(|| condition.reason.clone());
        Progress::Failed {
            reason: GateReason::JobFailed,
            message: message.unwrap_or_else(|| "it failed".to_owned()),
        }
    } else if holds("Complete").is_some() {
        Progress::Current
    } else if suspended {
        Progress::Suspended
    } else if status.start_time.is_some() {
        Progress::Current
    } else {
        Progress::Moving("has not started".to_owned())
    };
    WorkloadStatus { progress, replicas: None }
}

/// Returns the status of a Pod.
pub fn pod(object: &Pod) -> WorkloadStatus {
    let status = object.status.clone().unwrap_or_default();
    let condition =
        |type_: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
    let ready = condition("Ready").is_some_and(|condition| condition.status == "True");
    let progress = if object.metadata.deletion_timestamp.is_some() {
        Progress::Moving("is being deleted".to_owned())
    } else {
        match status.phase.as_deref() {
            Some("Succeeded") => Progress::Current,
            Some("Failed") => Progress::Failed {
                reason: GateReason::PodFailed,
                message: status.message.clone().or(status.reason.clone()).unwrap_or("it failed".to_owned()),
            },
            Some("Running") if ready => Progress::Current,
            Some("Running") => match status.container_statuses.iter().flatten().find(|it| crashes(it)) {
                Some(container) => Progress::Failed {
                    reason: GateReason::CrashLoopBackOff,
                    message: format!("container {} keeps crashing", container.name),
                },
                None => Progress::Lacking("runs, but is not ready".to_owned()),
            },
            phase => {
                let why = condition("PodScheduled").and_then(|condition| condition.message.as_deref());
                Progress::Moving(because(format!("is {}", phase.unwrap_or("in no phase yet")), why))
            }
        }
    };
    WorkloadStatus { progress, replicas: None }
}

fn crashes(container: &ContainerStatus) -> bool {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

/// Returns `Moving` while more replicas exist than are specified.
fn surplus(specified: i32, created: i32) -> Option<Progress> {
    let surplus = created.saturating_sub(specified);
    (surplus > 0).then(|| Progress::Moving(format!("{surplus} replicas have yet to end")))
}

/// Returns `Moving` while the status belongs to an earlier generation. Built-in controllers always write the observed generation, so an
/// absent one counts as not observed.
fn unsettled(meta: &ObjectMeta, observed: Option<i64>) -> Option<Progress> {
    let generation = meta.generation.unwrap_or(0);
    if meta.deletion_timestamp.is_some() {
        Some(Progress::Moving("is being deleted".to_owned()))
    } else if observed.is_none_or(|observed| observed < generation) {
        Some(Progress::Moving("its controller has not seen its latest change".to_owned()))
    } else {
        None
    }
}

/// Returns the last rule: all replicas exist; checks that they are ready and available.
fn lacking(specified: i32, ready: i32, available: i32, settled: bool, why: Option<&str>) -> Progress {
    if ready >= specified && available >= specified {
        return Progress::Current;
    }
    let message = if ready < specified {
        format!("{ready} of {specified} ready")
    } else {
        format!("{available} of {specified} ready for long enough")
    };
    let message = because(message, why);
    if settled && ready < specified { Progress::Lacking(message) } else { Progress::Moving(message) }
}

fn because(message: String, why: Option<&str>) -> String {
    match why {
        Some(why) => format!("{message}: {why}"),
        None => message,
    }
}

#[cfg(test)]
mod tests;
