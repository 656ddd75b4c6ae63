//! Records of captured Secrets' digests, for gate `credentialsRotated`.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use resurgam_core::gates::credentials_rotated::record::{DigestRecord, FORMAT};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::index::Sealing;
use super::read::{Object, ReadError};
use super::secrets::DigestKey;
use super::store::{Store, hex};

/// Maximum size of the manifests of a namespace, in bytes.
const LIMIT: u64 = 1 << 30;

/// Why no record can be made.
#[derive(Debug, thiserror::Error)]
pub enum DigestsError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something that was captured is missing, changed or of another Quarantine.
    #[error("namespace {namespace}: {why}")]
    Unusable {
        /// The namespace.
        namespace: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The manifests of a capture, as far as they are Secrets.
#[derive(Deserialize)]
struct Manifests {
    objects: Vec<Captured>,
}

#[derive(Deserialize)]
struct Captured {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    digests: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

impl Store {
    /// Returns a record of the digests that a capture has, with its MAC. `capture`: digest of its index. `quarantine`: UID of the
    /// namespace's Quarantine. `only`: names of Secrets; empty for all.
    ///
    /// # Errors
    /// [`DigestsError`]
    pub async fn digest_record(
        &self,
        namespace: &str,
        quarantine: &str,
        capture: &str,
        only: &[String],
        key: &DigestKey,
    ) -> Result<String, DigestsError> {
        let unusable = |why: String| DigestsError::Unusable { namespace: namespace.to_owned(), why };
        let sealings = self.sealings(Some(namespace)).await?;
        let Some(Sealing { index, .. }) = sealings.into_iter().find(|sealing| sealing.digest == capture)
        else {
            return Err(unusable(format!("the evidence store {self} has no index {capture}")));
        };
        if index.namespace != namespace || index.quarantine != quarantine {
            let why = format!(
                "index {capture} is of Quarantine {} of namespace {}, and the present Quarantine is {quarantine}",
                index.quarantine, index.namespace
            );
            return Err(unusable(why));
        }
        let Some(kept) = index.manifests() else {
            return Err(unusable(format!("the capture of {} has no manifests", index.at)));
        };
        let name = kept.object.rsplit('/').next().unwrap_or_default().to_owned();
        let object = Object { namespace: namespace.to_owned(), name, size: kept.size };
        let bytes = self.content(&object, &kept.digest).await?.map_err(unusable)?;
        let manifests: Manifests = serde_json::from_slice(&bytes)
            .map_err(|error| unusable(format!("manifests {object} cannot be read: {error}")))?;
        let mut secrets = BTreeMap::new();
        for captured in manifests.objects {
            let Captured { api_version, kind, metadata, digests } = captured;
            if (api_version.as_str(), kind.as_str()) != ("v1", "Secret") {
                continue;
            }
            let Some(digests) = digests else { continue };
            if only.is_empty() || only.contains(&metadata.name) {
                let keys: BTreeMap<String, String> =
                    digests.into_iter().filter_map(|(key, digest)| Some((key, digest?))).collect();
                secrets.insert(metadata.name, keys);
            }
        }
        if secrets.is_empty() {
            let why =
                format!("the capture of {} has no digest of a Secret: was --evidence-key set?", index.at);
            return Err(unusable(why));
        }
        if let Some(missing) = only.iter().find(|name| !secrets.contains_key(*name)) {
            return Err(unusable(format!("the capture of {} has no Secret {missing}", index.at)));
        }
        let record = DigestRecord {
            format: FORMAT.to_owned(),
            namespace: namespace.to_owned(),
            quarantine: quarantine.to_owned(),
            capture: capture.to_owned(),
            at: index.at.clone(),
            secrets,
        };
        let mac = key.mac(&record.text()).ok_or_else(|| unusable("the key cannot be used".to_owned()))?;
        Ok(record.signed(mac))
    }

    /// Returns an object's content, if it has this digest.
    async fn content(&self, object: &Object, digest: &str) -> Result<Result<Vec<u8>, String>, ReadError> {
        let mut chunks = self.open_object(object).await?;
        let (mut bytes, mut actual) = (Vec::new(), Sha256::new());
        while let Some(chunk) = chunks.try_next().await? {
            actual.update(&chunk);
            bytes.extend_from_slice(&chunk);
            if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LIMIT {
                return Ok(Err(format!("manifests {object} are larger than {LIMIT} bytes")));
            }
        }
        let actual = format!("sha256:{}", hex(&actual.finalize()));
        Ok(if actual == digest {
            Ok(bytes)
        } else {
            Err(format!(
                "manifests {object} were changed: their digest is {actual}, and the index says {digest}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Keeps a capture of namespace `library`. Returns the digest of its index.
    async fn captured(store: &Store, digests: &serde_json::Value) -> String {
        let manifests = json!({"evidence": "resurgam.dev/v2", "namespace": "library", "objects": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "library"}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "digests": digests},
            {"apiVersion": "example.org/v1", "kind": "Secret", "metadata": {"name": "other"}, "digests": digests},
        ]});
        let manifests = store.keep("library", "json", manifests.to_string().into_bytes()).await.unwrap();
        let index = json!({"evidence": "resurgam.dev/v2", "namespace": "library", "quarantine": "uid",
            "at": "2026-11-20T00:00:00Z", "manifests": manifests, "objects": 3});
        store.keep("library", "json", index.to_string().into_bytes()).await.unwrap().digest
    }

    #[tokio::test]
    async fn record_has_the_digests_of_one_intact_capture() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path());
        let key = DigestKey::new(vec![7; 32]).unwrap();
        let digest = key.digest(b"hunter2").unwrap();
        let capture = captured(&store, &json!({"password": digest, "unread": null})).await;
        let record = async |quarantine: &'static str, capture: &str, only: &[String]| {
            store.digest_record("library", quarantine, capture, only, &key).await
        };
        let text = record("uid", &capture, &[]).await.unwrap();
        let (parsed, mac) = DigestRecord::parse(&text).unwrap();
        assert!(key.is_mac_of(&parsed.text(), &mac));
        assert_eq!(json!(parsed.secrets), json!({"db": {"password": digest}}));
        assert_eq!(record("uid", &capture, &["db".to_owned()]).await.unwrap(), text);

        let none = captured(&store, &json!(null)).await;
        for (quarantine, capture, only, why) in [
            ("another", capture.as_str(), None, "the present Quarantine is another"),
            ("uid", "sha256:00", None, "has no index sha256:00"),
            ("uid", &capture, Some("other"), "has no digest of a Secret"),
            ("uid", &none, None, "has no digest of a Secret"),
        ] {
            let only: Vec<String> = only.into_iter().map(str::to_owned).collect();
            let error = record(quarantine, capture, &only).await.unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        // The manifests are changed behind the index.
        for file in std::fs::read_dir(folder.path().join("library")).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            if text.contains("\"objects\":[") {
                std::fs::write(&path, text.replace("\"db\"", "\"db2\"")).unwrap();
            }
        }
        let error = record("uid", &capture, &[]).await.unwrap_err().to_string();
        assert!(error.contains("were changed"), "{error}");
    }
}
