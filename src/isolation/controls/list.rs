//! Reads and writes the isolation lists. The policy `resurgam-own-guard` lets others only append namespaces; the operator alone takes
//! them out.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::label;
use crate::api::{Isolation, OPERATOR_NAMESPACE, QuarantineSpec, field_manager};
use crate::calls::{IoError, call, call_opt};
use crate::cluster_cache::{ClusterCache, Entry, STALE_AFTER};
use batch::Batch;

pub use resurgam_core::isolation::controls::list::{
    CONFIG_MAPS, LABEL, Levels, Listed, ROLES_KEY, appended, changed, empty, holders, levels, list, selector,
};

mod batch;

/// Attempts to write a list that other writers change.
const ATTEMPTS: u32 = 20;
/// How long a read of the lists is valid without a change, in case a watch is broken.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// First pause between attempts.
const PAUSE: Duration = Duration::from_millis(5);

fn api(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), OPERATOR_NAMESPACE)
}

/// Recreates a lost list from the other one, and labels a list that lacks the label. Returns whether anything was missing.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn ensure(client: &Client) -> Result<bool, IoError> {
    let there = read(client).await?;
    let left = there.iter().flatten().find_map(|map| map.data.clone());
    let mut written = false;
    for (name, found) in CONFIG_MAPS.iter().zip(&there) {
        let labelled = found.as_ref().is_some_and(|map| map.labels().get(LABEL).is_some_and(|l| l == "true"));
        match found {
            Some(_) if labelled => continue,
            Some(_) => {
                let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: "true"}}}));
                let what = format!("label ConfigMap {OPERATOR_NAMESPACE}/{name}");
                call(what, api(client).patch(name, &manager(), &patch)).await?;
            }
            None => {
                // A responder may not write roles; the operator adds them again.
                let data = left.clone().map(|mut data| {
                    data.remove(ROLES_KEY);
                    data
                });
                let params =
                    PostParams { dry_run: false, field_manager: Some(field_manager::FENCE.to_owned()) };
                let what = format!("create ConfigMap {OPERATOR_NAMESPACE}/{name}");
                match call(what, api(client).create(&params, &list(name, data))).await {
                    Err(error) if !error.is_conflict() => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        written = true;
    }
    Ok(written)
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(field_manager::FENCE.to_owned()), ..PatchParams::default() }
}

/// Reads each list. `None`: the list is lost.
async fn read(client: &Client) -> Result<Vec<Option<ConfigMap>>, IoError> {
    let one = |name: &'static str| async move {
        let what = format!("get ConfigMap {OPERATOR_NAMESPACE}/{name}");
        call_opt(what, api(client).get(name)).await
    };
    join_all(CONFIG_MAPS.map(one)).await.into_iter().collect()
}

/// Adds namespaces to the lists, with one write of each. Namespaces that are listed keep their level, since a responder may not change
/// it.
///
/// # Errors
/// The API server refused, or did not answer, and some namespaces are on no list.
pub async fn add(client: &Client, namespaces: &[String], level: Isolation) -> Result<(), IoError> {
    let writes =
        CONFIG_MAPS.map(|name| write_one(client, name, None, |list| appended(list, namespaces, level)));
    all_written(join_all(writes).await)
}

/// Contents of the existing lists, or why none could be read.
type ListsRead = Result<Arc<Vec<BTreeMap<String, String>>>, IoError>;
/// Version and content of a parsed list.
type Parsed = (Option<String>, Arc<BTreeMap<String, String>>);

/// Reads and writes the lists for many namespaces. Concurrent callers share a read or a write.
pub struct Lists {
    client: Client,
    batch: Batch,
    /// The cluster cache, if the lists are cached.
    cache: Option<ClusterCache>,
    last_read: Mutex<Option<(Instant, ListsRead)>>,
    /// Time of the last known change.
    changed_at: std::sync::Mutex<Option<Instant>>,
    /// The lists as this process wrote them last. Older versions are ignored.
    written: std::sync::Mutex<BTreeMap<String, Arc<Entry<ConfigMap>>>>,
    /// Each version of a list is parsed once.
    parsed: std::sync::Mutex<BTreeMap<String, Parsed>>,
}

