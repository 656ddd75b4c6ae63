//! `cargo xtask chaos` and `cargo xtask soak`: runs recoveries with faults repeatedly.

mod play;
mod report;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rehearsal::SplitMix;
use rehearsal::trial::leaders::Lost;

use play::{Play, every_point};
use report::{Output, Row, has_failed};
use stage::Stage;
pub(crate) use stage::keep_audit_log;

/// Text at the end of `cargo xtask chaos --help`.
const CHAOS_EXAMPLES: &str = "\
About one request in twelve meets with a refusal, a broken connection, a late answer, a broken watch, or silence. The seed chooses, never a \
clock: the same seed fails the same requests again. Each recovery has to end as one without faults: same estate, same history, nothing \
for the judge to find.

Examples:
  # Ten seeds, half a minute each
  cargo xtask chaos

  # One seed again, with the cluster's data and logs kept
  cargo xtask chaos --seed 12 --runs 1 --dir DIR

The first recovery that ends otherwise is the last. Its reason goes to standard error, with where the audit log was kept.

Exit status: 0 all ended as they should; 1 one did not; 130 interrupted.";

/// Text at the end of `cargo xtask soak --help`.
const SOAK_EXAMPLES: &str = "\
By turns: leaders lost under load, the operator killed at each effect, chaos, a leader killed and cut off, silence, and three boroughs whose \
every operator dies. docs/reliability.md has what earlier soaks showed.

Examples:
  # Before a release
  cargo xtask soak --minutes 60

  # Every effect of a recovery, on both sides of it
  cargo xtask soak --minutes 45 --only crash

  # Where an earlier soak of three boroughs stopped, at the 7th first effect
  cargo xtask soak --only boroughs --seed 7

  # For a program to read
  cargo xtask soak --minutes 60 --output json > soak.json

Each trial is reported on standard error as it ends, and all in a table at the end. The first violation is the last trial, and is reported with \
the command that plays it again.

Exit status: 0 all ended as they should; 1 one did not; 130 interrupted.";

/// Arguments of `cargo xtask chaos`.
#[derive(clap::Args)]
#[command(after_help = CHAOS_EXAMPLES)]
pub(crate) struct ChaosArgs {
    /// First seed. A seed always chooses the same faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `cargo xtask soak`.
#[derive(clap::Args)]
#[command(after_help = SOAK_EXAMPLES)]
pub(crate) struct SoakArgs {
    /// Time during which trials are started. A running trial is finished.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Seed of the order of crash points, first seed of the other faults, and the effect at which the first operator of three boroughs
    /// dies first (modulo 40).
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only these kinds of trials, in turn, until each is exhausted. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Trials>,
    #[command(flatten)]
    common: Common,
}

/// Kinds of trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Trials {
    /// Two replicas, killed and partitioned in turn for a sixth of the time, while recoveries run in parallel.
    Load,
    /// The operator, or the leader of two, is killed at an effect of a small recovery: at each effect, on both sides of it.
    Crash,
    /// Faults that a seed chooses.
    Chaos,
    /// The leader of two is killed or partitioned.
    Leaders,
    /// A partition of two and a half minutes.
    Silence,
    /// Three boroughs, each of whose operators dies after some effects.
    Boroughs,
}

