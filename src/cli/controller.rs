//! `resurgam controller`: the operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::Uri;
use axum::http::uri::Scheme;
use axum::routing::get;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, Config};
use kube_lease_manager::LeaseManagerBuilder;

use crate::api::{Duration, OPERATOR_NAMESPACE};
use crate::controllers::metrics::Metrics;
use crate::controllers::network::ProbeOptions;
use crate::controllers::{plan, quarantine};
use crate::gates::Asker;
use crate::isolation::evidence::{DigestKey, Evidence, LOG_LIMIT, Location, Recipient, Store};

/// Name of the Lease by which replicas agree on a leader.
pub(crate) const LEASE: &str = "resurgam";

/// Arguments of `resurgam controller`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Let `http` gates reach addresses in this range although they are loopback, link-local or the like (repeatable).
    /// A plan can never allow that for itself.
    #[arg(long, value_name = "CIDR")]
    http_allow: Vec<ipnet::IpNet>,

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

    /// Most bytes that are kept of one container's log; its beginning is.
    #[arg(long, value_name = "BYTES", default_value_t = LOG_LIMIT, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    evidence_log_limit: u64,

    /// How long VolumeSnapshots of a namespace are waited for, until they are cut. Where they are required, they are then
    /// waited for again.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    evidence_snapshot_wait: Duration,

    /// An image whose entrypoint is `resurgam`, normally the operator's own: pods of it try whether the cluster's network enforces
    /// NetworkPolicies. Without it nobody can say.
    #[arg(long, value_name = "IMAGE")]
    probe_image: Option<String>,

    /// How often every control of an isolated namespace is tried again.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    probe_interval: Duration,

    /// Where an API server is reached that the EndpointSlices of default/kubernetes list at an address of no use here (repeatable).
    /// What isolates is tried on each that they list, and on the one that KUBECONFIG or the Service names.
    #[arg(long, value_name = "ADDRESS:PORT=URL", value_parser = route)]
    api_server_route: Vec<(SocketAddr, Uri)>,

    /// Where /healthz, /readyz and /metrics are served. Port 0 takes a free one, and says which.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Namespace of the Lease by which replicas agree on a leader.
    #[arg(long, value_name = "NAMESPACE", default_value = OPERATOR_NAMESPACE)]
    lease_namespace: String,

    /// How long a leader that died is waited for, in whole seconds.
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    lease_duration: Duration,

    /// How logs are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What the health endpoints tell.
#[derive(Default)]
struct Health {
    /// The lease is being looked after: this process leads, or stands by.
    ready: AtomicBool,
    metrics: Arc<Metrics>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    start_logs(args.log_format);
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    runtime.block_on(operate(args))
}

fn start_logs(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => logs.json().init(),
    }
}

async fn operate(args: &Args) -> Result<ExitCode> {
    let evidence = evidence(args)?;
    let config = super::cluster().await?;
    let client = crate::client::patient(config.clone())?;
    let health = Arc::new(Health::default());
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    let serving = tokio::spawn(serve(listener, health.clone()));

    let seconds = args.lease_duration.0.as_secs();
    anyhow::ensure!(seconds >= 2, "--lease-duration {} is too short: at least 2s", args.lease_duration);
    let identity = identity();
    let manager = LeaseManagerBuilder::new(client.clone(), LEASE)
        .with_namespace(&args.lease_namespace)
        .with_identity(&identity)
        .with_duration(seconds)
        .with_grace(seconds.div_ceil(3))
        .build()
        .await
        .with_context(|| format!("Lease {}/{LEASE}", args.lease_namespace))?;
    let (mut leading, mut lease) = manager.watch().await;
    health.ready.store(true, Ordering::Relaxed);

    let mut stop = std::pin::pin!(stopped());
    tracing::info!("waiting to lead");
    tokio::select! {
        result = leading.wait_for(|&leads| leads) => { result.context("the lease task died")?; }
        () = &mut stop => return Ok(ExitCode::SUCCESS),
    }
    tracing::info!("leading");
    let leases = client.clone();
    health.metrics.leader.set(1);
    let code = tokio::select! {
        result = lead(args, client, config, evidence, health.metrics.clone()) => {
            result.context("a controller ended")?;
            ExitCode::FAILURE
        }
        // Whoever leads no more writes no more: nothing is safer than to end at once.
        _ = leading.wait_for(|&leads| !leads) => {
            tracing::error!("the lease is lost: ending");
            return Ok(ExitCode::FAILURE);
        }
        _ = &mut lease => {
            tracing::error!("the lease task died: ending");
            return Ok(ExitCode::FAILURE);
        }
        why = deposed(Api::namespaced(leases, &args.lease_namespace), &identity, args.lease_duration.0) => {
            tracing::error!(why, "nobody knows who leads: ending");
            return Ok(ExitCode::FAILURE);
        }
        () = &mut stop => {
            tracing::info!("asked to stop: giving the lease back");
            ExitCode::SUCCESS
        }
    };
    // The controllers are dropped by now. Letting go of the channel gives the lease back, so that a successor need not wait.
    drop(leading);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), lease).await;
    serving.abort();
    Ok(code)
}

