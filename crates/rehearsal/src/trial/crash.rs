//! The operator dies at a given one of its effects, and another goes on.

use anyhow::{Context, Result, ensure};
use control_plane::ControlPlane;
use fault_proxy::Moment;
use serde::Serialize;

use super::crew::Crew;
use super::{History, Trial};

/// A moment to die at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// At which effect, counted from 1.
    pub effect: u64,
    /// On which side of it.
    pub moment: Moment,
}

/// What a recovery without any fault is like.
#[derive(Clone, Debug)]
pub struct Model {
    /// What happens to what.
    pub history: History,
    /// How many effects it takes.
    pub effects: u64,
}

/// Plays a recovery in which nothing goes wrong, twice: the first time operators may still be putting things in place of their
/// own, and what differs between the two is nothing to compare others with.
///
/// # Errors
/// It does not end as it should, or not twice in the same way.
pub async fn model(cluster: &ControlPlane, crew: &Crew<'_>) -> Result<Model> {
    let first = calm(cluster, crew, "calm-1").await?;
    let second = calm(cluster, crew, "calm-2").await?;
    let differences = first.history.differences(&second.history);
    ensure!(differences.is_empty(), "without faults, at the second time: {}", differences.join("; "));
    Ok(second)
}

async fn calm(cluster: &ControlPlane, crew: &Crew<'_>, name: &str) -> Result<Model> {
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
    Ok(Model { history, effects })
}

/// Counts effects anew.
pub(super) fn never_stop(crew: &Crew<'_>) {
    (0..crew.size()).for_each(|replica| crew.proxy(replica).stop_at(u64::MAX, Moment::Unsent));
}

/// Plays a recovery whose leader dies at that point. Returns whether it came to that before everything was done.
///
/// # Errors
/// It does not end as the model did.
pub async fn crash(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    name: &str,
    point: Point,
    model: &Model,
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
