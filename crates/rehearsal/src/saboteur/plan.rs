//! Tricks of a seed.

use super::{Finalizers, Names, Owners, Policies, Quotas, Size, Target, Trick, Webhook};
use crate::SplitMix;

/// Number of seeds, from a multiple of it on, that play every trick at least once.
const ROUND: u64 = 10;
/// Maximum number of tricks of a seed.
const MOST: usize = 8;

/// Tricks in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sabotage {
    /// Suffix of the namespace's name.
    pub name: String,
    /// Tricks in the order of planting.
    pub tricks: Vec<Trick>,
}

/// Returns all tricks. Whether a webhook is a mutating one, and its timeout, are chosen by seed.
#[must_use]
pub fn every_trick() -> Vec<Trick> {
    let mut all = Vec::new();
    all.extend(Names::ALL.map(Trick::Names));
    all.extend(Size::ALL.map(Trick::Size));
    all.extend(Finalizers::ALL.map(Trick::Finalizers));
    all.extend(Owners::ALL.map(Trick::Owners));
    all.extend(Policies::ALL.map(Trick::Policies));
    all.extend(Quotas::ALL.map(Trick::Quotas));
    all.extend(
        Target::ALL.map(|target| Trick::Webhook(Webhook { target, mutating: false, timeout_seconds: 1 })),
    );
    all
}

impl Sabotage {
    /// Returns no tricks at all: a violation then is a bug of the trial, or a general one.
    #[must_use]
    pub fn none() -> Self {
        Self { name: "none".to_owned(), tricks: Vec::new() }
    }

    /// Returns one trick alone.
    #[must_use]
    pub fn only(trick: Trick) -> Self {
        let name = trick.to_string().to_lowercase().replace('/', "-");
        Self { name, tricks: vec![trick] }
    }

    /// Returns the tricks of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self { name: seed.to_string(), tricks: Self::plan(seed) }
    }

    /// Returns the tricks of a seed in the order of planting. All tricks are dealt to each [`ROUND`] of seeds; some are added at random.
    #[must_use]
    pub fn plan(seed: u64) -> Vec<Trick> {
        let mut deck = every_trick();
        shuffle(&mut deck, &mut SplitMix::new(seed / ROUND));
        let place = usize::try_from(seed % ROUND).unwrap_or_default();
        let step = usize::try_from(ROUND).unwrap_or(1);
        let mut tricks: Vec<Trick> = deck.iter().skip(place).step_by(step).copied().collect();
        let mut random = SplitMix::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(1));
        shuffle(&mut deck, &mut random);
        let more = usize::try_from(random.between(0, 4)).unwrap_or_default();
        let further: Vec<Trick> =
            deck.into_iter().filter(|trick| !tricks.contains(trick)).take(more).collect();
        tricks.extend(further);
        tricks.truncate(MOST);
        for trick in &mut tricks {
            if let Trick::Webhook(webhook) = trick {
                webhook.mutating = random.between(0, 2) == 1;
                webhook.timeout_seconds = u8::try_from(random.between(1, 6)).unwrap_or(1);
            }
        }
        tricks.sort_by_key(|trick| trick.turn());
        tricks
    }
}

fn shuffle(deck: &mut [Trick], random: &mut SplitMix) {
    for last in (1..deck.len()).rev() {
        let bound = u64::try_from(last).unwrap_or_default() + 1;
        let other = usize::try_from(random.between(0, bound)).unwrap_or_default();
        deck.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn family_and_name(trick: Trick) -> String {
        if let Trick::Webhook(webhook) = trick { format!("{:?}", webhook.target) } else { trick.to_string() }
    }

    #[test]
    fn seed_always_plays_the_same_three_to_eight_tricks() {
        for seed in 0..500 {
            let tricks = Sabotage::plan(seed);
            assert_eq!(tricks, Sabotage::plan(seed));
            assert!((3..=MOST).contains(&tricks.len()), "{seed}: {tricks:?}");
            let distinct: BTreeSet<String> = tricks.iter().copied().map(family_and_name).collect();
            assert_eq!(distinct.len(), tricks.len(), "{seed}: {tricks:?}");
        }
    }

    #[test]
    fn ten_seeds_play_every_trick() {
        let every: BTreeSet<String> = every_trick().into_iter().map(family_and_name).collect();
        for round in 0..20 {
            let seeds = round * ROUND..(round + 1) * ROUND;
            let played: BTreeSet<String> = seeds.flat_map(Sabotage::plan).map(family_and_name).collect();
            assert_eq!(played, every, "round {round}");
        }
    }

    #[test]
    fn webhooks_are_planted_last() {
        for seed in 0..100 {
            let turns: Vec<u8> = Sabotage::plan(seed).into_iter().map(Trick::turn).collect();
            assert!(turns.is_sorted(), "{seed}: {turns:?}");
        }
    }
}