/// Resolves, with the reason, when this process must not take itself for the leader any more. The lease task goes on believing
/// what it last heard while the API server does not answer it; somebody else may lead by then. So what counts is when the lease was
/// last renewed, by the API server's word, and this ends before anybody else may take it.
async fn deposed(leases: Api<Lease>, identity: &str, duration: std::time::Duration) -> String {
    // The rest is for clocks that differ.
    let lasts = duration * 5 / 6;
    let mut renewed = Instant::now();
    loop {
        match tokio::time::timeout_at((renewed + lasts).into(), leases.get(LEASE)).await {
            Ok(Ok(lease)) => {
                let spec = lease.spec.unwrap_or_default();
                match spec.holder_identity {
                    Some(holder) if holder == identity => {}
                    Some(holder) => return format!("the lease is held by {holder}"),
                    None => return "the lease is held by nobody".to_owned(),
                }
                let age = spec.renew_time.map(|at| Timestamp::now().duration_since(at.0));
                let at = age.and_then(|age| Instant::now().checked_sub(age.unsigned_abs()));
                renewed = at.unwrap_or(renewed);
            }
            Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be read"),
            Err(_) => {}
        }
        let age = renewed.elapsed();
        if age >= lasts {
            return format!("the lease was last seen to be renewed {:.1} s ago", age.as_secs_f64());
        }
        // Between two renewals, and right after the next is due; then in quick succession.
        let looks = [duration / 3, duration * 3 / 4];
        let next = looks.into_iter().find(|look| *look > age).unwrap_or(age + duration / 30);
        tokio::time::sleep(next.min(lasts) - age).await;
    }
}

/// All controllers, until one ends.
async fn lead(
    args: &Args,
    client: Client,
    config: Config,
    evidence: Evidence,
    metrics: Arc<Metrics>,
) -> Result<()> {
    let asker = Asker::new(args.http_allow.clone())?;
    let interval = args.probe_interval.0;
    anyhow::ensure!(
        interval.as_secs() >= 1,
        "--probe-interval {} is too short: at least 1s",
        args.probe_interval
    );
    let mut options = quarantine::QuarantineOptions::new(evidence);
    let routes = args.api_server_route.iter().cloned().collect();
    options.probe = ProbeOptions { image: args.probe_image.clone(), interval, routes };
    tokio::select! {
        () = quarantine::run(client.clone(), config.clone(), options) => anyhow::bail!("the Quarantine controller ended"),
        result = plan::run(client, config, asker, metrics) => result.context("the plan controller ended"),
    }
}

/// `192.0.2.1:6443=https://master-1.example`.
fn route(text: &str) -> Result<(SocketAddr, Uri), String> {
    let (address, url) = text.split_once('=').ok_or("it takes ADDRESS:PORT=URL")?;
    let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    // Credentials go there.
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(format!("{url}: it takes https://…"));
    }
    Ok((address, uri))
}

/// What is kept as evidence. What is wrong with it is found out at start, not in the middle of an incident.
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

/// Tells replicas apart.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "resurgam".to_owned());
    format!("{host}-{}", std::process::id())
}

/// Resolves when the process is asked to end.
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

async fn serve(listener: tokio::net::TcpListener, health: Arc<Health>) {
    let ready = |State(health): State<Arc<Health>>| async move {
        if health.ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the lease has not been read yet\n")
        }
    };
    let metrics = |State(health): State<Arc<Health>>| async move {
        health.metrics.encode().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the health endpoints ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the API server says of the lease.
    #[derive(Clone, Copy)]
    enum Says {
        Nothing,
        Holder(&'static str),
        NotRenewedSince(&'static str),
    }

    impl Says {
        fn lease(self) -> String {
            let (holder, renewed) = match self {
                Self::Nothing => ("", String::new()),
                Self::Holder(holder) => (holder, Timestamp::now().to_string()),
                Self::NotRenewedSince(renewed) => ("me", renewed.to_owned()),
            };
            serde_json::json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE},
                "spec": {"holderIdentity": holder, "renewTime": renewed},
            })
            .to_string()
        }
    }

    /// What a leader finds out within a lease of a second, and after how long.
    async fn finds(says: Says) -> Option<(String, std::time::Duration)> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            if matches!(says, Says::Nothing) {
                // Connections are made, and nobody ever says anything.
                let _listener = listener;
                return std::future::pending::<()>().await;
            }
            let answer = move || async move { ([("content-type", "application/json")], says.lease()) };
            axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
        });
        let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
        let (second, began) = (std::time::Duration::from_secs(1), Instant::now());
        let found = deposed(Api::namespaced(client, "system"), "me", second);
        let found = tokio::time::timeout(3 * second, found).await.ok();
        serving.abort();
        found.map(|why| (why, began.elapsed()))
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

    #[tokio::test]
    async fn who_is_told_by_nobody_that_it_leads_does_not_lead() {
        let (silent, theirs, mine) =
            tokio::join!(finds(Says::Nothing), finds(Says::Holder("them")), finds(Says::Holder("me")));
        assert!(silent.unwrap().0.contains("last seen to be renewed"));
        assert_eq!(theirs.unwrap().0, "the lease is held by them");
        assert_eq!(mine, None, "as long as it is said, it leads");
    }

    #[tokio::test]
    async fn a_leader_whose_lease_is_not_renewed_ends_before_another_could_take_it() {
        let (why, after) = finds(Says::NotRenewedSince("2026-11-24T03:00:00Z")).await.unwrap();
        assert!(why.contains("last seen to be renewed"), "{why}");
        assert!(after < std::time::Duration::from_secs(1), "after {after:?}");
    }
}
