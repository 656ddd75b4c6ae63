//! `cargo bench`: how long it takes to isolate many namespaces at once, to the first write that is refused in the last of them, to the network
//! cut, to the last pod gone; and how that grows. The API server's audit log is the witness, not the operator.
//!
//! `RESURGAM_BENCH=200,1000,5000` plays other sizes than 200 and 1,000 namespaces, `RESURGAM_BENCH_TRIALS=operator` (or `command`) one of the
//! two trials, and `RESURGAM_BENCH_API_SERVERS=3` more API servers than one.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod audit;
mod estate;
mod floor;
mod witness;

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use audit::{Moments, Timestamp};
use control_plane::{ControlPlane, Identity, Options};
use estate::Estate;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::PostParams;
use rehearsal::{Operator, OperatorOptions, condition, eventually, kind};
use serde_json::json;
use witness::Witness;

/// As many namespaces are isolated at once.
const SIZES: [usize; 2] = [200, 1000];
/// What two cores take an hour for.
const LARGEST: usize = 5000;
/// As many requests of the one who isolates are under way at once, as `kubectl apply` of many files would not even have.
const AT_ONCE: usize = 16;
/// How long all of them may take.
const DEADLINE: Duration = Duration::from_secs(3600);
/// The program that is measured.
const RESURGAM: &str = env!("CARGO_BIN_EXE_resurgam");

/// Who isolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// `resurgam quarantine --selector`, with no operator: contained.
    Command,
    /// Quarantines are created, and the operator does the rest: sealed.
    Operator,
}

fn main() -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(play())
}

async fn play() -> Result<()> {
    let sizes = sizes()?;
    for trial in trials()? {
        let mut rows: Vec<Row> = Vec::new();
        let cluster = start().await?;
        let operator = operator(&cluster)?;
        rehearsal::leads(&cluster).await?;
        // The command writes no guards: an operator that is gone since did.
        let operator =
            if trial == Trial::Operator { Some(operator) } else { operator.kill().map(|()| None)? };
        println!("\n{trial:?}\n{}", Row::HEAD);
        for size in &sizes {
            let row = isolate(&cluster, trial, *size).await;
            let row = row.with_context(|| format!("{trial:?}: {size} namespaces"))?;
            println!("{row}");
            rows.push(row);
        }
        for pair in rows.windows(2) {
            println!("{}", pair[1].growth_since(&pair[0]));
        }
        if let Some(operator) = operator {
            operator.kill()?;
        }
        cluster.stop().await?;
    }
    if !sizes.contains(&LARGEST) {
        println!("\nSkipped: {LARGEST} namespaces. RESURGAM_BENCH={LARGEST} plays them.");
    }
    println!(
        "\nMilliseconds, by the API server's audit log. START: from the request to isolate to the first list write, from which all else is \
         counted; (q): there is no list, and all is counted from the first Quarantine. REFUSED: from the request for its Quarantine, or from \
         START if there was none yet, to the first write that is refused in it, of {} namespaces, spread over all, in which somebody tries all \
         the time. CUT, GONE: network cut and last pod gone, median and slowest. WRITE: \
         median of one patch of a small ConfigMap in a namespace that is not isolated; AFTER: the same once they are. FLOOR: as many namespaces labelled and given one NetworkPolicy by {AT_ONCE} requests at a \
         time, in the same run, doing nothing else. Each namespace has a NetworkPolicy that allows and, for the operator, a Deployment of two \
         pods; over {} namespaces, one in ten has.",
        witness::SAMPLE,
        estate::ALL_HAVE_PODS,
    );
    Ok(())
}

fn sizes() -> Result<Vec<usize>> {
    match std::env::var("RESURGAM_BENCH") {
        Ok(text) => text
            .split(',')
            .map(|size| size.trim().parse().with_context(|| format!("RESURGAM_BENCH: {size}")))
            .collect(),
        Err(_) => Ok(SIZES.to_vec()),
    }
}

fn trials() -> Result<Vec<Trial>> {
    Ok(match std::env::var("RESURGAM_BENCH_TRIALS").as_deref() {
        Ok("command") => vec![Trial::Command],
        Ok("operator") => vec![Trial::Operator],
        Ok(other) => bail!("RESURGAM_BENCH_TRIALS={other}: command or operator"),
        Err(_) => vec![Trial::Command, Trial::Operator],
    })
}

fn api_servers() -> Result<usize> {
    match std::env::var("RESURGAM_BENCH_API_SERVERS") {
        Ok(text) => text.trim().parse().with_context(|| format!("RESURGAM_BENCH_API_SERVERS: {text}")),
        Err(_) => Ok(1),
    }
}

async fn start() -> Result<ControlPlane> {
    let further_api_servers = vec![Vec::new(); api_servers()?.saturating_sub(1)];
    let options = Options { nodes: 8, further_api_servers, ..Options::default() };
    let cluster = ControlPlane::start(options).await?;
    rehearsal::install(&cluster).await?;
    Ok(cluster)
}

fn operator(cluster: &ControlPlane) -> Result<Operator> {
    // A machine that is this busy may be late to renew a lease.
    let within = OperatorOptions::within(cluster, Path::new(RESURGAM));
    let mut options = OperatorOptions { lease_seconds: 30, ..within };
    for server in cluster.api_servers() {
        options
            .arguments
            .extend(["--api-server-route".to_owned(), format!("{}={}", server.advertised, server.url)]);
    }
    Operator::start(cluster, &options)
}

