//! Development tasks of the repository, as `cargo xtask`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

mod cluster;
mod crds;
mod demo;
mod failures;
mod faults;
mod image;
mod judge;
mod model;
mod mutants;
mod parts;
mod saboteur;
mod upgrade_from;

/// Development tasks of the repository.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", version, about)]
enum Command {
    /// Start or stop a real control plane on loopback, which tests can attach to.
    Cluster(cluster::Args),
    /// Play three boroughs, from the attack to the recovery, on a control plane of its own.
    Demo(demo::Args),
    /// Write charts/resurgam/files/crds/*.yaml and docs/api.md from the types in crates/api.
    Crds(crds::Args),
    /// Build third-party programs that some tests need: Helm, a registry, kube-router, Flux.
    Parts(parts::Args),
    Image(image::Args),
    /// Run recoveries with faults between operator and API server, chosen by seeds.
    Chaos(faults::ChaosArgs),
    /// Recover hundreds of services of which one in ten fails at random, and judge the run.
    Failures(failures::Args),
    /// Run recoveries for hours, with crashes, lost leaders and partitions.
    Soak(faults::SoakArgs),
    UpgradeFrom(upgrade_from::Args),
    Model(model::Args),
    Mutants(mutants::Args),
    /// Sabotage namespaces by seed, isolate and release them, and compare.
    Saboteur(saboteur::Args),
    /// Judge a recovery from an audit log and a plan alone. Exit code: 0 no violation, 1 violations, 2 not enough proof.
    Judge(judge::Args),
}

fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::Cluster(args) => cluster::run(args)?,
        Command::Demo(args) => return demo::run(&args),
        Command::Chaos(args) => return faults::chaos_runs(&args),
        Command::Failures(args) => return failures::run(&args),
        Command::Soak(args) => return faults::soak(&args),
        Command::Saboteur(args) => return saboteur::run(&args),
        Command::UpgradeFrom(args) => return upgrade_from::run(&args),
        Command::Model(args) => return model::run(&args),
        Command::Mutants(args) => return mutants::run(&args),
        Command::Crds(args) => crds::run(&args)?,
        Command::Parts(args) => parts::run(&args)?,
        Command::Image(args) => image::run(&args)?,
        Command::Judge(args) => return judge::run(&args),
    }
    Ok(ExitCode::SUCCESS)
}
