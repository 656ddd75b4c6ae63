//! What controllers share with their process: metrics, heartbeats, shutdown.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;
use crate::heartbeats::Heartbeats;
use crate::leader::Leadership;

/// What controllers share with the process that runs them.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Heartbeats of loops.
    pub heartbeats: Heartbeats,
    /// Shutdown signal: nothing new starts, and running work is finished.
    pub stop: CancellationToken,
    /// Tasks that write. The lease is released once they have ended.
    pub writers: TaskTracker,
    /// Whether this process is the leader. Others write nothing.
    pub leadership: Leadership,
}
