//! The operator behind a proxy that fails: whatever befalls it, recoveries end as they do without faults, and nothing is done
//! twice.
//!
//! One control plane for all tests here, and one crew of operators at a time: each test takes the stage for itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

mod chaos;
mod clock;
mod crash;
mod late;
mod leaders;

use control_plane::{ControlPlane, Options};
use rehearsal::trial::crash::{Model, model};
use rehearsal::trial::crew::Crew;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

const BINARY: &str = env!("CARGO_BIN_EXE_resurgam");

static CLUSTER: OnceCell<(ControlPlane, Model)> = OnceCell::const_new();
static STAGE: Mutex<()> = Mutex::const_new(());

/// The control plane, for one test at a time: there is one lease, and so one operator that acts. And what a recovery is like in
/// which nothing goes wrong.
async fn stage() -> (&'static ControlPlane, &'static Model, MutexGuard<'static, ()>) {
    let turn = STAGE.lock().await;
    let start = async || {
        let cluster = ControlPlane::start(Options::default()).await?;
        rehearsal::install(&cluster).await?;
        let model = model(&cluster, &crew(&cluster, 1).await).await?;
        eprintln!("without faults: {} effects\n{}", model.effects, model.history);
        anyhow::Ok((cluster, model))
    };
    let (cluster, model) = CLUSTER.get_or_try_init(start).await.unwrap();
    (cluster, model, turn)
}

/// Replicas with a short lease, which the next waits for when one is killed.
async fn crew(cluster: &ControlPlane, replicas: usize) -> Crew<'_> {
    Crew::start(cluster, BINARY.as_ref(), replicas, 3).await.unwrap()
}
