//! A window without any work, in which the judge checks that the operator was idle.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use control_plane::ControlPlane;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::wait::text;

const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";
/// Longer than the default interval of gates, and than the lifetime of a watch.
const REST: Duration = Duration::from_secs(20);
/// Longer than any status write is delayed on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);
/// Interval at which the log is polled.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until the operator has written nothing for some time, and then as long again, whatever it does. Returns start and end of the
/// second period.
///
/// # Errors
/// The operator does not stop writing.
pub async fn idle(cluster: &ControlPlane) -> Result<(SystemTime, SystemTime)> {
    let mut log = Tail::of(cluster.audit_log()).await?;
    let rested = async {
        let mut since = Instant::now();
        while since.elapsed() < REST {
            if log.more().await?.iter().any(writes) {
                since = Instant::now();
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, rested).await.context("the operator did not come to rest")??;
    let from = SystemTime::now();
    tokio::time::sleep(REST).await;
    Ok((from, SystemTime::now()))
}

/// Returns whether the event is a write of the operator other than to its lease.
fn writes(event: &Value) -> bool {
    let tried = text(event, "/requestURI").contains("dryRun=All");
    let verbs = ["create", "update", "patch", "delete", "deletecollection"];
    // Reviews of access are kept nowhere.
    let kept = text(event, "/objectRef/resource") != "leases"
        && text(event, "/objectRef/apiGroup") != "authorization.k8s.io";
    text(event, "/user/username") == OPERATOR && verbs.contains(&text(event, "/verb")) && kept && !tried
}

/// Follows a log file.
struct Tail {
    file: File,
    /// Last line, as far as it is written.
    begun: Vec<u8>,
}

impl Tail {
    async fn of(path: &Path) -> Result<Self> {
        let mut file = File::open(path).await?;
        file.seek(std::io::SeekFrom::End(0)).await?;
        Ok(Self { file, begun: Vec::new() })
    }

    /// Returns the events since the last call, after a pause.
    async fn more(&mut self) -> Result<Vec<Value>> {
        tokio::time::sleep(LOOK).await;
        self.file.read_to_end(&mut self.begun).await?;
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.begun.drain(..whole).collect();
        // Whoever came in the midst of a line has only the end of it.
        Ok(lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}
