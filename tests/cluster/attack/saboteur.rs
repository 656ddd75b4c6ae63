//! Whatever the administrator of a namespace wrote there, and the platform left behind, before the day: by seed. More seeds, one after the other:
//! `cargo xtask saboteur`.

use std::path::Path;

use futures::{StreamExt, stream};
use rehearsal::saboteur::Sabotage;
use rehearsal::saboteur::trial::{Report, by_command, clean_up, with_operator};

use crate::attack::rig::{shared_stage, stage};

/// So many seeds play every trick.
const SEEDS: u64 = 10;
/// At once, on two cores.
const AT_ONCE: usize = 5;

/// So many seeds, and a namespace in which nothing was planted: what is wrong with that is wrong with the trial.
fn sabotages() -> impl Iterator<Item = Sabotage> {
    let seeds = (rehearsal::seed(0).unwrap()..).take(usize::try_from(SEEDS).unwrap()).map(Sabotage::of_seed);
    std::iter::once(Sabotage::none()).chain(seeds)
}

async fn play<T>(trial: impl AsyncFn(Sabotage) -> anyhow::Result<T>) -> Vec<T> {
    let all = stream::iter(sabotages()).map(async |sabotage| trial(sabotage).await.unwrap());
    all.buffer_unordered(AT_ONCE).collect().await
}

fn all_right(reports: &[Report]) {
    let wrong: Vec<String> = reports.iter().filter(|r| !r.is_right()).map(Report::to_string).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} namespaces went wrong:\n{}",
        wrong.len(),
        reports.len(),
        wrong.join("\n")
    );
    assert_eq!(reports.len() as u64, SEEDS + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_left_in_a_namespace_weakens_its_isolation() {
    let stage = shared_stage(1).await;
    rehearsal::saboteur::prepare(&stage.rig.cluster).await.unwrap();
    all_right(&play(async |sabotage| with_operator(&stage.rig.cluster, &sabotage).await).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_left_in_a_namespace_deceives_the_command() {
    // The operator writes the guards that the command does not, and is gone.
    let mut stage = stage(0).await;
    rehearsal::saboteur::prepare(&stage.rig.cluster).await.unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_resurgam"));
    let reports = play(async |sabotage| by_command(&stage.rig.cluster, binary, &sabotage).await).await;
    all_right(&reports);
    stage.operators(1);
    play(async |sabotage| clean_up(&stage.rig.cluster, &sabotage).await).await;
}
