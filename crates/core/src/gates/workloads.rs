//! Gate `workloads`: every workload is up to date, with at least the number of ready replicas recorded when it was stopped.
//!
//! CronJobs and their Jobs are skipped, as a missed run is no failure, and so are Jobs that isolation suspended.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde_json::{Value, json};

use super::finding::{Finding, worst};
use super::inventory::{Inventory, ObjectRef, Owners};
use super::kstatus::{self, Progress, WorkloadStatus};
use super::{Answer, Question, evidence};
use crate::api::gate::WorkloadsSpec;
use crate::api::{GateReason, Phase, RECORDED_ANNOTATION, SEAL_ANNOTATION};

/// Returns the answer for a phase that the gate does not apply to, so that nothing has to be read.
#[must_use]
pub fn not_applicable(phase: Phase) -> Option<Answer> {
    let message = "before restore nothing runs: the workloads gate belongs to beforeRelease or continuous";
    (phase == Phase::BeforeRestore).then(|| Answer::unknown(GateReason::NotApplicable, message))
}

/// A workload to check.
struct Workload {
    object: ObjectRef,
    generation: i64,
    /// Replicas that the namespace's seal recorded, or an error if the record is not a number.
    recorded: Option<Result<i32, String>>,
    status: WorkloadStatus,
}

type Check = fn(&Workload, Phase) -> Option<Finding>;

/// Checks in order. The first finding of a workload counts.
const CHECKS: [Check; 6] =
    [record_is_legible, is_not_failed, is_not_empty, is_restored, stays_ready, is_current];

fn record_is_legible(workload: &Workload, _: Phase) -> Option<Finding> {
    match &workload.recorded {
        Some(Err(text)) => Finding::unknown(
            GateReason::MalformedRecord,
            format!("its recorded replicas '{text}' are no number"),
        ),
        _ => None,
    }
}

fn is_not_failed(workload: &Workload, _: Phase) -> Option<Finding> {
    let Progress::Failed { reason, message } = &workload.status.progress else { return None };
    Finding::fail(*reason, message.clone())
}

/// Zero replicas specified prove nothing.
fn is_not_empty(workload: &Workload, _: Phase) -> Option<Finding> {
    let replicas = workload.status.replicas?;
    if replicas.specified > 0 || matches!(workload.status.progress, Progress::Moving(_)) {
        return None;
    }
    match workload.recorded {
        Some(Ok(0)) => Finding::unknown(
            GateReason::ZeroRecorded,
            "0 replicas were recorded and 0 are specified: the plan has to give a number".to_owned(),
        ),
        Some(_) => None,
        None if workload.object.kind == "DaemonSet" => {
            Finding::unknown(GateReason::ZeroReplicas, "it fits no node".to_owned())
        }
        None => Finding::unknown(
            GateReason::ZeroReplicas,
            "0 replicas are specified, and none were recorded".to_owned(),
        ),
    }
}

fn is_restored(workload: &Workload, _: Phase) -> Option<Finding> {
    let specified = workload.status.replicas?.specified;
    match workload.recorded {
        Some(Ok(recorded)) if specified < recorded => Finding::unknown(
            GateReason::FewerReplicas,
            format!("{specified} replicas are specified, {recorded} were recorded"),
        ),
        _ => None,
    }
}

/// A recovered workload that is no longer ready has regressed. Scaling beyond the recorded number takes time and is no regression.
fn stays_ready(workload: &Workload, phase: Phase) -> Option<Finding> {
    let Progress::Lacking(message) = &workload.status.progress else { return None };
    if phase != Phase::Continuous {
        return None;
    }
    if let (Some(Ok(recorded)), Some(replicas)) = (&workload.recorded, workload.status.replicas)
        && replicas.ready >= *recorded
    {
        return None;
    }
    Finding::fail(GateReason::NotReady, message.clone())
}

fn is_current(workload: &Workload, _: Phase) -> Option<Finding> {
    match &workload.status.progress {
        Progress::Current => None,
        Progress::Moving(message) | Progress::Lacking(message) | Progress::Failed { message, .. } => {
            Finding::unknown(GateReason::InProgress, message.clone())
        }
        Progress::Suspended => {
            Finding::unknown(GateReason::Suspended, "is suspended, and not by the seal".to_owned())
        }
    }
}

/// Workloads to check, and the number of skipped objects.
struct Selection {
    workloads: Vec<Workload>,
    left_out: usize,
}

/// Selects the workloads to check: those that match the labels and that no listed workload owns.
struct Selector<'a> {
    labels: &'a BTreeMap<String, String>,
    seals: &'a BTreeMap<String, String>,
    owners: Owners<'a>,
}

