//! The evidence store: a folder, or a bucket of an S3 server. Objects are named by their digests, never overwritten, and read back after
//! writing.

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

/// Deadline for writing an object and reading it back.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// Maximum length of an error text. A server may answer with a whole page.
const WHY: usize = 512;

/// Location of the store, in the format of `--evidence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `DIR`
    Folder(PathBuf),
    /// `s3://bucket/prefix`
    Bucket {
        /// The bucket.
        bucket: String,
        /// Prefix of all objects' names. May be empty.
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

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Name within the store.
    pub object: String,
    /// `sha256:…`
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
}

/// Why an object is not stored, or may not be.
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
    /// The client of a bucket.
    pub(super) client: Option<Arc<dyn ObjectStore>>,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(f)
    }
}

impl Store {
    /// Opens a folder, which is created when needed.
    #[must_use]
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { location: Location::Folder(folder.into()), client: None }
    }

    /// Opens the store at a location. Credentials, endpoint and region of a bucket are taken from the variables `AWS_*` in `environment`.
    /// Sends no request.
    ///
    /// # Errors
    /// No client can be created, for instance because the endpoint is not a URL.
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

    /// Stores the bytes durably as `<namespace>/<sha256>.<extension>`, without overwriting. An existing object of that name must be
    /// equal.
    ///
    /// # Errors
    /// [`StoreError`]: writing failed or took too long, or an object of that name differs.
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
                    // A network file system that does not answer blocks.
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

/// Returns the SHA-256 that names an object.
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
    // A store's acknowledgement is no evidence that it has the object.
    let read = async { client.get(path).await?.bytes().await };
    let held = read.await.map_err(|error| format!("it cannot be read back: {}", innermost(&error)))?;
    match (self::digest(&held) == digest, there) {
        (true, _) => Ok(()),
        (false, true) => Err("something else is there under that name".to_owned()),
        (false, false) => Err("what can be read back is not what was stored".to_owned()),
    }
}

/// Returns the whole chain of causes. The outermost says only that a request failed.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Many errors repeat their cause.
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
    fn error_line_names_each_cause_once() {
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
