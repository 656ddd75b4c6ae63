//! Which API servers there are: watched, so that a new one is tried at once. One that did not answer is asked again at an
//! interval, while anything is isolated.

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

/// How often one that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(15);
/// After this, a watch that failed is begun anew.
const ANEW: Duration = Duration::from_secs(5);

/// Keeps what is known of them, for ever.
pub async fn keep(client: Client, servers: Servers, network: Network) {
    futures::join!(follow(&client, &servers), ask_again(&servers, &network));
}

async fn follow(client: &Client, servers: &Servers) {
    loop {
        let why = watch(client, servers).await;
        tracing::warn!(why, "the EndpointSlices of default/kubernetes cannot be watched");
        servers.unreadable(
            format!("the EndpointSlices of default/kubernetes cannot be read: {why}"),
            Instant::now(),
        );
        tokio::time::sleep(ANEW).await;
    }
}

/// Until it fails: why. A watch that goes on after that would not say so before something changes, so it is begun anew by a list.
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
