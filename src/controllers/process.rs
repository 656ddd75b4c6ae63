//! What controllers share with the process that runs them: what it counts, signs of life, how it ends.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;
use crate::heartbeats::Heartbeats;
use crate::leader::Leadership;

/// What controllers share with the process that runs them.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where loops give signs of life.
    pub heartbeats: Heartbeats,
    /// Cancelled: nothing new begins, and what is under way comes to its end.
    pub stop: CancellationToken,
    /// Tasks that write. The lease is given back once they have ended.
    pub writers: TaskTracker,
    /// Whether this process leads: without it, nothing is written.
    pub leadership: Leadership,
}
