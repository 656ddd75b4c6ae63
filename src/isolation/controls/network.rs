//! Isolates a namespace's network, and releases it: what the core says is read, written and recorded.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, VersionMatch};
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};

use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt, each, list_all};
use crate::isolation::failure::is_too_large;
use crate::isolation::records::{Kind, Record, RecordError};

pub use resurgam_core::isolation::controls::network::{
    CLEAN_ROOM, CleanRoomAccess, DEFAULT_DENY, NEUTRALISED, PolicyObservation, change, is_as, is_neutralised,
    is_ours, restorable, wanted, without_marks,
};

/// Policies written at a time.
const PARALLEL: usize = 8;
/// Policies listed at a time: each may be as large as an object gets.
const PAGE: u32 = 50;
/// How often a policy that changed in between is read afresh.
const ATTEMPTS: usize = 5;

/// Why the network is not as it should be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NetworkError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// What was too large to be neutralised in place could not be recorded: it was left.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A policy that was too large to be neutralised in place, as it is restored.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Recorded {
    policy: NetworkPolicy,
}

/// How a namespace was before its network is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Anybody may have written a policy until just now: the list has to be the latest.
    Open,
    /// The fence was up: what a few accounts may write wakes us again. The API server's cache will do for the list, which
    /// otherwise waits up to a tenth of a second until it knows that it is current.
    Isolated,
}

/// How fresh a list has to be.
enum Version {
    /// The latest there is.
    Latest,
    /// Whatever the API server's cache holds.
    Any,
    /// At least as fresh as this resource version. The API server's cache is waited for until it is, which is sooner than it takes it
    /// to know that it is the latest.
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

/// What came of isolating a network.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Something was not as it should be, and was written.
    pub changed: bool,
    /// What is there, where it has been read since the last write.
    pub there: Option<Vec<NetworkPolicy>>,
}

/// Makes the namespace's network policies what they are to be, as far as it gets. `uid`: the namespace's, under which is recorded
/// what is too large to be neutralised in place.
///
/// # Errors
/// The first [`NetworkError`]; all else that could be done was done, and a next call goes on from there.
pub async fn isolate(
    client: &Client,
    namespace: &str,
    uid: &str,
    room: Option<&CleanRoomAccess>,
    before: Before,
) -> Result<Written, NetworkError> {
    isolate_known(client, (namespace, uid), room, before, None).await
}

/// As [`isolate`]. `cached`: the policies as the cluster's cache has them; what is there in the end is read in any case.
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
    // Deny first, so that neutralising an allowance never leaves a moment in which all is allowed, and before anything is read
    // that somebody may have made too large to be read.
    for policy in &wanted {
        let there = find(&policy.name_any());
        if there.is_some_and(|there| is_as(there, policy)) {
            continue;
        }
        // One that is probably not there is not asked for first.
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

/// Writes a policy of ours, unless it is as it should be. Returns its version, where it was written.
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
        // Of a namespace that was open it is not asked first: none is there, as a rule.
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
                    // A webhook or a quota may refuse even what is there already.
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
        // Replaced, not applied: what somebody added to ours has to go, finalizers and owners included. One that was being
        // deleted goes with its last finalizer, and is made again.
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

/// Makes a policy that allows select no pod. One of our own names is no tenant's: it is removed.
async fn neutralise(client: &Client, uid: &str, mut policy: NetworkPolicy) -> Result<bool, NetworkError> {
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    for attempt in 1.. {
        let Some(patch) = change(&policy, false) else { break };
        let what = format!("neutralise NetworkPolicy {namespace}/{name}");
        let error = match call_opt(what, api.patch(&name, &params, &Patch::Merge(patch))).await {
            Ok(_) => break,
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
    // Selecting nothing it does no harm: whether it can be removed is not this control's concern.
    if is_ours(&policy)
        && let Err(error) = remove(&api, &policy).await
    {
        tracing::debug!(%error, "neutralised, and not removed");
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

/// Keeps a policy that has to be removed.
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

/// Lets every policy select what it did, then takes ours away. Each can be done again without harm.
///
/// # Errors
/// [`NetworkError`]; what was done so far stands, and a next call goes on from there.
pub async fn release(client: &Client, namespace: &str, uid: &str) -> Result<(), NetworkError> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let there = list(client, namespace, Before::Open).await?;
    for policy in there.iter().filter(|policy| !is_ours(policy)) {
        let Some(patch) = change(policy, true) else { continue };
        let what = format!("restore NetworkPolicy {namespace}/{}", policy.name_any());
        call_opt(what, api.patch(&policy.name_any(), &params, &Patch::Merge(patch))).await?;
    }
    let record = Record { client, kind: Kind::Network, namespace, seal: uid };
    let pages = record.pages().await?;
    for (name, recorded) in record.entries::<Recorded>(&pages)? {
        if there.iter().any(|policy| policy.name_any() == name) {
            continue;
        }
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        call(format!("restore NetworkPolicy {namespace}/{name}"), api.create(&params, &recorded.policy))
            .await?;
    }
    for policy in there.iter().filter(|policy| is_ours(policy)) {
        remove(&api, policy).await?;
    }
    record.forget(pages).await?;
    Ok(())
}
