//! `resurgam simulate PLAN.yaml`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

/// Arguments of `resurgam simulate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A RecoveryPlan, as YAML.
    plan: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    anyhow::bail!("{} was not simulated: not built yet", args.plan.display())
}
