//! `cargo bench`: how long it takes to isolate many namespaces at once, from the request for it to the first write that is refused,
//! to the network cut, to the last pod gone; and how that grows. The API server's audit log is the witness, not the operator.
//!
//! `RESURGAM_BENCH=20,40` plays other sizes than 50, 100 and 200 namespaces; `RESURGAM_BENCH_API_SERVERS=3` more API servers than one.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod audit;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use audit::{Moments, Timestamp};
use control_plane::{ControlPlane, Identity, Options};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::PostParams;
use rehearsal::{Operator, OperatorOptions, apply, condition, eventually, kind};
use serde_json::{Value, json};

/// As many namespaces are isolated at once.
const SIZES: [usize; 3] = [50, 100, 200];
/// As many requests of the one who isolates are under way at once, as `kubectl apply` of many files would not even have.
const AT_ONCE: usize = 16;
/// How long all of them may take.
const DEADLINE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(play())
}

async fn play() -> Result<()> {
    let sizes = sizes()?;
    let further_api_servers = vec![Vec::new(); api_servers()?.saturating_sub(1)];
    let cluster =
        ControlPlane::start(Options { nodes: 8, further_api_servers, ..Options::default() }).await?;
    rehearsal::install(&cluster).await?;
    let mut options = OperatorOptions::within(&cluster, Path::new(env!("CARGO_BIN_EXE_resurgam")));
    for server in cluster.api_servers() {
        options
            .arguments
            .extend(["--api-server-route".to_owned(), format!("{}={}", server.advertised, server.url)]);
    }
    let operator = Operator::start(&cluster, &options)?;
    // The first one waits until the operator leads.
    isolate(&cluster, 1).await.context("the first namespace")?;
    println!("{}", Row::HEAD);
    let mut rows = Vec::new();
    for size in sizes {
        let row = isolate(&cluster, size).await.with_context(|| format!("{size} namespaces"))?;
        println!("{row}");
        rows.push(row);
    }
    for pair in rows.windows(2) {
        println!("{}", pair[1].growth_since(&pair[0]));
    }
    println!(
        "\nMilliseconds from the request that made a Quarantine to what the API server's audit log shows of its namespace: \
         median and slowest. `floor`: as many namespaces labelled and given one NetworkPolicy by {AT_ONCE} requests at a \
         time, in the same run, doing nothing else. Each has one Deployment of two pods and one NetworkPolicy that allows."
    );
    operator.kill()
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

fn api_servers() -> Result<usize> {
    match std::env::var("RESURGAM_BENCH_API_SERVERS") {
        Ok(text) => text.trim().parse().with_context(|| format!("RESURGAM_BENCH_API_SERVERS: {text}")),
        Err(_) => Ok(1),
    }
}

/// What one size took.
struct Row {
    size: usize,
    refused: Moments,
    cut: Moments,
    empty: Moments,
    floor: Duration,
}

impl Row {
    const HEAD: &str =
        "namespaces   first refused write    network cut            last pod gone          floor  cut/floor";

    /// The slowest namespace's network against the floor: what we do more than label and deny.
    fn ratio(&self) -> f64 {
        self.cut.slowest.as_secs_f64() / self.floor.as_secs_f64()
    }

    fn growth_since(&self, smaller: &Self) -> String {
        let by = |now: Duration, then: Duration| now.as_secs_f64() / then.as_secs_f64();
        format!(
            "from {} to {} namespaces (×{:.2}): slowest refused ×{:.2}, cut ×{:.2}, empty ×{:.2}",
            smaller.size,
            self.size,
            self.size as f64 / smaller.size as f64,
            by(self.refused.slowest, smaller.refused.slowest),
            by(self.cut.slowest, smaller.cut.slowest),
            by(self.empty.slowest, smaller.empty.slowest),
        )
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, refused, cut, empty, floor } = self;
        write!(
            f,
            "{size:>10}   {refused:<20}   {cut:<20}   {empty:<20}   {:>5}  {:>9.2}",
            floor.as_millis(),
            self.ratio()
        )
    }
}

/// Lays down an estate, isolates all of it at once, and reads what came of it.
async fn isolate(cluster: &ControlPlane, size: usize) -> Result<Row> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let floor = floor(&admin, size).await?;
    let names: Vec<String> = (0..size).map(|i| format!("bench-{size}-{i}")).collect();
    apply(&admin, "bench", &names.iter().flat_map(|name| estate(name)).collect::<Vec<_>>()).await?;
    for name in &names {
        let deployments = kind(&admin, "apps/v1", "Deployment", Some(name));
        let up = |object: &Value| object.pointer("/status/readyReplicas") == Some(&json!(2));
        eventually(&deployments, "web", &format!("{name}/web"), DEADLINE, up).await?;
    }
    let responder = cluster.client(Identity::Responder).await?;
    let quarantines = kind(&responder, "resurgam.dev/v1alpha1", "Quarantine", None);
    let spec = json!({"isolation": "Sealed", "reason": "benchmark"});
    let since = Timestamp::now();
    stream::iter(&names)
        .map(|name| {
            let quarantine = json!({
                "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine",
                "metadata": {"name": name}, "spec": spec,
            });
            let quarantines = &quarantines;
            async move {
                quarantines.create(&PostParams::default(), &serde_json::from_value(quarantine)?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    for name in &names {
        let what = format!("Quarantine {name} to be sealed and Ready");
        eventually(&quarantines, name, &what, DEADLINE, |q| {
            condition(q, "Ready") == "True" && q.pointer("/status/isolation") == Some(&json!("Sealed"))
        })
        .await?;
    }
    let seen = audit::read(cluster.audit_log(), since, &names)?;
    ensure!(seen.len() == size, "the audit log tells of {} of {size} namespaces", seen.len());
    Ok(Row {
        size,
        refused: Moments::of(seen.values().map(|s| s.refused()))?,
        cut: Moments::of(seen.values().map(|s| s.cut()))?,
        empty: Moments::of(seen.values().map(|s| s.empty()))?,
        floor,
    })
}

/// The least that isolating takes: each namespace is labelled and gets one NetworkPolicy.
async fn floor(admin: &Client, size: usize) -> Result<Duration> {
    let names: Vec<String> = (0..size).map(|i| format!("floor-{size}-{i}")).collect();
    let namespaces: Vec<Value> = names.iter().map(|name| namespace(name)).collect();
    apply(admin, "bench", &namespaces).await?;
    let started = std::time::Instant::now();
    stream::iter(&names)
        .map(|name| async move {
            let mut labelled = namespace(name);
            labelled["metadata"]["labels"] = json!({"bench/isolation": "sealed"});
            let all = kind(admin, "v1", "Namespace", None);
            let params = kube::api::PatchParams::default();
            all.patch(name, &params, &kube::api::Patch::Merge(labelled)).await?;
            let policies = kind(admin, "networking.k8s.io/v1", "NetworkPolicy", Some(name));
            let deny = policy(name, "deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
            policies.create(&PostParams::default(), &serde_json::from_value(deny)?).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(started.elapsed())
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn policy(namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

fn estate(name: &str) -> Vec<Value> {
    let labels = json!({"app": "web"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "registry.example/web:1"}],
            },
        }},
    });
    let allow =
        policy(name, "allow", json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}));
    vec![namespace(name), deployment, allow]
}
