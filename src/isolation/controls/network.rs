//! Isolates and releases a namespace's network: reads, writes and records as the core decides.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, VersionMatch};
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};

use super::cleanup;
use crate::api::field_manager;
use crate::calls::{DEADLINE, IoError, call, call_opt, call_within, each, list_all};
use crate::isolation::failure::is_too_large;
use crate::isolation::records::{Kind, Record, RecordError};

pub use resurgam_core::isolation::controls::network::{
    CLEAN_ROOM, CleanRoomAccess, DEFAULT_DENY, NEUTRALISED, PolicyObservation, change, is_as, is_neutralised,
    is_ours, restorable, wanted, without_marks,
};

/// Size from which a policy is large, in bytes of JSON.
const LARGE: usize = 128 << 10;
/// Deadline for a write of a large policy: up to its own limit, a busy API server takes its time with that. Others have the usual one, so
/// that a webhook that hangs delays the next controls no longer than before.
const LARGE_DEADLINE: Duration = Duration::from_secs(60);
/// Concurrent writes of policies.
const PARALLEL: usize = 8;
/// Page size of lists of policies, each of which may be as large as an object can be.
const PAGE: u32 = 50;
/// Attempts to write a policy that other writers change.
const ATTEMPTS: usize = 5;

/// Why the network is not as wanted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NetworkError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A policy too large to be neutralised could not be recorded, and was left.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A policy that was too large to be neutralised in place, as it will be restored.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Recorded {
    policy: NetworkPolicy,
}

/// State of a namespace before its network is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Not fenced: policies may have been written until now, so the list has to be the latest.
    Open,
    /// Fenced: writes of the few accounts that may wake a pass. A list from the API server's cache suffices; the latest one can take a
    /// tenth of a second.
    Isolated,
}

/// Required freshness of a list.
enum Version {
    /// The latest version.
    Latest,
    /// Any version in the API server's cache.
    Any,
    /// At least this resourceVersion. The API server waits until its cache has it, which takes less time than confirming the latest
    /// version.
    AtLeast(String),
}

impl Before {
    fn version(self) -> Version {
        match self {
            Self::Open => Version::Latest,
            Self::Isolated => Version::Any,
        }
    }
}

/// Reads the namespace's network policies, page by page.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn list(client: &Client, namespace: &str, before: Before) -> Result<Vec<NetworkPolicy>, IoError> {
    list_at(client, namespace, before.version()).await
}

async fn list_at(client: &Client, namespace: &str, version: Version) -> Result<Vec<NetworkPolicy>, IoError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let what = format!("list networkpolicies in namespace {namespace}");
    match version {
        Version::Latest => list_all(&what, &api, ListParams::default(), PAGE).await,
        Version::Any => Ok(call(what, api.list(&ListParams::default().match_any())).await?.items),
        Version::AtLeast(version) => {
            let fresh = ListParams::default().at(&version).matching(VersionMatch::NotOlderThan);
            list_all(&what, &api, fresh, PAGE).await
        }
    }
}

/// Result of isolating a network.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Something differed and was written.
    pub changed: bool,
    /// The policies, if they were read after the last write.
    pub there: Option<Vec<NetworkPolicy>>,
}

/// Brings the namespace's network policies to the wanted state as far as possible. `uid`: UID of the namespace, under which policies too
/// large to be neutralised are recorded.
///
/// # Errors
/// The first [`NetworkError`]. Everything else was done, and the next call continues.
pub async fn isolate(
    client: &Client,
    namespace: &str,
    uid: &str,
    room: Option<&CleanRoomAccess>,
    before: Before,
) -> Result<Written, NetworkError> {
    isolate_known(client, (namespace, uid), room, before, None).await
}

