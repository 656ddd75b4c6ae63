//! Wrong wall clocks, and clocks that are set during a recovery. libfaketime changes the operator's wall clock only; durations stay
//! correct.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use control_plane::ControlPlane;

use super::Trial;
use super::crash::{ReferenceRun, never_stop};
use super::crew::Crew;

/// Folder of libraries on Debian and its derivatives, for any architecture.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// A wall clock that can be set.
#[derive(Clone, Debug)]
pub struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    /// Returns a clock that is correct so far, kept in a file. `None`: libfaketime is not installed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(file: PathBuf) -> Result<Option<Self>> {
        let folders = fs::read_dir(LIBRARIES).with_context(|| LIBRARIES.to_owned())?;
        let mut libraries = folders.flatten().map(|folder| folder.path().join(LIBRARY));
        let Some(library) = libraries.find(|path| path.exists()) else { return Ok(None) };
        let clock = Self { library, file };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// Sets the clock to this many seconds from the correct time.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // At once: who reads it never sees half of it.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n"))?;
        Ok(fs::rename(next, &self.file)?)
    }

    /// Returns the environment of a process that uses the clock.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", path(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", path(&self.file)),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

/// Runs a recovery in which the operators' wall clock is set by this many seconds at these effects.
///
/// # Errors
/// It does not end as the reference run did, or no operator restarted when the clock was set.
pub async fn reset(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    name: &str,
    (clock, sets): (&WallClock, &[(u64, i64)]),
    model: &ReferenceRun,
) -> Result<()> {
    let trial = Trial::lay_down(cluster, name).await?;
    never_stop(crew);
    let before = crew.ended();
    let begins_anew = async |times| {
        while crew.ended() - before < times {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let play = async {
        trial.begin().await?;
        for (number, (effect, seconds)) in sets.iter().enumerate() {
            tokio::select! {
                _ = crew.effects_reach(*effect) => clock.set(*seconds)?,
                recovered = trial.recovered() => {
                    recovered?;
                    bail!("it took fewer than {effect} effects");
                }
            }
            let noticed = tokio::time::timeout(super::DEADLINE, begins_anew(number + 1)).await;
            noticed.context("no operator noticed that its clock was set")?;
        }
        trial.recovered().await
    };
    crew.meanwhile(play).await.with_context(|| format!("{name}: {}", crew.said()))?;
    let outcome = trial.end().await.with_context(|| name.to_owned())?;
    let differences = model.history.differences(&outcome.history);
    ensure!(differences.is_empty(), "{name}: {}", differences.join("; "));
    trial.clear().await
}
