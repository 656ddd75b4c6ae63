//! What wakes a Quarantine: itself, its namespace, its claimant, what is in its namespace, the policies.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store, reflector, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::watch;

use super::{Context, Guarded};
use crate::api::{Isolation, OPERATOR_NAMESPACE, ServiceRecovery};
use crate::cluster_cache::{ClusterCache, Kind};
use crate::isolation::other_policies::RECHECK;
use crate::isolation::{egress_exceptions, list};

/// What is queued; a watch's own errors are retried within it.
pub(super) type Wake = Result<ObjectRef<Guarded>, watcher::Error>;

/// The store of Quarantines, and everything that wakes one of them.
pub(super) fn wakes(
    client: &Client,
    cache: &ClusterCache,
    context: &Arc<Context>,
) -> (Store<Guarded>, BoxStream<'static, Wake>) {
    let (reader, writer) = store();
    let quarantines: Api<Guarded> = Api::all(client.clone());
    let mut seen = HashMap::new();
    let own = reflector(writer, watcher(quarantines, watcher::Config::default()))
        .default_backoff()
        .touched_objects()
        .filter_map(move |object| {
            // A status that we wrote ourselves is no news.
            let wake = object
                .ok()
                .filter(|object| seen.insert(object.name_any(), news(object)) != Some(news(object)));
            async move { wake.map(|object| ObjectRef::from_obj(&object)) }
        });
    let all = |context: &Arc<Context>, wanted: fn(Option<Isolation>) -> bool| {
        let (context, reader) = (context.clone(), reader.clone());
        move |namespace: String| {
            let wake = ObjectRef::<Guarded>::new(&namespace);
            (wanted(context.level(&namespace)) && reader.get(&wake).is_some()).then_some(wake)
        }
    };
    // Before its first pass a Quarantine has no level: that pass reads everything anyway.
    let isolated = all(context, |level| level.is_some_and(|level| level != Isolation::Open));
    let sealed = all(context, |level| level == Some(Isolation::Sealed));
    let any = all(context, |_| true);

    let claimants = {
        let reader = reader.clone();
        let api: Api<DeserializeGuard<ServiceRecovery>> = Api::all(client.clone());
        let mut seen = HashMap::new();
        watcher(api, watcher::Config::default())
            .default_backoff()
            .touched_objects()
            .filter_map(move |object| {
                // What a service's status says is nothing to us.
                let wake = object.ok().filter(|object| {
                    let meta = object.meta();
                    let news = (meta.uid.clone(), meta.generation, meta.deletion_timestamp.clone());
                    let unread = object.0.is_err();
                    seen.insert((object.namespace(), object.name_any()), news.clone()) != Some(news) || unread
                });
                std::future::ready(wake)
            })
            .flat_map(move |object| stream::iter(claimed(&reader, &object)))
    };
    let policies = {
        let reader = reader.clone();
        changes(context.options.fence.subscribe()).flat_map(move |()| {
            stream::iter(reader.state().iter().map(|q| ObjectRef::from_obj(q.as_ref())).collect::<Vec<_>>())
        })
    };
    let holes = {
        let (context, reader) = (context.clone(), reader.clone());
        hole_changes(client).flat_map(move |()| {
            let is_room = |q: &Arc<Guarded>| context.level(&q.name_any()) == Some(Isolation::CleanRoom);
            let rooms = reader.state().into_iter().filter(is_room);
            stream::iter(rooms.map(|q| ObjectRef::from_obj(q.as_ref())).collect::<Vec<_>>())
        })
    };
    // A verdict on the cluster's network is one on every isolated namespace, and all are tried on an API server that is new.
    let verdicts = changes(context.options.network.subscribe());
    let servers = changes(context.servers.subscribe());
    let cluster = {
        let (reader, context) = (reader.clone(), context.clone());
        stream::select(verdicts, servers).flat_map(move |()| {
            let wanted =
                |q: &ObjectRef<Guarded>| context.level(&q.name).is_some_and(|level| level != Isolation::Open);
            let all = reader.state();
            stream::iter(
                all.iter().map(|q| ObjectRef::from_obj(q.as_ref())).filter(wanted).collect::<Vec<_>>(),
            )
        })
    };
    let others = {
        let (reader, context) = (reader.clone(), context.clone());
        other_policies(client, &context, &reader).flat_map(move |()| {
            let is_isolated =
                |q: &Arc<Guarded>| context.level(&q.name_any()).is_some_and(|level| level != Isolation::Open);
            let isolated = reader.state().into_iter().filter(is_isolated);
            stream::iter(isolated.map(|q| ObjectRef::from_obj(q.as_ref())).collect::<Vec<_>>())
        })
    };
    let everything = vec![
        own.boxed(),
        others.boxed(),
        claimants.boxed(),
        policies.boxed(),
        holes.boxed(),
        cluster.boxed(),
        namespaces(client).filter_map(ready(any.clone())).boxed(),
        guarded(client, context).filter_map(ready(any)).boxed(),
        network_policies(client).filter_map(ready(isolated.clone())).boxed(),
        within(cache, isolated, sealed),
    ];
    (reader, stream::select_all(everything).map(Ok).boxed())
}