impl Lists {
    /// Creates the shared state.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            batch: Batch::default(),
            cache: None,
            last_read: Mutex::default(),
            changed_at: std::sync::Mutex::default(),
            written: std::sync::Mutex::default(),
            parsed: std::sync::Mutex::default(),
        }
    }

    /// The same, with reads from the cluster cache while it is fresh.
    #[must_use]
    pub fn cached_by(client: Client, cache: ClusterCache) -> Self {
        Self { cache: Some(cache), ..Self::new(client) }
    }

    /// Invalidates earlier reads, after a watch reported a change or this process wrote.
    pub fn changed(&self) {
        *self.changed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns whether a read that started at `began` is still valid.
    fn is_current(&self, began: Instant) -> bool {
        let changed_at = *self.changed_at.lock().unwrap_or_else(PoisonError::into_inner);
        began.elapsed() < READ_AGAIN_AFTER && changed_at.is_none_or(|at| at < began)
    }

    /// Returns a list from the cache or from this process's last write, whichever is newer. `None`: the cache is stale or lacks the list.
    fn cached_list(&self, name: &str) -> Option<Arc<Entry<ConfigMap>>> {
        let lists = &self.cache.as_ref()?.kinds().isolation_lists;
        lists.is_fresh(STALE_AFTER).ok()?;
        let cached = lists.get(OPERATOR_NAMESPACE, name)?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        match written.get(name).filter(|own| version(own) > version(&cached)) {
            Some(own) => Some(own.clone()),
            None => {
                written.remove(name);
                Some(cached)
            }
        }
    }

    /// Returns the namespace's state on the lists from the cache. `None`: the cache is stale or lacks a list.
    #[must_use]
    pub fn cached(&self, namespace: &str) -> Option<Listed> {
        let mut each = Vec::new();
        for name in CONFIG_MAPS {
            let entry = self.cached_list(name)?;
            let map = entry.as_ref().as_ref().ok()?;
            let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
            let known = parsed.get(name).filter(|(version, _)| *version == map.metadata.resource_version);
            let levels = match known {
                Some((_, levels)) => levels.clone(),
                None => {
                    let levels = Arc::new(levels(map));
                    parsed.insert(name.to_owned(), (map.metadata.resource_version.clone(), levels.clone()));
                    levels
                }
            };
            each.push(levels.get(namespace).cloned());
        }
        Some(Listed::new(each.iter().map(Option::as_deref)))
    }

    /// Returns the namespace's state on the lists, from the cache if it is fresh. Otherwise concurrent callers share a read that began
    /// after they called, which stays valid for some seconds or until a change.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn of(&self, namespace: &str) -> Result<Listed, IoError> {
        if let Some(listed) = self.cached(namespace) {
            return Ok(listed);
        }
        let asked = Instant::now();
        let mut last_read = self.last_read.lock().await;
        let stands = |(began, read): &&(Instant, ListsRead)| {
            *began >= asked || (read.is_ok() && self.is_current(*began))
        };
        let lists = match last_read.as_ref().filter(stands) {
            Some((_, lists)) => lists.clone()?,
            None => {
                let began = Instant::now();
                let read = read(&self.client).await;
                let read = read.map(|maps| Arc::new(maps.iter().flatten().map(levels).collect()));
                last_read.insert((began, read)).1.clone()?
            }
        };
        Ok(Listed::new(lists.iter().map(|list| list.get(namespace).map(String::as_str))))
    }

    /// Returns whether the namespace is on the lists at this level and has label and annotations.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn is_marked(
        &self,
        namespace: &Namespace,
        spec: &QuarantineSpec,
        level: Isolation,
    ) -> Result<bool, IoError> {
        Ok(label::is_labelled(namespace, spec, level) && self.of(&namespace.name_any()).await?.is_at(level))
    }

    /// Adds namespaces to the lists, each at its level, with one write of each list.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn set_all(&self, levels: &Levels) -> Result<(), IoError> {
        let written = self.batch.alone(|| self.write(levels.clone())).await;
        self.changed();
        written
    }

    /// Sets the level of a namespace on the lists; `Open` removes it.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn set(&self, namespace: &str, level: Isolation) -> Result<(), IoError> {
        let written = self.batch.write(namespace, level, |levels| self.write(levels)).await;
        self.changed();
        written
    }

    /// Writes these levels into every list. A list that fails does not stop the other.
    async fn write(&self, wanted: Levels) -> Result<(), IoError> {
        let writes = CONFIG_MAPS.map(|name| {
            let wanted = &wanted;
            async move {
                let known = self.cached_list(name);
                let known = known.as_ref().and_then(|entry| entry.as_ref().as_ref().ok());
                let written = write_one(&self.client, name, known, |list| changed(list, wanted)).await?;
                if let Some(written) = written {
                    let mut all = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                    all.insert(name.to_owned(), Arc::new(Ok(written)));
                }
                Ok(())
            }
        });
        join_all(writes).await.into_iter().collect()
    }

    /// Writes the lists, label and annotations. A namespace is added to the lists first and removed from them last.
    ///
    /// # Errors
    /// A conflict, or a refusal by the lock.
    pub async fn mark(
        &self,
        namespace: &Namespace,
        spec: &QuarantineSpec,
        level: Isolation,
    ) -> Result<Namespace, IoError> {
        let name = namespace.name_any();
        if level != Isolation::Open {
            self.set(&name, level).await?;
        }
        let labelled = if label::is_labelled(namespace, spec, level) {
            namespace.clone()
        } else {
            label::label(&self.client, namespace, spec, level, false).await?
        };
        if level == Isolation::Open && label::is_labelled(&labelled, spec, level) {
            self.set(&name, level).await?;
        }
        Ok(labelled)
    }
}

