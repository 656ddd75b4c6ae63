//! `cargo xtask saboteur`: isolates namespaces that were sabotaged before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use control_plane::{ControlPlane, Options};
use futures::{StreamExt, stream};
use rehearsal::saboteur::trial::{Report, by_command, with_operator};
use rehearsal::saboteur::{Promise, Sabotage, Trick, every_trick, prepare};
use rehearsal::{Operator, OperatorOptions};

use crate::faults::block_on;

/// Text at the end of `--help`.
const EXAMPLES: &str = "\
Each seed chooses three to eight tricks: objects with names and marks of ours, huge and many objects, finalizers and grace periods of \
an hour, forged owners and policies that add up, planted by a user who has the built-in ClusterRole admin in the namespace and nothing \
else; and quotas, limit ranges and webhooks that are down, left by the platform. The namespace is then sealed.

Within two minutes writes are refused, the network is cut, nothing runs, and tokens of before are void, but for the one control whose own \
writes a webhook refuses: it is NotEnforced and names the webhook, and comes right within a minute once that is gone. Ready=True is never \
said of what is not so; what is not Ready names its culprit. Released, the namespace is as it was.

The trial `alone` has no operator: `resurgam quarantine` refuses writes and cuts the network, and exits with 0 exactly if that is so.

A namespace that went wrong is told with its tricks, what was found and what its Quarantine says, and is left as it was.

Examples:
  # What CI plays: any ten seeds from a multiple of ten on play every trick.
  cargo xtask saboteur --seeds 10

  # Which tricks does a seed play?
  cargo xtask saboteur --from 17 --seeds 1 --list

  # Each trick by itself, and none at all: which of them is it?
  cargo xtask saboteur --each

  # One seed again, and a cluster to look around in: the namespace saboteur-17 is left as it was when it went wrong.
  cargo xtask saboteur --from 17 --seeds 1 --only operator --keep

  # The lot, with an operator that was built before.
  cargo xtask saboteur --seeds 200 --operator target/release/resurgam

Exit status: 0 all went as they should; 1 one did not, or could not be tried.";

/// Arguments of `cargo xtask saboteur`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Number of seeds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// First seed. A seed always plays the same tricks.
    #[arg(long, default_value_t = 0)]
    from: u64,

    /// Number of namespaces at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=64))]
    parallel: u64,

    /// Instead of seeds, play each trick alone, and none at all.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    each: bool,

    /// Run only one of the two trials. Default: both.
    #[arg(long, value_enum)]
    only: Option<Trial>,

    /// Path of the resurgam binary. Default: a debug build.
    #[arg(long, value_name = "FILE")]
    operator: Option<PathBuf>,

    /// Folder for the cluster's data. Default: a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,

    /// Keep the cluster running at the end, until Ctrl-C.
    #[arg(long)]
    keep: bool,

    /// Only print the tricks of each seed.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Trial {
    /// With the operator: sealed, released and compared.
    Operator,
    /// With the command alone: contained.
    Alone,
}

/// Result of one namespace: its report, or why the trial could not be run.
struct Row {
    trial: Trial,
    sabotage: Sabotage,
    report: Result<Report>,
}

