//! Whatever the administrator of a namespace wrote there, and the platform left behind, before the day: by seed. More seeds, one after the other:
//! `cargo xtask saboteur`.

use std::path::Path;

use futures::{StreamExt, stream};
use rehearsal::saboteur::trial::{Report, by_command, with_operator};

use crate::rig::stage;

/// So many seeds play every trick.
const SEEDS: u64 = 10;
/// At once, on two cores.
const AT_ONCE: usize = 5;

async fn play<'a, F>(trial: impl Fn(u64) -> F) -> Vec<Report>
where
    F: Future<Output = anyhow::Result<Report>> + 'a,
{
    let seeds = stream::iter(rehearsal::seed(0).unwrap()..).take(usize::try_from(SEEDS).unwrap());
    seeds.map(async |seed| trial(seed).await.unwrap()).buffer_unordered(AT_ONCE).collect().await
}

fn all_right(reports: &[Report]) {
    let wrong: Vec<String> = reports.iter().filter(|r| !r.is_right()).map(Report::to_string).collect();
    assert!(wrong.is_empty(), "{} of {} seeds went wrong:\n{}", wrong.len(), reports.len(), wrong.join("\n"));
    assert_eq!(reports.len() as u64, SEEDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_left_in_a_namespace_weakens_its_isolation() {
    let stage = stage(1).await;
    rehearsal::saboteur::prepare(&stage.rig.cluster).await.unwrap();
    all_right(&play(|seed| with_operator(&stage.rig.cluster, seed)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_left_in_a_namespace_deceives_the_command() {
    // The operator writes the guards that the command does not, and is gone.
    let stage = stage(0).await;
    rehearsal::saboteur::prepare(&stage.rig.cluster).await.unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_resurgam"));
    all_right(&play(|seed| by_command(&stage.rig.cluster, binary, seed)).await);
}
