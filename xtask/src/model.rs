//! `cargo xtask model`: explores plans further than the tests do.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// Text at the end of `--help`.
const EXAMPLES: &str = "\
The model checker of resurgam-core explores every order of all that can happen to a small plan: writes, effects, gates, steps, crashes, \
conflicts, amendments, holds and Decisions. In the tests, one adversity may come; here, as many as you say. States grow by a factor of about \
thirty with each.

Examples:
  # Plans of three services, with two adversities: many minutes
  cargo xtask model --services 3 --adversities 2 --minutes 30

  # A plan of five services, to a depth
  cargo xtask model --services 5 --adversities 2 --depth 16

Exit status: 0 no invariant is broken in the states that were explored; their number and depth are printed. 1 one is, with the way there.";

/// Explore plans with a model checker, further than the tests do.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Plans of so many services: 2, 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=5))]
    services: u8,

    /// How many adversities may come.
    #[arg(long, default_value_t = 2)]
    adversities: u8,

    /// Explore no further than so many events from the beginning.
    #[arg(long)]
    depth: Option<usize>,

    /// Stop each plan after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut test = Command::new(cargo);
    test.current_dir(rehearsal::repository("."));
    // Unoptimised, the engine takes five times as long.
    test.args(["test", "--package", "resurgam-core", "--lib"]);
    test.args(["--config", "profile.dev.package.resurgam-core.opt-level=2"]);
    test.args([
        "simulate::tests::model::explores_as_far_as_told",
        "--",
        "--exact",
        "--ignored",
        "--nocapture",
    ]);
    test.env("RESURGAM_MODEL_SERVICES", args.services.to_string());
    test.env("RESURGAM_MODEL_ADVERSITIES", args.adversities.to_string());
    let limits = [
        ("RESURGAM_MODEL_DEPTH", args.depth.map(|depth| depth.to_string())),
        ("RESURGAM_MODEL_MINUTES", args.minutes.map(|minutes| minutes.to_string())),
    ];
    for (name, limit) in limits {
        test.env_remove(name).envs(limit.map(|limit| (name, limit)));
    }
    let status = test.status().context("cargo cannot be run")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
