//! `resurgam controller`: the operator.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::http::Uri;
use axum::http::uri::Scheme;
use futures::FutureExt;
use kube::{Api, Client, Config};
use resurgam_core::steps::apply::oci::AllowedRepositories;
use tokio::net::TcpListener;

use crate::api::{Duration, OPERATOR_NAMESPACE};
use crate::calls::error_line;
use crate::clock;
use crate::cluster_cache::ClusterCache;
use crate::controllers::network::ProbeOptions;
use crate::controllers::process::Process;
use crate::controllers::{plan, quarantine};
use crate::gates::Asker;
use crate::isolation::evidence::{
    DigestKey, Evidence, LOG_LIMIT, Location, Recipient, STORE_ANNOTATION, Store, keep_proving,
};
use crate::isolation::other_policies::AcceptedPolicy;
use crate::leader::{LEASE, LeaderElector, Published};
use crate::registries::Registries;
use crate::steps::StepServices;
use crate::version;
use health::Health;

mod health;

/// Arguments of `resurgam controller`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Let `http` gates reach addresses in this range although they are loopback, link-local or the like (repeatable).
    /// A plan can never allow that for itself.
    #[arg(long, value_name = "CIDR")]
    http_allow: Vec<ipnet::IpNet>,

    /// Let steps `apply` read OCI artifacts of this repository, or of all whose names begin so, with a / at the end (repeatable). With
    /// http:// the registry is spoken to without TLS. A plan can never allow that for itself.
    #[arg(long, value_name = "REGISTRY/[PREFIX/]")]
    oci_allow: Vec<AllowedRepositories>,

    /// The evidence store: what is captured before anything is stopped goes here. A folder, or s3://bucket/prefix with
    /// credentials, region and endpoint from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on).
    #[arg(long, value_name = "DIR|s3://BUCKET/PREFIX", default_value = "/var/lib/resurgam/evidence")]
    evidence: Location,

    /// Keep containers' logs, encrypted so that the holder of this age recipient's identity can read them (repeatable).
    /// Without one no logs are kept.
    #[arg(long, value_name = "AGE1…")]
    evidence_recipient: Vec<Recipient>,

    /// Keep a keyed digest of each value of a Secret, so that values can be compared later. The file's content, at least
    /// 32 bytes, is the key. Without one Secrets' values are not read.
    #[arg(long, value_name = "FILE")]
    evidence_key: Option<PathBuf>,

    /// Maximum number of bytes kept of one container's log, from its beginning.
    #[arg(long, value_name = "BYTES", default_value_t = LOG_LIMIT, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    evidence_log_limit: u64,

    /// How long VolumeSnapshots of a namespace are waited for, until they are cut. Where they are required, they are then
    /// waited for again.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    evidence_snapshot_wait: Duration,

    /// An image whose entrypoint is `resurgam`, normally the operator's own: pods of it probe whether the cluster's network enforces
    /// NetworkPolicies. Without it, that is unknown.
    #[arg(long, value_name = "IMAGE")]
    probe_image: Option<String>,

    /// How often every control of an isolated namespace is verified again.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    probe_interval: Duration,

    /// Accept a cluster-wide network policy of another API (Cilium, Calico, policy.networking.k8s.io …) as it is (repeatable): its UID
    /// and generation, as the Quarantine's control Network names them. A change of it is not accepted.
    #[arg(long, value_name = "UID/GENERATION")]
    accept_network_policy: Vec<AcceptedPolicy>,

    /// Where an API server is reached that the EndpointSlices of default/kubernetes list at an address of no use here (repeatable).
    /// What isolates is tried on each that they list, and on the one that KUBECONFIG or the Service names.
    #[arg(long, value_name = "ADDRESS:PORT=URL", value_parser = route)]
    api_server_route: Vec<(SocketAddr, Uri)>,

    /// Where /healthz, /readyz and /metrics are served. Port 0 takes a free one, and says which. In a pod, where the kubelet has to reach
    /// it, `[::]:8080`; its readers see names of plans and their services' states.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Namespace of the Lease by which replicas agree on a leader.
    #[arg(long, value_name = "NAMESPACE", default_value = OPERATOR_NAMESPACE)]
    lease_namespace: String,

    /// How long replicas wait for a leader that died, in whole seconds.
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    lease_duration: Duration,

    /// Format of the logs.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Deadline for running work to end before the lease is released anyway. It is less than the 30 s that a kubelet waits.
const WIND_DOWN: std::time::Duration = std::time::Duration::from_secs(10);

/// Why this process exits.
enum ShutdownCause {
    /// A signal requested it.
    Requested,
    /// The health endpoints failed, so liveness can no longer be reported.
    HealthEndpoints,
    /// A controller ended or panicked.
    Controllers(anyhow::Error),
    /// The wall clock was set.
    Clock(String),
}

