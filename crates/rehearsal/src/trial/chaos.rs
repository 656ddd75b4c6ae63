//! A recovery with faults that a seed chooses.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_plane::ControlPlane;
use fault_proxy::{Fault, Profile, Schedule};
use serde::Serialize;

use super::Trial;
use super::crash::ReferenceRun;
use super::crew::Crew;

/// Result of a recovery with faults that ended correctly.
#[derive(Clone, Debug, Serialize)]
pub struct ChaosOutcome {
    /// Seed of the faults.
    pub seed: u64,
    /// Number of occurrences of each fault.
    pub faults: BTreeMap<Fault, u64>,
    /// Number of effects.
    pub effects: u64,
    /// Number of operators that exited by themselves, as a leader that loses its lease must.
    pub ended: usize,
    /// Seconds from the start to the end of the recovery.
    pub seconds: f64,
}

/// Faults that the seed chooses in addition to the proxy's.
struct FaultPlan {
    cut_off_at: u64,
    cut_off_for: Duration,
    token_runs_out_at: u64,
}

impl FaultPlan {
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

/// Runs a recovery in which the seed chooses the faults, from the operators' start on.
///
/// # Errors
/// It does not end as the reference run did.
pub async fn chaos(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    seed: u64,
    model: &ReferenceRun,
) -> Result<ChaosOutcome> {
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
    let plan = FaultPlan::of(seed, model.effects);
    let play = async {
        trial.begin().await?;
        let windows = (0..crew.size()).map(|replica| windows(crew, replica, &plan));
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
    let differences =
        model.history.clone().without_fault_effects().differences(&outcome.history.without_fault_effects());
    ensure!(differences.is_empty(), "seed {seed}: {}", differences.join("; "));
    trial.clear().await?;
    let mut faults = counts(crew);
    for (fault, count) in &mut faults {
        *count -= before.get(fault).copied().unwrap_or_default();
    }
    Ok(ChaosOutcome { seed, faults, effects, ended: crew.ended() - ended, seconds })
}

/// Partitions the replica for some time and expires its token, each at an effect.
async fn windows(crew: &Crew<'_>, replica: usize, plan: &FaultPlan) {
    let proxy = crew.proxy(replica);
    let cut_off = async {
        proxy.effects_reach(plan.cut_off_at).await;
        proxy.partition_for(plan.cut_off_for).await;
    };
    let token = async {
        proxy.effects_reach(plan.token_runs_out_at).await;
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