/// What one size took.
struct Row {
    size: usize,
    has_list: bool,
    until_start: Duration,
    refused: Moments,
    cut: Moments,
    empty: Option<Moments>,
    write: Duration,
    write_after: Duration,
    floor: Duration,
}

fn ratio(what: Duration, of: Duration) -> f64 {
    what.as_secs_f64() / of.as_secs_f64()
}

fn span(moments: &Moments) -> String {
    format!("{} … {}", moments.median.as_millis(), moments.slowest.as_millis())
}

impl Row {
    const HEAD: &str = "NAMESPACES     START   REFUSED  IN WRITES   CUT                  IN FLOORS   GONE                 WRITE  AFTER    FLOOR";

    fn growth_since(&self, smaller: &Self) -> String {
        let mut line = format!(
            "from {} to {} namespaces (×{:.2}): refused ×{:.2}, cut ×{:.2}",
            smaller.size,
            self.size,
            self.size as f64 / smaller.size as f64,
            ratio(self.refused.slowest, smaller.refused.slowest),
            ratio(self.cut.slowest, smaller.cut.slowest),
        );
        if let (Some(now), Some(then)) = (&self.empty, &smaller.empty) {
            line += &format!(", gone ×{:.2}", ratio(now.slowest, then.slowest));
        }
        line
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = format!("{}{}", self.until_start.as_millis(), if self.has_list { "" } else { " (q)" });
        write!(
            f,
            "{:>10}  {start:>8}  {:>8}  {:>9.1}   {:<20} {:>9.2}   {:<20} {:>5.1}  {:>5.1}  {:>7}",
            self.size,
            self.refused.slowest.as_millis(),
            ratio(self.refused.slowest, self.write),
            span(&self.cut),
            ratio(self.cut.slowest, self.floor),
            self.empty.as_ref().map_or_else(|| "-".to_owned(), span),
            self.write.as_secs_f64() * 1000.0,
            self.write_after.as_secs_f64() * 1000.0,
            self.floor.as_millis(),
        )
    }
}

/// Lays down an estate, isolates all of it at once, and reads what came of it.
async fn isolate(cluster: &ControlPlane, trial: Trial, size: usize) -> Result<Row> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let prefix = format!("{trial:?}-{size}").to_lowercase();
    let floor = floor::many(&admin, &prefix, size).await.context("the floor")?;
    let estate =
        Estate::lay_down(&admin, &prefix, size, trial == Trial::Operator).await.context("the estate")?;
    let write = floor::one_write(&admin).await.context("one write")?;
    let witness = Witness::of(cluster, &estate.names).await?;
    let sample = witness.sample().to_vec();
    let since = Timestamp::now();
    let isolated = async {
        match trial {
            Trial::Command => command(cluster, &prefix).await,
            Trial::Operator => quarantines(cluster, &estate.names).await,
        }
    };
    tokio::try_join!(isolated, witness.until_refused(DEADLINE))?;
    estate::ensure_cut(&admin, &prefix, size).await?;
    let write_after = floor::one_write(&admin).await.context("one write afterwards")?;
    let record = audit::read(cluster.audit_log(), since, &estate.names)?;
    let empty = if trial == Trial::Operator { Some(record.empty(&estate.with_pods)?) } else { None };
    Ok(Row {
        size,
        has_list: record.has_list(),
        until_start: record.until_start(since)?,
        refused: record.refused(&sample)?,
        cut: record.cut(&estate.names)?,
        empty,
        write,
        write_after,
        floor,
    })
}

/// On call, by the command.
async fn command(cluster: &ControlPlane, prefix: &str) -> Result<()> {
    let output = tokio::process::Command::new(RESURGAM)
        .args(["quarantine", "--selector", &format!("{}={prefix}", estate::LABEL)])
        .args(["--incident", "bench", "--reason", "benchmark", "--yes", "--output", "json"])
        .args(["--accept-risk", "gitops,evidence,webhook,apiservice,login,plan-account,leases,unknown"])
        .env("KUBECONFIG", cluster.kubeconfig(Identity::Responder))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run the command")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let end: String = said.chars().skip(said.chars().count().saturating_sub(2000)).collect();
    ensure!(output.status.success(), "the command ended with {}: …{end}", output.status);
    Ok(())
}

/// On call, by Quarantines: returns once all are sealed and Ready.
async fn quarantines(cluster: &ControlPlane, names: &[String]) -> Result<()> {
    let responder = cluster.client(Identity::Responder).await?;
    let quarantines = kind(&responder, "resurgam.dev/v1alpha1", "Quarantine", None);
    let spec = json!({"isolation": "Sealed", "reason": "benchmark"});
    let create = |name: &String| {
        let quarantine = json!({
            "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": name}, "spec": spec,
        });
        let quarantines = &quarantines;
        async move {
            quarantines.create(&PostParams::default(), &serde_json::from_value(quarantine)?).await?;
            anyhow::Ok(())
        }
    };
    stream::iter(names).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    for name in names {
        let what = format!("Quarantine {name} to be sealed and Ready");
        eventually(&quarantines, name, &what, DEADLINE, |q| {
            condition(q, "Ready") == "True" && q.pointer("/status/isolation") == Some(&json!("Sealed"))
        })
        .await?;
    }
    Ok(())
}
