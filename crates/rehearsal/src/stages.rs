//! Control planes that the tests of a suite share, each for one test at a time.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A few stages: control planes, and what belongs to them. A test has one for itself, since there is one lease on each and so one
/// operator that acts. Recoveries wait more than they work, so two of them side by side cost little more time than one.
pub struct Stages<T> {
    turns: Semaphore,
    free: Mutex<Vec<Arc<T>>>,
}

impl<T> Stages<T> {
    /// At most so many at once.
    #[must_use]
    pub const fn new(most: usize) -> Stages<T> {
        Stages { turns: Semaphore::const_new(most), free: Mutex::new(Vec::new()) }
    }

    /// A stage that is free, or a new one; waits where all that there may be are taken.
    ///
    /// # Errors
    /// What `start` says; the next test tries again.
    pub async fn take(&self, start: impl AsyncFnOnce() -> Result<T>) -> Result<Stage<'_, T>> {
        let turn = self.turns.acquire().await.context("stages are never closed")?;
        let free = self.free().pop();
        let here = match free {
            Some(here) => here,
            None => Arc::new(start().await?),
        };
        Ok(Stage { stages: self, here, _turn: turn })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Arc<T>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stage that is taken, until this is dropped.
pub struct Stage<'a, T> {
    stages: &'a Stages<T>,
    here: Arc<T>,
    _turn: SemaphorePermit<'a>,
}

impl<T> Deref for Stage<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.here
    }
}

impl<T> Drop for Stage<'_, T> {
    fn drop(&mut self) {
        // Before the turn is given back: who takes that finds this one free.
        self.stages.free().push(Arc::clone(&self.here));
    }
}