#[derive(clap::Args)]
struct Common {
    /// Format of the report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Folder for the cluster's data. Default: a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Duration of the operators' lease in seconds. After each kill the successor waits for its expiry.
const LEASE: u32 = 2;
/// Duration of the lease in seconds where a partitioned leader must exit in time, on a busy machine.
const LONG_LEASE: u32 = 5;
/// Duration of the partition.
const SILENCE: Duration = Duration::from_secs(150);
/// Number of effects after which each operator of three boroughs dies. An operator starts with some that change nothing, such as writes
/// of existing policies; with a lower number none would make progress.
const LIFE: u64 = 40;

pub(crate) fn chaos_runs(args: &ChaosArgs) -> Result<ExitCode> {
    block_on(async {
        let stage = Stage::set(&args.common).await?;
        let crew = stage.crew(1, LEASE).await?;
        let mut rows: Vec<Row> = Vec::new();
        for seed in args.seed..args.seed.saturating_add(args.runs) {
            let again = format!("cargo xtask chaos --seed {seed} --runs 1");
            rows.push(stage.play(&crew, Play::Chaos(seed), &again).await);
            if has_failed(&rows) {
                break;
            }
        }
        drop(crew);
        stage.end(&args.common, rows).await
    })
}

pub(crate) fn soak(args: &SoakArgs) -> Result<ExitCode> {
    block_on(async {
        let stage = Stage::set(&args.common).await?;
        let until = Instant::now() + Duration::from_secs(60 * args.minutes);
        let mut turns = Turns::new(args, stage.effects());
        let mut rows = Vec::new();
        while Instant::now() < until && !has_failed(&rows) {
            let Some(turn) = turns.next() else { break };
            // A crew is of one kind: there is one lease.
            let crew = stage.crew(turn.replicas, turn.lease).await?;
            for play in turn.plays {
                if Instant::now() >= until || has_failed(&rows) {
                    turns.not_played(play);
                    continue;
                }
                rows.push(stage.play(&crew, play, &turns.again(play)).await);
            }
        }
        anstream::eprintln!(
            "killed at {} of {} moments of a small recovery",
            turns.killed_at(),
            turns.moments
        );
        stage.end(&args.common, rows).await
    })
}

/// Trials that use the same crew.
struct Turn {
    replicas: usize,
    lease: u32,
    plays: Vec<Play>,
}

/// Trials in turn, so that a short soak has some of each kind.
struct Turns {
    minutes: u64,
    /// The kinds that the arguments select, if any.
    only: String,
    first_seed: u64,
    effects: u64,
    random: SplitMix,
    /// Current turn.
    order: Vec<Trials>,
    next: usize,
    seed: u64,
    /// Crash points that have not been used.
    points: Vec<Play>,
    moments: usize,
    /// First deaths of three boroughs that have not been used.
    firsts: Vec<u64>,
}

impl Turns {
    fn new(args: &SoakArgs, effects: u64) -> Self {
        use Trials::{Boroughs, Chaos, Crash, Leaders, Load, Silence};
        let all = [Load, Crash, Chaos, Leaders, Silence, Boroughs];
        let order = all.into_iter().filter(|trials| args.only.is_empty() || args.only.contains(trials));
        let names = args.only.iter().filter_map(clap::ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        let only = if names.is_empty() { String::new() } else { format!(" --only {}", names.join(",")) };
        let mut random = SplitMix::new(args.seed);
        let points: Vec<_> = every_point(effects, &mut random).into_iter().map(Play::Crash).collect();
        Self {
            minutes: args.minutes,
            only,
            first_seed: args.seed,
            effects,
            random,
            order: order.collect(),
            next: 0,
            seed: args.seed,
            moments: points.len(),
            points,
            firsts: firsts(args.seed),
        }
    }

    fn next(&mut self) -> Option<Turn> {
        for _ in 0..self.order.len() {
            let trials = self.order[self.next % self.order.len()];
            self.next += 1;
            let turn = self.turn(trials);
            if !turn.plays.is_empty() {
                return Some(turn);
            }
        }
        None
    }

    fn turn(&mut self, trials: Trials) -> Turn {
        let effect = self.random.between(1, self.effects / 2);
        let replicas = if self.random.between(0, 2) == 0 { 1 } else { 2 };
        let turn = |replicas, lease, plays| Turn { replicas, lease, plays };
        match trials {
            // Once.
            Trials::Load if self.next > self.order.len() => turn(2, LONG_LEASE, Vec::new()),
            Trials::Load => {
                turn(2, LONG_LEASE, vec![Play::Load(self.first_seed, Duration::from_secs(10 * self.minutes))])
            }
            Trials::Crash => {
                let some = self.points.len().saturating_sub(10);
                turn(replicas, LEASE, self.points.split_off(some))
            }
            Trials::Chaos => {
                let from = self.seed;
                self.seed += 5;
                turn(1, LEASE, (from..self.seed).map(Play::Chaos).collect())
            }
            Trials::Leaders => {
                let lost = [Lost::CutOff, Lost::Killed];
                turn(2, LONG_LEASE, lost.map(|lost| Play::Leader(lost, effect)).to_vec())
            }
            Trials::Silence => turn(replicas, LONG_LEASE, vec![Play::Silence(effect, SILENCE)]),
            Trials::Boroughs => {
                let plays = self.firsts.pop().map(|first| Play::Boroughs { replicas, first, life: LIFE });
                turn(1, LEASE, plays.into_iter().collect())
            }
        }
    }

    /// Reports the crash points that were not run.
    fn not_played(&mut self, play: Play) {
        if let Play::Crash(_) = play {
            self.points.push(play);
        }
    }

    fn killed_at(&self) -> usize {
        self.moments - self.points.len()
    }

    fn again(&self, play: Play) -> String {
        match play {
            Play::Chaos(seed) => format!("cargo xtask chaos --seed {seed} --runs 1"),
            _ => {
                format!("cargo xtask soak --seed {} --minutes {}{}", self.first_seed, self.minutes, self.only)
            }
        }
    }
}

/// Returns the effects at which the first operator of three boroughs dies, last one first: from the seed on, then those before it. So one
/// soak continues where another stopped.
/// one soak left, another goes on with.
fn firsts(seed: u64) -> Vec<u64> {
    (0..LIFE).rev().map(|after| (seed.saturating_sub(1) % LIFE + after) % LIFE + 1).collect()
}

pub(crate) fn block_on(play: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            played = play => played,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        }
    });
    // A build that was interrupted ends with this process.
    runtime.shutdown_background();
    outcome
}
