//! Evidence, captured before anything is stopped: a namespace's API objects, its containers' logs, encrypted, and snapshots of its
//! volumes. An index lists each stored object with its digest; the digest of the index is in the Quarantine's status.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use serde_json::{Value, json};

use crate::api::conditions::shorten;
use crate::api::quarantine::{Capture, CaptureMode};
use crate::calls::IoError;
use manifests::Manifests;

mod digests;
mod encrypt;
mod folder;
mod index;
mod logs;
mod manifests;
mod pages;
mod proof;
mod read;
mod secrets;
mod snapshots;
mod store;
mod verify;

pub use digests::DigestsError;
pub use encrypt::{Identities, Recipient};
pub use index::{Index, Listed, Sealing};
pub(crate) use logs::keep_ends;
pub use proof::{STORE_ANNOTATION, StoreProof, keep_proving, prove};
pub use read::{Object, ReadError};
pub use secrets::DigestKey;
pub(crate) use secrets::{LAST_APPLIED, digested};
pub use snapshots::{Snapshots, snapshot};
pub use store::{Kept, Location, Store, StoreError};
pub use verify::{Finding, Found, Problem, Verified};

/// Maximum length and number of entries of `missing` in the status. The index has all of them.
const MISSING: (usize, usize) = (256, 64);
/// Maximum number of failures in an error message.
const MAX_NAMED: usize = 3;
/// Default limit of one container's log, in bytes.
pub const LOG_LIMIT: u64 = 16 << 20;
/// Default wait for the VolumeSnapshots of a namespace.
pub const SNAPSHOT_WAIT: Duration = Duration::from_secs(60);

/// What is captured, and where it is stored.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The evidence store.
    pub store: Store,
    /// Recipients who can decrypt the logs. Empty: logs are not captured.
    pub recipients: Vec<Recipient>,
    /// Key for digests of Secrets' values. `None`: Secrets are not read.
    pub key: Option<DigestKey>,
    /// Limit of one container's log, in bytes.
    pub log_limit: u64,
    /// How long an attempt waits for the VolumeSnapshots of a namespace.
    pub snapshot_wait: Duration,
}

impl Evidence {
    /// Creates settings for this store, without logs and Secrets.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, recipients: Vec::new(), key: None, log_limit: LOG_LIMIT, snapshot_wait: SNAPSHOT_WAIT }
    }
}

/// The sealing that is captured.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// UID of its Quarantine.
    pub quarantine: &'a str,
    /// Digest of the previous capture, if any. Distinguishes sealings of the same Quarantine.
    pub before: Option<&'a str>,
    /// Whether anything that cannot be captured is a failure.
    pub mode: CaptureMode,
}

/// Why a required capture failed. Nothing may be stopped then.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The API server did not return the objects.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Pods, which are about to be deleted, could not be read.
    #[error("pods of namespace {0} could not be captured: {1}")]
    Pods(String, String),
    /// The evidence could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The evidence cannot be converted to JSON or back.
    #[error("evidence of namespace {0} could not be written: {1}")]
    Encode(String, String),
    /// Something that is required is missing.
    #[error("evidence of namespace {namespace} is not complete: {what}")]
    Incomplete {
        /// The namespace.
        namespace: String,
        /// The first of the missing items.
        what: String,
    },
}

/// Something that is not captured.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Miss {
    /// What is missing, and why.
    what: String,
    /// It is required, and a later attempt may succeed.
    failure: bool,
}

