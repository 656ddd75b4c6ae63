//! One word for why a gate answers as it does.

use std::fmt;

use strum::{IntoStaticStr, VariantArray};

/// Why a gate answers as it does, in `status.gates` of a ServiceRecovery. docs/conditions.md tells them by type of gate.
///
/// What a gate has yet to answer, or to go on answering, is told by a [`Reason`](crate::Reason) instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
pub enum GateReason {
    // Any gate.
    /// The gate does not ask exactly one question, or not as its type wants it.
    Malformed,
    /// No answer within the gate's `timeout`.
    TimedOut,
    /// The gate hit a bug of its own.
    Panicked,
    /// The plan's account may not read what the gate reads.
    Forbidden,
    /// The API server does not accept the plan's account.
    Unauthorized,
    /// The API server answered a read with another error.
    ApiError,
    /// The API server did not answer.
    ApiUnreachable,
    /// The operator's watch of a kind has not been confirmed for too long.
    CacheStale,
    /// An object is not what its kind says.
    Unreadable,
    /// There is nothing to judge.
    NothingFound,
    /// What is judged is still on its way.
    InProgress,

    // `imageDigests`.
    /// All images are on the approved list.
    Approved,
    /// A spec names an image by tag alone.
    NotPinned,
    /// A spec names an image that is not on the approved list.
    NotApproved,
    /// A container runs an image that is not on the approved list.
    RunningImageNotApproved,
    /// A node does not report what a container runs.
    NoImageID,
    /// A node reports an image by something else than a digest.
    MalformedImageID,
    /// The ConfigMap of approved digests is not there.
    ListMissing,
    /// The list approves no digest at all.
    ListEmpty,
    /// The list holds something that is no digest.
    MalformedDigest,

    // `workloads`.
    /// All workloads are as they are specified, and ready.
    Current,
    /// A workload that was ready has lost replicas.
    NotReady,
    /// A Deployment has given up its roll-out.
    ProgressDeadlineExceeded,
    /// A Job has failed.
    JobFailed,
    /// A pod has failed.
    PodFailed,
    /// A container of a pod keeps crashing.
    CrashLoopBackOff,
    /// A Job is suspended, and not by its isolation.
    Suspended,
    /// Fewer replicas are specified than were recorded.
    FewerReplicas,
    /// No replicas are specified, and none were recorded.
    ZeroReplicas,
    /// Zero replicas were recorded, and zero are specified.
    ZeroRecorded,
    /// The record of replicas is no number.
    MalformedRecord,
    /// The gate belongs to another phase.
    NotApplicable,

    // `http`.
    /// The endpoint answers with the status that is wanted.
    Answers,
    /// The endpoint answers with another status.
    Status,
    /// No connection to the endpoint can be made.
    CannotConnect,
    /// The endpoint accepts a connection, and gives no answer that is one.
    NoAnswer,
    /// The URL is none, or is neither http nor https.
    MalformedUrl,
    /// The URL holds credentials.
    CredentialsInUrl,
    /// The endpoint's address is one that gates do not connect to.
    AddressRefused,
}

impl GateReason {
    /// As the API has it.
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
