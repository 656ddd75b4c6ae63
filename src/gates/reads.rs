//! Reads of gates: live as the plan's account, or in the shared cache if the account may list there.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::Status;
use resurgam_core::gates::inventory::Inventory;

use super::Answer;
use super::inventory::{self, unreadable};
use super::permission::Permissions;
use crate::cluster_cache::{ClusterCache, STALE_AFTER};

/// How long a live inventory waits for other gates to share it.
const GATHERED: Duration = Duration::from_millis(2);
/// How long a read proves that the account may read.
pub(super) const AUTHORIZED_FOR: Duration = Duration::from_secs(55);
/// How long an evaluation waits for the first lists of the cache.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// The account that a gate is evaluated as.
#[derive(Clone)]
pub struct Account {
    /// User name of the account.
    pub user: String,
    /// A client that impersonates the account.
    pub client: Client,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Account").field(&self.user).finish()
    }
}

/// Reads that concurrent evaluations share.
#[derive(Default)]
pub(super) struct SharedReads {
    inventories: Arc<Mutex<HashMap<Asked, Gathering>>>,
    permissions: Permissions,
    /// By user, namespace and name.
    config_maps: Mutex<HashMap<[String; 3], Arc<ReadConfigMap>>>,
    /// By user and name.
    nodes: Mutex<HashMap<[String; 2], Arc<ReadNode>>>,
}

/// User and namespaces.
type Asked = (String, Vec<String>);
type Gathering = Shared<BoxFuture<'static, Result<Arc<Inventory>, Answer>>>;

/// Locked during a read, so that concurrent evaluations share it.
type ReadConfigMap = tokio::sync::Mutex<Option<KeptConfigMap>>;

/// A Node, and when an account read it. Locked during a read, so that concurrent evaluations share it.
type ReadNode = tokio::sync::Mutex<Option<(Instant, Arc<Node>)>>;

/// A ConfigMap as an account read it.
struct KeptConfigMap {
    read_at: Instant,
    version: Option<String>,
    object: Option<Arc<ConfigMap>>,
}

/// Where one gate reads.
#[derive(Clone, Copy)]
pub(super) struct Reads<'a> {
    pub(super) shared: &'a SharedReads,
    pub(super) account: &'a Account,
    /// `None`: live reads.
    pub(super) cache: Option<&'a ClusterCache>,
}

