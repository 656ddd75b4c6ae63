//! View of the Quarantines that fail, and why. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use serde::Serialize;

use crate::api::conditions::{READY, RECONCILING, STALLED, find, is_true};
use crate::api::quarantine::{Control, ControlState};
use crate::api::{Isolation, Quarantine, QuarantineStatus};

/// How long a control of a new Quarantine may fail before it counts; until then, its pass may still be running.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Counts of all Quarantines, and each one that fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinesView {
    /// How many there are.
    pub total: usize,
    /// How many of their namespaces are isolated.
    pub isolated: usize,
    /// How many of their namespaces are open: recovered, or about to be released.
    pub open: usize,
    /// How many are Ready.
    pub ready: usize,
    /// Failing Quarantines, by namespace.
    pub failing: Vec<QuarantineView>,
    /// Namespaces that are isolated for more than one incident, and these incidents.
    pub several_incidents: BTreeMap<String, Vec<String>>,
    /// Why they could not be listed.
    pub unreadable: Option<String>,
}

/// One failing Quarantine.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineView {
    /// The namespace that it isolates.
    pub namespace: String,
    /// The requested level.
    pub asked: Option<Isolation>,
    /// The level that is enforced.
    pub enforced: Option<Isolation>,
    /// Reason of the failure.
    pub reason: String,
    /// The culprit and the cause.
    pub message: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Controls that do not hold, and why.
    pub controls: Vec<ControlView>,
}

/// One control that does not hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlView {
    /// Which.
    pub name: String,
    /// Why not.
    pub message: String,
}

impl QuarantinesView {
    /// Builds the view from the API objects, or from the error of listing them.
    #[must_use]
    pub fn from_objects(listed: Result<&[DeserializeGuard<Quarantine>], &str>, now: Timestamp) -> Self {
        let all = match listed {
            Ok(all) => all,
            Err(why) => return Self { unreadable: Some(why.to_owned()), ..Self::default() },
        };
        let mut view = Self { total: all.len(), ..Self::default() };
        for object in all {
            let status = object.0.as_ref().ok().and_then(|quarantine| quarantine.status.as_ref());
            let enforced = status.and_then(|status| status.isolation);
            view.isolated += usize::from(enforced.is_some_and(|level| level != Isolation::Open));
            view.open += usize::from(enforced == Some(Isolation::Open));
            view.ready += usize::from(status.is_some_and(|status| is_true(&status.conditions, READY)));
            view.failing.extend(failing(object, now));
            let incidents = object.0.as_ref().map(|quarantine| quarantine.spec.incidents());
            if let Some(incidents) = incidents.ok().filter(|incidents| incidents.len() > 1) {
                view.several_incidents.insert(object.name_any(), incidents);
            }
        }
        view.failing.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        view
    }

    /// Returns how many are in progress: neither Ready nor failing.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.total.saturating_sub(self.ready).saturating_sub(self.failing.len())
    }
}

fn failing(object: &DeserializeGuard<Quarantine>, now: Timestamp) -> Option<QuarantineView> {
    let namespace = object.name_any();
    let quarantine = match &object.0 {
        Ok(quarantine) => quarantine,
        Err(error) => {
            return Some(QuarantineView {
                namespace,
                asked: None,
                enforced: None,
                reason: "Unreadable".to_owned(),
                message: format!(
                    "this version cannot read it: {error}. Its author has to correct or delete it"
                ),
                since: None,
                controls: Vec::new(),
            });
        }
    };
    let status = quarantine.status.clone().unwrap_or_default();
    let failure = failure(quarantine, &status, now)?;
    let not_enforced = status.controls.iter().filter(|control| is_failing(control));
    let controls = not_enforced
        .map(|control| ControlView { name: format!("{:?}", control.name), message: control.message.clone() })
        // The message usually contains the control's message already.
        .filter(|control| !failure.message.contains(&control.message))
        .collect();
    let asked = quarantine.spec.hold.unwrap_or(quarantine.spec.isolation);
    Some(QuarantineView {
        namespace,
        asked: Some(asked.into()),
        enforced: status.isolation,
        reason: failure.reason,
        message: failure.message,
        since: failure.since,
        controls,
    })
}

/// A failure.
struct Failure {
    reason: String,
    message: String,
    since: Option<Timestamp>,
}

impl Failure {
    fn from_condition(condition: &Condition) -> Self {
        Self {
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: Some(condition.last_transition_time.0),
        }
    }
}

fn failure(quarantine: &Quarantine, status: &QuarantineStatus, now: Timestamp) -> Option<Failure> {
    let ready = find(&status.conditions, READY);
    if let Some(ready) = ready.filter(|ready| ready.status == "False") {
        return Some(Failure::from_condition(ready));
    }
    if let Some(stalled) = find(&status.conditions, STALLED).filter(|stalled| stalled.status == "True") {
        return Some(Failure::from_condition(stalled));
    }
    let Some(ready) = ready else {
        let made = quarantine.creation_timestamp().map(|at| at.0);
        return is_over(made, now).then(|| Failure {
            reason: "NotTakenUp".to_owned(),
            message: format!(
                "no operator has looked at it yet. Without one, a responder isolates it: resurgam quarantine {}",
                quarantine.name_any()
            ),
            since: made,
        });
    };
    if !is_true(&status.conditions, RECONCILING) {
        return None;
    }
    let controls = status.controls.iter().filter(|control| is_failing(control));
    let longest = controls.filter_map(|control| Some(control.since.as_ref()?.0)).min();
    is_over(longest, now).then(|| Failure { since: longest, ..Failure::from_condition(ready) })
}

fn is_failing(control: &Control) -> bool {
    control.state == ControlState::NotEnforced
}

fn is_over(since: Option<Timestamp>, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since) > GRACE)
}
