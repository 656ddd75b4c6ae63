//! Reasons of gate verdicts.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

/// Reason of a gate's verdict, in `status.gates` of a ServiceRecovery. docs/conditions.md lists them by gate type.
/// || While a gate has no verdict yet, or its last one is stale, the entry has a [`Reason`](crate::Reason) instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
pub enum GateReason {
    // All types of gates.
    /// The gate does not set exactly one type, or its fields are invalid for the type.
    Malformed,
    /// No answer within the gate's `timeout`.
    TimedOut,
    /// The gate panicked: a bug in the operator.
    Panicked,
    /// The plan's account may not read what the gate reads.
    Forbidden,
    /// The API server does not accept the plan's account.
    Unauthorized,
    /// A read failed with another error of the API server.
    ApiError,
    /// The API server did not answer.
    ApiUnreachable,
    /// The operator's cache of a kind has not been confirmed by the API server for too long.
    CacheStale,
    /// An object does not match the schema of its kind.
    Unreadable,
    /// There is nothing to evaluate.
    NothingFound,
    /// What the gate evaluates is still rolling out, or changes each time it is read.
    InProgress,

    // `approval`.
    /// Everybody who has to agree has approved.
    PeopleApproved,
    /// Somebody who has to agree has not approved.
    AwaitsApproval,

    // `imageDigests`.
    /// No image was there when the namespace was isolated, and none is there now.
    NothingToCheck,
    /// All images are on the approved list.
    Approved,
    /// A spec names an image by tag only.
    NotPinned,
    /// A spec names an image that is not on the approved list.
    NotApproved,
    /// A container runs an image that is not on the approved list.
    RunningImageNotApproved,
    /// A node reports another digest than the approved one that the spec pins, and neither the list nor the node says that both are the
    /// same image.
    UnresolvedDigest,
    /// An image is named by an approved tag, and no running container proves what the tag stands for.
    TagNotProved,
    /// A node does not report the image of a container.
    NoImageID,
    /// A node reports an image without a digest.
    MalformedImageID,
    /// The ConfigMap of approved digests does not exist.
    ListMissing,
    /// The list of approved digests is empty.
    ListEmpty,
    /// The list of approved digests contains an invalid digest.
    MalformedDigest,

    // `baseline`.
    /// Every object is as the baseline has it.
    MatchesBaseline,
    /// An object was added, changed or removed since.
    DiffersFromBaseline,
    /// A ConfigMap of the baseline does not exist, or holds nothing.
    BaselineMissing,
    /// The baseline is truncated, malformed, or of another format.
    BaselineMalformed,
    /// Too few of the plan's public keys have signed the baseline.
    SignatureInvalid,
    /// The baseline was captured from the cluster after the compromise began.
    CapturedAfterCompromise,
    /// The baseline has nothing of a namespace of the service.
    NotInBaseline,
    /// The key of Secrets' digests is missing, too short, or not the one that the baseline was made with.
    SecretKeyInvalid,
    /// There are more objects than a baseline can have.
    TooManyObjects,

    // `credentialsRotated`.
    /// All values were changed after the isolation, and none is one that was captured.
    Rotated,
    /// A value is one that was captured when the namespace was isolated.
    CapturedValue,
    /// A value has not been changed since the isolation or the compromise, whichever is later.
    NotChanged,
    /// A certificate or JWT was issued before the isolation or the compromise, whichever is later.
    IssuedBefore,
    /// The Secret does not exist.
    SecretMissing,
    /// The Secret does not have the key, or has no key at all.
    KeyMissing,
    /// The value is empty.
    ValueEmpty,
    /// A certificate or JWT cannot be read.
    MalformedCredential,
    /// The managed fields of the Secret do not say when the value was changed.
    ChangeTimeUnknown,
    /// It is not known when the namespace was isolated, or since when the attacker may have been inside.
    IsolationTimeUnknown,
    /// No value was captured for the key, or there is no record of captured values.
    NothingCaptured,
    /// The record of captured values is malformed.
    MalformedCapture,
    /// The record of captured values was not made with the operator's key, or was changed.
    CaptureNotAuthentic,
    /// The record of captured values is of another Quarantine.
    CaptureStale,
    /// The operator has no key for digests of Secrets' values.
    NoDigestKey,

