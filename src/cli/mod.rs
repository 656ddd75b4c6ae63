//! One file for each subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod crds;
mod simulate;

/// Brings services back after a cyber attack: in dependency order, each only when it is proved healthy and intact, with
/// everything else kept isolated meanwhile.
#[derive(Debug, Parser)]
#[command(name = "resurgam", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a plan through in virtual time, without any cluster: order, critical path, makespan.
    Simulate(simulate::Args),
    /// Print the CustomResourceDefinitions, for `kubectl apply --server-side -f -`.
    Crds(crds::Args),
}

impl Cli {
    /// Runs the chosen subcommand. 0: done, and what was asked is so. 1: it is not so. 2: it could not be found out.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Simulate(args) => simulate::run(&args),
            Command::Crds(args) => crds::run(&args),
        };
        result.unwrap_or_else(|error| {
            anstream::eprintln!("resurgam: {error:#}");
            ExitCode::from(2)
        })
    }
}
