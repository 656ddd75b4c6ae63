//! Wall clocks that are wrong, and clocks that are set in the midst of a recovery. What the operator sees of time is changed by libfaketime,
//! and only the wall clock is: how long something takes stays true.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use control_plane::ControlPlane;

use super::Trial;
use super::crash::{Model, never_stop};
use super::crew::Crew;

/// Where Debian and its kin keep the library, for any architecture.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// A wall clock that can be set.
#[derive(Clone, Debug)]
pub struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    /// A clock that is right so far, kept in a file. `None` where libfaketime is not installed.
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

    /// Sets it to so many seconds from the right time.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        // At once: who reads it never sees half of it.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n"))?;
        Ok(fs::rename(next, &self.file)?)
    }

    /// What a process is to be started with to go by it.
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

/// Plays a recovery in which the operators' wall clock is set to so many seconds from the right time at these effects.
///
/// # Errors
/// It does not end as the model did, or no operator began anew when the clock was set.
pub async fn reset(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    name: &str,
    (clock, sets): (&WallClock, &[(u64, i64)]),
    model: &Model,
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
