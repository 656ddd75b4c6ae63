//! Pool of control planes for the tests of a binary, used exclusively or shared. Each stops once no test needs it: an idle one costs 650
//! MB and a share of a core.

use std::any::Any;
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use control_plane::ControlPlane;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A resource that must be stopped after the last test.
pub trait End: Sync + 'static {
    /// Stops all its processes at once.
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

/// A pool of stages: control planes with what belongs to them. A test has one exclusively, since each has one leader lease and so one
/// active operator. Recoveries mostly wait, so that two of them in parallel take little more time than one.
pub struct Stages<T: 'static> {
    turns: Semaphore,
    state: Mutex<State<T>>,
}

struct State<T: 'static> {
    /// Free stages. They are never freed, only stopped, so that references stay valid.
    free: Vec<&'static T>,
    /// Number of tests that have a stage or wait for one.
    users: usize,
}

impl<T: End> Stages<T> {
    /// Returns a pool with a maximum number of stages.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { turns: Semaphore::const_new(most), state: Mutex::new(State { free: Vec::new(), users: 0 }) }
    }

    /// Returns a free stage or starts one. Waits if the maximum is in use.
    ///
    /// # Errors
    /// The error of `start`. The next test tries again.
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

/// A stage in use, until this is dropped.
pub struct Stage<T: End> {
    stages: &'static Stages<T>,
    here: Option<&'static T>,
    turn: Option<SemaphorePermit<'static>>,
}

impl<T: End> Stage<T> {
    /// Returns the stage. It must not be used after this is dropped.
    ///
    /// # Panics
    /// Never: the stage exists before it is handed out.
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

/// One control plane with what belongs to it, shared by tests.
pub struct Shared<T: 'static> {
    /// The resource and the number of its users. Locked while it is started.
    starting: tokio::sync::Mutex<()>,
    state: Mutex<(Option<&'static T>, usize)>,
}

thread_local! {
    /// Resources that the test on this thread uses. Each test has its own thread, which ends with it.
    static HELD: RefCell<Vec<(usize, Box<dyn Any>)>> = const { RefCell::new(Vec::new()) };
}

impl<T: End> Shared<T> {
    /// Returns a pool without a resource.
    #[must_use]
    pub const fn new() -> Self {
        Self { starting: tokio::sync::Mutex::const_new(()), state: Mutex::new((None, 0)) }
    }

    /// Returns the resource, and starts it if needed. It exists at least until the calling thread ends.
    ///
    /// # Errors
    /// The error of `start`. The next caller tries again.
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

    /// Counts the calling thread as a user, once.
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

/// A thread that uses the resource until it ends.
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
    fn shared_resource_stops_with_its_last_user_and_restarts() {
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
