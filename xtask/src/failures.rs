//! `cargo xtask failures`: hundreds of services of which one in ten fails at random.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Options};
use rehearsal::many::Many;

/// Recovers many services of which one in ten fails at random, on a control plane of its own. Each has to end recovered, or waiting for a
/// failed one that it depends on; the judge has to agree.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of services.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=500))]
    services: u16,
    /// Seed of dependencies and failures. Default: RESURGAM_SEED, or 1.
    #[arg(long)]
    seed: Option<u64>,
    /// Longest time that one service may take to come to its end, in minutes.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(play(args))
}

async fn play(args: &Args) -> Result<ExitCode> {
    let binary = super::demo::build()?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => rehearsal::seed(1)?,
    };
    let cluster = ControlPlane::start(Options::default()).await?;
    rehearsal::install(&cluster).await?;
    let began = Instant::now();
    let tell = |line: String| anstream::println!("{:>5.0} s  {line}", began.elapsed().as_secs_f64());
    let many = Many::new(args.services.into(), seed, Duration::from_secs(60 * args.minutes));
    let (outcome, operator, plan) = many.play(&cluster, &binary, &tell).await?;
    drop(operator);
    tell(format!(
        "seed {seed}: {} failed, {} recovered, {} wait for one that failed",
        outcome.failed, outcome.recovered, outcome.held_up
    ));
    let log = std::io::BufReader::new(std::fs::File::open(cluster.audit_log())?);
    let report = judge::judge(log, &plan, &judge::Options::default())?;
    anstream::print!("{report}");
    cluster.stop().await?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
