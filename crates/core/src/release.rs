//! Releasing a namespace by hand: what starts, what fires at once, and what is lost for good.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use crate::api::{Isolation, Quarantine, RELEASED_ANNOTATION, SEAL_ANNOTATION, SEALED_LABEL};
use crate::isolation::controls::network::{is_neutralised, is_ours};
use crate::isolation::controls::workloads::{
    Inventory, Kind, Shape, Workload, recorded_replicas, recorded_suspend,
};
use crate::resume::{self, SuspendedObject};

/// Objects of an isolated or released namespace, or why they could not be read.
#[derive(Clone, Debug)]
pub struct ReleaseRead {
    /// Its workloads.
    pub inventory: Result<Inventory, String>,
    /// Its CronJobs.
    pub cronjobs: Vec<CronJob>,
    /// Its Jobs.
    pub jobs: Vec<Job>,
    /// Its ServiceAccounts.
    pub accounts: Result<Vec<ServiceAccount>, String>,
    /// Its network policies.
    pub policies: Result<Vec<NetworkPolicy>, String>,
}

/// A workload, CronJob or Job that was stopped while it ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Start {
    /// Its kind.
    #[serde(skip)]
    pub kind: Kind,
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Kind, name and how much of it starts, for people.
    pub what: String,
    /// What it starts at once or next, if it is a CronJob or Job.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fires: String,
    /// The merge patch that starts it.
    #[serde(skip)]
    pub patch: Value,
    /// The command by which people start it.
    pub command: String,
}

/// A workload, CronJob or Job that is not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Kind and name.
    pub what: String,
    /// Why it is not started.
    pub why: String,
    /// The command by which people start it.
    pub command: String,
    /// It is not started by choice: it would start a run that it missed.
    pub by_choice: bool,
}

/// What starts of a namespace, and what does not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Starts {
    /// What is started, as it was recorded.
    pub starts: Vec<Start>,
    /// What was stopped and is not started.
    pub held: Vec<Held>,
}

/// What releasing a namespace does, besides restoring its network.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseForecast {
    /// The namespace.
    pub namespace: String,
    /// Level at which it is isolated.
    pub level: Option<Isolation>,
    /// Why it is isolated.
    pub reason: String,
    /// What is started on request, and what is not.
    #[serde(flatten)]
    pub starts: Starts,
    /// CronJobs that were never suspended and start a missed run as soon as the namespace is open.
    pub fires: Vec<String>,
    /// Network policies that select pods again.
    pub restores: Vec<String>,
    /// What was there before and does not come back.
    pub lost: Vec<String>,
    /// What could not be read, so that the forecast is incomplete.
    pub unread: Vec<String>,
}

/// Which records count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records<'a> {
    /// Those of the Quarantine with this UID, and those that an earlier release left.
    Of(&'a str),
    /// All: no Quarantine of the namespace exists any more.
    All,
}

impl Records<'_> {
    /// Returns the seal of the object's record, if that record counts.
    fn seal<'a>(&self, meta: &'a ObjectMeta) -> Option<&'a str> {
        let annotations = meta.annotations.as_ref()?;
        let seal = annotations.get(SEAL_ANNOTATION)?;
        let counts = match self {
            Self::Of(uid) => seal == uid || annotations.contains_key(RELEASED_ANNOTATION),
            Self::All => true,
        };
        counts.then_some(seal.as_str())
    }
}

/// Returns what is started of a namespace. `fire_missed_runs`: also CronJobs that start a missed run at once. `was_sealed`: everything was
/// stopped, so that what is stopped without a record is reported.
#[must_use]
pub fn starts(
    read: &ReleaseRead,
    records: Records<'_>,
    was_sealed: bool,
    fire_missed_runs: bool,
    now: Timestamp,
) -> Starts {
    let mut all = Starts::default();
    let workloads = read.inventory.iter().flat_map(|inventory| &inventory.workloads);
    for workload in workloads.filter(|workload| !matches!(workload.shape, Shape::Suspend(_))) {
        start_workload(&mut all, workload, records, was_sealed);
    }
    for object in resume::found(read.cronjobs.clone(), read.jobs.clone()).into_values() {
        let seal = records.seal(object.meta());
        let was_running = seal.and_then(|seal| recorded_suspend(object.meta(), seal)) == Some(false);
        if object.is_suspended() && was_running {
            start_suspended(&mut all, &object, fire_missed_runs, now);
        }
    }
    all
}

