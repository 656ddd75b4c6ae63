//! Halts all traffic: a partition for some time, or a halt at a counted effect.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Side of an effect on which a client dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Moment {
    /// Before the effect: earlier requests are done and answered, this one is not done.
    Unsent,
    /// After the effect: it is done, and the client gets no answer.
    Unanswered,
}

/// What happens to a request for an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It passes.
    Pass,
    /// It is done, and not answered.
    Last,
    /// It is never done.
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    effects: u64,
    /// Whether requests that only report status do not count as effects.
    acts_only: bool,
    stop: Option<(u64, Moment)>,
    stopped: bool,
    partitioned: bool,
    /// Number of stopped clients, which count as dead. Their pending requests are not carried out when the next client starts.
    lives: u64,
}

impl State {
    /// Number of the next effect.
    fn turn(&mut self, reports: bool) -> Turn {
        if self.stopped {
            return Turn::Never;
        }
        if reports && self.acts_only {
            return Turn::Pass;
        }
        self.effects += 1;
        match self.stop {
            Some((at, moment)) if self.effects >= at => {
                self.stopped = true;
                if moment == Moment::Unsent { Turn::Never } else { Turn::Last }
            }
            _ => Turn::Pass,
        }
    }
}

/// State of the halt.
#[derive(Debug)]
pub(crate) struct Halt {
    state: Mutex<State>,
    /// Whether traffic passes, and the life of the client that it belongs to.
    open: watch::Sender<(bool, u64)>,
    /// Number of effects requested so far.
    effects: watch::Sender<u64>,
    /// Whether the last effect before the halt is done.
    at_rest: watch::Sender<bool>,
}

impl Halt {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            open: watch::Sender::new((true, 0)),
            effects: watch::Sender::new(0),
            at_rest: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        // Under the lock, so that both values are consistent.
        self.effects.send_replace(state.effects);
        self.open.send_replace((!state.stopped && !state.partitioned, state.lives));
    }

    pub(crate) fn partition(&self, on: bool) {
        self.change(|state| state.partitioned = on);
    }

    pub(crate) fn stop_at(&self, effect: u64, moment: Moment) {
        self.at_rest.send_replace(false);
        self.change(|state| (state.effects, state.stop) = (0, Some((effect, moment))));
    }

    pub(crate) fn acts_only(&self, acts_only: bool) {
        self.change(|state| state.acts_only = acts_only);
    }

    pub(crate) fn clear(&self) {
        self.at_rest.send_replace(false);
        self.change(|state| {
            state.lives += u64::from(state.stopped);
            (state.stop, state.stopped) = (None, false);
        });
    }

    pub(crate) fn effects(&self) -> u64 {
        self.state().effects
    }

    /// Returns the life of the client that a new connection belongs to.
    pub(crate) fn life(&self) -> u64 {
        self.state().lives
    }

    /// Counts a requested effect.
    pub(crate) fn turn(&self, reports: bool) -> Turn {
        let (mut turn, mut stopped) = (Turn::Pass, false);
        self.change(|state| {
            turn = state.turn(reports);
            stopped = state.stop.is_some_and(|(_, moment)| moment == Moment::Unsent) && state.stopped;
        });
        if stopped {
            self.rest();
        }
        turn
    }

    /// Records that the last effect before the halt is done.
    pub(crate) fn rest(&self) {
        self.at_rest.send_replace(true);
    }

    pub(crate) async fn effects_reach(&self, effects: u64) {
        let _ = self.effects.subscribe().wait_for(|so_far| *so_far >= effects).await;
    }

    pub(crate) async fn stopped(&self) {
        // The sender lives as long as we do.
        let _ = self.at_rest.subscribe().wait_for(|rest| *rest).await;
    }

    /// Waits until traffic of that life passes. Returns `false` if it never will.
    pub(crate) async fn passable(&self, life: u64) -> bool {
        let mut open = self.open.subscribe();
        let passed = open.wait_for(|(open, lives)| *open || *lives != life).await;
        passed.is_ok_and(|open| open.1 == life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_effect_passes_once_the_moment_is_there() {
        for (moment, third) in [(Moment::Unsent, Turn::Never), (Moment::Unanswered, Turn::Last)] {
            let halt = Halt::new();
            halt.turn(false);
            halt.stop_at(3, moment);
            let turns: Vec<Turn> = (0..5).map(|_| halt.turn(false)).collect();
            assert_eq!(turns, [Turn::Pass, Turn::Pass, third, Turn::Never, Turn::Never], "{moment:?}");
            assert!(!halt.open.borrow().0);
            assert_eq!(
                *halt.at_rest.borrow(),
                moment == Moment::Unsent,
                "what is under way has to be done first"
            );
            halt.clear();
            assert_eq!(*halt.open.borrow(), (true, 1), "and what the dead asked for is not done any more");
            assert_eq!((halt.turn(false), halt.effects()), (Turn::Pass, 4));
        }
    }

    #[test]
    fn what_only_reports_counts_unless_it_is_not_to() {
        let halt = Halt::new();
        halt.stop_at(2, Moment::Unanswered);
        halt.acts_only(true);
        assert_eq!([true, false, true].map(|reports| halt.turn(reports)), [Turn::Pass; 3]);
        halt.acts_only(false);
        assert_eq!([true, false].map(|reports| halt.turn(reports)), [Turn::Last, Turn::Never]);
    }

    #[test]
    fn a_partition_ends_when_it_is_told_to_and_counts_nothing() {
        let halt = Halt::new();
        halt.partition(true);
        assert!(!halt.open.borrow().0);
        halt.partition(false);
        assert_eq!(*halt.open.borrow(), (true, 0));
        assert_eq!(halt.effects(), 0);
    }
}