/// Captures everything in a namespace, and adds the snapshots taken before.
///
/// # Errors
/// [`CaptureError`]. In mode `BestEffort`, only if it is unknown what is about to be stopped.
pub async fn capture(
    client: &Client,
    evidence: &Evidence,
    subject: Subject<'_>,
    snapshots: Snapshots,
) -> Result<Capture, CaptureError> {
    let Subject { namespace, mode, .. } = subject;
    let at = crate::clock::now();
    let mut found = manifests::gather(client, namespace, evidence.key.as_ref()).await?;
    let unreadable = |error: serde_json::Error| CaptureError::Encode(namespace.to_owned(), error.to_string());
    let (pods, malformed) = found.of::<Pod>("Pod");
    let mut missing = std::mem::take(&mut found.missing);
    // A tenant's malformed objects are captured as they are and must not block anything.
    missing.extend(malformed.into_iter().map(|what| Miss { what, failure: false }));
    complete(subject, &missing)?;

    let logs = logs::Logs::new(client, evidence, namespace);
    let mut containers = logs::containers(&pods);
    if mode == CaptureMode::Required && !evidence.recipients.is_empty() {
        // Checked first: a capture that will fail must not fill the store at each attempt.
        complete(subject, &logs.unavailable(&containers).await)?;
    }
    missing.extend(snapshots.missing.iter().cloned());

    let count = i64::try_from(found.objects.len()).unwrap_or(i64::MAX);
    let kept = keep_manifests(evidence, namespace, found).await;
    let manifests = tolerate(subject, kept, &mut missing)?;
    if evidence.recipients.is_empty() {
        missing.push(Miss { what: "logs: no --evidence-recipient is configured".to_owned(), failure: false });
    } else if manifests.is_some() {
        logs.keep(&mut containers, &mut missing).await;
        complete(subject, &missing)?;
    } else {
        missing.push(Miss { what: "logs: the store did not take the manifests".to_owned(), failure: true });
    }
    let texts: Vec<&str> = missing.iter().map(|miss| miss.what.as_str()).collect();
    let index = json!({
        "evidence": "resurgam.dev/v2", "namespace": namespace, "quarantine": subject.quarantine,
        "at": at.to_string(), "manifests": manifests, "objects": count,
        "secrets": if evidence.key.is_some() { "metadata, and a keyed digest of each value" } else { "not read" },
        "containers": containers, "snapshots": snapshots.asked, "missing": texts,
    });
    let bytes = serde_json::to_vec(&index).map_err(unreadable)?;
    let digest = format!("sha256:{}", store::digest(&bytes));
    let stored = evidence.store.keep(namespace, "json", bytes).await;
    let indexed = tolerate(subject, stored.map_err(CaptureError::from), &mut missing)?.is_some();
    let logs = logs::count(&containers);
    Ok(Capture {
        digest,
        at: Time(at),
        objects: if manifests.is_some() && indexed { count } else { 0 },
        logs: (!evidence.recipients.is_empty()).then_some(logs),
        snapshots: snapshots.cut().take(snapshots::MOST).map(str::to_owned).collect(),
        missing: summary(&missing),
    })
}

async fn keep_manifests(
    evidence: &Evidence,
    namespace: &str,
    found: Manifests,
) -> Result<Kept, CaptureError> {
    // The content has no time in it, so that an unchanged capture is the same object.
    let content = json!({
        "evidence": "resurgam.dev/v2", "namespace": namespace, "objects": Value::Array(found.objects),
    });
    let bytes = serde_json::to_vec(&content)
        .map_err(|error| CaptureError::Encode(namespace.to_owned(), error.to_string()))?;
    Ok(evidence.store.keep(namespace, "json", bytes).await?)
}

/// Returns `None` and adds to `missing` if storing fails in mode `BestEffort`.
fn tolerate<T>(
    subject: Subject<'_>,
    outcome: Result<T, CaptureError>,
    missing: &mut Vec<Miss>,
) -> Result<Option<T>, CaptureError> {
    match outcome {
        Ok(kept) => Ok(Some(kept)),
        Err(error) if subject.mode == CaptureMode::Required => Err(error),
        Err(error) => {
            // First, since without this object the others cannot be found.
            missing.insert(0, Miss { what: error.to_string(), failure: true });
            Ok(None)
        }
    }
}