impl ShutdownCause {
    fn code(&self) -> ExitCode {
        match self {
            Self::Requested => {
                tracing::info!("shutdown requested; releasing the lease");
                ExitCode::SUCCESS
            }
            Self::HealthEndpoints => {
                tracing::error!("health endpoints failed; releasing the lease and exiting");
                ExitCode::FAILURE
            }
            Self::Controllers(error) => {
                tracing::error!(
                    error = error_line(error.as_ref()),
                    "controller failed; releasing the lease and exiting"
                );
                ExitCode::FAILURE
            }
            Self::Clock(why) => {
                tracing::error!(why, "wall clock jumped; releasing the lease and exiting");
                ExitCode::FAILURE
            }
        }
    }
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    start_logs(args.log_format);
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    let code = runtime.block_on(operate(args));
    // A deposed leader must exit even if an evidence folder does not respond.
    runtime.shutdown_background();
    code
}

fn start_logs(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        // Each line contains its spans: plan, service and attempt, or the Quarantine.
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).init(),
    }
}

async fn operate(args: &Args) -> Result<ExitCode> {
    // Checks without the cluster come first: a replica that can never lead must not report ready.
    let evidence = evidence(args)?;
    let asker = Asker::new(args.http_allow.clone())?.with_digest_key(evidence.key.clone());
    let registries = Registries::new(args.oci_allow.clone(), args.http_allow.clone())?;
    let step_services =
        StepServices { evidence: Some(Arc::new(evidence.clone())), registries: Some(Arc::new(registries)) };
    let seconds = args.lease_duration.0.as_secs();
    anyhow::ensure!(seconds >= 2, "--lease-duration {} is too short: at least 2s", args.lease_duration);
    let interval = args.probe_interval;
    anyhow::ensure!(interval.0.as_secs() >= 1, "--probe-interval {interval} is too short: at least 1s");
    let config = super::cluster().await?;
    let client = crate::client::with_read_retries(config.clone())?;
    let health = Arc::new(Health::default());
    let listener = listen(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    let serving = tokio::spawn(health::serve(listener, health.clone()));

    let identity = identity();
    let published = Published::default();
    published.set(version::ANNOTATION, version::full());
    // The previous leader's result does not apply to this process's store.
    published.set(STORE_ANNOTATION, String::new());
    let elector = LeaderElector {
        leases: Api::namespaced(client.clone(), &args.lease_namespace),
        name: LEASE.to_owned(),
        identity: identity.clone(),
        duration: args.lease_duration.0,
        is_read: health.is_ready.clone(),
        heartbeats: health.process.heartbeats.clone(),
        published: published.clone(),
        leadership: health.process.leadership.clone(),
    };
    let mut ended = Box::pin(async {
        tokio::select! {
            () = stopped() => ShutdownCause::Requested,
            _ = serving => ShutdownCause::HealthEndpoints,
        }
    });

    tracing::info!("waiting for the leader lease");
    let mut lease = match elector.lead(&mut ended).await {
        Ok(held) => held.keep_renewed(),
        Err(ended) => return Ok(ended.code()),
    };
    tracing::info!("became leader");
    let process = &health.process;
    process.metrics.begin_leading();
    let store = evidence.store.clone();
    // This client writes only while this process leads.
    let client = crate::client::while_leading(config.clone(), process.leadership.clone())?;
    let mut controllers =
        Box::pin(run_controllers(args, client, config, asker, step_services, evidence, process.clone()));
    let ended = tokio::select! {
        error = &mut controllers => ShutdownCause::Controllers(error),
        () = keep_proving(&store, &identity, &published) => ShutdownCause::Controllers(anyhow::anyhow!("the proof of the evidence store ended")),
        // A deposed leader must not write, and exits at once.
        why = lease.lost() => return Ok(lease_lost(&why)),
        why = clock::jumped() => ShutdownCause::Clock(why),
        ended = &mut ended => ended,
    };
    let code = ended.code();
    process.metrics.end_leading();
    // From here on, no new work starts.
    process.stop.cancel();
    let winding_down = async {
        // After a clock jump or a failed controller, running passes may not be able to finish; only otherwise are they awaited.
        if matches!(ended, ShutdownCause::Requested | ShutdownCause::HealthEndpoints) {
            controllers.as_mut().await;
        }
        drop(controllers);
        process.writers.close();
        process.writers.wait().await;
    };
    tokio::select! {
        why = lease.lost() => return Ok(lease_lost(&why)),
        done = tokio::time::timeout(WIND_DOWN, winding_down) => if done.is_err() {
            tracing::warn!(after = ?WIND_DOWN, "running work aborted: it did not end in time");
        }
    }
    lease.release_lease().await;
    Ok(code)
}

fn lease_lost(why: &str) -> ExitCode {
    tracing::error!(why, "leader lease lost; exiting");
    ExitCode::FAILURE
}

/// Runs all controllers until they have stopped, or one ends or panics. Returns the reason.
async fn run_controllers(
    args: &Args,
    client: Client,
    config: Config,
    asker: Asker,
    step_services: StepServices,
    evidence: Evidence,
    process: Process,
) -> anyhow::Error {
    why_ended(control(args, client, config, asker, step_services, evidence, process)).await
}

/// Returns why the controllers ended. A panic must not keep the lease from being released.
async fn why_ended(controllers: impl Future<Output = Result<()>>) -> anyhow::Error {
    let ended = AssertUnwindSafe(controllers).catch_unwind().await;
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("all controllers ended"),
        Ok(Err(error)) => error,
        Err(_) => anyhow::anyhow!("bug: a controller panicked; see the log"),
    }
}

