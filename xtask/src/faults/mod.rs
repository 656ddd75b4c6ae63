//! `cargo xtask chaos` and `cargo xtask soak`: recoveries with everything in their way, over and over.

mod play;
mod stage;
mod tell;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rehearsal::SplitMix;
use rehearsal::trial::leaders::Lost;

use play::{Play, every_point};
use stage::Stage;
pub(crate) use stage::keep_audit_log;
use tell::{Output, Row, failed};

/// What `cargo xtask chaos --help` ends with.
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

/// What `cargo xtask soak --help` ends with.
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
    /// The first seed. The same seed chooses the same faults again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `cargo xtask soak`.
#[derive(clap::Args)]
#[command(after_help = SOAK_EXAMPLES)]
pub(crate) struct SoakArgs {
    /// For how long trials are begun. One that has begun is played to its end.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Chooses the order of moments to be killed at, and is the first seed of what else fails, and the effect at which the first operator of
    /// three boroughs dies first (over 40, from 1 again).
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these, by turns, each until there is no more of it. Default: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Trials>,
    #[command(flatten)]
    common: Common,
}

/// What can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Trials {
    /// Two replicas, killed and cut off in turn for a sixth of the time, while recoveries go on side by side.
    Load,
    /// The operator, or the leader of two, is killed at one effect of a small recovery: at each of them, on both sides of it.
    Crash,
    /// A seed chooses what fails.
    Chaos,
    /// The leader of two is killed, and cut off.
    Leaders,
    /// Two and a half minutes of silence.
    Silence,
    /// Three boroughs, whose every operator dies after some effects.
    Boroughs,
}

#[derive(clap::Args)]
struct Common {
    /// How to say what came of it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The folder for the cluster's data. Default: a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Lease of the operators, in seconds: what is waited for whenever one is killed.
const LEASE: u32 = 2;
/// The same where a leader that is cut off has to end in time, on a machine that may be busy.
const LONG_LEASE: u32 = 5;
/// How long nobody hears of the API server.
const SILENCE: Duration = Duration::from_secs(150);
/// After how many effects each operator dies that brings three boroughs back. Each begins with some that change nothing, such as policies
/// that are there already: with fewer than those, none would get further.
const LIFE: u64 = 40;

pub(crate) fn chaos_runs(args: &ChaosArgs) -> Result<ExitCode> {
    block_on(async {
        let stage = Stage::set(&args.common).await?;
        let crew = stage.crew(1, LEASE).await?;
        let mut rows: Vec<Row> = Vec::new();
        for seed in args.seed..args.seed.saturating_add(args.runs) {
            let again = format!("cargo xtask chaos --seed {seed} --runs 1");
            rows.push(stage.play(&crew, Play::Chaos(seed), &again).await);
            if failed(&rows) {
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
        while Instant::now() < until && !failed(&rows) {
            let Some(turn) = turns.next() else { break };
            // A crew is of one kind: there is one lease.
            let crew = stage.crew(turn.replicas, turn.lease).await?;
            for play in turn.plays {
                if Instant::now() >= until || failed(&rows) {
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

/// What is played by one crew.
struct Turn {
    replicas: usize,
    lease: u32,
    plays: Vec<Play>,
}

/// By turns, so that a short soak has some of each.
struct Turns {
    minutes: u64,
    /// The argument that chose what is played, if any.
    only: String,
    first_seed: u64,
    effects: u64,
    random: SplitMix,
    /// Whose turn it is, and whose next.
    order: Vec<Trials>,
    next: usize,
    seed: u64,
    /// Where nobody has been killed yet.
    points: Vec<Play>,
    moments: usize,
    /// Where the first operator has not died yet that brings three boroughs back.
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

    /// Moments that were not played are told as such.
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

/// Each effect that the first operator of three boroughs dies at, the last one first: those from the seed on, and then those before it. So what
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
