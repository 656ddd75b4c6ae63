//! Verifies regularly that the store is writable, so that a failure is found before an incident.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::api::OPERATOR_NAMESPACE;
use crate::leader::Published;

/// Annotation of the operator's Lease: the leader's [`StoreProof`] as JSON. Absent or empty: not verified yet.
pub const STORE_ANNOTATION: &str = "resurgam.dev/evidence-store";
/// Interval of the verification. Each one stores a small object, since a store never overwrites.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Retry delay after a failure.
const RETRY: Duration = Duration::from_secs(60);

/// Result of a verification of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreProof {
    /// Location of the store.
    pub store: String,
    /// Time of the verification.
    pub at: Timestamp,
    /// The error. Absent: the store is writable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Stores one small object and reads it back. The time in it makes its name unique.
pub async fn prove(store: &Store, identity: &str, at: Timestamp) -> StoreProof {
    let text = format!("resurgam {identity} could write to this store at {at}\n");
    let kept = store.keep(OPERATOR_NAMESPACE, "txt", text.into_bytes()).await;
    StoreProof { store: store.to_string(), at, failure: kept.err().map(|error| error.to_string()) }
}

/// Verifies the store until the future is dropped, and publishes the results.
pub async fn keep_proving(store: &Store, identity: &str, published: &Published) {
    loop {
        let proof = prove(store, identity, crate::clock::now()).await;
        match &proof.failure {
            None => tracing::info!(store = proof.store, "evidence store is writable"),
            Some(why) => {
                tracing::error!(
                    store = proof.store,
                    why,
                    "evidence store is not writable; fix it before namespaces are sealed"
                );
            }
        }
        let pause = if proof.failure.is_none() { AGAIN } else { RETRY };
        match serde_json::to_string(&proof) {
            Ok(text) => published.set(STORE_ANNOTATION, text),
            Err(error) => {
                tracing::error!(%error, "result of the evidence store check not published; will retry")
            }
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn store_is_writable_once_an_object_was_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let store = Store::folder(folder.path());
        assert_eq!(prove(&store, "one", at).await.failure, None);
        let kept = || std::fs::read_dir(folder.path().join(OPERATOR_NAMESPACE)).unwrap().count();
        assert_eq!(kept(), 1);
        prove(&store, "one", at + Duration::from_secs(1)).await;
        assert_eq!(kept(), 2, "an object that is there already proves nothing");

        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").unwrap();
        let why = prove(&Store::folder(&file), "one", at).await.failure.unwrap();
        assert!(why.contains("could not be stored"), "{why}");
    }
}
