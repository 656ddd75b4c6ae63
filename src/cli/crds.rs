//! `resurgam crds`.

use std::process::ExitCode;

use anyhow::Result;

use crate::api;

/// Arguments of `resurgam crds`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> Result<ExitCode> {
    for crd in api::crds() {
        anstream::println!("---\n{}", serde_yaml::to_string(&crd)?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
