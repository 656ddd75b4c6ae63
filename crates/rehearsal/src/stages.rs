//! Control planes that tests of a binary use, one test at a time or side by side. Each ends once no test needs it any more: one that
//! idles costs 650 MB and a share of a core.

use std::any::Any;
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use control_plane::ControlPlane;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What tests use, and what has to end after the last of them.
pub trait End: Sync + 'static {
    /// Ends every process of it, at once.
    fn end(&self);
}

impl End for ControlPlane {
    fn end(&self) {
        self.kill();
    }
}

impl<T: Sync + 'static> End for (ControlPlane, T) {
    fn end(&self) {
        self.0.kill();
    }
}

/// A few stages: control planes, and what belongs to them. A test has one for itself, since there is one lease on each and so one
/// operator that acts. Recoveries wait more than they work, so two of them side by side cost little more time than one.
pub struct Stages<T: 'static> {
    turns: Semaphore,
    state: Mutex<State<T>>,
}

struct State<T: 'static> {
    /// Stages outlive every reference to them: they are never freed, only ended.
    free: Vec<&'static T>,
    /// Tests that have a stage, or wait for one.
    users: usize,
}

impl<T: End> Stages<T> {
    /// At most so many at once.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { turns: Semaphore::const_new(most), state: Mutex::new(State { free: Vec::new(), users: 0 }) }
    }

    /// A stage that is free, or a new one; waits where all that there may be are taken.
    ///
    /// # Errors
    /// What `start` says; the next test tries again.
    pub async fn take(&'static self, start: impl AsyncFnOnce() -> Result<T>) -> Result<Stage<T>> {
        lock(&self.state).users += 1;
        // Its end is that of the user, however this ends.
        let mut stage = Stage { stages: self, here: None, turn: None };
        stage.turn = Some(self.turns.acquire().await.context("stages are never closed")?);
        let free = lock(&self.state).free.pop();
        stage.here = match free {
            Some(here) => Some(here),
            None => Some(Box::leak(Box::new(start().await?))),
        };
        Ok(stage)
    }
}

/// A stage that is taken, until this is dropped.
pub struct Stage<T: End> {
    stages: &'static Stages<T>,
    here: Option<&'static T>,
    turn: Option<SemaphorePermit<'static>>,
}

impl<T: End> Stage<T> {
    /// The stage itself, which nobody else may have after this is dropped.
    ///
    /// # Panics
    /// Never: a stage is given out once it is there.
    #[must_use]
    #[allow(clippy::expect_used, reason = "`take` gives out no stage without one")]
    pub fn here(&self) -> &'static T {
        self.here.expect("a stage that is given out is there")
    }
}

impl<T: End> Deref for Stage<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.here()
    }
}

impl<T: End> Drop for Stage<T> {
    fn drop(&mut self) {
        let ended = {
            let mut state = lock(&self.stages.state);
            // Before the turn is given back: who takes that finds this one free.
            state.free.extend(self.here.take());
            state.users -= 1;
            if state.users == 0 { std::mem::take(&mut state.free) } else { Vec::new() }
        };
        self.turn.take();
        ended.into_iter().for_each(End::end);
    }
}

/// One control plane, and what belongs to it, for all tests that want it, side by side.
pub struct Shared<T: 'static> {
    /// Held while it is started.
    starting: tokio::sync::Mutex<()>,
    state: Mutex<(Option<&'static T>, usize)>,
}

thread_local! {
    /// What the test on this thread holds. Each test has a thread of its own, which ends with it.
    static HELD: RefCell<Vec<(usize, Box<dyn Any>)>> = const { RefCell::new(Vec::new()) };
}

impl<T: End> Shared<T> {
    /// Nothing is started yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { starting: tokio::sync::Mutex::const_new(()), state: Mutex::new((None, 0)) }
    }

    /// The one that is there, or a new one. It stays at least until the calling thread ends.
    ///
    /// # Errors
    /// What `start` says; the next caller tries again.
    pub async fn get(&'static self, start: impl AsyncFnOnce() -> Result<T>) -> Result<&'static T> {
        self.hold();
        let _starting = self.starting.lock().await;
        if let Some(here) = lock(&self.state).0 {
            return Ok(here);
        }
        let here: &'static T = Box::leak(Box::new(start().await?));
        lock(&self.state).0 = Some(here);
        Ok(here)
    }

    /// Counts the calling thread among the users, once.
    fn hold(&'static self) {
        let own = std::ptr::from_ref(self).addr();
        HELD.with_borrow_mut(|held| {
            if held.iter().all(|(other, _)| *other != own) {
                lock(&self.state).1 += 1;
                held.push((own, Box::new(User(self))));
            }
        });
    }
}

impl<T: End> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A thread that uses what is shared, until it ends.
struct User<T: End>(&'static Shared<T>);

impl<T: End> Drop for User<T> {
    fn drop(&mut self) {
        let ended = {
            let mut state = lock(&self.0.state);
            state.1 -= 1;
            if state.1 == 0 { state.0.take() } else { None }
        };
        ended.into_iter().for_each(End::end);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static ENDED: AtomicUsize = AtomicUsize::new(0);

    struct Counted;

    impl End for Counted {
        fn end(&self) {
            ENDED.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn what_is_shared_ends_with_its_last_user_and_starts_anew() {
        static SHARED: Shared<Counted> = Shared::new();
        static STAGES: Stages<Counted> = Stages::new(1);
        let get = || block_on(SHARED.get(async || Ok(Counted))).unwrap();
        let (first, second) = std::thread::spawn(move || {
            let first = std::ptr::from_ref(get()).addr();
            let second = std::thread::spawn(move || std::ptr::from_ref(get()).addr()).join().unwrap();
            assert_eq!(ENDED.load(Ordering::SeqCst), 0, "its first user is still there");
            (first, second)
        })
        .join()
        .unwrap();
        assert_eq!(first, second);
        assert_eq!(ENDED.load(Ordering::SeqCst), 1);
        std::thread::spawn(get).join().unwrap();
        assert_eq!(ENDED.load(Ordering::SeqCst), 2, "another was started, and ended");

        block_on(async {
            let stage = STAGES.take(async || Ok(Counted)).await.unwrap();
            let waiting = STAGES.take(async || anyhow::bail!("there is one already"));
            let give_back = async { drop(stage) };
            let (second, ()) = tokio::join!(waiting, give_back);
            assert_eq!(ENDED.load(Ordering::SeqCst), 2, "somebody waited for it");
            drop(second.unwrap());
            assert_eq!(ENDED.load(Ordering::SeqCst), 3);
        });
    }
}