async fn control(
    args: &Args,
    client: Client,
    config: Config,
    asker: Asker,
    step_services: StepServices,
    evidence: Evidence,
    process: Process,
) -> Result<()> {
    let interval = args.probe_interval.0;
    let mut options = quarantine::QuarantineOptions::new(evidence);
    let routes = args.api_server_route.iter().cloned().collect();
    options.probe = ProbeOptions { image: args.probe_image.clone(), interval, routes };
    options.accepted_policies.clone_from(&args.accept_network_policy);
    options.process = process.clone();
    let cache = ClusterCache::start(&client);
    options.cache = Some(cache.clone());
    let health = options.health.clone();
    let stop = process.stop.clone();
    let quarantines = async {
        quarantine::run(client.clone(), config.clone(), options).await;
        if stop.is_cancelled() { Ok(()) } else { anyhow::bail!("the Quarantine controller ended") }
    };
    let plans = async {
        plan::run(client.clone(), config.clone(), asker, step_services, cache, health, process)
            .await
            .context("the plan controller ended")
    };
    tokio::try_join!(quarantines, plans).map(drop)
}

/// Binds the listener. `[::]` means all addresses of both families, or of IPv4 on a machine without IPv6.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

/// `192.0.2.1:6443=https://master-1.example`.
fn route(text: &str) -> Result<(SocketAddr, Uri), String> {
    let (address, url) = text.split_once('=').ok_or("it takes ADDRESS:PORT=URL")?;
    let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    // Credentials are sent to this URL.
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(format!("{url}: it takes https://…"));
    }
    Ok((address, uri))
}

/// Returns the evidence settings. Errors are reported at startup, not during an incident.
fn evidence(args: &Args) -> Result<Evidence> {
    let store = Store::open(args.evidence.clone(), std::env::vars_os())
        .with_context(|| format!("--evidence {}", args.evidence))?;
    let key = args
        .evidence_key
        .as_deref()
        .map(|path| DigestKey::read(path).with_context(|| format!("--evidence-key {}", path.display())));
    Ok(Evidence {
        store,
        recipients: args.evidence_recipient.clone(),
        key: key.transpose()?,
        log_limit: args.evidence_log_limit,
        snapshot_wait: args.evidence_snapshot_wait.0,
    })
}

/// Returns an identity that differs between replicas, and between containers of the same pod.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "resurgam".to_owned());
    format!("{host}-{}-{:x}", std::process::id(), clock::now().as_microsecond())
}

/// Waits for a signal that requests shutdown.
async fn stopped() {
    let interrupted = tokio::signal::ctrl_c();
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupted => {}
        () = terminated => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_is_listened_at_by_one_argument() {
        let listening = listen("[::]:0".parse().unwrap()).await.unwrap();
        let port = listening.local_addr().unwrap().port();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    }

    #[tokio::test]
    async fn failed_or_panicked_controller_shuts_down_in_order() {
        let failed = why_ended(async { anyhow::bail!("a watch ended") }).await;
        assert_eq!(failed.to_string(), "a watch ended");
        let panicked = why_ended(async { panic!("a bug, as a test has it") }).await;
        assert_eq!(panicked.to_string(), "bug: a controller panicked; see the log");
    }

    #[test]
    fn a_route_to_an_api_server_is_an_address_and_an_https_url() {
        let (address, url) = route("192.0.2.1:6443=https://master-1.example:443").unwrap();
        assert_eq!((address.to_string().as_str(), url.host()), ("192.0.2.1:6443", Some("master-1.example")));
        assert!(route("[2001:db8::1]:6443=https://127.0.0.1:1").is_ok());
        for wrong in [
            "192.0.2.1:6443",
            "192.0.2.1=https://a",
            "192.0.2.1:6443=http://a",
            "192.0.2.1:6443=a",
            "a:1=https://a",
        ] {
            assert!(route(wrong).is_err(), "{wrong}");
        }
    }
}
