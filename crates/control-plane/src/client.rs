//! API clients with a limit on every wait.

use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long sending a request may take.
const WRITE: Duration = Duration::from_secs(30);
/// How long a response may be silent. A watch is not: the server sends a bookmark every minute or so.
const READ: Duration = Duration::from_secs(120);

/// A client with the credentials of `kubeconfig`, for the runtime that this is called on.
pub(crate) async fn client(kubeconfig: Kubeconfig) -> anyhow::Result<Client> {
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    config.read_timeout = Some(READ);
    config.reset_reader_on_write = true;
    // A refusal is an answer here, to be seen at once; whoever wants to try again does.
    config.default_retry = false;
    Client::try_from(config).context("cannot make an API client")
}
