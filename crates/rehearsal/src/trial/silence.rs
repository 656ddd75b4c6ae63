//! A partition of minutes between the operator and the API server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_plane::ControlPlane;
use serde::Serialize;

use super::Trial;
use super::crash::{ReferenceRun, never_stop};
use super::crew::Crew;

/// Result of a recovery that ended correctly.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Silence {
    /// Number of operators that exited by themselves, as a leader that loses its lease must.
    pub ended: usize,
    /// Time from the end of the partition to the end of the recovery.
    pub then_took: Duration,
}

/// Runs a recovery in which every operator is partitioned after this many effects, for that long.
///
/// # Errors
/// It does not end as the reference run did.
pub async fn silence(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    name: &str,
    (effect, time): (u64, Duration),
    model: &ReferenceRun,
) -> Result<Silence> {
    let trial = Trial::lay_down(cluster, name).await?;
    never_stop(crew);
    let ended = crew.ended();
    let play = async {
        trial.begin().await?;
        crew.effects_reach(effect).await;
        let cut_off = (0..crew.size()).map(|replica| crew.proxy(replica).partition_for(time));
        futures::future::join_all(cut_off).await;
        let began = std::time::Instant::now();
        trial.recovered().await?;
        Ok(began.elapsed())
    };
    let what = || format!("{name}: {} s of silence at effect {effect}", time.as_secs());
    let then_took = crew.meanwhile(play).await.with_context(|| format!("{}: {}", what(), crew.said()))?;
    let ended = crew.ended() - ended;
    ensure!(ended > 0, "{}: whoever led went on", what());
    let outcome = trial.end().await.with_context(what)?;
    let differences =
        model.history.clone().without_fault_effects().differences(&outcome.history.without_fault_effects());
    ensure!(differences.is_empty(), "{}: {}", what(), differences.join("; "));
    trial.clear().await?;
    Ok(Silence { ended, then_took })
}
