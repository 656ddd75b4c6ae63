//! Watches which API servers there are, so that a new one is probed at once. While anything is isolated, a server that did not answer is
//! retried at an interval.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use kube::Client;
use kube::runtime::reflector::{reflector, store};
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use tokio::time::MissedTickBehavior;

use super::network::Network;
use crate::calls::call_within;
use crate::isolation::api_servers;
use crate::isolation::probe::Servers;

/// Interval at which an API server that did not answer is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);
/// Pause before a failed watch is restarted.
const WATCH_RETRY: Duration = Duration::from_secs(5);

/// Keeps the list of API servers current. Never returns.
pub async fn keep(client: Client, servers: Servers, network: Network) {
    futures::join!(watch_api_servers(&client, &servers), retry_unanswering(&servers, &network));
}

async fn watch_api_servers(client: &Client, servers: &Servers) {
    loop {
        let why = watch(client, servers).await;
        tracing::warn!(why, "EndpointSlices of default/kubernetes cannot be watched; will retry");
        servers.unreadable(
            format!("the EndpointSlices of default/kubernetes cannot be read: {why}"),
            Instant::now(),
        );
        tokio::time::sleep(WATCH_RETRY).await;
    }
}

/// Watches the EndpointSlices. Returns why the watch failed. A restarted watch begins with a list, which a resumed one would not.
async fn watch(client: &Client, servers: &Servers) -> String {
    let (reader, writer) = store();
    let only = watcher::Config::default().labels(api_servers::LABEL);
    let slices = watcher(api_servers::slices(client), only);
    let mut events = pin!(reflector(writer, slices));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                let slices = reader.state();
                let found = api_servers::addresses(slices.iter().map(AsRef::as_ref));
                tracing::debug!(?found, "API servers");
                servers.list(&found);
            }
            Err(error) => return error.to_string(),
        }
    }
    "the watch ended".to_owned()
}

async fn retry_unanswering(servers: &Servers, network: &Network) {
    let mut ticks = tokio::time::interval(RETRY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !network.is_needed() {
            continue;
        }
        join_all(servers.unanswering().into_iter().map(|server| async move {
            let what = format!("ask the API server at {} for its version", server.name);
            let answer = call_within(server.deadline, what, server.client.apiserver_version()).await;
            // Any answer shows that there is a server to probe.
            let answers = answer.as_ref().err().is_none_or(|error| error.unanswered().is_none());
            if let Some(address) = server.listed.filter(|_| answers) {
                servers.mark_answering(address);
            }
        }))
        .await;
    }
}
