//! The operator as a process that is killed: recoveries go on where they stood, and what is isolated stays isolated.
//!
//! One control plane for all tests here, and one operator at a time: each test takes the stage for itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

mod held;
mod judged;
mod killed;
mod progress;
mod stopped;

use std::path::Path;

use control_plane::{ControlPlane, Options};
use rehearsal::{Operator, OperatorOptions};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

const KINDS: &str = "resurgam.dev/v1alpha1";

static CLUSTER: OnceCell<ControlPlane> = OnceCell::const_new();
static STAGE: Mutex<()> = Mutex::const_new(());

/// The control plane, for one test at a time: there is one lease, and so one operator that acts.
async fn stage() -> (&'static ControlPlane, MutexGuard<'static, ()>) {
    let turn = STAGE.lock().await;
    let start = async || {
        let cluster = ControlPlane::start(Options::default()).await?;
        rehearsal::install(&cluster).await?;
        anyhow::Ok(cluster)
    };
    (CLUSTER.get_or_try_init(start).await.unwrap(), turn)
}

/// A new operator. The lease of one that was killed runs out after 2 s: it waits for that by itself.
fn start_operator(cluster: &ControlPlane) -> Operator {
    start_operator_with(cluster, 2)
}

/// With a lease that a busy machine does not lose: for who kills nobody.
fn start_patient_operator(cluster: &ControlPlane) -> Operator {
    start_operator_with(cluster, 15)
}

fn start_operator_with(cluster: &ControlPlane, lease_seconds: u32) -> Operator {
    let within = OperatorOptions::within(cluster, Path::new(env!("CARGO_BIN_EXE_resurgam")));
    Operator::start(cluster, &OperatorOptions { lease_seconds, ..within }).unwrap()
}