/// Returns an error in mode `Required` if anything required is missing.
fn complete(subject: Subject<'_>, missing: &[Miss]) -> Result<(), CaptureError> {
    let failures: Vec<&str> =
        missing.iter().filter(|miss| miss.failure).map(|miss| miss.what.as_str()).collect();
    if subject.mode == CaptureMode::BestEffort || failures.is_empty() {
        return Ok(());
    }
    let mut what: Vec<String> =
        failures.iter().take(MAX_NAMED).map(|failure| shorten(failure, MISSING.0)).collect();
    if failures.len() > MAX_NAMED {
        what.push(format!("and {} more", failures.len() - MAX_NAMED));
    }
    Err(CaptureError::Incomplete { namespace: subject.namespace.to_owned(), what: what.join("; ") })
}

/// Returns what is missing, shortened to the limits of the status.
fn summary(missing: &[Miss]) -> Vec<String> {
    let (length, most) = MISSING;
    let mut summary: Vec<_> = missing.iter().map(|miss| shorten(&miss.what, length)).collect();
    if summary.len() > most {
        let rest = summary.len() - (most - 1);
        summary.truncate(most - 1);
        summary.push(format!("and {rest} more: see the evidence"));
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(mode: CaptureMode) -> Subject<'static> {
        Subject { namespace: "library", quarantine: "uid", before: None, mode }
    }

    fn misses(failures: usize, others: usize) -> Vec<Miss> {
        let miss = |failure| move |n| Miss { what: format!("kind-{n}: refused"), failure };
        (0..failures).map(miss(true)).chain((0..others).map(miss(false))).collect()
    }

    #[test]
    fn of_each_log_16_mib_are_kept_unless_it_is_said_otherwise() {
        assert_eq!(Evidence::new(Store::folder("unused")).log_limit, 16 * 1024 * 1024);
    }

    #[test]
    fn missing_item_is_a_failure_if_required() {
        for (mode, failures, others, fails) in [
            (CaptureMode::Required, 0, 0, false),
            (CaptureMode::Required, 0, 3, false),
            (CaptureMode::Required, 1, 3, true),
            (CaptureMode::BestEffort, 9, 3, false),
        ] {
            let outcome = complete(subject(mode), &misses(failures, others));
            assert_eq!(outcome.is_err(), fails, "{mode:?} {failures} {others}");
        }
        let error = complete(subject(CaptureMode::Required), &misses(5, 0)).unwrap_err().to_string();
        for word in ["library", "kind-0", "kind-2", "and 2 more"] {
            assert!(error.contains(word), "{word} in {error}");
        }
        let error = complete(subject(CaptureMode::Required), &misses(3, 0)).unwrap_err().to_string();
        assert!(error.contains("kind-2") && !error.contains("more"), "{error}");
    }

    #[test]
    fn failed_store_is_an_error_if_required_and_else_first_missing() {
        let full = || Err::<u8, _>(CaptureError::Encode("library".to_owned(), "full".to_owned()));
        let mut missing = misses(0, 1);
        assert!(tolerate(subject(CaptureMode::Required), full(), &mut missing).is_err());
        assert_eq!(missing, misses(0, 1));
        assert_eq!(tolerate(subject(CaptureMode::BestEffort), full(), &mut missing).unwrap(), None);
        assert_eq!(missing.len(), 2);
        assert!(missing[0].failure && missing[0].what.contains("full"), "{missing:?}");
        for mode in [CaptureMode::Required, CaptureMode::BestEffort] {
            assert_eq!(tolerate(subject(mode), Ok(7), &mut missing).unwrap(), Some(7));
        }
    }

    #[test]
    fn status_lists_a_bounded_part_of_missing_items() {
        let many = summary(&misses(0, 70));
        assert_eq!((many.len(), many[63].as_str()), (64, "and 7 more: see the evidence"));
        assert_eq!(summary(&misses(0, 64))[63], "kind-63: refused");
        let long = summary(&[Miss { what: "x".repeat(300), failure: false }]);
        assert_eq!(long[0].len(), 256);
    }
}
