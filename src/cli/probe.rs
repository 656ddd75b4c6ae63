//! `resurgam probe`: runs in the pods with which the operator probes the cluster's network.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use anyhow::{Context, Result};
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::api::Duration;
use crate::api::conditions::shorten;
use crate::isolation::probe::network::{ConnectorReport, TargetResult};

/// Deadline of a connection: longer than the retransmission of a lost first packet.
const CONNECTION: StdDuration = StdDuration::from_secs(3);
/// Pause between two attempts.
const PAUSE: StdDuration = StdDuration::from_millis(250);
/// Maximum length of the word.
const WORD: u64 = 64;

/// Arguments of `resurgam probe`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Send a word to each client that connects, until stopped.
    Listen(Listen),
    /// Try to reach listeners, report the results, and exit.
    Connect(Connect),
}

#[derive(Debug, clap::Args)]
struct Listen {
    /// The port to listen on, on all addresses.
    #[arg(long)]
    port: u16,
    /// What to say.
    #[arg(long, value_name = "WORD")]
    say: String,
}

#[derive(Debug, clap::Args)]
struct Connect {
    /// The word that a listener sends. Any other answer is no connection: a proxy may accept every client.
    #[arg(long, value_name = "WORD")]
    hear: String,
    /// A listener to reach: tried until it is reached (repeatable).
    #[arg(long, value_name = "NAME=IP:PORT")]
    open: Vec<Target>,
    /// A listener that must not be reached: tried until it is not (repeatable).
    #[arg(long, value_name = "NAME=IP:PORT")]
    denied: Vec<Target>,
    /// How long to go on trying.
    #[arg(long, default_value = "20s")]
    patience: Duration,
    /// Where the report is written: the kubelet puts it into the pod's status.
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    report: PathBuf,
}

#[derive(Clone, Debug)]
struct Target {
    name: String,
    address: SocketAddr,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("'{text}' is not NAME=IP:PORT");
        let (name, address) = text.split_once('=').ok_or_else(wrong)?;
        Ok(Self { name: name.to_owned(), address: address.parse().map_err(|_| wrong())? })
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.role {
            Role::Listen(args) => {
                let listener = listener(args.port).await?;
                // The first process of a container has no default signal handlers.
                let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
                tokio::select! {
                    result = listen(listener, &args.say) => result?,
                    _ = ended.recv() => {}
                }
            }
            Role::Connect(args) => {
                let report = serde_json::to_vec(&connect(args).await)?;
                let write = std::fs::write(&args.report, report);
                write.with_context(|| format!("write the report to {}", args.report.display()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Listens on all addresses, of both families if available.
async fn listener(port: u16) -> Result<TcpListener> {
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await;
    match both {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("listen on port {port}")),
    }
}

async fn listen(listener: TcpListener, word: &str) -> Result<()> {
    loop {
        // An error of one connection must not end the listener.
        if let Ok((mut stream, _)) = listener.accept().await {
            let _ = timeout(CONNECTION, stream.write_all(word.as_bytes())).await;
        }
    }
}

async fn connect(args: &Connect) -> ConnectorReport {
    let until = Instant::now() + args.patience.0;
    let open = args.open.iter().map(|target| (target, true));
    let denied = args.denied.iter().map(|target| (target, false));
    let tried = open.chain(denied).map(|(target, wanted)| async move {
        (target.name.clone(), retry_until(target.address, &args.hear, wanted, until).await)
    });
    ConnectorReport { targets: join_all(tried).await.into_iter().collect::<BTreeMap<_, _>>() }
}

/// Retries until the result is as wanted or the time is up. Returns the last result.
async fn retry_until(address: SocketAddr, word: &str, wanted: bool, until: Instant) -> TargetResult {
    loop {
        let reached = match connect_once(address, word).await {
            Ok(()) => TargetResult { connected: true, detail: String::new() },
            Err(detail) => TargetResult { connected: false, detail: shorten(&detail, 200) },
        };
        if reached.connected == wanted || Instant::now() + PAUSE >= until {
            return reached;
        }
        sleep_until(Instant::now() + PAUSE).await;
    }
}

/// Connects and reads the word.
async fn connect_once(address: SocketAddr, word: &str) -> Result<(), String> {
    let until = Instant::now() + CONNECTION;
    let late = |_| format!("{address} did not answer within {} s", CONNECTION.as_secs());
    let stream = timeout_at(until, TcpStream::connect(address)).await.map_err(late)?;
    let stream = stream.map_err(|error| format!("{address}: {error}"))?;
    let mut received = Vec::new();
    let read = timeout_at(until, stream.take(WORD).read_to_end(&mut received)).await.map_err(late)?;
    read.map_err(|error| format!("{address}: {error}"))?;
    if received == word.as_bytes() { Ok(()) } else { Err(format!("{address} is not the expected listener")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn listening(word: &'static str) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { listen(listener, word).await });
        address
    }

    fn args(open: &[(&str, SocketAddr)], denied: &[(&str, SocketAddr)]) -> Connect {
        let targets = |all: &[(&str, SocketAddr)]| {
            all.iter().map(|(name, address)| format!("{name}={address}").parse().unwrap()).collect()
        };
        Connect {
            hear: "word".into(),
            open: targets(open),
            denied: targets(denied),
            patience: "300ms".parse().unwrap(),
            report: PathBuf::new(),
        }
    }

    #[tokio::test]
    async fn only_the_expected_word_counts_as_connected() {
        let (right, wrong) = (listening("word").await, listening("another").await);
        let nobody = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            listener.local_addr().unwrap()
        };
        let report = connect(&args(&[("right", right), ("wrong", wrong)], &[("nobody", nobody)])).await;
        assert!(report.targets["right"].connected);
        assert_eq!(report.targets["wrong"].detail, format!("{wrong} is not the expected listener"));
        assert!(!report.targets["wrong"].connected && !report.targets["nobody"].connected);
    }

    #[tokio::test]
    async fn late_listener_is_awaited_and_lasting_one_is_reported() {
        let address = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            listener.local_addr().unwrap()
        };
        tokio::spawn(async move {
            sleep_until(Instant::now() + PAUSE).await;
            listen(TcpListener::bind(address).await.unwrap(), "word").await
        });
        let mut patient = args(&[("late", address)], &[]);
        patient.patience = "20s".parse().unwrap();
        assert!(connect(&patient).await.targets["late"].connected);
        assert!(connect(&args(&[], &[("stays", address)])).await.targets["stays"].connected);
    }
}
