//! A VolumeSnapshot and its content.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::writers::last_write;
use super::{Limit, Proof, failed};
use crate::api::GateReason;
use crate::api::conditions::shorten;
use crate::api::gate::BackupSnapshot;
use crate::gates::{Answer, Question};

/// Maximum length of a driver's error text.
const WHY: usize = 200;

/// Returns the namespace of the VolumeSnapshot.
///
/// # Errors
/// The verdict Unknown: the gate names none, and the service has not exactly one.
pub fn namespace<'a>(asked: &'a BackupSnapshot, question: &'a Question) -> Result<&'a str, Answer> {
    match (&asked.namespace, question.namespaces.as_slice()) {
        (Some(named), _) => Ok(&named.0),
        (None, [only]) => Ok(only),
        (None, _) => Err(Answer::unknown(
            GateReason::Malformed,
            format!(
                "the gate must name the namespace of VolumeSnapshot {}: the service has not exactly one",
                asked.name
            ),
        )),
    }
}

/// Returns the name of the content that a VolumeSnapshot is bound to, if it is.
#[must_use]
pub fn bound_content(snapshot: &Value) -> Option<&str> {
    snapshot["status"]["boundVolumeSnapshotContentName"].as_str().filter(|name| !name.is_empty())
}

pub(super) fn judge(
    asked: &BackupSnapshot,
    question: &Question,
    limit: &Limit,
    snapshot: Option<&Value>,
    content: Option<&Value>,
) -> Result<Proof, Answer> {
    let namespace = namespace(asked, question)?;
    let name = format!("VolumeSnapshot {namespace}/{}", asked.name);
    let unknown = |reason, message: String| Err(Answer::unknown(reason, message));
    let Some(snapshot) = snapshot else {
        return unknown(GateReason::BackupMissing, format!("{name} is missing"));
    };
    let Some(bound) = bound_content(snapshot) else {
        return unknown(GateReason::BackupNotReady, format!("{name} is not bound to a content yet"));
    };
    let bound = format!("VolumeSnapshotContent {bound}");
    let Some(content) = content else {
        return unknown(GateReason::BackupMissing, format!("{bound} of {name} is missing"));
    };
    let back = &content["spec"]["volumeSnapshotRef"];
    let (uid, back_uid) = (snapshot["metadata"]["uid"].as_str(), back["uid"].as_str());
    if back["name"].as_str() != Some(&asked.name) || back["namespace"].as_str() != Some(namespace) {
        let other = format!("{}/{}", text(&back["namespace"]), text(&back["name"]));
        return Err(failed(
            GateReason::BackupMismatch,
            format!("{name} names {bound}, which is of VolumeSnapshot {other}"),
        ));
    }
    match (uid, back_uid) {
        (Some(uid), Some(back)) if uid == back => {}
        (Some(_), Some(_)) => {
            let message = format!("{bound} is of another VolumeSnapshot that had the name of {name}");
            return Err(failed(GateReason::BackupMismatch, message));
        }
        _ => return unknown(GateReason::BackupNotReady, format!("{bound} does not name {name} by UID yet")),
    }
    for (what, object) in [(&name, snapshot), (&bound, content)] {
        if object["metadata"]["deletionTimestamp"].is_string() {
            return unknown(GateReason::BackupNotReady, format!("{what} is being deleted"));
        }
        let status = &object["status"];
        if !status["error"].is_null() {
            let why = status["error"]["message"].as_str().unwrap_or("its driver does not say why");
            let why = shorten(why, WHY);
            return unknown(GateReason::BackupNotReady, format!("{what} has an error: {why}"));
        }
        if status["readyToUse"] != true {
            return unknown(GateReason::BackupNotReady, format!("{what} is not ready to use"));
        }
    }
    let Some(made) = nanoseconds(&content["status"]["creationTime"]) else {
        let message = format!("{bound} does not state when it was made (status.creationTime)");
        return unknown(GateReason::BackupTimeUnknown, message);
    };
    if let Some(why) = limit.exceeded_by(made) {
        return Err(failed(GateReason::BackupTooNew, format!("{name} {why}")));
    }
    let Some(written) = last_write(content, &["status", "creationTime"]) else {
        let message =
            format!("{bound}: the API server has no record of when status.creationTime was written");
        return unknown(GateReason::BackupTimeUnknown, message);
    };
    if written.at >= limit.since {
        return unknown(
            GateReason::RecordedLate,
            format!(
                "{bound} says {made}, and '{}' wrote that at {}, after {}, when the attacker may have been able to",
                shorten(&written.manager, WHY),
                written.at,
                limit.since
            ),
        );
    }
    let message =
        format!("{name} is of {made}, older than {}; {bound} says so since {}", limit.since, written.at);
    Ok(Proof { message, exception: None })
}

/// Returns what was judged, for the evidence.
pub(super) fn facts(snapshot: Option<&Value>, content: Option<&Value>) -> Value {
    let of =
        |object: Option<&Value>, pointer: &str| object.and_then(|object| object.pointer(pointer)).cloned();
    json!({
        "snapshot": of(snapshot, "/metadata/uid"),
        "content": of(content, "/metadata/uid"),
        "driver": of(content, "/spec/driver"),
        "handle": of(content, "/status/snapshotHandle"),
        "creationTime": of(content, "/status/creationTime"),
    })
}

fn text(value: &Value) -> String {
    shorten(value.as_str().unwrap_or("?"), WHY)
}

/// Returns a time that is stated as nanoseconds since 1970.
fn nanoseconds(value: &Value) -> Option<Timestamp> {
    let since_1970 = value.as_i64().filter(|nanoseconds| *nanoseconds > 0)?;
    Timestamp::from_nanosecond(since_1970.into()).ok()
}
