//! The operator dies at a given effect, and another continues.

use anyhow::{Context, Result, ensure};
use control_plane::ControlPlane;
use fault_proxy::Moment;
use serde::Serialize;

use super::crew::Crew;
use super::{History, Trial};

/// A point at which the operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Number of the effect, counted from 1.
    pub effect: u64,
    /// Side of the effect.
    pub moment: Moment,
}

/// A recovery without faults, for reference.
#[derive(Clone, Debug)]
pub struct ReferenceRun {
    /// History of each object.
    pub history: History,
    /// Number of effects.
    pub effects: u64,
}

/// Runs a recovery without faults twice. In the first one operators may still write objects of their own; what differs between the two is
/// not compared with other runs.
///
/// # Errors
/// A recovery does not end correctly, or the two differ.
pub async fn reference_run(cluster: &ControlPlane, crew: &Crew<'_>) -> Result<ReferenceRun> {
    let first = calm(cluster, crew, "calm-1").await?;
    let second = calm(cluster, crew, "calm-2").await?;
    let differences = first.history.differences(&second.history);
    ensure!(differences.is_empty(), "without faults, at the second time: {}", differences.join("; "));
    Ok(second)
}

async fn calm(cluster: &ControlPlane, crew: &Crew<'_>, name: &str) -> Result<ReferenceRun> {
    let trial = Trial::lay_down(cluster, name).await?;
    never_stop(crew);
    let play = async {
        trial.begin().await?;
        trial.recovered().await
    };
    crew.meanwhile(play).await?;
    let effects = (0..crew.size()).map(|replica| crew.proxy(replica).effects()).sum();
    let history = trial.end().await?.history;
    trial.clear().await?;
    Ok(ReferenceRun { history, effects })
}

/// Counts effects from the start and never halts.
pub(super) fn never_stop(crew: &Crew<'_>) {
    (0..crew.size()).for_each(|replica| crew.proxy(replica).stop_at(u64::MAX, Moment::Unsent));
}

/// Runs a recovery whose leader dies at that point. Returns whether the point was reached before the end.
///
/// # Errors
/// It does not end as the reference run did.
pub async fn crash(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    name: &str,
    point: Point,
    model: &ReferenceRun,
) -> Result<bool> {
    let trial = Trial::lay_down(cluster, name).await?;
    (0..crew.size()).for_each(|replica| crew.proxy(replica).stop_at(point.effect, point.moment));
    let play = async {
        trial.begin().await?;
        let killed = tokio::select! {
            replica = crew.stopped() => {
                (0..crew.size()).filter(|other| *other != replica).for_each(|other| crew.proxy(other).heal());
                crew.replace(replica)?;
                true
            }
            recovered = trial.recovered() => {
                recovered?;
                false
            }
        };
        trial.recovered().await?;
        Ok(killed)
    };
    let died =
        crew.meanwhile(play).await.with_context(|| format!("{name}: died at {point:?}: {}", crew.said()))?;
    never_stop(crew);
    let outcome = trial.end().await.with_context(|| format!("died at {point:?}"))?;
    let differences = model.history.differences(&outcome.history);
    ensure!(differences.is_empty(), "{name}: died at {point:?}: {}", differences.join("; "));
    trial.clear().await?;
    Ok(died)
}