    // `backupBefore`.
    /// The recovery point is complete, and older than the compromise.
    BackupOlder,
    /// The recovery point is not older than the compromise.
    BackupTooNew,
    /// An object of the recovery point is empty.
    BackupEmpty,
    /// An object of the recovery point has another size or digest than the plan states.
    BackupDiffers,
    /// The backup did not complete.
    BackupFailed,
    /// The content that the VolumeSnapshot names belongs to another VolumeSnapshot.
    BackupMismatch,
    /// It is not known since when the attacker may have been inside.
    NoCompromiseTime,
    /// The recovery point, or a part of it, does not exist.
    BackupMissing,
    /// The recovery point is not complete yet.
    BackupNotReady,
    /// Nobody states when the recovery point was made, or the statement is malformed.
    BackupTimeUnknown,
    /// An object was uploaded in parts, and it is not known when the upload ended.
    UploadEndUnknown,
    /// The time of the recovery point was written after the compromise began.
    RecordedLate,
    /// The store does not state the digest of an object.
    ChecksumUnknown,
    /// The Secret with the store's credentials does not exist, or lacks a value.
    CredentialsMissing,
    /// The store refuses to say anything about an object.
    StoreRefused,
    /// The store answers with an error, or with something else than was asked for.
    StoreError,

    // `jobResult`.
    /// The program found nothing.
    NothingDetected,
    /// The program found something.
    Detected,
    /// The inspection namespace is not isolated as such.
    NotIsolated,
    /// The program ended with an exit code that says neither.
    NoResult,
    /// The program found nothing, and did not say what it looked at.
    ResultEmpty,
    /// The program's pod was gone before its result was read.
    PodGone,
    /// The program did not end within its deadline.
    JobDeadline,
    /// The Job or its pod is not what the gate asks for.
    JobDiffers,
    /// No snapshot of a volume was taken when its namespace was sealed.
    SnapshotMissing,
    /// The snapshot of a volume is not ready to use.
    SnapshotNotReady,

    // `workloads`.
    /// Nothing was there to run when the namespace was isolated, and nothing is there now.
    NothingToRun,
    /// All workloads are up to date and ready.
    Current,
    /// A workload that was ready has lost replicas.
    NotReady,
    /// A Deployment has exceeded its progress deadline.
    ProgressDeadlineExceeded,
    /// A Job has failed.
    JobFailed,
    /// A pod has failed.
    PodFailed,
    /// A container of a pod is in CrashLoopBackOff.
    CrashLoopBackOff,
    /// A Job is suspended, and isolation did not suspend it.
    Suspended,
    /// A workload has fewer replicas than the steps were to start.
    FewerReplicas,
    /// The recorded number of replicas is not a number.
    MalformedRecord,
    /// The gate does not apply to this phase.
    NotApplicable,

    // `http`.
    /// The endpoint answers with the expected status.
    Answers,
    /// The endpoint answers with another status.
    Status,
    /// The connection to the endpoint failed.
    CannotConnect,
    /// The endpoint accepts connections, and sends no valid HTTP response.
    NoAnswer,
    /// The URL is invalid, or its scheme is neither http nor https.
    MalformedUrl,
    /// The URL contains credentials.
    CredentialsInUrl,
    /// The endpoint's address is in a range that gates may not connect to.
    AddressRefused,

    // `condition`.
    /// The expression is true for the object.
    ConditionHolds,
    /// The expression is false for the object.
    ConditionFalse,
    /// The object does not exist.
    ObjectMissing,
    /// The API server does not serve the kind.
    KindMissing,
    /// The object is a Secret, which no condition looks into.
    SecretRefused,
    /// The object is larger than an expression may look into.
    ObjectTooLarge,
    /// The expression is not valid CEL.
    DoesNotCompile,
    /// The expression is neither true nor false.
    NotBoolean,
    /// The expression fails for the object: a field is absent, or of another type.
    EvaluationFailed,
    /// The expression takes more memory or time than it may.
    LimitExceeded,
    /// The process that evaluates expressions could not be started, or did not answer.
    EvaluatorFailed,
}

impl GateReason {
    /// Returns the name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for GateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_a_gate_has_its_place_in_the_docs() {
        let page = include_str!("../../../docs/conditions.md");
        let (_, section) = page.split_once("## What a gate says").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let missing: Vec<_> =
            GateReason::VARIANTS.iter().filter(|reason| !section.contains(&format!("`{reason}`"))).collect();
        assert!(missing.is_empty(), "docs/conditions.md, 'What a gate says', does not tell of {missing:?}");
    }
}
