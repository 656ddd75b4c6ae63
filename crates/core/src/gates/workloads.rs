//! Gate `workloads`: every workload is up to date and ready.
//!
//! Before release it wants the replicas that the steps started. While the service is recovered it wants what the specs say now:
//! autoscalers and people may change them. What has ended is not judged, nor are CronJobs and what isolation suspended.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde_json::{Value, json};

use super::finding::{Finding, worst};
use super::inventory::{Inventory, ObjectRef, Owners, is_live};
use super::kstatus::{self, Progress, WorkloadStatus};
use super::pods::PodProblems;
use super::{Answer, Question, evidence};
use crate::api::gate::{JobChecks, WorkloadsSpec};
use crate::api::{GateReason, Phase, RECORDED_ANNOTATION, SEAL_ANNOTATION};
use crate::steps::scale::{has_controller, selects};

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
    /// Replicas that the steps started, or an error if they are to start what was recorded and the record is not a number. `None`: no
    /// step started it, or it has no number of replicas.
    started: Option<Result<i32, String>>,
    status: WorkloadStatus,
}

type Check = fn(&Workload, Phase) -> Option<Finding>;

/// Checks in order. The first finding of a workload counts.
const CHECKS: [Check; 5] = [record_is_legible, is_not_failed, is_as_started, has_not_gone, is_current];

fn record_is_legible(workload: &Workload, phase: Phase) -> Option<Finding> {
    match &workload.started {
        Some(Err(text)) if phase == Phase::BeforeRelease => Finding::unknown(
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

fn is_as_started(workload: &Workload, phase: Phase) -> Option<Finding> {
    let specified = workload.status.replicas?.specified;
    match workload.started {
        Some(Ok(started)) if phase == Phase::BeforeRelease && specified < started => Finding::unknown(
            GateReason::FewerReplicas,
            format!("{specified} replicas are specified, {started} were to be started"),
        ),
        _ => None,
    }
}

/// A recovered workload of which nothing is ready has regressed. Some that are ready may as well be a rollout, or an autoscaler at work.
fn has_not_gone(workload: &Workload, phase: Phase) -> Option<Finding> {
    let Progress::Lacking(message) = &workload.status.progress else { return None };
    let is_gone = workload.status.replicas.is_none_or(|replicas| replicas.ready == 0);
    if phase == Phase::Continuous && is_gone {
        return Finding::fail(GateReason::NotReady, message.clone());
    }
    None
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
    question: &'a Question,
    owners: Owners<'a>,
}

impl Selector<'_> {
    fn takes<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        selects(self.labels, object.meta()) && !self.owners.has_owner_of(object)
    }

    /// Returns the record of the sealing of the object's namespace. Records of other sealings are ignored.
    fn record<'m>(&self, meta: &'m ObjectMeta) -> Option<&'m str> {
        let annotations = meta.annotations.as_ref()?;
        let seal = self.question.seals.get(meta.namespace.as_deref()?)?;
        (*annotations.get(SEAL_ANNOTATION)? == seal.uid)
            .then(|| annotations.get(RECORDED_ANNOTATION))?
            .map(String::as_str)
    }

    /// Returns the replicas that the steps started: a number of the plan, or what was recorded.
    fn started(&self, meta: &ObjectMeta) -> Option<Result<i32, String>> {
        let step = self.question.started.iter().find(|step| selects(&step.match_labels, meta))?;
        if let Some(number) = step.replicas.filter(|_| !has_controller(meta)) {
            return Some(Ok(number));
        }
        let record = self.record(meta)?;
        let count = record.trim().parse::<i32>().ok().filter(|count| *count >= 0);
        Some(count.ok_or_else(|| record.to_owned()))
    }

    fn counted<K: Resource<DynamicType = ()>>(
        &self,
        objects: &[K],
        status: impl Fn(&K) -> WorkloadStatus,
    ) -> Vec<Workload> {
        self.listed(objects, status, |meta| self.started(meta))
    }

    fn uncounted<K: Resource<DynamicType = ()>>(
        &self,
        objects: &[K],
        status: impl Fn(&K) -> WorkloadStatus,
    ) -> Vec<Workload> {
        self.listed(objects, status, |_| None)
    }

    fn listed<K: Resource<DynamicType = ()>>(
        &self,
        objects: &[K],
        status: impl Fn(&K) -> WorkloadStatus,
        started: impl Fn(&ObjectMeta) -> Option<Result<i32, String>>,
    ) -> Vec<Workload> {
        let workload = |object: &K| Workload {
            object: ObjectRef::of(object),
            generation: object.meta().generation.unwrap_or(0),
            started: started(object.meta()),
            status: status(object),
        };
        objects.iter().filter(|object| self.takes(*object)).map(workload).collect()
    }
}

