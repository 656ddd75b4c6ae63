//! Liveness: the operator's loops send heartbeats, and a loop without one for too long is reported.
//!
//! A [`Heart`] beats within the loop that does the work. While a loop is idle, a ticker beats in the same task, so that whatever blocks
//! the task stops the ticker, too. All other waits are for calls, which have deadlines (`calls.rs`). If the API server is down, calls
//! fail and loops continue, so the process stays live: a restart would not help.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// Maximum time between two heartbeats of a loop.
pub const LIMIT: Duration = Duration::from_secs(60);

/// All watched loops.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats(Arc<Mutex<Vec<Weak<Loop>>>>);

#[derive(Debug)]
struct Loop {
    name: String,
    limit: Duration,
    began: Instant,
    /// Milliseconds after `began`.
    last_beat: AtomicU64,
}

/// Heartbeats of one loop, which is watched until this is dropped.
#[derive(Debug)]
pub struct Heart(Arc<Loop>);

impl Heartbeats {
    /// Watches a loop or another piece of work that has to beat at least once per `limit`.
    #[must_use]
    pub fn watch(&self, name: impl Into<String>, limit: Duration) -> Heart {
        let of = Loop { name: name.into(), limit, began: Instant::now(), last_beat: AtomicU64::new(0) };
        let heart = Heart(Arc::new(of));
        let mut loops = self.loops();
        loops.retain(|known| known.strong_count() > 0);
        loops.push(Arc::downgrade(&heart.0));
        heart
    }

    /// Returns a sentence for each loop whose heartbeat is overdue.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        self.stuck_at(Instant::now())
    }

    fn stuck_at(&self, now: Instant) -> Vec<String> {
        let alive: Vec<Arc<Loop>> = self.loops().iter().filter_map(Weak::upgrade).collect();
        let stuck = alive.iter().filter_map(|of| {
            let silent = now.saturating_duration_since(of.last_beat());
            let describe = || format!("{}: no sign of life for {} s", of.name, silent.as_secs());
            (silent > of.limit).then(describe)
        });
        stuck.collect()
    }

    /// Returns the time of the last heartbeat of each loop.
    #[cfg(test)]
    pub(crate) fn last_beats(&self) -> Vec<Instant> {
        self.loops().iter().filter_map(Weak::upgrade).map(|of| of.last_beat()).collect()
    }

    fn loops(&self) -> MutexGuard<'_, Vec<Weak<Loop>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loop {
    fn last_beat(&self) -> Instant {
        self.began + Duration::from_millis(self.last_beat.load(Ordering::Relaxed))
    }
}

impl Heart {
    /// Sends a heartbeat.
    pub fn beat(&self) {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_beat.store(now, Ordering::Relaxed);
    }

    /// Returns a ticker for an idle loop, with several ticks within the limit.
    #[must_use]
    pub fn ticker(&self) -> tokio::time::Interval {
        let mut ticker = interval(self.0.limit / 6);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticker
    }

    /// Polls `work` and a ticker in one task until `work` ends.
    pub async fn beat_during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticker = self.ticker();
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticker.tick() => self.beat(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_without_a_sign_of_life_is_named_until_it_gives_one() {
        let heartbeats = Heartbeats::default();
        let (first, second) = (heartbeats.watch("first", LIMIT), heartbeats.watch("second", 2 * LIMIT));
        let began = first.0.began;
        let late = began + LIMIT + Duration::from_secs(1);
        assert!(heartbeats.stuck_at(began + LIMIT).is_empty());
        assert_eq!(heartbeats.stuck_at(late), ["first: no sign of life for 61 s"]);
        first.0.last_beat.store(61_000, Ordering::Relaxed);
        assert!(heartbeats.stuck_at(late).is_empty());
        assert_eq!(heartbeats.stuck_at(late + 2 * LIMIT).len(), 2);
        // A loop that has ended is no longer watched.
        drop((first, second));
        assert!(heartbeats.stuck_at(late + 2 * LIMIT).is_empty());
    }

    #[tokio::test]
    async fn idle_loop_beats_and_blocked_loop_does_not() {
        let heartbeats = Heartbeats::default();
        let heart = heartbeats.watch("loop", Duration::from_millis(60));
        let last = || heart.0.last_beat.load(Ordering::Relaxed);
        let idle = async {
            for _ in 0..2 {
                let before = last();
                while last() == before {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            let before = last();
            // Ticks are due, but the blocked task does not take them.
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(last(), before);
        };
        heart.beat_during(idle).await;
    }
}
