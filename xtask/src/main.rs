//! Chores of the repository, as `cargo xtask`.

use anyhow::Result;
use clap::Parser;

mod cluster;
mod crds;

/// Chores of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
enum Command {
    /// Start or end a real control plane on loopback.
    Cluster(cluster::Args),
    /// Write crds/*.yaml from the types in src/api.
    Crds(crds::Args),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Cluster(args) => cluster::run(args),
        Command::Crds(args) => crds::run(&args),
    }
}
