//! Maintains the list of ClusterRoles that contain our verbs for the guards, which see a binding but not its role's rules.

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};

use crate::api::OPERATOR_NAMESPACE;
use crate::isolation::list;

/// Pause before a failed write is retried.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the list current. Never returns.
pub async fn keep(client: Client) {
    let (store, writer) = reflector::store();
    let roles =
        reflector(writer, watcher(Api::<ClusterRole>::all(client.clone()), watcher::Config::default()))
            .default_backoff()
            .filter_map(async |event| match event {
                // An initial list causes one wake-up: its objects are in the store when it ends.
                Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => {
                    Some(())
                }
                _ => None,
            });
    // Without the ConfigMap, the list of roles is lost, too.
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
        // Awaiting the store here would block: the list is only read while wake-ups are taken. Its end is a wake-up.
        if !matches!(store.wait_until_ready().now_or_never(), Some(Ok(()))) {
            continue;
        }
        loop {
            let holders = list::holders(store.state().iter().map(AsRef::as_ref));
            match list::set_holders(&client, &holders).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(%error, "list of roles with our verbs not updated; the guards use the old one; will retry");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
