//! Reads a store in chunks: an object may be as large as a namespace and is never held in memory.

use std::fmt;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::store::{DEADLINE, Location, Store, hex, innermost};

/// Size of a chunk.
const CHUNK: usize = 64 << 10;
/// Hex digits of a SHA-256.
const DIGITS: usize = 64;

/// Why a store could not be read completely.
#[derive(Debug, thiserror::Error)]
#[error("evidence {what} in {location}: {why}")]
pub struct ReadError {
    what: String,
    location: String,
    why: String,
}

/// An object in a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Object {
    /// The namespace that it was captured from.
    pub namespace: String,
    /// `<sha256>.json` or `<sha256>.log.age`. Other names are not ours.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Object {
    /// Returns the digest in the name, `sha256:…`. `None`: the name has none.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        let (digits, _) = self.name.split_once('.')?;
        let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        (digits.len() == DIGITS && digits.bytes().all(is_digit)).then(|| format!("sha256:{digits}"))
    }
}

/// Content of an object, in chunks.
pub type Chunks = BoxStream<'static, Result<Vec<u8>, ReadError>>;

impl Store {
    /// Returns the objects of one namespace or of all, in order. Skips the remains of failed writes.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn objects(&self, namespace: Option<&str>) -> Result<Vec<Object>, ReadError> {
        let listed = async {
            match (&self.location, &self.client) {
                (Location::Folder(folder), _) => {
                    let (folder, only) = (folder.clone(), namespace.map(str::to_owned));
                    let listed = tokio::task::spawn_blocking(move || in_folder(&folder, only.as_deref()));
                    listed.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
                }
                (Location::Bucket { prefix, .. }, Some(client)) => {
                    in_bucket(client.as_ref(), prefix, namespace).await
                }
                (Location::Bucket { .. }, None) => Err("the bucket was never opened".to_owned()),
            }
        };
        let what =
            namespace.map_or_else(|| "of all namespaces".to_owned(), |ns| format!("of namespace {ns}"));
        let mut objects = within(listed).await.map_err(|why| self.unreadable(&what, why))?;
        objects.sort();
        Ok(objects)
    }

    /// Opens an object's content.
    ///
    /// # Errors
    /// [`ReadError`], here or in the stream.
    pub async fn open_object(&self, object: &Object) -> Result<Chunks, ReadError> {
        let opened = async {
            match (&self.location, &self.client) {
                (Location::Folder(folder), _) => {
                    let path = folder.join(&object.namespace).join(&object.name);
                    let kind = tokio::fs::symlink_metadata(&path).await.map_err(|e| e.to_string())?;
                    // A link could lead to an endless file.
                    if !kind.is_file() {
                        return Err("it is no regular file".to_owned());
                    }
                    let file = tokio::fs::File::open(path).await.map_err(|e| e.to_string())?;
                    Ok(stream::try_unfold(file, next_chunk).boxed())
                }
                (Location::Bucket { prefix, .. }, Some(client)) => {
                    let parts = [object.namespace.as_str().into(), object.name.as_str().into()];
                    let path = Path::from_iter(prefix.parts().chain(parts));
                    let got = client.get(&path).await.map_err(|error| innermost(&error))?;
                    let chunks = got.into_stream().map_ok(|chunk| chunk.to_vec());
                    Ok(chunks.map_err(|error| innermost(&error)).boxed())
                }
                (Location::Bucket { .. }, None) => Err("the bucket was never opened".to_owned()),
            }
        };
        let chunks: BoxStream<'static, Result<Vec<u8>, String>> =
            within(opened).await.map_err(|why| self.unreadable(&object.to_string(), why))?;
        let (store, object) = (self.clone(), object.clone());
        let bounded = stream::unfold(Some(chunks), move |chunks| {
            let (store, what) = (store.clone(), object.to_string());
            async move {
                let mut chunks = chunks?;
                match within(async { chunks.next().await.transpose() }).await {
                    Ok(None) => None,
                    Ok(Some(chunk)) => Some((Ok(chunk), Some(chunks))),
                    // Chunks after a failure are meaningless.
                    Err(why) => Some((Err(store.unreadable(&what, why)), None)),
                }
            }
        });
        Ok(bounded.boxed())
    }

    /// Returns the digest of an object's content, `sha256:…`.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn digest_of(&self, object: &Object) -> Result<String, ReadError> {
        let mut chunks = self.open_object(object).await?;
        let mut digest = Sha256::new();
        while let Some(chunk) = chunks.try_next().await? {
            digest.update(&chunk);
        }
        Ok(format!("sha256:{}", hex(&digest.finalize())))
    }

    pub(super) fn unreadable(&self, what: &str, why: String) -> ReadError {
        ReadError { what: what.to_owned(), location: self.location.to_string(), why }
    }
}

async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.unwrap_or_else(|_| Err(format!("no answer within {} s", DEADLINE.as_secs())))
}

async fn next_chunk(mut file: tokio::fs::File) -> Result<Option<(Vec<u8>, tokio::fs::File)>, String> {
    let mut chunk = vec![0; CHUNK];
    let read = file.read(&mut chunk).await.map_err(|error| error.to_string())?;
    chunk.truncate(read);
    Ok((read > 0).then_some((chunk, file)))
}

/// Returns the contents of the namespaces' folders. What is not a regular file is listed as empty and cannot be opened.
fn in_folder(folder: &std::path::Path, only: Option<&str>) -> std::io::Result<Vec<Object>> {
    let mut objects = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let namespace = entry.file_name().to_string_lossy().into_owned();
        if only.is_some_and(|only| only != namespace) || !entry.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(entry.path())? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let metadata = file.metadata()?;
            let size = if metadata.is_file() { metadata.len() } else { 0 };
            objects.push(Object { namespace: namespace.clone(), name, size });
        }
    }
    Ok(objects)
}

async fn in_bucket(
    client: &dyn ObjectStore,
    prefix: &Path,
    only: Option<&str>,
) -> Result<Vec<Object>, String> {
    let within = Path::from_iter(prefix.parts().chain(only.map(Into::into)));
    let mut listed = client.list(Some(&within));
    let mut objects = Vec::new();
    while let Some(object) = listed.try_next().await.map_err(|error| innermost(&error))? {
        let Some(rest) = object.location.prefix_match(prefix) else { continue };
        let parts: Vec<String> = rest.map(|part| part.as_ref().to_owned()).collect();
        if let [namespace, name] = parts.as_slice() {
            objects.push(Object { namespace: namespace.clone(), name: name.clone(), size: object.size });
        }
    }
    Ok(objects)
}