impl Selector<'_> {
    fn takes<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        let meta = object.meta();
        let has = |(key, value)| meta.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value);
        self.labels.iter().all(has) && !self.owners.has_owner_of(object)
    }

    /// Returns the record of the seal of the object's namespace. Records of other seals are ignored.
    fn record<'m>(&self, meta: &'m ObjectMeta) -> Option<&'m str> {
        let annotations = meta.annotations.as_ref()?;
        let seal = self.seals.get(meta.namespace.as_deref()?)?;
        (annotations.get(SEAL_ANNOTATION)? == seal)
            .then(|| annotations.get(RECORDED_ANNOTATION))?
            .map(String::as_str)
    }

    fn counted<K: Resource<DynamicType = ()>>(
        &self,
        objects: &[K],
        status: fn(&K) -> WorkloadStatus,
    ) -> Vec<Workload> {
        self.listed(objects, status, |meta| {
            let record = self.record(meta)?;
            let count = record.trim().parse::<i32>().ok().filter(|count| *count >= 0);
            Some(count.ok_or_else(|| record.to_owned()))
        })
    }

    fn uncounted<K: Resource<DynamicType = ()>>(
        &self,
        objects: &[K],
        status: fn(&K) -> WorkloadStatus,
    ) -> Vec<Workload> {
        self.listed(objects, status, |_| None)
    }

    fn listed<K: Resource<DynamicType = ()>>(
        &self,
        objects: &[K],
        status: fn(&K) -> WorkloadStatus,
        recorded: impl Fn(&ObjectMeta) -> Option<Result<i32, String>>,
    ) -> Vec<Workload> {
        let workload = |object: &K| Workload {
            object: ObjectRef::of(object),
            generation: object.meta().generation.unwrap_or(0),
            recorded: recorded(object.meta()),
            status: status(object),
        };
        objects.iter().filter(|object| self.takes(*object)).map(workload).collect()
    }
}

fn select(spec: &WorkloadsSpec, question: &Question, inventory: &Inventory) -> Selection {
    let selector =
        Selector { labels: &spec.match_labels, seals: &question.seals, owners: inventory.owners() };
    let mut workloads = selector.counted(&inventory.deployments, kstatus::deployment);
    workloads.extend(selector.counted(&inventory.stateful_sets, kstatus::stateful_set));
    // A DaemonSet's record is its node selector, not a number.
    workloads.extend(selector.uncounted(&inventory.daemon_sets, kstatus::daemon_set));
    workloads.extend(selector.counted(&inventory.replica_sets, kstatus::replica_set));
    workloads.extend(selector.counted(&inventory.replication_controllers, kstatus::replication_controller));
    workloads.extend(selector.uncounted(&inventory.jobs, kstatus::job));
    workloads.extend(selector.uncounted(&inventory.pods, kstatus::pod));

    let sealed: BTreeSet<&str> = inventory
        .jobs
        .iter()
        .filter(|job| selector.record(&job.metadata).is_some())
        .filter_map(|job| job.metadata.uid.as_deref())
        .collect();
    let before = workloads.len();
    workloads.retain(|workload| {
        workload.status.progress != Progress::Suspended || !sealed.contains(workload.object.uid.as_str())
    });
    let cron_jobs = inventory.cron_jobs.iter().filter(|object| selector.takes(*object)).count();
    let left_out = before - workloads.len() + cron_jobs;
    workloads.sort_by(|a, b| a.object.cmp(&b.object));
    Selection { workloads, left_out }
}

/// Returns the gate's answer for an inventory.
#[must_use]
pub fn judge(spec: &WorkloadsSpec, question: &Question, inventory: &Inventory) -> Answer {
    let Selection { workloads, left_out } = select(spec, question, inventory);
    let besides = match left_out {
        0 => String::new(),
        1 => " (besides 1 CronJob or suspended Job, left out)".to_owned(),
        count => format!(" (besides {count} CronJobs or suspended Jobs, left out)"),
    };
    // With labels the plan's author chooses where workloads are expected.
    if spec.match_labels.is_empty()
        && let Some(namespace) = inventory.empty_namespace(&question.namespaces)
    {
        return Answer::unknown(GateReason::NothingFound, format!("no workload in namespace {namespace}"));
    }
    if workloads.is_empty() {
        let places = question.namespaces.join(", ");
        return Answer::unknown(
            GateReason::NothingFound,
            format!("no workload in namespaces [{places}]{besides}"),
        );
    }
    let findings: Vec<(&ObjectRef, Finding)> = workloads
        .iter()
        .filter_map(|workload| {
            let finding = CHECKS.iter().find_map(|check| check(workload, question.phase))?;
            Some((&workload.object, finding))
        })
        .collect();
    let evidence = || evidence::digest(&basis(spec, question.phase, &workloads));
    worst(&findings, evidence).unwrap_or_else(|| {
        let count = workloads.len();
        let are = if count == 1 { "workload is" } else { "workloads are" };
        Answer::pass(GateReason::Current, format!("{count} {are} current{besides}"), evidence())
    })
}

/// Returns the evidence that the verdict is based on.
fn basis(spec: &WorkloadsSpec, phase: Phase, workloads: &[Workload]) -> Value {
    let seen = |workload: &Workload| {
        let replicas = workload.status.replicas;
        json!({
            "kind": workload.object.kind,
            "namespace": workload.object.namespace,
            "name": workload.object.name,
            "uid": workload.object.uid,
            "generation": workload.generation,
            "specified": replicas.map(|replicas| replicas.specified),
            "ready": replicas.map(|replicas| replicas.ready),
            "recorded": workload.recorded.as_ref().and_then(|recorded| recorded.as_ref().ok()),
            "current": workload.status.progress == Progress::Current,
        })
    };
    json!({
        "gate": "workloads",
        "phase": phase.as_str(),
        "matchLabels": spec.match_labels,
        "workloads": workloads.iter().map(seen).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
