//! Evidence, kept before anything is stopped: all that the API server holds of a namespace, with UIDs, resourceVersions and
//! managed fields, events included; Secrets as metadata only. One file, named by its digest, never overwritten.

use std::io::Write;
use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::conditions::shorten;
use crate::api::quarantine::Capture;
use crate::calls::{IoError, call};

/// Objects asked for at a time.
const PAGE: u32 = 500;
/// Kinds listed at a time.
const PARALLEL: usize = 6;
/// Longest entry, and most entries, of `missing` in the status; the file has them all.
const MISSING: (usize, usize) = (256, 64);

/// Why nothing was kept. Then nothing may be stopped either.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The API server did not tell what there is.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Pods could not be read, the very thing that is about to go.
    #[error("pods of namespace {0} could not be captured: {1}")]
    Pods(String, String),
    /// The evidence could not be stored.
    #[error("evidence of namespace {namespace} could not be stored in {}: {source}", .folder.display())]
    Store {
        /// Whose.
        namespace: String,
        /// Where to.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The evidence could not be written as JSON, or the writing task ended early.
    #[error("evidence of namespace {0} could not be written: {1}")]
    Encode(String, String),
}

/// Keeps everything in a namespace in `folder/<namespace>/<sha256>.json`.
///
/// # Errors
/// [`CaptureError`]: nothing is kept. A kind that cannot be read, Pods apart, is no error, but listed in `missing`.
pub async fn capture(client: &Client, namespace: &str, folder: &Path) -> Result<Capture, CaptureError> {
    let at = Timestamp::now();
    let kinds = kinds(client).await?;
    let lists: Vec<(ApiResource, Result<Vec<Value>, IoError>)> = stream::iter(kinds)
        .map(|kind| async {
            let objects = list(client, namespace, &kind).await;
            (kind, objects)
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    let api: Api<Namespace> = Api::all(client.clone());
    let itself = call(format!("get namespace {namespace}"), api.get(namespace)).await?;
    let encode = |e: serde_json::Error| CaptureError::Encode(namespace.to_owned(), e.to_string());
    let mut objects = vec![serde_json::to_value(itself).map_err(encode)?];
    let mut missing = Vec::new();
    for (kind, list) in lists {
        match list {
            Ok(list) => objects.extend(list),
            Err(error) if kind.plural == "pods" && kind.group.is_empty() => {
                return Err(CaptureError::Pods(namespace.to_owned(), error.to_string()));
            }
            Err(error) => missing.push(format!("{}: {error}", full_name(&kind))),
        }
    }
    let count = i64::try_from(objects.len()).unwrap_or(i64::MAX);
    let content = json!({
        "evidence": "resurgam.dev/v1", "namespace": namespace, "at": at.to_string(),
        "missing": missing, "objects": objects,
    });
    let bytes = serde_json::to_vec(&content).map_err(encode)?;
    let (name, into) = (namespace.to_owned(), folder.join(namespace));
    let digest = tokio::task::spawn_blocking(move || store(&into, &bytes))
        .await
        .map_err(|e| CaptureError::Encode(namespace.to_owned(), e.to_string()))?
        .map_err(|source| CaptureError::Store { namespace: name, folder: folder.to_owned(), source })?;
    let (length, most) = MISSING;
    let mut missing: Vec<_> = missing.iter().map(|text| shorten(text, length)).collect();
    if missing.len() > most {
        let rest = missing.len() - (most - 1);
        missing.truncate(most - 1);
        missing.push(format!("and {rest} more: see the evidence"));
    }
    Ok(Capture {
        digest: format!("sha256:{digest}"),
        at: Time(at),
        objects: count,
        logs: None,
        snapshots: Vec::new(),
        missing,
    })
}

/// Every namespaced kind that can be listed, in a steady order. Events are the same in both their groups.
async fn kinds(client: &Client) -> Result<Vec<ApiResource>, IoError> {
    let discovery = call("discover kinds", Discovery::new(client.clone()).run_aggregated()).await?;
    let mut kinds: Vec<_> = discovery
        .groups_alphabetical()
        .into_iter()
        .flat_map(|group| group.recommended_resources())
        .filter(|(kind, can)| {
            can.scope == Scope::Namespaced
                && can.supports_operation(verbs::LIST)
                && !(kind.group == "events.k8s.io" && kind.plural == "events")
        })
        .map(|(kind, _)| kind)
        .collect();
    kinds.sort_by_key(full_name);
    Ok(kinds)
}

fn full_name(kind: &ApiResource) -> String {
    if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group) }
}

async fn list(client: &Client, namespace: &str, kind: &ApiResource) -> Result<Vec<Value>, IoError> {
    if kind.group.is_empty() && kind.plural == "secrets" {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        return pages(kind, async |params| {
            let page = api.list_metadata(&params).await?;
            let next = page.metadata.continue_.clone();
            let values = page
                .items
                .into_iter()
                .map(|object| json!({"apiVersion": "v1", "kind": "Secret", "metadata": object.metadata}));
            Ok((values.collect(), next))
        })
        .await;
    }
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
    pages(kind, async |params| {
        let page = api.list(&params).await?;
        let next = page.metadata.continue_.clone();
        let values = page.items.into_iter().map(|mut object| {
            // The items of a list do not say what they are.
            object.types.get_or_insert_with(|| kube::core::TypeMeta {
                api_version: kind.api_version.clone(),
                kind: kind.kind.clone(),
            });
            serde_json::to_value(object).map_err(kube::Error::SerdeError)
        });
        Ok((values.collect::<Result<_, _>>()?, next))
    })
    .await
}

async fn pages(
    kind: &ApiResource,
    page: impl AsyncFn(ListParams) -> kube::Result<(Vec<Value>, Option<String>)>,
) -> Result<Vec<Value>, IoError> {
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let (values, next) = call(format!("list {}", full_name(kind)), page(params.clone())).await?;
        all.extend(values);
        match next.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// Stores the bytes under their digest, durably, without ever overwriting. Blocks.
fn store(folder: &Path, bytes: &[u8]) -> std::io::Result<String> {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    private_folder(folder)?;
    let path = folder.join(format!("{digest}.json"));
    let temporary = folder.join(format!(".{digest}.{}.tmp", std::process::id()));
    let mut file = private_file(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // A link, unlike a rename, fails where something is already.
    let linked = std::fs::hard_link(&temporary, &path);
    std::fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            if std::fs::read(&path)? != bytes {
                return Err(std::io::Error::other(format!("{} holds something else", path.display())));
            }
        }
        linked => linked?,
    }
    std::fs::File::open(folder)?.sync_all()?;
    Ok(digest)
}

/// Evidence is for the operator's eyes: it names what an attacker would like to know.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_named_by_its_digest_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("library");
        let digest = store(&into, b"first").unwrap();
        let path = into.join(format!("{digest}.json"));
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(store(&into, b"first").unwrap(), digest, "again is the same");
        std::fs::write(&path, b"forged").unwrap();
        assert!(
            store(&into, b"first").is_err(),
            "what is there is not replaced, and not taken for it either"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"forged");
        assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1, "nothing temporary is left");
    }
}
