//! Indices of evidence: each describes one sealing and lists the stored objects.

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::read::{Object, ReadError};
use super::store::{Kept, Store, hex};

/// Maximum size of an index. One container takes about 500 bytes.
const LIMIT: u64 = 64 << 20;
/// Number of bytes that tell an index from manifests.
const HEAD: usize = 4 << 10;
/// Only manifests start with a list of objects; an index has their number. In strings, the quotes would be escaped.
const LIST: &[u8] = br#""objects":["#;

/// The fields of an index that are used here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// The captured namespace.
    pub namespace: String,
    /// UID of the Quarantine.
    pub quarantine: String,
    /// Time of the capture.
    pub at: String,
    /// Number of objects in the manifests.
    pub objects: i64,
    manifests: Option<Kept>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    snapshots: Vec<Snapshot>,
    /// What could not be captured, and why.
    #[serde(default)]
    pub missing: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    pod: String,
    container: String,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    previous_log: Log,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Log(serde_json::Value);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Snapshot {
    name: String,
}

impl Log {
    fn kept(&self) -> Option<Kept> {
        serde_json::from_value(self.0.get("kept")?.clone()).ok()
    }
}

/// An object listed in an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Description for people.
    pub what: String,
    /// Name, digest and size of the object.
    #[serde(flatten)]
    pub kept: Kept,
}

impl Index {
    /// Returns all listed objects.
    #[must_use]
    pub fn listed(&self) -> Vec<Listed> {
        let manifests =
            self.manifests.iter().map(|kept| Listed { what: "manifests".to_owned(), kept: kept.clone() });
        let logs = self.containers.iter().flat_map(|container| {
            let Container { pod, container, log, previous_log } = container;
            let of = |word: &str, log: &Log| {
                let what = format!("{word} of {pod}/{container}");
                log.kept().map(|kept| Listed { what, kept })
            };
            [of("log", log), of("previous log", previous_log)]
        });
        manifests.chain(logs.flatten()).collect()
    }

    /// Returns the manifests, if they were stored.
    #[must_use]
    pub fn manifests(&self) -> Option<&Kept> {
        self.manifests.as_ref()
    }

    /// Returns the number of listed logs.
    #[must_use]
    pub fn logs(&self) -> usize {
        self.listed().len() - usize::from(self.manifests.is_some())
    }

    /// Returns the names of the requested VolumeSnapshots.
    pub fn snapshots(&self) -> impl Iterator<Item = &str> {
        self.snapshots.iter().map(|snapshot| snapshot.name.as_str())
    }

    /// Returns the total size of all listed objects, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.listed().iter().map(|listed| listed.kept.size).sum()
    }
}

/// One sealing: an index and its object in the store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sealing {
    /// The object of the index.
    pub object: Object,
    /// Digest of its content.
    pub digest: String,
    /// The parsed index. Valid only if the digest equals the one in its name.
    pub index: Index,
}

impl Sealing {
    /// Returns whether the digest equals the one in the name.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.object.digest().as_deref() == Some(self.digest.as_str())
    }
}

impl Store {
    /// Returns the sealings of one namespace or of all, by namespace and time. Reads only indices.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn sealings(&self, namespace: Option<&str>) -> Result<Vec<Sealing>, ReadError> {
        let mut sealings = Vec::new();
        for object in self.objects(namespace).await? {
            let (digest, index) = self.examine(&object, false).await?;
            sealings.extend(index.map(|index| Sealing { object, digest, index }));
        }
        sort(&mut sealings);
        Ok(sealings)
    }

    /// Returns the digest of an object and, if it is an index, its content. Other objects are read completely only if `whole`; otherwise
    /// their digest is meaningless.
    pub(super) async fn examine(
        &self,
        object: &Object,
        whole: bool,
    ) -> Result<(String, Option<Index>), ReadError> {
        let mut may_be_index = object.name.ends_with(".json") && object.size <= LIMIT;
        let (mut digest, mut kept) = (Sha256::new(), Vec::new());
        if may_be_index || whole {
            let mut chunks = self.open_object(object).await?;
            while let Some(chunk) = chunks.try_next().await? {
                digest.update(&chunk);
                if may_be_index {
                    kept.extend_from_slice(&chunk);
                    let head = kept.get(..HEAD).unwrap_or(&kept);
                    // Longer than when it was listed: it is being written or was tampered with.
                    may_be_index = !head.windows(LIST.len()).any(|part| part == LIST)
                        && u64::try_from(kept.len()).is_ok_and(|length| length <= LIMIT);
                }
                if !may_be_index {
                    kept = Vec::new();
                    if !whole {
                        break;
                    }
                }
            }
        }
        let index = if may_be_index { serde_json::from_slice(&kept).ok() } else { None };
        Ok((format!("sha256:{}", hex(&digest.finalize())), index))
    }
}

/// Sorts by namespace and time.
pub(super) fn sort(sealings: &mut [Sealing]) {
    sealings.sort_by(|a, b| (&a.object.namespace, &a.index.at).cmp(&(&b.object.namespace, &b.index.at)));
}
