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

/// So often a list is read anew that somebody wrote in between.
const ATTEMPTS: u32 = 20;
/// How long what was read of the lists stands, though nothing tells of a change: a watch may be broken.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long is waited before that, at first.
const PAUSE: Duration = Duration::from_millis(5);

fn api(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), OPERATOR_NAMESPACE)
}

/// Makes a list that is lost, from the one that is left, and labels one that lacks the label. Returns whether anything was
/// missing.
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
                // Who has no more rights than to isolate copies no roles; the operator writes them anew.
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

/// Each list as it is, `None` for one that is lost.
async fn read(client: &Client) -> Result<Vec<Option<ConfigMap>>, IoError> {
    let one = |name: &'static str| async move {
        let what = format!("get ConfigMap {OPERATOR_NAMESPACE}/{name}");
        call_opt(what, api(client).get(name)).await
    };
    join_all(CONFIG_MAPS.map(one)).await.into_iter().collect()
}

/// Puts namespaces on the lists, by one write of each, unless they are on them: who has no more rights than to isolate changes
/// no level.
///
/// # Errors
/// The API server refused, or did not answer, and some are on no list.
pub async fn add(client: &Client, namespaces: &[String], level: Isolation) -> Result<(), IoError> {
    let writes =
        CONFIG_MAPS.map(|name| write_one(client, name, None, |list| appended(list, namespaces, level)));
    all_written(join_all(writes).await)
}

/// What each list that is there says, or why none could be read.
type Seen = Result<Arc<Vec<BTreeMap<String, String>>>, IoError>;
/// What a list says, and in which version.
type Parsed = (Option<String>, Arc<BTreeMap<String, String>>);

/// Reads and writes the lists for many namespaces: those that wait share a read, and a write.
pub struct Lists {
    client: Client,
    batch: Batch,
    /// Has the lists, as the watch tells.
    cache: Option<ClusterCache>,
    seen: Mutex<Option<(Instant, Seen)>>,
    /// When something was last known to have changed.
    changed_at: std::sync::Mutex<Option<Instant>>,
    /// What this process wrote last: nothing is judged by an older version.
    written: std::sync::Mutex<BTreeMap<String, Arc<Entry<ConfigMap>>>>,
    /// Each list is parsed once for each version.
    parsed: std::sync::Mutex<BTreeMap<String, Parsed>>,
}

impl Lists {
    /// Nothing waits to be written.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            batch: Batch::default(),
            cache: None,
            seen: Mutex::default(),
            changed_at: std::sync::Mutex::default(),
            written: std::sync::Mutex::default(),
            parsed: std::sync::Mutex::default(),
        }
    }

    /// The same, judged by the cluster's cache for as long as that is fresh.
    #[must_use]
    pub fn cached_by(client: Client, cache: ClusterCache) -> Self {
        Self { cache: Some(cache), ..Self::new(client) }
    }

    /// Notes that a list has changed: what was read before counts no more. A watch tells of it, or this process wrote.
    pub fn changed(&self) {
        *self.changed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Does what was read of the lists, from then on, still stand?
    fn is_current(&self, began: Instant) -> bool {
        let changed_at = *self.changed_at.lock().unwrap_or_else(PoisonError::into_inner);
        began.elapsed() < READ_AGAIN_AFTER && changed_at.is_none_or(|at| at < began)
    }

    /// Returns a list as the cache has it, or as this process wrote it, whichever is newer. `None`: the cache is stale, or lacks it.
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

    /// Returns what the lists say of a namespace by the cache, without a request. `None`: the cache is stale, or lacks a list.
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

    /// What the lists say of a namespace. By the cache, where that is fresh; else whoever asks at about the same time shares one read,
    /// which began after they asked, and what was read stands for some seconds, until something changes.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn of(&self, namespace: &str) -> Result<Listed, IoError> {
        if let Some(listed) = self.cached(namespace) {
            return Ok(listed);
        }
        let asked = Instant::now();
        let mut seen = self.seen.lock().await;
        let stands =
            |(began, read): &&(Instant, Seen)| *began >= asked || (read.is_ok() && self.is_current(*began));
        let lists = match seen.as_ref().filter(stands) {
            Some((_, lists)) => lists.clone()?,
            None => {
                let began = Instant::now();
                let read = read(&self.client).await;
                let read = read.map(|maps| Arc::new(maps.iter().flatten().map(levels).collect()));
                seen.insert((began, read)).1.clone()?
            }
        };
        Ok(Listed::new(lists.iter().map(|list| list.get(namespace).map(String::as_str))))
    }

    /// Is the namespace on the lists at this level, and does it bear label and annotations?
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

    /// Puts many namespaces on the lists, each at its level, by one write of each list.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn set_all(&self, levels: &Levels) -> Result<(), IoError> {
        let written = self.batch.alone(|| self.write(levels.clone())).await;
        self.changed();
        written
    }

    /// Puts a namespace on the lists at a level; `Open` takes it off.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn set(&self, namespace: &str, level: Isolation) -> Result<(), IoError> {
        let written = self.batch.write(namespace, level, |levels| self.write(levels)).await;
        self.changed();
        written
    }

    /// Writes these levels into every list, each over what is known of it. One that fails keeps none of the others.
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

    /// Writes the lists, and label and annotations. The lists come first, and a namespace is taken off them last.
    ///
    /// # Errors
    /// The API server's, such as a conflict, or its refusal by the lock.
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

/// Writes which ClusterRoles hold our verbs, where that is not what the lists say.
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

/// Returns the number of an entry's version. Etcd's revisions are numbers, and the API server promises as much.
fn version(entry: &Entry<ConfigMap>) -> Option<u64> {
    entry.as_ref().ok()?.metadata.resource_version.as_deref()?.parse().ok()
}

/// Writes one list. `change`: the data to be merged into what is there, if any is. Whoever writes in between is not overwritten. `known`:
/// as it probably still is; where that has nothing to be changed, it is read. Returns what was written, if anything was.
async fn write_one(
    client: &Client,
    name: &str,
    known: Option<&ConfigMap>,
    change: impl Fn(&ConfigMap) -> Option<Value>,
) -> Result<Option<ConfigMap>, IoError> {
    // Not of whom: each who asked gets the outcome, and is not concerned with the others.
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
                    // What is not there has nothing to be taken off.
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
        // Without managed fields: with each write that a list decides about, anywhere in the cluster, the API server goes through all of it.
        let metadata = json!({"resourceVersion": version, "managedFields": [{}]});
        let patch = Patch::Merge(json!({"metadata": metadata, "data": data}));
        match call_opt(what.clone(), api(client).patch(name, &manager(), &patch)).await {
            Ok(Some(written)) => return Ok(Some(written)),
            Err(error) if !error.is_conflict() || attempt >= ATTEMPTS => return Err(error),
            // Somebody wrote, or took it away.
            Ok(None) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE * 20);
    }
    Ok(None)
}
