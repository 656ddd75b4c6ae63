//! The operator as a process that is killed: recoveries go on where they stood, and what is isolated stays isolated.
//!
//! Each test takes a stage for itself: a control plane, on which there is one operator at a time.

mod held;
mod judged;
mod killed;
mod pod;
mod progress;
mod requests;
mod stopped;

use control_plane::ControlPlane;
use rehearsal::{Operator, OperatorOptions, Stage, Stages};

const BINARY: &str = env!("CARGO_BIN_EXE_resurgam");
const KINDS: &str = "resurgam.dev/v1alpha1";

static STAGES: Stages<ControlPlane> = Stages::new(3);

async fn stage() -> Stage<ControlPlane> {
    let start = async || {
        let cluster = rehearsal::shared_cluster().await?;
        rehearsal::install(&cluster).await?;
        Ok(cluster)
    };
    STAGES.take(start).await.unwrap()
}

/// An operator that nobody kills, with a lease that a busy machine does not lose.
fn start_operator(cluster: &ControlPlane) -> Operator {
    let within = OperatorOptions::within(cluster, BINARY.as_ref());
    Operator::start(cluster, &OperatorOptions { lease_seconds: 15, ..within }).unwrap()
}
