//! Minutes in which the operator and the API server hear nothing of each other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_plane::ControlPlane;
use serde::Serialize;

use super::Trial;
use super::crash::{Model, never_stop};
use super::crew::Crew;

/// A recovery that ended as it should.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Silence {
    /// How often an operator ended by itself meanwhile: whoever may not lead any more has to.
    pub ended: usize,
    /// From the end of the silence to the end of the recovery.
    pub then_took: Duration,
}

/// Plays a recovery in which every operator is cut off once it has asked for so many effects, for that long.
///
/// # Errors
/// It does not end as the model did.
pub async fn silence(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    name: &str,
    (effect, time): (u64, Duration),
    model: &Model,
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
    let differences = model.history.clone().essence().differences(&outcome.history.essence());
    ensure!(differences.is_empty(), "{}: {}", what(), differences.join("; "));
    trial.clear().await?;
    Ok(Silence { ended, then_took })
}
