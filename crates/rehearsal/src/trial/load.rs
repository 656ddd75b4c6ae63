//! The leader is lost again and again, for as long as is wanted, while recoveries go on side by side.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use control_plane::ControlPlane;
use serde::Serialize;

use super::Trial;
use super::crash::{Model, never_stop};
use super::crew::Crew;
use super::leaders::{Lost, Story, Succession};

/// How many recoveries go on at a time.
const AT_ONCE: usize = 3;
/// Longer than the other replica needs to take the lease and to act, on a busy machine.
const TAKES_OVER: Duration = Duration::from_secs(60);
/// Longer than a recovery takes whose leader is lost all the time.
const DEADLINE: Duration = Duration::from_secs(300);

/// What came of it: every recovery ended as it should, and nobody wrote who did not lead.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// How many recoveries were played.
    pub recoveries: usize,
    /// Each leader that was lost, and who came after it.
    pub losses: Vec<Succession>,
    /// How many writes of operators were looked at.
    pub writes: usize,
}

impl Load {
    /// The shortest, the median and the longest time, in seconds, from a leader's last request until another held the lease.
    #[must_use]
    pub fn taken_after(&self) -> Option<(f64, f64, f64)> {
        let mut all: Vec<f64> = self.losses.iter().map(|loss| loss.taken_after).collect();
        all.sort_by(f64::total_cmp);
        Some((*all.first()?, all[all.len() / 2], *all.last()?))
    }
}

/// Plays recoveries and loses leaders, killed and cut off in turn, until that time is over and what has begun has ended.
///
/// # Errors
/// One does not end as the model did, nobody took over, somebody wrote who did not lead, or a leader that was cut off did not end in time.
pub async fn under_load(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    (seed, time): (u64, Duration),
    model: &Model,
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
            let differences = model.history.clone().essence().differences(&outcome.history.essence());
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

    let story = Story::read(&super::log_since(cluster.audit_log(), log_from)?)?;
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
