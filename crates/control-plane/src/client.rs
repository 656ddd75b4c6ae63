//! API clients with time limits.

use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Time limit of connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// Time limit of sending a request.
const WRITE: Duration = Duration::from_secs(30);
/// Time limit between two parts of a response. A watch stays below it: the server sends a bookmark every minute or so.
const READ: Duration = Duration::from_secs(120);

/// Returns a client with the credentials in `kubeconfig`, for the current runtime.
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