fn start_workload(all: &mut Starts, workload: &Workload, records: Records<'_>, was_sealed: bool) {
    let seal = records.seal(&workload.meta);
    let (kind, name) = (workload.kind, workload.meta.name.clone().unwrap_or_default());
    let namespace = workload.meta.namespace.as_deref().unwrap_or_default();
    let replicas = seal.and_then(|seal| recorded_replicas(&workload.meta, seal));
    let is_stopped_before = matches!(workload.shape, Shape::Replicas(_)) && replicas == Some(0);
    if !workload.is_stopped() || is_stopped_before || (seal.is_none() && !was_sealed) {
        return;
    }
    let lower = kind.to_string().to_lowercase();
    let command = match workload.shape {
        Shape::Replicas(_) => {
            let number = replicas.map_or_else(|| "NUMBER".to_owned(), |number| number.to_string());
            format!("kubectl -n {namespace} scale {lower} {name} --replicas={number}")
        }
        Shape::Nodes(_) | Shape::Suspend(_) => format!(
            r#"kubectl -n {namespace} patch {lower} {name} -p '{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"resurgam.dev/nowhere":null}}}}}}}}}}'"#
        ),
    };
    match workload.start(seal, None) {
        Ok(None) => {}
        Ok(Some(patch)) => {
            let what = match replicas {
                Some(number) => format!("{kind} {name} ×{number}"),
                None => format!("{kind} {name} on every node it fits"),
            };
            all.starts.push(Start { kind, name, what, fires: String::new(), patch, command });
        }
        Err(error) => {
            let (what, why) = (format!("{kind} {name}"), error.why.to_owned());
            all.held.push(Held { what, why, command, by_choice: false });
        }
    }
}

fn start_suspended(all: &mut Starts, object: &SuspendedObject, fire_missed_runs: bool, now: Timestamp) {
    let key = object.key();
    let command = resume::by_hand(&key);
    let kind = match object {
        SuspendedObject::CronJob(_) => Kind::CronJob,
        SuspendedObject::Job(_) => Kind::Job,
    };
    let what = format!("{kind} {}", key.2);
    match resume::forecast(object, now) {
        Err(why) => {
            all.held.push(Held {
                what,
                why: format!("{why}: it stays suspended"),
                command,
                by_choice: false,
            });
        }
        Ok((why, true, _)) if !fire_missed_runs => {
            all.held.push(Held { what, why, command, by_choice: true });
        }
        Ok((fires, _, _)) => {
            all.starts.push(Start { kind, name: key.2, what, fires, patch: object.resume(), command });
        }
    }
}

/// Returns what releasing the namespace of a Quarantine does.
#[must_use]
pub fn forecast(
    quarantine: &Quarantine,
    read: &ReleaseRead,
    fire_missed_runs: bool,
    now: Timestamp,
) -> ReleaseForecast {
    let status = quarantine.status.clone().unwrap_or_default();
    let was_sealed = matches!(status.isolation, Some(Isolation::Sealed | Isolation::CleanRoom));
    let uid = quarantine.uid().unwrap_or_default();
    let fires_by_itself = |object: &CronJob| {
        let object = SuspendedObject::CronJob(Box::new(object.clone()));
        match resume::forecast(&object, now) {
            Ok((fires, true, _)) if !object.is_suspended() => {
                Some(format!("CronJob {} {fires}", object.meta().name.as_deref().unwrap_or_default()))
            }
            _ => None,
        }
    };
    let policies = || read.policies.iter().flatten().filter(|policy| !is_ours(policy));
    let mut lost: Vec<String> =
        status.unmanaged_pods.iter().map(|pod| format!("pod {pod}: no workload brings it back")).collect();
    let is_recreated = |account: &&ServiceAccount| account.labels().contains_key(SEALED_LABEL);
    let accounts: Vec<_> =
        read.accounts.iter().flatten().filter(is_recreated).map(ResourceExt::name_any).collect();
    if !accounts.is_empty() {
        lost.push(format!(
            "tokens and token Secrets of the recreated ServiceAccounts {}: whoever kept one needs a new one",
            accounts.join(", ")
        ));
    }
    let deleted = policies().filter(|policy| policy.metadata.deletion_timestamp.is_some());
    lost.extend(deleted.map(|policy| format!("NetworkPolicy {}: it is being deleted", policy.name_any())));
    let errors = [read.inventory.as_ref().err(), read.accounts.as_ref().err(), read.policies.as_ref().err()];
    ReleaseForecast {
        namespace: quarantine.name_any(),
        level: status.isolation,
        reason: quarantine.spec.reason.clone(),
        starts: starts(read, Records::Of(&uid), was_sealed, fire_missed_runs, now),
        fires: read.cronjobs.iter().filter_map(fires_by_itself).collect(),
        restores: policies().filter(|policy| is_neutralised(policy)).map(ResourceExt::name_any).collect(),
        lost,
        unread: errors.into_iter().flatten().cloned().collect(),
    }
}

/// Returns why a Quarantine is not deleted: a plan recovers its namespace. `None`: no plan claims it.
#[must_use]
pub fn claim(quarantine: &Quarantine) -> Option<String> {
    let claim = quarantine.status.as_ref()?.claimed_by.as_ref()?;
    Some(format!(
        "namespace {} is claimed by plan {}/{} for its service {} (attempt {}), which releases it once its gates pass. To take it \
         away from that recovery: --even-if-claimed",
        quarantine.name_any(),
        claim.plan_namespace,
        claim.plan,
        claim.service,
        claim.attempt
    ))
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