impl Row {
    fn is_right(&self) -> bool {
        self.report.as_ref().is_ok_and(Report::is_right)
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.list {
        for sabotage in sabotages(args) {
            anstream::println!("{sabotage}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    block_on(async {
        let binary = match &args.operator {
            Some(binary) => binary.clone(),
            None => {
                anstream::eprintln!("building the operator");
                crate::demo::build()?
            }
        };
        anstream::eprintln!("starting a control plane");
        let options = Options { dir: args.dir.clone(), nodes: 4, ..Options::default() };
        let cluster = ControlPlane::start(options).await?;
        rehearsal::install(&cluster).await?;
        prepare(&cluster).await?;
        let operator = Operator::start(&cluster, &OperatorOptions::within(&cluster, &binary))?;
        let mut rows = Vec::new();
        if args.only != Some(Trial::Alone) {
            rows.extend(play(&cluster, &binary, Trial::Operator, args).await);
        } else {
            // The guards that the command does not write.
            rehearsal::leads(&cluster).await?;
        }
        operator.kill()?;
        if args.only != Some(Trial::Operator) {
            rows.extend(play(&cluster, &binary, Trial::Alone, args).await);
        }
        let wrong = tell(&rows);
        if args.keep {
            anstream::eprintln!(
                "the cluster's folder, with kubeconfigs: {}. Ctrl-C ends it",
                cluster.dir().display()
            );
            std::future::pending::<()>().await;
        }
        cluster.stop().await?;
        Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Returns the sabotages to run, in order.
fn sabotages(args: &Args) -> Vec<Sabotage> {
    if !args.each {
        return (args.from..args.from.saturating_add(args.seeds)).map(Sabotage::of_seed).collect();
    }
    let both_kinds = every_trick().into_iter().flat_map(|trick| match trick {
        Trick::Webhook(webhook) => {
            vec![trick, Trick::Webhook(rehearsal::saboteur::Webhook { mutating: true, ..webhook })]
        }
        other => vec![other],
    });
    std::iter::once(Sabotage::none()).chain(both_kinds.map(Sabotage::only)).collect()
}

async fn play(cluster: &ControlPlane, binary: &Path, trial: Trial, args: &Args) -> Vec<Row> {
    let one = async |sabotage: Sabotage| {
        let began = Instant::now();
        let report = match trial {
            Trial::Operator => with_operator(cluster, &sabotage).await,
            Trial::Alone => by_command(cluster, binary, &sabotage).await,
        };
        let row = Row { trial, sabotage, report };
        tell_one(&row, began.elapsed());
        row
    };
    let parallel = usize::try_from(args.parallel).unwrap_or(1);
    stream::iter(sabotages(args)).map(one).buffer_unordered(parallel).collect().await
}

fn tell_one(row: &Row, took: Duration) {
    let (name, took) = (&row.sabotage.name, took.as_secs_f64());
    let trial = if row.trial == Trial::Operator { "operator" } else { "alone" };
    match &row.report {
        Ok(report) if report.is_right() => {
            anstream::println!("{trial:<8} {name:<28}  right  {took:>6.1} s  {}", report.times());
        }
        Ok(report) => anstream::println!("{trial:<8} {name:<28}  WRONG  {took:>6.1} s\n{report}"),
        Err(error) => anstream::println!("{trial:<8} {name:<28}  FAILED {took:>6.1} s  {error:#}"),
    }
}

/// Results of a trick, over all seeds that play it.
#[derive(Default)]
struct Sum {
    played: usize,
    wrong: usize,
    slowest: BTreeMap<Promise, Duration>,
}

/// Prints the results of each trick and the total. Returns the number of failed seeds.
fn tell(rows: &[Row]) -> usize {
    let mut sums: BTreeMap<String, Sum> =
        every_trick().into_iter().map(|trick| (family(trick), Sum::default())).collect();
    for row in rows {
        for trick in row.sabotage.tricks.iter().copied() {
            let sum = sums.entry(family(trick)).or_default();
            sum.played += 1;
            sum.wrong += usize::from(!row.is_right());
            for (promise, after) in row.report.iter().flat_map(|report| &report.held) {
                let slowest = sum.slowest.entry(*promise).or_default();
                *slowest = (*slowest).max(*after);
            }
        }
    }
    let time = |sum: &Sum, promise| {
        sum.slowest
            .get(&promise)
            .map_or_else(|| "-".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()))
    };
    anstream::println!(
        "\n{:<32} {:>6} {:>6}   slowest: {}",
        "TRICK",
        "PLAYED",
        "WRONG",
        Promise::SEALED.map(|p| p.to_string()).join(", ")
    );
    for (name, sum) in &sums {
        let times = Promise::SEALED.map(|promise| format!("{:>8}", time(sum, promise))).concat();
        anstream::println!("{name:<32} {:>6} {:>6}   {times}", sum.played, sum.wrong);
    }
    let wrong: Vec<&str> =
        rows.iter().filter(|row| !row.is_right()).map(|row| row.sabotage.name.as_str()).collect();
    let colon = if wrong.is_empty() { "" } else { ": " };
    anstream::println!("{} trials, {} went wrong{colon}{}", rows.len(), wrong.len(), wrong.join(", "));
    wrong.len()
}

/// Returns a trick without the properties of a webhook that a seed chooses.
fn family(trick: Trick) -> String {
    match trick {
        Trick::Webhook(webhook) => format!("webhook/{:?}", webhook.target),
        other => other.to_string(),
    }
}
