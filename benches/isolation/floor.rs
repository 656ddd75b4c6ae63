//! The least that anybody can do on the same API server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use rehearsal::kind;
use serde_json::{Value, json};

use crate::AT_ONCE;
use crate::estate::{apply_all, namespace, policy};

/// So many writes are timed, one after the other.
const WRITES: usize = 51;

/// The median of what one patch of a small ConfigMap takes.
///
/// # Errors
/// The API server refused one.
pub async fn one_write(admin: &Client) -> Result<Duration> {
    let maps = kind(admin, "v1", "ConfigMap", Some("default"));
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bench"}, "data": {"n": "0"}});
    let mut times = Vec::new();
    for n in 0..=WRITES {
        let began = Instant::now();
        if n == 0 {
            maps.patch("bench", &PatchParams::apply("bench").force(), &Patch::Apply(&map)).await?;
            continue;
        }
        let patch = Patch::Merge(json!({"data": {"n": format!("{n} {:?}", began)}}));
        maps.patch("bench", &PatchParams::default(), &patch).await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times.get(WRITES / 2).copied().context("nothing was timed")
}

/// The least that isolating takes: each namespace is labelled and gets one NetworkPolicy.
///
/// # Errors
/// The API server refused something.
pub async fn many(admin: &Client, prefix: &str, size: usize) -> Result<Duration> {
    let names: Vec<String> = (0..size).map(|n| format!("floor-{prefix}-{n}")).collect();
    apply_all(admin, names.iter().map(|name| namespace(name, "floor"))).await?;
    let deny: Value = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let started = Instant::now();
    let one = async |name: &String| {
        let label = json!({"metadata": {"labels": {"bench.example/isolation": "sealed"}}});
        let all = kind(admin, "v1", "Namespace", None);
        all.patch(name, &PatchParams::default(), &Patch::Merge(label)).await?;
        let policies = kind(admin, "networking.k8s.io/v1", "NetworkPolicy", Some(name));
        let deny = serde_json::from_value(policy(name, "deny", &deny))?;
        policies.create(&PostParams::default(), &deny).await?;
        anyhow::Ok(())
    };
    stream::iter(&names).map(one).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(started.elapsed())
}
