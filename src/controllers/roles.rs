//! Tells the guards which ClusterRoles hold our verbs: whoever is bound to one gets rights over what is quarantined, which a
//! policy that sees only the binding cannot know.

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};

use crate::api::OPERATOR_NAMESPACE;
use crate::isolation::list;

/// Pause before a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the guards told, for ever.
pub async fn keep(client: Client) {
    let (store, writer) = reflector::store();
    let roles =
        reflector(writer, watcher(Api::<ClusterRole>::all(client.clone()), watcher::Config::default()))
            .default_backoff()
            .filter_map(async |event| match event {
                // Of a first list, one wake: its objects are in the store once it is done.
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => {
                    Some(())
                }
                _ => None,
            });
    // Whoever took the ConfigMap away took the roles with it.
    let only = watcher::Config::default().labels(&format!("{}=true", list::LABEL));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let maps = watcher(maps, only).default_backoff().touched_objects().filter_map(async |map| {
        map.ok()
            .filter(|map| map.data.as_ref().is_none_or(|data| !data.contains_key(list::ROLES_KEY)))
            .map(drop)
    });
    let wakes = stream::select(roles.boxed(), maps.boxed()).ready_chunks(256);
    let mut wakes = std::pin::pin!(wakes);
    while wakes.next().await.is_some() {
        // Not waited for: the list is only read on while wakes are taken, and its end is one.
        if !matches!(store.wait_until_ready().now_or_never(), Some(Ok(()))) {
            continue;
        }
        loop {
            let holders = list::holders(store.state().iter().map(AsRef::as_ref));
            match list::set_holders(&client, &holders).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(%error, "the guards are not told which roles hold our verbs");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
