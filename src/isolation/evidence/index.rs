//! Indices: each tells of one sealing, and lists what was kept of it.

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::read::{Object, ReadError};
use super::store::{Kept, Store, hex};

/// Longest index that is read. One lists some 500 bytes for each container.
const LIMIT: u64 = 64 << 20;
/// By so many bytes it is known whether an object is an index or the manifests.
const HEAD: usize = 4 << 10;
/// Only manifests begin with a list of objects; an index counts them. Within a text the quotes are escaped.
const LIST: &[u8] = br#""objects":["#;

/// What an index says, as far as it is told here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Whose evidence it is.
    pub namespace: String,
    /// UID of the Quarantine.
    pub quarantine: String,
    /// When it was captured.
    pub at: String,
    /// How many objects the manifests hold.
    pub objects: i64,
    manifests: Option<Kept>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    snapshots: Vec<Snapshot>,
    /// What could not be had, and why.
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

/// An object that an index lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// What it is, for people.
    pub what: String,
    /// Where it is, and what it is like.
    #[serde(flatten)]
    pub kept: Kept,
}

impl Index {
    /// Everything that it lists.
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

    /// How many logs it lists.
    #[must_use]
    pub fn logs(&self) -> usize {
        self.listed().len() - usize::from(self.manifests.is_some())
    }

    /// Names of the VolumeSnapshots that were asked for.
    pub fn snapshots(&self) -> impl Iterator<Item = &str> {
        self.snapshots.iter().map(|snapshot| snapshot.name.as_str())
    }

    /// Bytes of everything that it lists.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.listed().iter().map(|listed| listed.kept.size).sum()
    }
}

/// One sealing: an index, and where it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sealing {
    /// The index.
    pub object: Object,
    /// The digest of its content.
    pub digest: String,
    /// What it says. Trusted only where the digest is the one that its name says.
    pub index: Index,
}

impl Sealing {
    /// Is its content what its name says?
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.object.digest().as_deref() == Some(self.digest.as_str())
    }
}

impl Store {
    /// The sealings of a namespace, or of all, each namespace's in the order of time. Only indices are read.
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

    /// The digest of an object's content, and what it says where it is an index. What is none is read to its end only where `whole`
    /// says so; otherwise its digest means nothing.
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
                    // Longer than it was when it was listed: it is being written, or somebody plays.
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

/// Each namespace's by time.
pub(super) fn sort(sealings: &mut [Sealing]) {
    sealings.sort_by(|a, b| (&a.object.namespace, &a.index.at).cmp(&(&b.object.namespace, &b.index.at)));
}
