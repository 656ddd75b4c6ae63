//! What is watched of each kind, and what is cached of an object.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ReplicationController, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};

use super::follow::Source;
use super::kind::{Difference, Entry, KindCache};
use super::store::{Guarded, StoreCache};
use super::{Kind, Reduce, Version};
use crate::api::{OPERATOR_NAMESPACE, Quarantine, ServiceRecovery};
use crate::isolation::list;

/// Implements a kind that is cached by namespace. `keep` converts an object from the API server into what is cached.
macro_rules! kept {
    ($($source:ident: $arrived:ty => $kept:ty, $plural:literal, $keep:expr;)+) => {$(
        impl Source for $source {
            type Arrived = $arrived;
            type Cache = KindCache<$kept>;
            const KIND: Kind = Kind::$source;

            fn cache() -> Self::Cache {
                KindCache::new($plural)
            }

            fn put(cache: &Self::Cache, namespace: &str, name: &str, arrived: $arrived) -> (Difference, bool) {
                let keep: fn($arrived) -> Entry<$kept> = $keep;
                (cache.put(namespace, name, keep(arrived)), false)
            }

            fn remove(cache: &Self::Cache, namespace: &str, name: &str) -> bool {
                cache.remove(namespace, name);
                false
            }
        }
    )+};
}

kept! {
    Deployment: Guarded<Self> => Self, "deployments", reduced;
    StatefulSet: Guarded<Self> => Self, "statefulsets", reduced;
    DaemonSet: Guarded<Self> => Self, "daemonsets", reduced;
    ReplicaSet: Guarded<Self> => Self, "replicasets", reduced;
    ReplicationController: Guarded<Self> => Self, "replicationcontrollers", reduced;
    Job: Guarded<Self> => Self, "jobs", reduced;
    CronJob: Guarded<Self> => Self, "cronjobs", reduced;
    NetworkPolicy: Guarded<Self> => Self, "networkpolicies", reduced;
    ConfigMap: PartialObjectMeta<Self> => Version, "configmaps", |o| Ok(Version(o.metadata.resource_version));
    ServiceAccount: PartialObjectMeta<Self> => Self, "serviceaccounts",
        |o| Ok(ServiceAccount { metadata: o.metadata, ..Self::default() }.reduced());
    Namespace: PartialObjectMeta<Self> => Self, "namespaces",
        |o| Ok(Namespace { metadata: o.metadata, ..Self::default() }.reduced());
}

fn reduced<K>(arrived: Guarded<K>) -> Entry<K>
where
    K: Reduce + kube::Resource<DynamicType = ()>,
{
    arrived.0.map(Reduce::reduced).map_err(|error| {
        let namespace = error.metadata.namespace.unwrap_or_default();
        let name = error.metadata.name.unwrap_or_default();
        format!("{} {namespace}/{name} cannot be read: {}", K::kind(&()), error.error)
    })
}

impl Source for Pod {
    type Arrived = DeserializeGuard<Self>;
    type Cache = KindCache<Self>;
    const KIND: Kind = Kind::Pod;

    fn cache() -> Self::Cache {
        KindCache::new("pods")
    }

    fn put(cache: &Self::Cache, namespace: &str, name: &str, arrived: Self::Arrived) -> (Difference, bool) {
        let entry = reduced(arrived);
        let on_node_network = is_on_node_network(&entry);
        (cache.put(namespace, name, entry), on_node_network)
    }

    fn remove(cache: &Self::Cache, namespace: &str, name: &str) -> bool {
        cache.remove(namespace, name).is_some_and(|entry| is_on_node_network(&entry))
    }
}

/// `false` for a pod that cannot be deserialized.
fn is_on_node_network(entry: &Entry<Pod>) -> bool {
    let uses = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    entry.as_ref().map_or(true, uses)
}

/// The isolation lists, kept whole: passes use them, and write over this resourceVersion.
pub(super) struct IsolationList;

impl Source for IsolationList {
    type Arrived = ConfigMap;
    type Cache = KindCache<ConfigMap>;
    const KIND: Kind = Kind::IsolationList;

    fn cache() -> Self::Cache {
        KindCache::new("configmaps")
    }

    fn watched(client: &Client) -> (Api<ConfigMap>, Option<String>) {
        let all = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
        (all, Some(format!("{}=true", list::LABEL)))
    }

    fn put(cache: &Self::Cache, namespace: &str, name: &str, mut arrived: ConfigMap) -> (Difference, bool) {
        arrived.metadata.managed_fields = None;
        (cache.put(namespace, name, Ok(arrived)), false)
    }

    fn remove(cache: &Self::Cache, namespace: &str, name: &str) -> bool {
        cache.remove(namespace, name);
        false
    }
}

/// Implements a kind of our own, which is kept whole.
macro_rules! whole {
    ($($source:ident $plural:literal)+) => {$(
        impl Source for $source {
            type Arrived = Guarded<Self>;
            type Cache = StoreCache<Self>;
            const KIND: Kind = Kind::$source;

            fn cache() -> Self::Cache {
                StoreCache::new($plural)
            }

            fn put(cache: &Self::Cache, _: &str, _: &str, arrived: Self::Arrived) -> (Difference, bool) {
                (cache.put(arrived), false)
            }

            fn remove(cache: &Self::Cache, namespace: &str, name: &str) -> bool {
                let key = ObjectRef::new(name);
                cache.remove(&if namespace.is_empty() { key } else { key.within(namespace) });
                false
            }
        }
    )+};
}

whole!(Quarantine "quarantines" ServiceRecovery "servicerecoveries");
