//! Leaders are lost repeatedly while recoveries run in parallel.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use control_plane::ControlPlane;
use serde::Serialize;

use super::Trial;
use super::crash::{ReferenceRun, never_stop};
use super::crew::Crew;
use super::leaders::{LeaseHistory, Lost, Succession};

/// Number of recoveries at a time.
const AT_ONCE: usize = 3;
/// Time limit for the other replica to take the lease and act, on a busy machine.
const TAKES_OVER: Duration = Duration::from_secs(60);
/// Time limit of a recovery whose leader is lost repeatedly.
const DEADLINE: Duration = Duration::from_secs(300);

/// Result: every recovery ended correctly, and only leaders wrote.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Number of recoveries.
    pub recoveries: usize,
    /// Each lost leader with its successor.
    pub losses: Vec<Succession>,
    /// Number of operator writes that were checked.
    pub writes: usize,
}

impl Load {
    /// Returns the minimum, median and maximum of the seconds from a leader's last request until another held the lease.
    #[must_use]
    pub fn taken_after(&self) -> Option<(f64, f64, f64)> {
        let mut all: Vec<f64> = self.losses.iter().map(|loss| loss.taken_after).collect();
        all.sort_by(f64::total_cmp);
        Some((*all.first()?, all[all.len() / 2], *all.last()?))
    }
}

/// Runs recoveries and loses leaders, killed and partitioned in turn, until that time has passed and running recoveries have ended.
///
/// # Errors
/// A recovery does not end as the reference run did, no replica took over, a replica wrote without being the leader, or a partitioned
/// leader did not exit in time.
pub async fn under_load(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    (seed, time): (u64, Duration),
    model: &ReferenceRun,
) -> Result<Load> {
    ensure!(crew.size() == 2, "one leads, and one stands by");
    let log_from = std::fs::metadata(cluster.audit_log())?.len();
    let until = Instant::now() + time;
    let mut lost = Vec::new();
    let losing = async {
        let mut random = crate::SplitMix::new(seed);
        for how in [Lost::CutOff, Lost::Killed].into_iter().cycle() {
            never_stop(crew);
            let leader = crew.effects_reach(random.between(5, 80)).await;
            let at = SystemTime::now();
            match how {
                Lost::Killed => crew.kill(leader)?,
                Lost::CutOff => crew.proxy(leader).partition(true),
            }
            let acts = crew.proxy(1 - leader).effects_reach(1);
            tokio::time::timeout(TAKES_OVER, acts)
                .await
                .with_context(|| format!("{how:?}: nobody takes over"))?;
            lost.push((how, leader, at));
            match how {
                Lost::Killed => crew.run(leader)?,
                Lost::CutOff => crew.proxy(leader).partition(false),
            }
            if Instant::now() >= until {
                break;
            }
        }
        std::future::pending().await
    };
    let recoveries = futures::future::try_join_all((0..AT_ONCE).map(async |number| {
        let mut played = 0;
        while Instant::now() < until {
            let name = format!("load-{seed}-{number}-{played}");
            let trial = Trial::lay_down(cluster, &name).await?;
            trial.begin().await?;
            trial.recovered_within(DEADLINE).await?;
            let outcome = trial.end().await?;
            let differences = model
                .history
                .clone()
                .without_fault_effects()
                .differences(&outcome.history.without_fault_effects());
            ensure!(differences.is_empty(), "{name}: {}", differences.join("; "));
            trial.clear().await?;
            played += 1;
        }
        anyhow::Ok(played)
    }));
    let play = async {
        tokio::select! {
            recoveries = recoveries => recoveries,
            lost = losing => lost,
        }
    };
    let recoveries = crew.meanwhile(play).await.with_context(|| format!("seed {seed}: {}", crew.said()))?;
    (0..crew.size()).for_each(|replica| crew.proxy(replica).heal());

    let story = LeaseHistory::read(&super::log_since(cluster.audit_log(), log_from)?)?;
    let intruders = story.intruders();
    ensure!(intruders.is_empty(), "seed {seed}: {}", intruders.join("; "));
    let losses = lost.into_iter().map(|(how, leader, at)| {
        let ended = crew.ended_since(leader, at);
        story.succession(how, &Crew::agent(leader), at, ended)
    });
    let losses = losses.collect::<Result<Vec<_>>>()?;
    if losses.is_empty() {
        bail!("seed {seed}: no leader was lost");
    }
    Ok(Load { recoveries: recoveries.into_iter().sum(), losses, writes: story.writes() })
}
