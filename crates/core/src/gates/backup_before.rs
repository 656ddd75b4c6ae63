//! Gate `backupBefore`: the recovery point is complete, and older than the compromise.
//!
//! The time counts only if an attacker of the cluster could not choose it: a store's clock, or a time that the API server received before
//! the compromise began. Velero's own statement passes as an exception.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::http::EndpointError;
use super::{Answer, Question, evidence};
use crate::api::gate::BackupBeforeSpec;
use crate::api::{GateReason, Verdict};

mod objects;
mod snapshot;
mod velero;
mod writers;

pub use objects::{StoredObject, key_problem};
pub use snapshot::{bound_content, namespace as snapshot_namespace};
pub use velero::DEFAULT_NAMESPACE as VELERO_NAMESPACE;

/// What was read of a recovery point.
#[derive(Debug)]
pub enum RecoveryPoint {
    /// Objects in a bucket, in the plan's order.
    Objects {
        /// Whether the store was asked by TLS.
        encrypted: bool,
        /// What the store states about each.
        objects: Vec<Result<StoredObject, EndpointError>>,
    },
    /// A VolumeSnapshot and the content that it names, as JSON. `None`: it does not exist.
    Snapshot {
        /// The VolumeSnapshot.
        snapshot: Option<Value>,
        /// The VolumeSnapshotContent.
        content: Option<Value>,
    },
    /// A Backup of Velero as JSON. `None`: it does not exist.
    Velero(Option<Value>),
}

/// Returns the time before which the recovery point has to be.
///
/// # Errors
/// The verdict Unknown: it is not known since when the attacker may have been inside.
pub fn cut_off(question: &Question) -> Result<Timestamp, Answer> {
    question.compromised_since.ok_or_else(|| {
        Answer::unknown(
            GateReason::NoCompromiseTime,
            "the plan names no Incident that can be read, so nobody says since when the attacker may have been inside",
        )
    })
}

/// Returns the gate's answer for what was read.
#[must_use]
pub fn judge(spec: &BackupBeforeSpec, question: &Question, found: &RecoveryPoint) -> Answer {
    let since = match cut_off(question) {
        Ok(since) => since,
        Err(unknown) => return unknown,
    };
    let limit = Limit { since, older_by: spec.older_by.map(|duration| duration.0) };
    let answer = match (found, spec) {
        (RecoveryPoint::Objects { encrypted, objects }, BackupBeforeSpec { objects: Some(asked), .. }) => {
            objects::judge(asked, &limit, *encrypted, objects)
        }
        (
            RecoveryPoint::Snapshot { snapshot, content },
            BackupBeforeSpec { volume_snapshot: Some(asked), .. },
        ) => snapshot::judge(asked, question, &limit, snapshot.as_ref(), content.as_ref()),
        (RecoveryPoint::Velero(backup), BackupBeforeSpec { velero: Some(asked), .. }) => {
            velero::judge(asked, &limit, backup.as_ref())
        }
        _ => Err(Answer::unknown(
            GateReason::Malformed,
            "the gate names not exactly one kind of recovery point",
        )),
    };
    let evidence = || {
        evidence::digest(&json!({
            "gate": "backupBefore",
            "asked": spec,
            "compromisedSince": since.to_string(),
            "found": found.facts(),
        }))
    };
    match answer {
        Ok(proof) => {
            let (gate, phase) = (&question.spec.name, question.phase.as_str());
            let exception = proof.exception.map(|why| format!("gate '{gate}' ({phase}): {why}"));
            let passed = Answer::pass(GateReason::BackupOlder, proof.message, evidence());
            Answer { exceptions: exception.into_iter().collect(), ..passed }
        }
        Err(answer) if answer.verdict == Verdict::Fail => Answer { evidence: Some(evidence()), ..answer },
        Err(unknown) => unknown,
    }
}

impl RecoveryPoint {
    /// Returns the fields that were judged.
    fn facts(&self) -> Value {
        match self {
            Self::Objects { encrypted, objects } => objects::facts(*encrypted, objects),
            Self::Snapshot { snapshot, content } => snapshot::facts(snapshot.as_ref(), content.as_ref()),
            Self::Velero(backup) => velero::facts(backup.as_ref()),
        }
    }
}

/// That a recovery point is complete and old enough.
struct Proof {
    message: String,
    /// Why it passes although it is not proved in full.
    exception: Option<String>,
}

/// The time before which a recovery point has to be made.
struct Limit {
    since: Timestamp,
    older_by: Option<std::time::Duration>,
}

impl Limit {
    /// Returns why a time is not early enough. `None`: it is.
    fn exceeded_by(&self, made: Timestamp) -> Option<String> {
        let older_by = self.older_by.unwrap_or_default();
        let latest = SignedDuration::try_from(older_by).ok().and_then(|by| made.checked_add(by).ok());
        if latest.is_some_and(|latest| latest < self.since) {
            return None;
        }
        let by =
            self.older_by.map_or_else(String::new, |by| format!(" by at least {}", crate::api::Duration(by)));
        Some(format!("is of {made}, and has to be older than {}{by}", self.since))
    }
}

/// Returns a Fail. The caller adds the evidence.
fn failed(reason: GateReason, message: String) -> Answer {
    Answer::fail(reason, message, String::new())
}

#[cfg(test)]
mod tests;
