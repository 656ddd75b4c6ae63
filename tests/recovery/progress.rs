//! Moments, told by what the operator has done and not by a clock.

use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::KINDS;

/// Sebastiano Vigna's SplitMix64: small, and the same on every machine.
pub struct SplitMix(u64);

impl SplitMix {
    /// Seeded from RESURGAM_SEED, else with `default`. Says which, so that a failure can be repeated.
    pub fn seeded(default: u64) -> SplitMix {
        let seed = std::env::var("RESURGAM_SEED").map_or(default, |text| text.parse().unwrap());
        eprintln!("RESURGAM_SEED={seed}");
        SplitMix(seed)
    }

    /// A number from `from` to below `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (z ^ (z >> 31)) % (to - from)
    }
}

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