/// As [`isolate`]. `cached`: policies in the cluster cache. The final state is read in any case.
///
/// # Errors
/// As [`isolate`].
pub async fn isolate_known(
    client: &Client,
    (namespace, uid): (&str, &str),
    room: Option<&CleanRoomAccess>,
    before: Before,
    cached: Option<Vec<NetworkPolicy>>,
) -> Result<Written, NetworkError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let wanted = wanted(namespace, room);
    let mut written = Written::default();
    let mut failed = None;
    let mut latest = None;
    let is_cached = cached.is_some();
    let known = match before {
        Before::Open => None,
        Before::Isolated if is_cached => cached,
        Before::Isolated => list_at(client, namespace, Version::Any).await.ok(),
    };
    let find = |name: &str| known.iter().flatten().find(|policy| policy.name_any() == name);
    // Deny comes first, so that neutralising policies never leaves everything allowed, and before reading policies that a tenant may have
    // made too large to read.
    for policy in &wanted {
        let there = find(&policy.name_any());
        if there.is_some_and(|there| is_as(there, policy)) {
            continue;
        }
        // A policy that probably does not exist is not read first.
        let is_missing = known.is_some() && there.is_none();
        match put(&api, policy, if is_missing { Before::Open } else { before }).await {
            Ok(Some(version)) => (written.changed, latest) = (true, Some(version)),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(NetworkError::from(error))),
        }
    }
    let there = match (latest, known) {
        (None, Some(known)) if failed.is_none() && !is_cached => Ok(known),
        (latest, _) => {
            let at_least = latest.map_or(before.version(), Version::AtLeast);
            list_at(client, namespace, at_least).await
        }
    };
    match there {
        Err(error) => failed = failed.or(Some(error.into())),
        Ok(there) => {
            let is_wanted = |p: &NetworkPolicy| wanted.iter().any(|w| w.name_any() == p.name_any());
            let others = there.iter().filter(|p| !is_wanted(p) && !is_neutralised(p)).cloned();
            let all: Vec<_> = others.map(|policy| neutralise(client, uid, policy)).collect();
            match each(PARALLEL, all).await {
                Ok(changed) if changed.contains(&true) => written.changed = true,
                Ok(_) => written.there = Some(there),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    failed.map_or(Ok(written), Err)
}

/// Writes a policy of ours unless it is as wanted. Returns its version if it was written.
async fn put(
    api: &Api<NetworkPolicy>,
    policy: &NetworkPolicy,
    before: Before,
) -> Result<Option<String>, IoError> {
    let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let version = |policy: NetworkPolicy| policy.metadata.resource_version;
    let mut written = None;
    for attempt in 1.. {
        // An open namespace normally has no policy of ours, so none is read first.
        let live = match before {
            Before::Open if attempt == 1 => None,
            Before::Open | Before::Isolated => {
                call_opt(format!("get NetworkPolicy {namespace}/{name}"), api.get(&name)).await?
            }
        };
        let Some(live) = live else {
            match call(format!("create NetworkPolicy {namespace}/{name}"), api.create(&params, policy)).await
            {
                Ok(made) => return Ok(version(made)),
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => continue,
                Err(error) => {
                    // A webhook or a quota may refuse even a policy that exists.
                    let there =
                        call_opt(format!("get NetworkPolicy {namespace}/{name}"), api.get(&name)).await;
                    return match there {
                        Ok(Some(there)) if is_as(&there, policy) => Ok(written),
                        Ok(_) | Err(_) => Err(error),
                    };
                }
            }
        };
        if is_as(&live, policy) {
            return Ok(written);
        }
        // Replaces instead of applying, to remove foreign fields, finalizers and owners. A policy that is being deleted goes with its
        // last finalizer, and is created again.
        let mut policy = policy.clone();
        policy.metadata.resource_version = live.metadata.resource_version.clone();
        let what = format!("replace NetworkPolicy {namespace}/{name}");
        match call_opt(what, api.replace(&name, &params, &policy)).await {
            Err(error) if !error.is_conflict() || attempt == ATTEMPTS => return Err(error),
            Ok(now) => written = now.and_then(version).or(live.metadata.resource_version),
            Err(_) => written = live.metadata.resource_version,
        }
    }
    Ok(written)
}

/// Returns the deadline for a write of a policy.
fn deadline(policy: &NetworkPolicy) -> Duration {
    let size = serde_json::to_vec(policy).map_or(0, |json| json.len());
    if size > LARGE { LARGE_DEADLINE } else { DEADLINE }
}

/// Makes a policy select no pods. A policy with one of our names is not a tenant's and is deleted.
async fn neutralise(client: &Client, uid: &str, mut policy: NetworkPolicy) -> Result<bool, NetworkError> {
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    for attempt in 1.. {
        let Some(patch) = change(&policy, false) else { break };
        let what = format!("neutralise NetworkPolicy {namespace}/{name}");
        let error =
            match call_within(deadline(&policy), what, api.patch(&name, &params, &Patch::Merge(patch))).await
            {
                Ok(_) => break,
                Err(error) if error.is_not_found() => break,
                Err(error) => error,
            };
        if error.status().is_some_and(is_too_large) {
            record(client, &namespace, uid, &policy).await?;
            remove(&api, &policy).await?;
            return Ok(true);
        }
        if !error.is_conflict() || attempt == ATTEMPTS {
            return Err(error.into());
        }
        match call_opt(format!("get NetworkPolicy {namespace}/{name}"), api.get(&name)).await? {
            Some(now) => policy = now,
            None => return Ok(false),
        }
    }
    // A policy that selects no pods is harmless; its removal is not this control's concern.
    if is_ours(&policy)
        && let Err(error) = remove(&api, &policy).await
    {
        tracing::debug!(%error, "policy neutralised, but not deleted");
    }
    Ok(true)
}

async fn remove(api: &Api<NetworkPolicy>, policy: &NetworkPolicy) -> Result<(), IoError> {
    let same = Preconditions { uid: policy.uid(), resource_version: None };
    let params = DeleteParams::default().preconditions(same);
    let name = policy.name_any();
    let what = format!("delete NetworkPolicy {}/{name}", policy.namespace().unwrap_or_default());
    call_opt(what, api.delete(&name, &params)).await?;
    Ok(())
}

/// Records a policy that has to be removed.
async fn record(
    client: &Client,
    namespace: &str,
    uid: &str,
    policy: &NetworkPolicy,
) -> Result<(), RecordError> {
    let entry = Recorded { policy: restorable(policy) };
    let record = Record { client, kind: Kind::Network, namespace, seal: uid };
    record.add(&BTreeMap::from([(policy.name_any(), entry)])).await
}

/// Restores the selectors of all policies, then deletes ours. Can be repeated.
///
/// # Errors
/// [`NetworkError`]. What was done is kept, and the next call continues.
pub async fn release(client: &Client, namespace: &str, uid: &str) -> Result<(), NetworkError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let there = list(client, namespace, Before::Open).await?;
    let mut written: Vec<NetworkPolicy> = Vec::new();
    for policy in there.iter().filter(|policy| !is_ours(policy)) {
        let Some(mut patch) = change(policy, true) else {
            // An earlier call may have ended in between.
            written.push(policy.clone());
            continue;
        };
        if let Some(managers) = cleanup::managers(&policy.metadata) {
            patch["metadata"]["managedFields"] = managers["metadata"]["managedFields"].clone();
        }
        let what = format!("restore NetworkPolicy {namespace}/{}", policy.name_any());
        match call_within(
            deadline(policy),
            what,
            api.patch(&policy.name_any(), &params, &Patch::Merge(patch)),
        )
        .await
        {
            Ok(restored) => written.push(restored),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let record = Record { client, kind: Kind::Network, namespace, seal: uid };
    let pages = record.pages().await?;
    for (name, recorded) in record.entries::<Recorded>(&pages)? {
        if there.iter().any(|policy| policy.name_any() == name) {
            continue;
        }
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        let what = format!("restore NetworkPolicy {namespace}/{name}");
        written.push(
            call_within(deadline(&recorded.policy), what, api.create(&params, &recorded.policy)).await?,
        );
    }
    for policy in there.iter().filter(|policy| is_ours(policy)) {
        remove(&api, policy).await?;
    }
    record.forget(pages).await?;
    // A restored value is managed by us again.
    for policy in &written {
        if let Err(error) = cleanup::remove_managers(&api, &policy.metadata).await {
            tracing::warn!(%error, "policy restored, but its field managers are left");
        }
    }
    Ok(())
}
