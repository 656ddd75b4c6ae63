//! The operator behind a proxy that fails: whatever befalls it, recoveries end as they do without faults, and nothing is done
//! twice.
//!
//! Each test takes a stage for itself: a control plane, on which there is one crew of operators at a time.

mod chaos;
mod clock;
mod crash;
mod late;
mod leaders;

use control_plane::ControlPlane;
use rehearsal::trial::crash::{ReferenceRun, reference_run};
use rehearsal::trial::crew::Crew;
use rehearsal::{Stage, Stages};

const BINARY: &str = env!("CARGO_BIN_EXE_resurgam");

/// A control plane, and what a recovery on it is like in which nothing goes wrong.
static STAGES: Stages<(ControlPlane, ReferenceRun)> = Stages::new(2);

async fn stage() -> Stage<(ControlPlane, ReferenceRun)> {
    let start = async || {
        let cluster = rehearsal::shared_cluster().await?;
        rehearsal::install(&cluster).await?;
        let model = reference_run(&cluster, &crew(&cluster, 1).await).await?;
        eprintln!("without faults: {} effects\n{}", model.effects, model.history);
        Ok((cluster, model))
    };
    STAGES.take(start).await.unwrap()
}

/// Replicas with a short lease, which the next waits for when one is killed.
async fn crew(cluster: &ControlPlane, replicas: usize) -> Crew<'_> {
    Crew::start(cluster, BINARY.as_ref(), replicas, 3).await.unwrap()
}
