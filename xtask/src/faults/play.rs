//! Trials, and the message about each result.

use std::fmt;
use std::time::Duration;

use fault_proxy::Moment;
use rehearsal::SplitMix;
use rehearsal::trial::crash::Point;
use rehearsal::trial::leaders::{Lost, Succession};

/// A trial.
#[derive(Clone, Copy, Debug)]
pub(super) enum Play {
    Chaos(u64),
    Crash(Point),
    Leader(Lost, u64),
    Load(u64, Duration),
    Silence(u64, Duration),
    Boroughs { replicas: usize, first: u64, life: u64 },
}

impl Play {
    /// Returns the seed that repeats the trial, if a seed chose it.
    pub(super) fn seed(self) -> Option<u64> {
        match self {
            Self::Chaos(seed) | Self::Load(seed, _) => Some(seed),
            _ => None,
        }
    }
}

impl fmt::Display for Play {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chaos(seed) => write!(f, "chaos, seed {seed}"),
            Self::Crash(Point { effect, moment }) => write!(f, "killed at effect {effect}, {moment:?}"),
            Self::Leader(lost, effect) => write!(f, "leader {lost:?} at effect {effect}"),
            Self::Load(seed, time) => write!(f, "leaders lost for {} s, seed {seed}", time.as_secs()),
            Self::Silence(effect, time) => write!(f, "silent for {} s at effect {effect}", time.as_secs()),
            Self::Boroughs { first, life, .. } => {
                write!(f, "three boroughs, dying at effects {first} + {life}n")
            }
        }
    }
}

/// Describes how long the takeover took, and how long there was no leader.
pub(super) fn describe_succession(succession: &Succession) -> String {
    let ended = succession.ended_before.map(|by| format!(", ended {by:.1} s before that"));
    format!("another leads after {:.1} s{}", succession.taken_after, ended.unwrap_or_default())
}

/// Returns each effect with both sides, in an order that the seed chooses.
pub(super) fn every_point(effects: u64, random: &mut SplitMix) -> Vec<Point> {
    let sides = [Moment::Unsent, Moment::Unanswered];
    let points = (1..=effects).flat_map(|effect| sides.map(|moment| Point { effect, moment }));
    let mut points: Vec<_> = points.map(|point| (random.between(0, u64::MAX), point)).collect();
    points.sort_by_key(|(order, _)| *order);
    points.into_iter().map(|(_, point)| point).collect()
}