impl Reads<'_> {
    /// Returns the workloads of some namespaces. If one cannot be read, returns an Unknown.
    pub(super) async fn inventory(&self, namespaces: &[String]) -> Result<Arc<Inventory>, Answer> {
        let Some(cache) = self.cache else {
            return self.shared.gather(self.account, namespaces).await;
        };
        for namespace in namespaces {
            self.shared.permissions.may_list(self.account, namespace).await?;
        }
        // A kind that is not ready in time is named by the answer.
        let _ = tokio::time::timeout(READY_WITHIN, cache.ready()).await;
        inventory::from_cache(cache, namespaces).map(Arc::new)
    }

    /// Returns a ConfigMap, read as the account. With a cache, a read is valid until the object changes, for up to [`AUTHORIZED_FOR`].
    pub(super) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, Answer> {
        let Some(cache) = self.cache else { return self.get_config_map(namespace, name).await };
        let kind = &cache.kinds().config_maps;
        let _ = tokio::time::timeout(READY_WITHIN, kind.confirmation().ready()).await;
        kind.is_fresh(STALE_AFTER).map_err(|stale| inventory::stale(&stale))?;
        let kept = self.shared.kept_config_map([self.account.user.clone(), namespace.into(), name.into()]);
        let mut kept = kept.lock().await;
        let watched = kind.get(namespace, name);
        let watched = watched.and_then(|entry| entry.as_ref().as_ref().ok().and_then(|v| v.0.clone()));
        if let Some(kept) = kept.as_ref()
            && kept.version == watched
            && kept.read_at.elapsed() < AUTHORIZED_FOR
        {
            return Ok(kept.object.clone());
        }
        *kept = None;
        let read_at = Instant::now();
        let object = self.get_config_map(namespace, name).await?;
        let version = object.as_ref().and_then(|object| object.metadata.resource_version.clone());
        *kept = Some(KeptConfigMap { read_at, version, object: object.clone() });
        Ok(object)
    }

    /// Returns a Node, read as the account. With a cache, a read is valid for [`AUTHORIZED_FOR`]: digests are of one image or not, whenever
    /// a node says so. Refusals are not cached, so that a grant takes effect at once.
    pub(super) async fn node(&self, name: &str) -> Result<Arc<Node>, Answer> {
        let kept = self.shared.kept_node([self.account.user.clone(), name.to_owned()]);
        let mut kept = kept.lock().await;
        if let Some((read_at, node)) = kept.as_ref()
            && self.cache.is_some()
            && read_at.elapsed() < AUTHORIZED_FOR
        {
            return Ok(node.clone());
        }
        *kept = None;
        let read_at = Instant::now();
        let api = Api::<Node>::all(self.account.client.clone());
        let what = || format!("cannot read Node {name}");
        let node = Arc::new(api.get(name).await.map_err(|error| unreadable(&what(), &error))?);
        *kept = Some((read_at, node.clone()));
        Ok(node)
    }

    /// Returns a Secret, read live as the account: none is cached.
    pub(super) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Answer> {
        let api = Api::<Secret>::namespaced(self.account.client.clone(), namespace);
        let what = || format!("cannot read Secret {namespace}/{name}");
        api.get_opt(name).await.map_err(|error| unreadable(&what(), &error))
    }

    /// Returns an object of any kind, read live as the account. `namespace`: `None` for an object of the cluster. That the API server does
    /// not serve the kind is an error with code 404.
    pub(super) async fn object(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        name: &str,
    ) -> kube::Result<Option<DynamicObject>> {
        let client = self.account.client.clone();
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, kind),
            None => Api::all_with(client, kind),
        };
        match api.get(name).await {
            Ok(object) => Ok(Some(object)),
            // A version that is not served is NotFound, too, without the object's name.
            Err(kube::Error::Api(status)) if status.is_not_found() && names(&status, name) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get_config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, Answer> {
        let api = Api::<ConfigMap>::namespaced(self.account.client.clone(), namespace);
        let what = || format!("cannot read ConfigMap {namespace}/{name}");
        let found = api.get_opt(name).await.map_err(|error| unreadable(&what(), &error))?;
        Ok(found.map(Arc::new))
    }
}

/// Returns whether a status is about the object of this name.
fn names(status: &Status, name: &str) -> bool {
    status.details.as_ref().is_some_and(|details| details.name == name)
}

impl SharedReads {
    /// Reads an inventory live. Concurrent evaluations share it, but none joins a read that has begun, which may be older than its
    /// question.
    fn gather(&self, account: &Account, namespaces: &[String]) -> Gathering {
        let asked: Asked = (account.user.clone(), namespaces.to_vec());
        let mut gathering = self.inventories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gathering) = gathering.get(&asked) {
            return gathering.clone();
        }
        let (all, key, client) = (self.inventories.clone(), asked.clone(), account.client.clone());
        let new = async move {
            tokio::time::sleep(GATHERED).await;
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            inventory::gather(&client, &key.1).await.map(Arc::new)
        };
        let new = new.boxed().shared();
        gathering.insert(asked, new.clone());
        new
    }

    fn kept_config_map(&self, key: [String; 3]) -> Arc<ReadConfigMap> {
        let mut all = self.config_maps.lock().unwrap_or_else(PoisonError::into_inner);
        // Expired entries are removed.
        all.retain(|_, kept| {
            let is_current = |kept: &KeptConfigMap| kept.read_at.elapsed() < AUTHORIZED_FOR;
            Arc::strong_count(kept) > 1
                || kept.try_lock().is_ok_and(|kept| kept.as_ref().is_some_and(is_current))
        });
        all.entry(key).or_default().clone()
    }

    fn kept_node(&self, key: [String; 2]) -> Arc<ReadNode> {
        let mut all = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        // Expired entries are removed.
        all.retain(|_, kept| {
            Arc::strong_count(kept) > 1
                || kept.try_lock().is_ok_and(|kept| {
                    kept.as_ref().is_some_and(|(read_at, _)| read_at.elapsed() < AUTHORIZED_FOR)
                })
        });
        all.entry(key).or_default().clone()
    }
}
