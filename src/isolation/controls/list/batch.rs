//! Combines concurrent writes to one object: what is requested during a write is part of the next one. Otherwise, two hundred new
//! Quarantines would cause two hundred conflicting writes of a growing object.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use resurgam_core::isolation::controls::list::Levels;

use crate::api::Isolation;
use crate::calls::IoError;

#[derive(Debug, Default)]
pub(super) struct Batch {
    waiting: Mutex<Vec<PendingWrite>>,
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct PendingWrite {
    namespace: String,
    level: Isolation,
    answer: oneshot::Sender<Result<(), IoError>>,
}

impl Batch {
    /// Writes the namespace, together with all others that are waiting.
    ///
    /// # Errors
    /// The error of the shared write.
    pub(super) async fn write<F>(
        &self,
        namespace: &str,
        level: Isolation,
        write: impl FnOnce(Levels) -> F,
    ) -> Result<(), IoError>
    where
        F: Future<Output = Result<(), IoError>>,
    {
        let (answer, mut answered) = oneshot::channel();
        self.waiting().push(PendingWrite { namespace: namespace.to_owned(), level, answer });
        let _writing = self.writing.lock().await;
        if let Ok(outcome) = answered.try_recv() {
            return outcome;
        }
        // Entries stay until they are answered. If this write is cancelled, the next one includes them.
        let (levels, count) = self.pending();
        let outcome = write(levels).await;
        for asked in self.waiting().drain(..count) {
            // The receiver may have been dropped.
            let _ = asked.answer.send(outcome.clone());
        }
        outcome
    }

    /// Writes exclusively: concurrent writes would conflict and retry.
    ///
    /// # Errors
    /// The error of the write.
    pub(super) async fn alone<F>(&self, write: impl FnOnce() -> F) -> Result<(), IoError>
    where
        F: Future<Output = Result<(), IoError>>,
    {
        let _writing = self.writing.lock().await;
        write().await
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<PendingWrite>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what to write, and for how many callers. Of two requests for a namespace, the last one counts.
    fn pending(&self) -> (Levels, usize) {
        let mut waiting = self.waiting();
        // A request without a receiver may be outdated.
        waiting.retain(|asked| !asked.answer.is_closed());
        let levels = waiting.iter().map(|asked| (asked.namespace.clone(), asked.level)).collect();
        (levels, waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use futures::future::{join_all, poll_immediate};

    use super::*;
    use Isolation::{Open, Sealed};

    fn failure() -> IoError {
        IoError::Timeout { what: "write".to_owned(), after: Duration::from_secs(1) }
    }

    #[tokio::test]
    async fn request_during_a_write_joins_the_next_write() {
        let (batch, written) = (Batch::default(), RefCell::new(Vec::new()));
        let ask = |namespace: &'static str, level| {
            batch.write(namespace, level, |levels| async {
                written.borrow_mut().push(levels);
                tokio::task::yield_now().await;
                Ok(())
            })
        };
        let all = join_all([ask("a", Sealed), ask("b", Sealed), ask("c", Open)]).await;
        assert!(all.iter().all(Result::is_ok));
        let levels = |levels: &[(&str, Isolation)]| -> Levels {
            levels.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect()
        };
        let expected = [levels(&[("a", Sealed)]), levels(&[("b", Sealed), ("c", Open)])];
        assert_eq!(*written.borrow(), expected);
    }

    #[tokio::test]
    async fn failed_write_fails_for_its_own_callers_only() {
        let batch = Batch::default();
        let ask = |namespace: &'static str| {
            batch.write(namespace, Open, |levels| async move {
                tokio::task::yield_now().await;
                if levels.contains_key("b") { Err(failure()) } else { Ok(()) }
            })
        };
        let outcomes = join_all([ask("a"), ask("b"), ask("c")]).await;
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
        assert!(ask("d").await.is_ok());
    }

    #[tokio::test]
    async fn cancelled_write_is_taken_over_without_its_dropped_callers() {
        let (batch, written) = (Batch::default(), RefCell::new(Vec::new()));
        let mut stuck = Box::pin(batch.write("a", Open, |_| futures::future::pending()));
        assert!(poll_immediate(&mut stuck).await.is_none());
        let mut given_up = Box::pin(batch.write("b", Open, |_| async { Ok(()) }));
        assert!(poll_immediate(&mut given_up).await.is_none());
        let waits = batch.write("c", Open, |levels| async {
            written.borrow_mut().extend(levels.into_keys());
            Ok(())
        });
        let mut waits = Box::pin(waits);
        assert!(poll_immediate(&mut waits).await.is_none());
        drop((stuck, given_up));
        assert!(waits.await.is_ok());
        assert_eq!(*written.borrow(), ["c"]);
    }
}