fn ready<T, O>(mut f: impl FnMut(T) -> Option<O>) -> impl FnMut(T) -> std::future::Ready<Option<O>> {
    move |item| std::future::ready(f(item))
}

/// What of a Quarantine is not written by this controller.
fn news(object: &Guarded) -> String {
    let meta = object.meta();
    let claim = object.0.as_ref().ok().and_then(|q| q.status.as_ref()).and_then(|s| s.claimed_by.as_ref());
    let unread = object.0.is_err().then(|| meta.resource_version.clone());
    format!("{:?}", (&meta.uid, meta.generation, &meta.deletion_timestamp, &meta.finalizers, claim, unread))
}

/// The Quarantines that a ServiceRecovery is about: those it names, and those whose claim names it.
fn claimed(reader: &Store<Guarded>, object: &DeserializeGuard<ServiceRecovery>) -> Vec<ObjectRef<Guarded>> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    if let Ok(recovery) = &object.0 {
        let named = recovery.spec.namespaces.iter().map(|n| ObjectRef::<Guarded>::new(&n.0));
        return named.filter(|quarantine| reader.get(quarantine).is_some()).collect();
    }
    let is_claimed = |quarantine: &Guarded| {
        let claim =
            quarantine.0.as_ref().ok().and_then(|q| q.status.as_ref()).and_then(|s| s.claimed_by.as_ref());
        claim.is_some_and(|c| c.plan_namespace == namespace && c.service_recovery() == name)
    };
    reader.state().iter().filter(|q| is_claimed(q)).map(|q| ObjectRef::from_obj(q.as_ref())).collect()
}

/// The cluster's DNS moved: what clean rooms may talk to of it follows. The API servers wake whatever is isolated.
fn hole_changes(client: &Client) -> impl Stream<Item = ()> + Send + use<> {
    let dns = Api::<PartialObjectMeta<Service>>::namespaced(client.clone(), egress_exceptions::DNS_NAMESPACE);
    let (key, value) = egress_exceptions::DNS_LABEL;
    watcher(dns, watcher::Config::default().labels(&format!("{key}={value}")))
        .default_backoff()
        .touched_objects()
        .filter_map(|object| async move { object.ok().map(drop) })
}

