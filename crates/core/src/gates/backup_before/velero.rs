//! A Backup of Velero. Its kind has no status subresource: whoever may update Backups may write phase and times, and Velero itself takes
//! them from the bucket.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::writers::last_write;
use super::{Limit, Proof, failed};
use crate::api::GateReason;
use crate::api::conditions::shorten;
use crate::api::gate::VeleroBackup;
use crate::gates::Answer;

/// Namespace of Velero unless the plan names another.
pub const DEFAULT_NAMESPACE: &str = "velero";
/// Maximum length of a text from the Backup.
const TEXT: usize = 100;

pub(super) fn judge(asked: &VeleroBackup, limit: &Limit, backup: Option<&Value>) -> Result<Proof, Answer> {
    let namespace = asked.namespace.as_ref().map_or(DEFAULT_NAMESPACE, |namespace| &namespace.0);
    let name = format!("Backup {namespace}/{}", asked.backup);
    let unknown = |reason, message: String| Err(Answer::unknown(reason, message));
    let Some(backup) = backup else {
        return unknown(GateReason::BackupMissing, format!("{name} is missing"));
    };
    if backup["metadata"]["deletionTimestamp"].is_string() {
        return unknown(GateReason::BackupNotReady, format!("{name} is being deleted"));
    }
    let status = &backup["status"];
    let phase = status["phase"].as_str().unwrap_or_default();
    match phase {
        "Completed" => {}
        "Failed" | "PartiallyFailed" | "FailedValidation" => {
            let errors =
                status["errors"].as_i64().map_or_else(String::new, |count| format!(", {count} errors"));
            return Err(failed(GateReason::BackupFailed, format!("{name} is {phase}{errors}")));
        }
        "" => return unknown(GateReason::BackupNotReady, format!("{name} has no phase yet")),
        other => {
            return unknown(GateReason::BackupNotReady, format!("{name} is {}", shorten(other, TEXT)));
        }
    }
    let completed = status["completionTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let Some(completed) = completed else {
        return unknown(
            GateReason::BackupTimeUnknown,
            format!("{name} does not state when it completed (status.completionTimestamp)"),
        );
    };
    if let Some(why) = limit.exceeded_by(completed) {
        return Err(failed(GateReason::BackupTooNew, format!("{name} {why}")));
    }
    let written = last_write(backup, &["status", "completionTimestamp"]).map_or_else(
        || "at an unknown time".to_owned(),
        |write| format!("at {} by '{}'", write.at, shorten(&write.manager, TEXT)),
    );
    let exception = format!(
        "{name}: that it is of {completed} was written {written}; whoever may update Backups or write the bucket can write it"
    );
    let message =
        format!("{name} is Completed at {completed}, older than {}, by its own status alone", limit.since);
    Ok(Proof { message, exception: Some(exception) })
}

/// Returns what was judged, for the evidence.
pub(super) fn facts(backup: Option<&Value>) -> Value {
    let of = |pointer: &str| backup.and_then(|backup| backup.pointer(pointer)).cloned();
    json!({
        "uid": of("/metadata/uid"),
        "phase": of("/status/phase"),
        "completed": of("/status/completionTimestamp"),
    })
}
