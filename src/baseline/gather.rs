//! Reads everything that belongs in an inventory, page by page: all objects of some namespaces, and what may reach into them.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::TypeMeta;
use kube::discovery::{ApiCapabilities, ApiGroup, Discovery, Scope, verbs};
use kube::{Api, Client};
use resurgam_core::baseline::ignore::IgnoreList;
use resurgam_core::baseline::{KindRef, MAX_OBJECTS, content, is_captured, reach};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::calls::{IoError, call};
use crate::isolation::evidence::{DigestKey, digested};

/// Page size of a list. An object may be as large as a tenant can make it.
const PAGE: u32 = 250;
/// Lists read at a time.
pub const PARALLEL: usize = 8;

/// Objects as they were read, without Secrets' values.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The objects.
    pub objects: Vec<Value>,
    /// The namespaced kinds that were listed, sorted.
    pub kinds: Vec<KindRef>,
}

/// Why not everything could be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GatherError {
    /// The API server refused, or did not answer.
    #[error(transparent)]
    Io(#[from] IoError),
    /// There are too many objects.
    #[error("there are more than {MAX_OBJECTS} objects, the first beyond that of kind {0}")]
    TooMany(String),
    /// An object cannot be converted to JSON.
    #[error("an object of kind {0} is malformed: {1}")]
    Malformed(String, String),
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The namespaces.
    pub namespaces: &'a [String],
    /// Versions in which kinds are read, where they are still served.
    pub versions: &'a [KindRef],
    /// Key of the digests of Secrets' values. `None`: no digests.
    pub key: Option<&'a DigestKey>,
    /// Whether objects of the cluster are read, too.
    pub outside: bool,
    /// What is left out: kinds of which nothing is compared are not read.
    pub ignore: &'a IgnoreList,
}

/// A kind that is read.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The kind, in the version in which it is read.
    pub resource: ApiResource,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
    /// Whether the API server can watch it.
    pub is_watchable: bool,
}

impl Kind {
    /// Returns the kind of namespaces, of which each is read by name.
    #[must_use]
    pub fn namespaces() -> Self {
        Self { resource: ApiResource::erase::<Namespace>(&()), is_namespaced: false, is_watchable: true }
    }

    /// Returns its name, as an inventory has it.
    #[must_use]
    pub fn to_ref(&self) -> KindRef {
        let ApiResource { group, plural, version, kind, .. } = self.resource.clone();
        KindRef { group, plural, version, kind }
    }
}

/// How many more objects may be read.
#[derive(Debug)]
pub struct Room(AtomicUsize);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_OBJECTS))
    }
}

impl Room {
    fn take(&self, count: usize, kind: &str) -> Result<(), GatherError> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count));
        taken.map(drop).map_err(|_| GatherError::TooMany(kind.to_owned()))
    }
}

/// Reads everything.
///
/// # Errors
/// [`GatherError`] of the first list that fails: an inventory with a gap would hide what is in it.
pub async fn gather(client: &Client, request: &Request<'_>) -> Result<Gathered, GatherError> {
    let all = kinds(client, request).await?;
    let mut lists: Vec<(ApiResource, Option<String>)> = Vec::new();
    for kind in &all {
        match kind.is_namespaced {
            true => {
                lists.extend(request.namespaces.iter().map(|of| (kind.resource.clone(), Some(of.clone()))))
            }
            false => lists.push((kind.resource.clone(), None)),
        }
    }
    let room = &Room::default();
    let objects: Vec<Vec<Value>> = stream::iter(lists)
        .map(|(kind, place)| async move { list(client, &kind, place.as_deref(), request.key, room).await })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    let mut objects = objects.concat();
    for name in request.namespaces {
        objects.push(namespace(client, name).await?);
    }
    let kinds = all.iter().filter(|kind| kind.is_namespaced).map(Kind::to_ref).collect();
    Ok(Gathered { objects, kinds })
}