/// When network policies of other APIs have come, gone or changed, as far as anything is isolated: one list of each kind that is served
/// for the whole cluster, and no more.
fn other_policies(
    client: &Client,
    context: &Arc<Context>,
    reader: &Store<Guarded>,
) -> BoxStream<'static, ()> {
    let (client, context, reader) = (client.clone(), context.clone(), reader.clone());
    let looks = stream::unfold(None, move |before: Option<u64>| {
        let (client, context, reader) = (client.clone(), context.clone(), reader.clone());
        async move {
            tokio::time::sleep(RECHECK).await;
            let is_isolated =
                |q: &Arc<Guarded>| context.level(&q.name_any()).is_some_and(|level| level != Isolation::Open);
            if !reader.state().iter().any(is_isolated) {
                // A first pass looks by itself.
                return Some((false, None));
            }
            let now = context.other_policies.fingerprint(&client).await;
            // What was there before the first of these looks is told once too often rather than not at all.
            Some((before != Some(now), Some(now)))
        }
    });
    looks.filter_map(|has_changed| std::future::ready(has_changed.then_some(()))).boxed()
}

/// Each change of something that is shared.
fn changes<T: Send + Sync + 'static>(shared: watch::Receiver<T>) -> BoxStream<'static, ()> {
    stream::unfold(shared, |mut shared| async move { shared.changed().await.ok().map(|()| ((), shared)) })
        .boxed()
}

fn namespaces(client: &Client) -> impl Stream<Item = String> + Send + use<> {
    watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .filter_map(|object| async move { object.ok().map(|object| object.name_any()) })
}

/// Namespaces of which an isolation list says something else than before.
fn guarded(client: &Client, context: &Arc<Context>) -> impl Stream<Item = String> + Send + use<> {
    let context = context.clone();
    let only = watcher::Config::default().labels(&format!("{}=true", list::LABEL));
    let mut before: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    watcher(Api::<ConfigMap>::namespaced(client.clone(), OPERATOR_NAMESPACE), only)
        .default_backoff()
        .flat_map(move |event| {
            // Before anybody is woken, who would read what was there before.
            context.lists.changed();
            let (name, now) = match event {
                Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map)) => {
                    (map.name_any(), list::levels(&map))
                }
                // Lost, it says nothing of any more.
                Ok(watcher::Event::Delete(map)) => (map.name_any(), BTreeMap::new()),
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {
                    return stream::iter(Vec::new());
                }
            };
            let known = before.insert(name, now.clone()).unwrap_or_default();
            let differs = |key: &&String| known.get(*key) != now.get(*key);
            let changed: Vec<String> = known.keys().chain(now.keys()).filter(differs).cloned().collect();
            stream::iter(changed)
        })
}

/// Namespaces in which network policies changed, came or went.
fn network_policies(client: &Client) -> impl Stream<Item = String> + Send + use<> {
    watcher(Api::<PartialObjectMeta<NetworkPolicy>>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .filter_map(|object| async move { object.ok().and_then(|object| object.namespace()) })
}

/// Namespaces in which something that was to be stopped, or an account, changed, came or went, where they are sealed; and a pod on the
/// network of its node, where they are isolated.
fn within(
    cache: &ClusterCache,
    isolated: impl Fn(String) -> Option<ObjectRef<Guarded>> + Send + 'static,
    sealed: impl Fn(String) -> Option<ObjectRef<Guarded>> + Send + 'static,
) -> BoxStream<'static, ObjectRef<Guarded>> {
    let changes = stream::unfold(cache.subscribe(), |mut changes| async move {
        changes.recv().await.map(|change| (change, changes))
    });
    changes
        .filter_map(move |change| {
            let concerned = match change.kind {
                Kind::Pod if change.on_node_network => isolated(change.namespace),
                // What is in a ConfigMap isolates nothing.
                Kind::ConfigMap => None,
                Kind::Pod
                | Kind::Deployment
                | Kind::StatefulSet
                | Kind::DaemonSet
                | Kind::ReplicaSet
                | Kind::ReplicationController
                | Kind::Job
                | Kind::CronJob
                | Kind::ServiceAccount => sealed(change.namespace),
            };
            std::future::ready(concerned)
        })
        .boxed()
}
