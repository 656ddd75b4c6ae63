//! CronJobs and Jobs that isolation suspended, and their state once the service is recovered. A resumed CronJob starts the run that it
//! missed, so only what the plan names is resumed, and only after the status has said what would start.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use crate::api::conditions::shorten;
use crate::api::recovery_plan::MissedRun;
use crate::api::service_recovery::{ResumeKind, ResumeState, ResumeStatus};
use crate::api::{RECORDED_ANNOTATION, SEAL_ANNOTATION};
use crate::engine::ResumeObservation;
use crate::isolation::Seal;
use crate::isolation::controls::workloads::{has_not_ended, recorded_suspend};
use crate::plan::Resume;

pub mod cron;

use cron::Forecast;

/// Maximum number of entries in a status.
const LIMIT: usize = 64;

/// A CronJob or Job as read.
#[derive(Clone, Debug)]
pub enum SuspendedObject {
    /// A CronJob.
    CronJob(Box<CronJob>),
    /// A Job that has not ended.
    Job(Box<Job>),
}

/// Kind, namespace and name.
pub type ResumeKey = (ResumeKind, String, String);

impl SuspendedObject {
    /// Returns its metadata.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::CronJob(object) => &object.metadata,
            Self::Job(object) => &object.metadata,
        }
    }

    pub(crate) fn is_suspended(&self) -> bool {
        let suspend = match self {
            Self::CronJob(object) => object.spec.as_ref().and_then(|spec| spec.suspend),
            Self::Job(object) => object.spec.as_ref().and_then(|spec| spec.suspend),
        };
        suspend == Some(true)
    }

    pub(crate) fn key(&self) -> ResumeKey {
        let kind = match self {
            Self::CronJob(_) => ResumeKind::CronJob,
            Self::Job(_) => ResumeKind::Job,
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (kind, text(&self.meta().namespace), text(&self.meta().name))
    }

    /// Returns the merge patch that resumes the object, with a resourceVersion precondition. It removes the record too, so that a retry
    /// does not resume an object that a person has suspended since.
    #[must_use]
    pub fn resume(&self) -> Value {
        json!({
            "metadata": {
                "uid": self.meta().uid, "resourceVersion": self.meta().resource_version,
                "annotations": {RECORDED_ANNOTATION: null, SEAL_ANNOTATION: null},
            },
            "spec": {"suspend": false},
        })
    }
}

/// Returns the objects by kind, namespace and name.
#[must_use]
pub fn found(cronjobs: Vec<CronJob>, jobs: Vec<Job>) -> BTreeMap<ResumeKey, SuspendedObject> {
    let cronjobs = cronjobs.into_iter().map(|object| SuspendedObject::CronJob(Box::new(object)));
    let jobs = jobs.into_iter().filter(has_not_ended).map(|object| SuspendedObject::Job(Box::new(object)));
    cronjobs.chain(jobs).map(|found| (found.key(), found)).collect()
}

/// Returns the state of each object: those that the plan names, in its order, then the others that isolation suspended.
#[must_use]
pub fn judge(
    named: &[Resume],
    found: &BTreeMap<ResumeKey, SuspendedObject>,
    seals: &BTreeMap<String, Seal>,
    now: Timestamp,
) -> Vec<ResumeObservation> {
    let mut all: Vec<ResumeObservation> = named
        .iter()
        .map(|wanted| {
            let object = found.get(&(wanted.kind, wanted.namespace.clone(), wanted.name.clone()));
            wanted_one(wanted, object, seals.get(&wanted.namespace).map(|seal| seal.uid.as_str()), now)
        })
        .collect();
    let is_named =
        |key: &ResumeKey| named.iter().any(|w| (w.kind, &w.namespace, &w.name) == (key.0, &key.1, &key.2));
    for (key, object) in found.iter().filter(|(key, _)| !is_named(key)) {
        let seal = seals.get(&key.1).map(|seal| seal.uid.as_str());
        if object.is_suspended() && was_running(object, seal) {
            let (fires, _, changes_at) = forecast(object, now).unwrap_or_else(|why| (why, true, None));
            let message = "the plan does not name it under resume";
            all.push(seen(key.clone(), ResumeState::Suspended, &fires, message, changes_at));
        }
    }
    all.truncate(LIMIT);
    all
}