/// Writes which ClusterRoles contain our verbs, if the lists differ.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn set_holders(client: &Client, holders: &str) -> Result<(), IoError> {
    let is_known = |map: &Option<ConfigMap>| {
        let data = map.as_ref().and_then(|map| map.data.as_ref());
        data.and_then(|data| data.get(ROLES_KEY)).is_some_and(|known| known == holders)
    };
    if read(client).await?.iter().all(is_known) {
        return Ok(());
    }
    let change = |_: &ConfigMap| Some(json!({ROLES_KEY: holders}));
    all_written(join_all(CONFIG_MAPS.map(|name| write_one(client, name, None, change))).await)
}

/// Returns the first failure.
fn all_written(writes: Vec<Result<Option<ConfigMap>, IoError>>) -> Result<(), IoError> {
    writes.into_iter().try_for_each(|written| written.map(drop))
}

/// Returns an entry's resourceVersion as a number. The API server guarantees that resourceVersions are comparable numbers.
fn version(entry: &Entry<ConfigMap>) -> Option<u64> {
    entry.as_ref().ok()?.metadata.resource_version.as_deref()?.parse().ok()
}

/// Writes one list without overwriting concurrent writes. `change`: returns the data to merge into the current list. `known`: the
/// probable current list; if that needs no change, the list is read. Returns what was written, if anything.
async fn write_one(
    client: &Client,
    name: &str,
    known: Option<&ConfigMap>,
    change: impl Fn(&ConfigMap) -> Option<Value>,
) -> Result<Option<ConfigMap>, IoError> {
    // The namespaces are not named, since every caller gets the outcome of the shared write.
    let what = format!("write ConfigMap {OPERATOR_NAMESPACE}/{name}");
    let mut pause = PAUSE;
    let known = known.and_then(|known| Some((known.metadata.resource_version.clone(), change(known)?)));
    for attempt in 1.. {
        let (version, data) = match known.clone().filter(|_| attempt == 1) {
            Some(known) => known,
            None => {
                let what = format!("get ConfigMap {OPERATOR_NAMESPACE}/{name}");
                let live = match call_opt(what.clone(), api(client).get(name)).await? {
                    Some(live) => live,
                    // A missing list needs no removal.
                    None if change(&ConfigMap::default()).is_none() => return Ok(None),
                    None => {
                        ensure(client).await?;
                        call(what, api(client).get(name)).await?
                    }
                };
                let Some(data) = change(&live) else { return Ok(None) };
                (live.metadata.resource_version, data)
            }
        };
        // Managed fields are dropped, since the API server processes the whole object at each write that a list decides about.
        let metadata = json!({"resourceVersion": version, "managedFields": [{}]});
        let patch = Patch::Merge(json!({"metadata": metadata, "data": data}));
        match call_opt(what.clone(), api(client).patch(name, &manager(), &patch)).await {
            Ok(Some(written)) => return Ok(Some(written)),
            Err(error) if !error.is_conflict() || attempt >= ATTEMPTS => return Err(error),
            // Another writer changed or deleted the list.
            Ok(None) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE * 20);
    }
    Ok(None)
}
