//! Chores of the repository, as `cargo xtask`.

use anyhow::Result;
use clap::Parser;

mod crds;

/// Chores of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
enum Command {
    /// Write crds/*.yaml from the types in src/api.
    Crds(crds::Args),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Crds(args) => crds::run(&args),
    }
}