fn wanted_one(
    wanted: &Resume,
    object: Option<&SuspendedObject>,
    seal: Option<&str>,
    now: Timestamp,
) -> ResumeObservation {
    let key = (wanted.kind, wanted.namespace.clone(), wanted.name.clone());
    let held =
        |fires: &str, why: &str, changes_at| seen(key.clone(), ResumeState::Held, fires, why, changes_at);
    let Some(object) = object else {
        return held("", "it is not there, or has ended", None);
    };
    if !object.is_suspended() {
        return seen(key, ResumeState::Resumed, "", "", None);
    }
    if !was_running(object, seal) {
        return held(
            "",
            "it was not this isolation that suspended it, or it was suspended before: it stays so",
            None,
        );
    }
    match forecast(object, now) {
        Err(why) => held("", &format!("{why}: it stays suspended. {}", by_hand(&key)), None),
        Ok((fires, true, changes_at)) if wanted.missed_run == MissedRun::Hold => {
            let why = format!(
                "nobody has said that the run which it missed is wanted. If it is: {}, or missedRun: Fire in the plan",
                by_hand(&key)
            );
            held(&fires, &why, changes_at)
        }
        Ok((fires, _, changes_at)) => {
            seen(key, ResumeState::Due, &fires, "resumed once the service is recovered", changes_at)
        }
    }
}

/// Returns whether this seal suspended the object while it was running.
fn was_running(object: &SuspendedObject, seal: Option<&str>) -> bool {
    seal.and_then(|seal| recorded_suspend(object.meta(), seal)) == Some(false)
}

/// Returns what starts when the object is resumed, as a message, whether that is a missed run, and when that changes.
pub(crate) fn forecast(
    object: &SuspendedObject,
    now: Timestamp,
) -> Result<(String, bool, Option<Timestamp>), String> {
    let cronjob = match object {
        SuspendedObject::Job(_) => return Ok(("starts at once".to_owned(), false, None)),
        SuspendedObject::CronJob(object) => object,
    };
    let when = |at: &jiff::Zoned| at.strftime("%F %H:%M %Q").to_string();
    Ok(match cron::forecast(cronjob, now)? {
        Forecast::Missed { run } => {
            let spec = cronjob.spec.as_ref();
            let active =
                cronjob.status.as_ref().and_then(|s| s.active.as_ref()).is_some_and(|a| !a.is_empty());
            let start = match spec.and_then(|s| s.concurrency_policy.as_deref()) {
                Some("Forbid") if active => "would start as soon as its active Job ends",
                Some("Replace") if active => "would start at once, in place of its active Job",
                _ => "would start at once",
            };
            (format!("{start}: missed {}", when(&run)), true, None)
        }
        Forecast::Next(run) => (format!("next at {}", when(&run)), false, Some(run.timestamp())),
        Forecast::Never => ("has no run any more".to_owned(), false, None),
    })
}

/// Returns the command by which people resume an object.
pub(crate) fn by_hand((kind, namespace, name): &ResumeKey) -> String {
    let kind = kind.as_str().to_lowercase();
    format!(r#"kubectl -n {namespace} patch {kind} {name} -p '{{"spec":{{"suspend":false}}}}'"#)
}

fn seen(
    (kind, namespace, name): ResumeKey,
    state: ResumeState,
    fires: &str,
    message: &str,
    changes_at: Option<Timestamp>,
) -> ResumeObservation {
    let (fires, message) = (shorten(fires, 256), shorten(message, 512));
    ResumeObservation { status: ResumeStatus { kind, namespace, name, state, fires, message }, changes_at }
}

/// Returns the entries of the objects that the plan names if they could not be read.
#[must_use]
pub fn unreadable(named: &[Resume], why: &str) -> Vec<ResumeObservation> {
    let key = |wanted: &Resume| (wanted.kind, wanted.namespace.clone(), wanted.name.clone());
    named.iter().map(|wanted| seen(key(wanted), ResumeState::Held, "", why, None)).collect()
}

#[cfg(test)]
mod tests;
