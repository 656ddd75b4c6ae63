//! Where evidence is kept: a folder, or a bucket of an S3 server. Each object is named by its digest, never overwritten, and
//! read back before it counts as kept.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::folder;
use crate::api::conditions::shorten;

/// How long one object may take to be written and read back.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// Longest reason. A server may answer with a whole page.
const WHY: usize = 512;

/// Where evidence goes, as `--evidence` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `DIR`
    Folder(PathBuf),
    /// `s3://bucket/prefix`
    Bucket {
        /// The bucket.
        bucket: String,
        /// What every object's name begins with. May be empty.
        prefix: Path,
    },
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() {
                Err("it is empty".to_owned())
            } else {
                Ok(Self::Folder(text.into()))
            };
        };
        if scheme != "s3" {
            return Err(format!("{scheme}:// is no store: a folder, or s3://bucket/prefix"));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err("no bucket is named: s3://bucket/prefix".to_owned());
        }
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|e| format!("prefix: {e}"))?;
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Bucket { bucket, prefix } if prefix.as_ref().is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// What is kept, and under which name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name within the store.
    pub object: String,
    /// `sha256:…`
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// An object that is not kept, or that nobody can say is.
#[derive(Debug, thiserror::Error)]
#[error("evidence {object} could not be stored in {location}: {why}")]
pub struct StoreError {
    object: String,
    location: String,
    why: String,
}

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) location: Location,
    /// The bucket's client, if it is one.
    pub(super) client: Option<Arc<dyn ObjectStore>>,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(f)
    }
}

impl Store {
    /// Evidence into this folder, which is made when it is needed.
    #[must_use]
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { location: Location::Folder(folder.into()), client: None }
    }

    /// The store at that location. A bucket's credentials, endpoint and region are taken from the variables named `AWS_*`
    /// in `environment`. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// What does not make a client, such as an endpoint that is no URL.
    pub fn open(
        location: Location,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, object_store::Error> {
        let Location::Bucket { bucket, .. } = &location else {
            return Ok(Self { location, client: None });
        };
        crate::tls::use_ring();
        let setting = |key| AmazonS3ConfigKey::Client(key);
        let mut builder = AmazonS3Builder::new()
            .with_config(setting(ClientConfigKey::ConnectTimeout), "5s")
            .with_config(setting(ClientConfigKey::Timeout), "30s")
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 3,
                retry_timeout: Duration::from_secs(20),
            });
        for (name, value) in environment {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            if name.starts_with("AWS_")
                && let Ok(key) = name.to_ascii_lowercase().parse()
            {
                builder = builder.with_config(key, value);
            }
        }
        let client = builder.with_bucket_name(bucket).build()?;
        Ok(Self { location, client: Some(Arc::new(client)) })
    }

    /// Keeps the bytes as `<namespace>/<sha256>.<extension>`, durably, without ever overwriting. What is there already under
    /// that name must be the same.
    ///
    /// # Errors
    /// [`StoreError`]: it is not kept, not in time, or what the store holds under that name is something else.
    pub async fn keep(&self, namespace: &str, extension: &str, bytes: Vec<u8>) -> Result<Kept, StoreError> {
        let digest = digest(&bytes);
        let name = format!("{digest}.{extension}");
        let object = format!("{namespace}/{name}");
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let stored = async {
            match (&self.location, &self.client) {
                (Location::Bucket { prefix, .. }, Some(client)) => {
                    let path = Path::from_iter(prefix.parts().chain([namespace.into(), name.into()]));
                    in_bucket(client.as_ref(), &path, &digest, bytes).await
                }
                (Location::Folder(folder), _) => {
                    let folder = folder.join(namespace);
                    // It blocks: on a network's folder for as long as that does not answer.
                    let stored = tokio::task::spawn_blocking(move || folder::store(&folder, &name, &bytes));
                    stored.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
                }
                (Location::Bucket { .. }, None) => Err("the bucket was never opened".to_owned()),
            }
        };
        let stored = tokio::time::timeout(DEADLINE, stored).await;
        let stored = stored.unwrap_or_else(|_| Err(format!("not done within {} s", DEADLINE.as_secs())));
        match stored {
            Ok(()) => Ok(Kept { object, digest: format!("sha256:{digest}"), size }),
            Err(why) => {
                let why = shorten(&why, WHY);
                Err(StoreError { object, location: self.location.to_string(), why })
            }
        }
    }
}

/// SHA-256, as the names of objects have it.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn in_bucket(
    client: &dyn ObjectStore,
    path: &Path,
    digest: &str,
    bytes: Vec<u8>,
) -> Result<(), String> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let there = match client.put_opts(path, PutPayload::from(bytes), options).await {
        Ok(_) => false,
        Err(Error::AlreadyExists { .. }) => true,
        Err(error) => return Err(innermost(&error)),
    };
    // A store's word that it took something is no evidence that it has it.
    let read = async { client.get(path).await?.bytes().await };
    let held = read.await.map_err(|error| format!("it cannot be read back: {}", innermost(&error)))?;
    match (self::digest(&held) == digest, there) {
        (true, _) => Ok(()),
        (false, true) => Err("something else is there under that name".to_owned()),
        (false, false) => Err("what can be read back is not what was stored".to_owned()),
    }
}

/// The whole chain of causes: the outermost says only that a request failed.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Many an error repeats its cause.
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Cause(&'static str, #[source] Option<Box<Cause>>);

    #[test]
    fn a_failure_is_told_down_to_its_cause_and_nothing_is_told_twice() {
        let failed = |texts: &[&'static str]| {
            texts.iter().rev().fold(None, |cause, text| Some(Box::new(Cause(text, cause)))).unwrap()
        };
        for (texts, told) in [
            (&["request failed"][..], "request failed"),
            (&["request failed", "no route to host"], "request failed: no route to host"),
            (
                &["request failed: timed out", "timed out", "after 10 s"],
                "request failed: timed out: after 10 s",
            ),
        ] {
            assert_eq!(innermost(&*failed(texts)), told);
        }
    }

    #[test]
    fn a_location_is_a_folder_or_a_bucket_and_nothing_else() {
        let bucket = |bucket: &str, prefix: &str| Location::Bucket {
            bucket: bucket.into(),
            prefix: Path::parse(prefix).unwrap(),
        };
        for (text, expected) in [
            ("/var/lib/evidence", Ok(Location::Folder("/var/lib/evidence".into()))),
            ("evidence", Ok(Location::Folder("evidence".into()))),
            ("s3://council", Ok(bucket("council", ""))),
            ("s3://council/2025/nov/", Ok(bucket("council", "2025/nov"))),
            ("s3:///2025", Err("no bucket")),
            ("s3://council/2025/../nov", Err("prefix")),
            ("gs://council", Err("gs:// is no store")),
            ("", Err("empty")),
        ] {
            match (text.parse::<Location>(), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        for (text, told) in
            [("s3://council/2025/", "s3://council/2025"), ("s3://council/", "s3://council"), ("kept", "kept")]
        {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), told);
        }
    }
}