/// Returns the kinds that are read, sorted: namespaced ones, and those of the cluster that may reach in.
///
/// # Errors
/// The API server does not say what it serves.
pub async fn kinds(client: &Client, request: &Request<'_>) -> Result<Vec<Kind>, GatherError> {
    let discovery = call("discover kinds", Discovery::new(client.clone()).run_aggregated()).await?;
    let mut kinds = Vec::new();
    for group in discovery.groups() {
        for (kind, can) in group.resources_by_stability() {
            let resource = in_version(group, kind, request.versions);
            let is_wanted = match can.scope {
                Scope::Namespaced => is_read(&resource, &can),
                Scope::Cluster => request.outside && reaches_in(&resource),
            };
            if is_wanted && !request.ignore.leaves_out_kind(&resource.kind) {
                let is_namespaced = can.scope == Scope::Namespaced;
                kinds.push(Kind {
                    resource,
                    is_namespaced,
                    is_watchable: can.supports_operation(verbs::WATCH),
                });
            }
        }
    }
    kinds.sort_by_key(Kind::to_ref);
    Ok(kinds)
}

/// Returns the kind in the version of an inventory, if that is still served.
fn in_version(group: &ApiGroup, kind: ApiResource, versions: &[KindRef]) -> ApiResource {
    let wanted = versions.iter().find(|of| of.group == kind.group && of.plural == kind.plural);
    let Some(wanted) = wanted.filter(|of| of.version != kind.version) else { return kind };
    let served = group.versioned_resources(&wanted.version).into_iter().map(|(served, _)| served);
    served.into_iter().find(|served| served.plural == kind.plural).unwrap_or(kind)
}

fn is_read(kind: &ApiResource, can: &ApiCapabilities) -> bool {
    can.supports_operation(verbs::LIST) && is_captured(&kind.group, &kind.plural)
}

fn reaches_in(kind: &ApiResource) -> bool {
    reach::KINDS.contains(&(kind.group.as_str(), kind.plural.as_str()))
}

/// Lists all objects of a kind, in a namespace or in the cluster.
///
/// # Errors
/// [`GatherError`]: there is a gap.
pub async fn list(
    client: &Client,
    kind: &ApiResource,
    namespace: Option<&str>,
    key: Option<&DigestKey>,
    room: &Room,
) -> Result<Vec<Value>, GatherError> {
    let dot = if kind.group.is_empty() { "" } else { "." };
    let mut what = format!("list {}{dot}{}", kind.plural, kind.group);
    if let Some(namespace) = namespace {
        what += &format!(" in namespace {namespace}");
    }
    if let (Some(namespace), "", "Secret") = (namespace, kind.group.as_str(), kind.kind.as_str()) {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secrets = pages(&what, &api, room, &kind.kind).await?;
        return Ok(secrets.into_iter().map(|secret| digested(secret, key)).collect());
    }
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    };
    let objects = pages(&what, &api, room, &kind.kind).await?.into_iter().map(|mut object| {
        // Items of a list carry no type.
        object.types.get_or_insert_with(|| TypeMeta {
            api_version: kind.api_version.clone(),
            kind: kind.kind.clone(),
        });
        value(&kind.kind, object)
    });
    objects.collect()
}

/// Reads a namespace itself.
///
/// # Errors
/// [`GatherError`]: it cannot be read.
pub async fn namespace(client: &Client, name: &str) -> Result<Value, GatherError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let itself = call(format!("get namespace {name}"), namespaces.get(name)).await?;
    value("Namespace", itself)
}

/// Returns an object as JSON, with its type and without what no comparison needs.
fn value(kind: &str, object: impl serde::Serialize) -> Result<Value, GatherError> {
    let mut value = serde_json::to_value(object)
        .map_err(|error| GatherError::Malformed(kind.to_owned(), error.to_string()))?;
    content::trim(&mut value);
    Ok(value)
}

async fn pages<K>(what: &str, api: &Api<K>, room: &Room, kind: &str) -> Result<Vec<K>, GatherError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = call(what, api.list(&params)).await?;
        room.take(page.items.len(), kind)?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

/// Returns a fingerprint of the key, by which an inventory says which key its digests were made with.
#[must_use]
pub fn fingerprint(key: &DigestKey) -> Option<String> {
    key.digest(b"resurgam.dev/baseline")
}

/// Returns a Secret of a manifest without its values.
#[must_use]
pub fn without_values(secret: Value, key: Option<&DigestKey>) -> Value {
    match serde_json::from_value::<Secret>(secret) {
        Ok(secret) => digested(secret, key),
        Err(_) => json!({}),
    }
}
