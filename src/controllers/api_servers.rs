//! Which API servers there are: watched, so that a new one is tried at once. One that did not answer is asked again at an
//! interval, while anything is isolated.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use kube::Client;
use kube::runtime::reflector::{reflector, store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::MissedTickBehavior;

use super::network::Network;
use crate::calls::call_within;
use crate::isolation::api_servers;
use crate::isolation::probe::Servers;

/// How often one that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(15);

/// Keeps what is known of them, for ever.
pub async fn keep(client: Client, servers: Servers, network: Network) {
    futures::join!(follow(&client, &servers), ask_again(&servers, &network));
}

async fn follow(client: &Client, servers: &Servers) {
    let (reader, writer) = store();
    let only = watcher::Config::default().labels(api_servers::LABEL);
    let slices = watcher(api_servers::slices(client), only);
    let mut events = reflector(writer, slices).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                let slices = reader.state();
                let found = api_servers::addresses(slices.iter().map(AsRef::as_ref));
                tracing::debug!(?found, "API servers");
                servers.list(&found);
            }
            Err(error) => {
                tracing::warn!(%error, "the EndpointSlices of default/kubernetes cannot be watched");
                servers
                    .unreadable(format!("the EndpointSlices of default/kubernetes cannot be read: {error}"));
            }
        }
    }
}

async fn ask_again(servers: &Servers, network: &Network) {
    let mut ticks = tokio::time::interval(AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !network.is_needed() {
            continue;
        }
        join_all(servers.all_away().into_iter().map(|server| async move {
            let what = format!("ask the API server at {} for its version", server.name);
            let answer = call_within(server.deadline, what, server.client.apiserver_version()).await;
            // Whatever it says, there is somebody to be tried.
            let answers = answer.as_ref().err().is_none_or(|error| error.unanswered().is_none());
            if let Some(address) = server.listed.filter(|_| answers) {
                servers.back(address);
            }
        }))
        .await;
    }
}
