//! The control plane on which trials run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Options};
use rehearsal::trial::boroughs::lives;
use rehearsal::trial::chaos::chaos;
use rehearsal::trial::crash::{ReferenceRun, crash, reference_run};
use rehearsal::trial::crew::Crew;
use rehearsal::trial::leaders::takeover;
use rehearsal::trial::load::under_load;
use rehearsal::trial::silence::silence;

use super::play::{Play, describe_succession};
use super::report::{Report, Row, has_failed, print};
use super::{Common, LEASE, LONG_LEASE};

/// A control plane, with a reference run without faults.
pub(super) struct Stage {
    cluster: ControlPlane,
    binary: PathBuf,
    model: ReferenceRun,
    began: Instant,
}

/// Message about the result, and the number of faults.
type TrialResult = (String, u64);

impl Stage {
    pub(super) async fn set(common: &Common) -> Result<Self> {
        let began = Instant::now();
        anstream::eprintln!("building the operator");
        let binary = crate::demo::build()?;
        anstream::eprintln!("starting a control plane");
        let cluster = ControlPlane::start(Options { dir: common.dir.clone(), ..Options::default() }).await?;
        rehearsal::install(&cluster).await?;
        let crew = Crew::start(&cluster, &binary, 1, LEASE).await?;
        let model = reference_run(&cluster, &crew).await?;
        drop(crew);
        anstream::eprintln!("without faults, a recovery takes {} effects", model.effects);
        Ok(Self { cluster, binary, model, began })
    }

    pub(super) fn effects(&self) -> u64 {
        self.model.effects
    }

    pub(super) async fn crew(&self, replicas: usize, lease: u32) -> Result<Crew<'_>> {
        Crew::start(&self.cluster, &self.binary, replicas, lease).await
    }

    /// Runs a trial and reports the result. `again`: command that repeats it.
    pub(super) async fn play(&self, crew: &Crew<'_>, play: Play, again: &str) -> Row {
        let began = Instant::now();
        let trial = format!(
            "{play}, of {}",
            if let Play::Boroughs { replicas, .. } = play { replicas } else { crew.size() }
        );
        let played = self.run_trial(crew, play).await;
        let seconds = began.elapsed().as_secs_f64();
        let (told, faults, violation) = match played {
            Ok((told, faults)) => (told, faults, None),
            Err(error) => (String::new(), 0, Some(format!("{error:#}"))),
        };
        match &violation {
            None => anstream::eprintln!("{trial}: {told}, {seconds:.1} s"),
            Some(why) => anstream::eprintln!("{trial}: VIOLATION: {why}\nagain: {again}"),
        }
        Row { trial, seed: play.seed(), seconds, told, faults, violation }
    }

    async fn run_trial(&self, crew: &Crew<'_>, play: Play) -> Result<TrialResult> {
        let (cluster, model) = (&self.cluster, &self.model);
        // Names are used once.
        let name = |what: &str| format!("{what}-{}", self.began.elapsed().as_millis());
        Ok(match play {
            Play::Chaos(seed) => {
                let outcome = chaos(cluster, crew, seed, model).await?;
                let faults = outcome.faults.values().sum();
                let told =
                    format!("{faults} faults, {} effects, ended {} times", outcome.effects, outcome.ended);
                (told, faults)
            }
            Play::Crash(point) => {
                let died = crash(cluster, crew, &name("crash"), point, model).await?;
                if died { ("died there".to_owned(), 1) } else { ("done before".to_owned(), 0) }
            }
            Play::Leader(lost, effect) => {
                let took = takeover(cluster, crew, &name("leader"), (lost, effect), model).await?;
                (describe_succession(&took.succession), 1)
            }
            Play::Load(seed, time) => {
                let load = under_load(cluster, crew, (seed, time), model).await?;
                let (least, median, most) = load.taken_after().unwrap_or_default();
                let (lost, recoveries, writes) = (load.losses.len(), load.recoveries, load.writes);
                let told = format!(
                    "{lost} leaders lost, another led after {least:.1}, {median:.1}, {most:.1} s (least, median, most), \
                     {recoveries} recoveries, {writes} writes, each by whoever led"
                );
                (told, lost as u64)
            }
            Play::Silence(effect, time) => {
                let after = silence(cluster, crew, &name("silence"), (effect, time), model).await?;
                (
                    format!(
                        "ended {} times, recovered {:.1} s after it",
                        after.ended,
                        after.then_took.as_secs_f64()
                    ),
                    1,
                )
            }
            Play::Boroughs { replicas, first, life } => {
                let own = ControlPlane::start(Options::default()).await?;
                rehearsal::install(&own).await?;
                let crew = Crew::start(&own, &self.binary, replicas, LONG_LEASE).await?;
                let lived = lives(&own, &crew, first, life).await;
                drop(crew);
                if lived.is_err() {
                    keep_audit_log(&own, "three-boroughs")?;
                }
                let lived = lived?;
                own.stop().await?;
                (format!("{} died, {} effects", lived.deaths, lived.effects), lived.deaths)
            }
        })
    }

    pub(super) async fn end(self, common: &Common, rows: Vec<Row>) -> Result<ExitCode> {
        let (violated, effects) = (has_failed(&rows), self.model.effects);
        if violated {
            keep_audit_log(&self.cluster, "others")?;
        }
        self.cluster.stop().await?;
        print(&Report::of(rows, effects), common.output)?;
        Ok(if violated { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Copies the audit log after a violation, as the folder of a temporary cluster is removed.
pub(crate) fn keep_audit_log(cluster: &ControlPlane, trials: &str) -> Result<()> {
    let kept = std::env::temp_dir().join(format!("resurgam-audit-{}-{trials}.log", std::process::id()));
    std::fs::copy(cluster.audit_log(), &kept).context("cannot keep the audit log")?;
    anstream::eprintln!("audit log ({trials}): {}", kept.display());
    Ok(())
}
