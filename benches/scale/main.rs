//! `cargo bench --bench scale`: a recovery of many services on simulated nodes, whose pods run at once: what the operator itself takes.
//!
//! `RESURGAM_BINARY=FILE` measures another build of the operator. `RESURGAM_SCALE=chain:100,fan:100,layers:500` plays other estates than a chain, a fan and layers of 100 services. The API server's audit log
//! is the witness, and the judge measures.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod estate;
mod process;
mod requests;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use control_plane::{ControlPlane, Identity, Options};
use estate::{Estate, RECOVERY, Shape};
use futures::StreamExt;
use kube::Client;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use rehearsal::{Operator, OperatorOptions, condition, eventually, kind};
use requests::Requests;
use serde_json::{Value, json};

const AT_ONCE: usize = 16;
const DEADLINE: Duration = Duration::from_secs(3600);
const RESURGAM: &str = env!("CARGO_BIN_EXE_resurgam");
/// How long nothing is done, to count what is asked all the same.
const REST: Duration = Duration::from_secs(30);
/// So many times somebody writes as soon as they learn of another write.
const FLOORS: usize = 51;

fn main() -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(play())
}

async fn play() -> Result<()> {
    println!(
        "Of each estate: MAKESPAN and its ratio to the critical PATH; of an EDGE, from the write that makes a dependency Recovered to the \
         dependent's first write, the median and the 99th percentile, beside the FLOOR: from a write to the next one of somebody who watches \
         for it and does nothing else; requests of the operator for each service from the armed plan to Recovered; requests a second at \
         rest; memory; processor time of the operator for each service."
    );
    for (shape, size) in estates()? {
        one(shape, size).await.with_context(|| format!("{shape:?} of {size}"))?;
    }
    Ok(())
}

fn estates() -> Result<Vec<(Shape, usize)>> {
    let wanted =
        std::env::var("RESURGAM_SCALE").unwrap_or_else(|_| "chain:100,fan:100,layers:100".to_owned());
    let parse = |text: &str| {
        let (shape, size) =
            text.trim().split_once(':').with_context(|| format!("{text}: it takes SHAPE:SIZE"))?;
        let shape = match shape {
            "chain" => Shape::Chain,
            "fan" => Shape::Fan,
            "layers" => Shape::Layers,
            other => bail!("{other}: chain, fan or layers"),
        };
        Ok((shape, size.parse()?))
    };
    wanted.split(',').map(parse).collect()
}

async fn one(shape: Shape, size: usize) -> Result<()> {
    let cluster = ControlPlane::start(Options { nodes: 8, ..Options::default() }).await?;
    rehearsal::install(&cluster).await?;
    let binary = std::env::var("RESURGAM_BINARY").unwrap_or_else(|_| RESURGAM.to_owned());
    let within = OperatorOptions::within(&cluster, Path::new(&binary));
    let options = OperatorOptions { lease_seconds: 30, ..within };
    let operator = Operator::start(&cluster, &options)?;
    rehearsal::leads(&cluster).await?;
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let responder = cluster.client(Identity::Responder).await?;
    let estate = Estate::lay_down(&admin, shape, size).await?;
    estate.isolate(&responder).await?;
    let floor = floor(&cluster, &admin).await?;

    let (_, cpu_before) = process::taken(operator.id())?;
    let armed = std::fs::metadata(cluster.audit_log())?.len();
    let gitops = cluster.client(Identity::GitOps).await?;
    rehearsal::apply(&gitops, "gitops", &[estate.plan()]).await?;
    let plans = kind(&admin, "resurgam.dev/v1alpha1", "RecoveryPlan", Some(RECOVERY));
    let recovered =
        |plan: &Value| condition(plan, "Recovered") == "True" && condition(plan, "Ready") == "True";
    eventually(&plans, &estate.plan, "the plan to be recovered", DEADLINE, recovered).await?;
    let (memory, cpu) = process::taken(operator.id())?;
    let requests = Requests::read(cluster.audit_log(), armed)?;

    let resting = std::fs::metadata(cluster.audit_log())?.len();
    tokio::time::sleep(REST).await;
    let rest = Requests::read(cluster.audit_log(), resting)?;

    let plan = serde_json::to_string(&estate.plan())?;
    let log = std::io::BufReader::new(std::fs::File::open(cluster.audit_log())?);
    let report = judge::judge(log, &plan, &judge::Options::default())?;
    ensure!(report.is_clean(), "{:?}", report.violations);
    let figures = &report.figures;

    let floor = floor.as_secs_f64() * 1000.0;
    let in_floors = |ms: Option<f64>| {
        ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms = {:.1} floors", ms / floor))
    };
    println!("\n{}", estate.plan);
    println!(
        "  makespan {:.1} s = {:.2} critical paths; edge p50 {}, p99 {} (floor {floor:.1} ms)",
        figures.makespan_ms / 1000.0,
        figures.ratio,
        in_floors(figures.edge_p50_ms),
        in_floors(figures.edge_p99_ms),
    );
    let mut times: Vec<f64> = figures.services.values().map(|of| of.recovery_ms).collect();
    times.sort_by(f64::total_cmp);
    println!(
        "  a service from claim to Recovered: {:.0} ms (median)",
        times.get(times.len() / 2).copied().unwrap_or_default()
    );
    println!(
        "  {:.1} requests a service, {:.2} a second at rest; {memory:.0} MiB; {:.0} ms of the processor a service",
        requests.total() as f64 / size as f64,
        rest.total() as f64 / REST.as_secs_f64(),
        (cpu - cpu_before) * 1000.0 / size as f64,
    );
    print!("  requests a service:\n{}  at rest, all:\n{}", requests.most(30, size), rest.most(10, 1));
    operator.kill()?;
    cluster.stop().await
}

/// The median from a write to the next one, of somebody who does nothing but wait for it: both as answered, by the audit log, as an edge is
/// measured.
async fn floor(cluster: &ControlPlane, admin: &Client) -> Result<Duration> {
    let maps = kind(admin, "v1", "ConfigMap", Some("default"));
    let params = PatchParams::apply("bench").force();
    let write = async |name: &str, n: usize| {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": n.to_string()},
        });
        anyhow::Ok(maps.patch(name, &params, &Patch::Apply(&map)).await?)
    };
    write("second", 0).await?;
    let version = write("first", 0).await?.metadata.resource_version.unwrap_or_default();
    let from = std::fs::metadata(cluster.audit_log())?.len();
    let mut changes =
        maps.watch(&WatchParams::default().fields("metadata.name=first"), &version).await?.boxed();
    for n in 1..=FLOORS {
        let follow = async {
            while let Some(event) = changes.next().await {
                if matches!(event?, WatchEvent::Modified(_)) {
                    break;
                }
            }
            write("second", n).await
        };
        futures::try_join!(write("first", n), follow)?;
    }
    let answered = |name: &str| requests::answers(cluster.audit_log(), from, "configmaps", name);
    let (first, second) = (answered("first")?, answered("second")?);
    ensure!(first.len() == FLOORS && second.len() == FLOORS, "the audit log lacks writes");
    let mut times: Vec<Duration> = first
        .iter()
        .zip(&second)
        .map(|(first, second)| Duration::try_from(second.duration_since(*first)).unwrap_or_default())
        .collect();
    times.sort_unstable();
    times.get(FLOORS / 2).copied().context("nothing was timed")
}