fn select(spec: &WorkloadsSpec, question: &Question, inventory: &Inventory) -> Selection {
    let selector = Selector { labels: &spec.match_labels, question, owners: inventory.owners() };
    let mut workloads = selector.counted(&inventory.deployments, |object| {
        let accepts_old = question.accepted_rollouts.contains(&ObjectRef::of(object).to_string());
        kstatus::deployment(object, accepts_old)
    });
    workloads.extend(selector.counted(&inventory.stateful_sets, kstatus::stateful_set));
    // A DaemonSet's record is its node selector, not a number.
    workloads.extend(selector.uncounted(&inventory.daemon_sets, kstatus::daemon_set));
    workloads.extend(selector.counted(&inventory.replica_sets, kstatus::replica_set));
    workloads.extend(selector.counted(&inventory.replication_controllers, kstatus::replication_controller));
    // A pod that a controller runs has to run; one of nobody that has ended is done.
    let is_judged = |pod: &&k8s_openapi::api::core::v1::Pod| {
        is_live(pod) || (has_controller(&pod.metadata) && !has_succeeded(pod))
    };
    let pods: Vec<_> = inventory.pods.iter().filter(is_judged).cloned().collect();
    workloads.extend(selector.uncounted(&pods, kstatus::pod));
    let is_suspended = |meta: &ObjectMeta| selector.record(meta).is_some();
    let mut jobs = selector.uncounted(&inventory.jobs, kstatus::job);
    let all_jobs = jobs.len();
    let suspended: Vec<&str> = inventory
        .jobs
        .iter()
        .filter(|job| is_suspended(&job.metadata))
        .filter_map(|job| job.metadata.uid.as_deref())
        .collect();
    jobs.retain(|job| match (&job.status.progress, spec.jobs) {
        (Progress::Suspended, _) => !suspended.contains(&job.object.uid.as_str()),
        (Progress::Failed { .. }, JobChecks::Ignore) => false,
        (_, JobChecks::Ignore | JobChecks::Fail) => true,
    });
    let cron_jobs = inventory.cron_jobs.iter().filter(|object| selector.takes(*object)).count();
    let left_out = all_jobs - jobs.len() + cron_jobs;
    workloads.extend(jobs);
    workloads.sort_by(|a, b| a.object.cmp(&b.object));
    Selection { workloads, left_out }
}

fn has_succeeded(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded")
}

/// Returns the gate's answer for an inventory.
#[must_use]
pub fn judge(spec: &WorkloadsSpec, question: &Question, inventory: &Inventory) -> Answer {
    let Selection { workloads, left_out } = select(spec, question, inventory);
    let besides = match left_out {
        0 => String::new(),
        1 => " (besides 1 CronJob or Job, left out)".to_owned(),
        count => format!(" (besides {count} CronJobs or Jobs, left out)"),
    };
    // With labels the plan's author chooses where workloads are expected.
    if spec.match_labels.is_empty()
        && let Some(missing) = inventory.nothing_runs(question)
    {
        return Answer::unknown(GateReason::NothingFound, format!("{missing}{besides}"));
    }
    let evidence = || evidence::digest(&basis(spec, question.phase, &workloads));
    if workloads.is_empty() {
        let places = question.namespaces.join(", ");
        if spec.match_labels.is_empty() && !question.namespaces.is_empty() {
            let message = format!("nothing has to run in namespaces [{places}]{besides}");
            return Answer::pass(GateReason::NothingToRun, message, evidence());
        }
        return Answer::unknown(
            GateReason::NothingFound,
            format!("no workload in namespaces [{places}]{besides}"),
        );
    }
    let mut findings: Vec<(&ObjectRef, Finding)> = workloads
        .iter()
        .filter_map(|workload| {
            let finding = CHECKS.iter().find_map(|check| check(workload, question.phase))?;
            Some((&workload.object, finding))
        })
        .collect();
    if !findings.is_empty() {
        let problems = PodProblems::of(inventory);
        for (object, finding) in &mut findings {
            problems.first_of(object).into_iter().for_each(|problem| finding.explain(&problem));
        }
    }
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
            "started": workload.started.as_ref().and_then(|started| started.as_ref().ok()),
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
