//! `cargo xtask chaos` and `cargo xtask soak`: recoveries with everything in their way, over and over.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Options};
use fault_proxy::Moment;
use rehearsal::SplitMix;
use rehearsal::trial::chaos::chaos;
use rehearsal::trial::crash::{Model, Point, crash, model};
use rehearsal::trial::crew::Crew;
use rehearsal::trial::leaders::{Lost, takeover};
use serde::Serialize;

/// Arguments of `cargo xtask chaos`.
#[derive(clap::Args)]
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
pub(crate) struct SoakArgs {
    /// For how long trials are begun. One that has begun is played to its end.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Chooses the order of moments to be killed at, and is the first seed of what else fails.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    common: Common,
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

#[derive(Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Lease of the operators, in seconds: what is waited for whenever one is killed.
const LEASE: u32 = 2;
/// The same where a leader that is cut off has to end in time, on a machine that may be busy.
const LONG_LEASE: u32 = 5;

/// What was played.
#[derive(Clone, Copy, Debug)]
enum Play {
    Chaos(u64),
    Crash(Point),
    Leader(Lost, u64),
}

/// What came of it.
#[derive(Serialize)]
struct Row {
    trial: String,
    /// To play it again, where that is chosen by a seed.
    seed: Option<u64>,
    seconds: f64,
    /// What befell it.
    told: String,
    /// How many faults struck.
    faults: u64,
    violation: Option<String>,
}

#[derive(Serialize)]
struct Outcome {
    trials: usize,
    faults: u64,
    violations: usize,
    /// Effects of a recovery without faults: at each the operator can be killed on two sides.
    effects: u64,
    rows: Vec<Row>,
}

pub(crate) fn chaos_runs(args: &ChaosArgs) -> Result<ExitCode> {
    block_on(async {
        let stage = Stage::set(&args.common).await?;
        let crew = stage.crew(1, LEASE).await?;
        let mut rows = Vec::new();
        for seed in args.seed..args.seed.saturating_add(args.runs) {
            rows.push(
                stage
                    .play(&crew, Play::Chaos(seed), &format!("cargo xtask chaos --seed {seed} --runs 1"))
                    .await,
            );
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
        let mut random = SplitMix::new(args.seed);
        let mut points = every_point(stage.model.effects, &mut random);
        let all = points.len();
        let (mut rows, mut seed) = (Vec::new(), args.seed);
        let again = format!("cargo xtask soak --seed {} --minutes {}", args.seed, args.minutes);
        while Instant::now() < until && !failed(&rows) {
            let effect = random.between(1, stage.model.effects / 2);
            // By turns, so that a short soak has some of each. A crew is of one kind: there is one lease.
            let killed: Vec<_> = points.drain(points.len().saturating_sub(10)..).map(Play::Crash).collect();
            let mut seeds = || {
                seed += 1;
                Play::Chaos(seed - 1)
            };
            let chaos: Vec<_> = (0..5).map(|_| seeds()).collect();
            let lost = [Lost::CutOff, Lost::Killed].map(|lost| Play::Leader(lost, effect)).to_vec();
            for (plays, replicas, lease) in [
                (killed, if random.between(0, 2) == 0 { 1 } else { 2 }, LEASE),
                (chaos, 1, LEASE),
                (lost, 2, LONG_LEASE),
            ] {
                let crew = stage.crew(replicas, lease).await?;
                for play in plays {
                    if Instant::now() >= until || failed(&rows) {
                        // Moments that were not played are told as such.
                        if let Play::Crash(point) = play {
                            points.push(point);
                        }
                        continue;
                    }
                    let again = match play {
                        Play::Chaos(seed) => format!("cargo xtask chaos --seed {seed} --runs 1"),
                        _ => again.clone(),
                    };
                    rows.push(stage.play(&crew, play, &again).await);
                }
            }
        }
        anstream::eprintln!("killed at {} of {all} moments", all - points.len());
        stage.end(&args.common, rows).await
    })
}

fn failed(rows: &[Row]) -> bool {
    rows.last().is_some_and(|row| row.violation.is_some())
}

/// Each effect, on both sides of it, in an order that the seed chooses.
fn every_point(effects: u64, random: &mut SplitMix) -> Vec<Point> {
    let sides = [Moment::Unsent, Moment::Unanswered];
    let points = (1..=effects).flat_map(|effect| sides.map(|moment| Point { effect, moment }));
    let mut points: Vec<_> = points.map(|point| (random.between(0, u64::MAX), point)).collect();
    points.sort_by_key(|(order, _)| *order);
    points.into_iter().map(|(_, point)| point).collect()
}

fn block_on(play: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
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

/// A control plane, and what a recovery on it is like without faults.
struct Stage {
    cluster: ControlPlane,
    binary: PathBuf,
    model: Model,
    began: Instant,
}

impl Stage {
    async fn set(common: &Common) -> Result<Self> {
        let began = Instant::now();
        anstream::eprintln!("building the operator");
        let binary = crate::demo::build()?;
        anstream::eprintln!("starting a control plane");
        let cluster = ControlPlane::start(Options { dir: common.dir.clone(), ..Options::default() }).await?;
        rehearsal::install(&cluster).await?;
        let crew = Crew::start(&cluster, &binary, 1, LEASE).await?;
        let model = model(&cluster, &crew).await?;
        drop(crew);
        anstream::eprintln!("without faults, a recovery takes {} effects", model.effects);
        Ok(Self { cluster, binary, model, began })
    }

    async fn crew(&self, replicas: usize, lease: u32) -> Result<Crew<'_>> {
        Crew::start(&self.cluster, &self.binary, replicas, lease).await
    }

    /// Plays one, and tells how it went. `again` plays it once more.
    async fn play(&self, crew: &Crew<'_>, play: Play, again: &str) -> Row {
        let began = Instant::now();
        let (trial, seed) = match play {
            Play::Chaos(seed) => (format!("chaos, seed {seed}"), Some(seed)),
            Play::Crash(Point { effect, moment }) => {
                (format!("killed at effect {effect}, {moment:?}, of {}", crew.size()), None)
            }
            Play::Leader(lost, effect) => (format!("leader {lost:?} at effect {effect}"), None),
        };
        // Names are used once.
        let name = |what: &str| format!("{what}-{}", self.began.elapsed().as_millis());
        let played = match play {
            Play::Chaos(seed) => chaos(&self.cluster, crew, seed, &self.model).await.map(|befell| {
                let faults = befell.faults.values().sum();
                (format!("{faults} faults, {} effects, ended {} times", befell.effects, befell.ended), faults)
            }),
            Play::Crash(point) => {
                let died = crash(&self.cluster, crew, &name("crash"), point, &self.model).await;
                died.map(
                    |died| if died { ("died there".to_owned(), 1) } else { ("done before".to_owned(), 0) },
                )
            }
            Play::Leader(lost, effect) => {
                let took = takeover(&self.cluster, crew, &name("leader"), (lost, effect), &self.model).await;
                took.map(|took| {
                    let ended = took.ended_before.map(|by| format!(", ended {by:.1} s before that"));
                    (format!("another leads after {:.1} s{}", took.taken_after, ended.unwrap_or_default()), 1)
                })
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        let (told, faults, violation) = match played {
            Ok((told, faults)) => (told, faults, None),
            Err(error) => (String::new(), 0, Some(format!("{error:#}"))),
        };
        match &violation {
            None => anstream::eprintln!("{trial}: {told}, {seconds:.1} s"),
            Some(why) => anstream::eprintln!("{trial}: VIOLATION: {why}\nagain: {again}"),
        }
        Row { trial, seed, seconds, told, faults, violation }
    }

    async fn end(self, common: &Common, rows: Vec<Row>) -> Result<ExitCode> {
        let (violated, effects) = (failed(&rows), self.model.effects);
        if violated {
            anstream::eprintln!("audit log: {}", self.cluster.audit_log().display());
        }
        self.cluster.stop().await?;
        let violations = rows.iter().filter(|row| row.violation.is_some()).count();
        let faults = rows.iter().map(|row| row.faults).sum();
        let outcome = Outcome { trials: rows.len(), faults, violations, effects, rows };
        match common.output {
            Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&outcome)?),
            Output::Text => tell(&outcome),
        }
        Ok(if violated { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn tell(outcome: &Outcome) {
    anstream::println!("{:<40} {:>8}  WHAT CAME OF IT", "TRIAL", "SECONDS");
    for row in &outcome.rows {
        let came = if row.violation.is_some() { "VIOLATION" } else { &row.told };
        anstream::println!("{:<40} {:>8.1}  {came}", row.trial, row.seconds);
    }
    let Outcome { trials, faults, violations, .. } = outcome;
    anstream::println!("{trials} trials, {faults} faults, {violations} violations");
}
