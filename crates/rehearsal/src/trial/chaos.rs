//! A recovery with everything in its way that a seed chooses.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_plane::ControlPlane;
use fault_proxy::{Fault, Profile, Schedule};
use serde::Serialize;

use super::Trial;
use super::crash::Model;
use super::crew::Crew;

/// What befell a recovery that ended as it should.
#[derive(Clone, Debug, Serialize)]
pub struct Befell {
    /// What chose.
    pub seed: u64,
    /// How often each fault struck.
    pub faults: BTreeMap<Fault, u64>,
    /// How many effects were asked for.
    pub effects: u64,
    /// How often the operator ended by itself, as whoever may not lead any more has to.
    pub ended: usize,
    /// From the start to the end of the recovery.
    pub seconds: f64,
}

/// What the seed chooses beside what the proxy does by itself.
struct Plot {
    cut_off_at: u64,
    cut_off_for: Duration,
    token_runs_out_at: u64,
}

impl Plot {
    fn of(seed: u64, effects: u64) -> Self {
        let mut random = crate::SplitMix::new(seed);
        // Early enough to be reached, however many effects this run needs.
        let effects = (effects / 2).max(2);
        Self {
            cut_off_at: random.between(1, effects),
            cut_off_for: Duration::from_millis(random.between(200, 4000)),
            token_runs_out_at: random.between(1, effects),
        }
    }
}

/// Plays a recovery in which the seed chooses what goes wrong, from the operators' start on.
///
/// # Errors
/// It does not end as the model did.
pub async fn chaos(cluster: &ControlPlane, crew: &Crew<'_>, seed: u64, model: &Model) -> Result<Befell> {
    let name = format!("chaos-{seed}");
    let trial = Trial::lay_down(cluster, &name).await?;
    for replica in 0..crew.size() {
        crew.replace(replica)?;
    }
    let (ended, before) = (crew.ended(), counts(crew));
    for replica in 0..crew.size() {
        let profile = Profile::everything();
        crew.proxy(replica).stop_at(u64::MAX, fault_proxy::Moment::Unsent);
        crew.proxy(replica).follow(Schedule { seed: seed.wrapping_add(replica as u64), profile });
    }
    let began = std::time::Instant::now();
    let plot = Plot::of(seed, model.effects);
    let play = async {
        trial.begin().await?;
        let windows = (0..crew.size()).map(|replica| windows(crew, replica, &plot));
        let (recovered, _) = tokio::join!(trial.recovered(), async {
            // Who stands by has no effects, and meets with nothing.
            futures::future::select_all(windows.map(Box::pin)).await
        });
        recovered
    };
    crew.meanwhile(play)
        .await
        .with_context(|| format!("seed {seed}, with {:?}: {}", counts(crew), crew.said()))?;
    let seconds = began.elapsed().as_secs_f64();
    let effects = (0..crew.size()).map(|replica| crew.proxy(replica).effects()).sum();
    (0..crew.size()).for_each(|replica| crew.proxy(replica).heal());
    let outcome = trial.end().await.with_context(|| format!("seed {seed}"))?;
    let differences = model.history.clone().essence().differences(&outcome.history.essence());
    ensure!(differences.is_empty(), "seed {seed}: {}", differences.join("; "));
    trial.clear().await?;
    let mut faults = counts(crew);
    for (fault, count) in &mut faults {
        *count -= before.get(fault).copied().unwrap_or_default();
    }
    Ok(Befell { seed, faults, effects, ended: crew.ended() - ended, seconds })
}

/// Cuts the replica off for a while, and lets its token run out, when it has come that far.
async fn windows(crew: &Crew<'_>, replica: usize, plot: &Plot) {
    let proxy = crew.proxy(replica);
    let cut_off = async {
        proxy.effects_reach(plot.cut_off_at).await;
        proxy.partition_for(plot.cut_off_for).await;
    };
    let token = async {
        proxy.effects_reach(plot.token_runs_out_at).await;
        proxy.refuse_tokens(true);
        // As long as that, and not before it was noticed: an operator that waits for its lease asks for little.
        tokio::join!(tokio::time::sleep(Duration::from_secs(1)), proxy.strikes(Fault::Unauthorized));
        proxy.refuse_tokens(false);
    };
    tokio::join!(cut_off, token);
}

fn counts(crew: &Crew<'_>) -> BTreeMap<Fault, u64> {
    let mut sum = BTreeMap::new();
    for replica in 0..crew.size() {
        for (fault, count) in crew.proxy(replica).counts() {
            *sum.entry(fault).or_default() += count;
        }
    }
    sum
}
