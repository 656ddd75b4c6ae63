//! Moments, told by what the operator has done and not by a clock.

use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::recovery::KINDS;

/// Counts every change of a ServiceRecovery or a Quarantine.
pub struct Progress {
    seen: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Progress {
    pub fn start(client: &Client) -> Progress {
        let changes = |kind| {
            let objects = rehearsal::kind(client, KINDS, kind, None);
            watcher(objects, watcher::Config::default()).default_backoff().touched_objects().boxed()
        };
        let mut changes = futures::stream::select(changes("ServiceRecovery"), changes("Quarantine"));
        let (count, seen) = watch::channel(0);
        let task = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                if change.is_ok() {
                    count.send_modify(|count| *count += 1);
                }
            }
        });
        Progress { seen, task }
    }

    pub fn so_far(&self) -> u64 {
        *self.seen.borrow()
    }

    /// Returns once so many changes have been seen in all.
    pub async fn reaches(&mut self, count: u64) {
        let reached =
            tokio::time::timeout(Duration::from_secs(120), self.seen.wait_for(|seen| *seen >= count));
        let so_far = reached.await.map(|seen| *seen.unwrap());
        assert!(so_far.is_ok(), "change {count} did not come; there were {}", self.so_far());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
    }
}
