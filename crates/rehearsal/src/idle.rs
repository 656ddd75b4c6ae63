//! A span of time in which there is nothing to do, so that somebody can judge whether the operator kept quiet in it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use control_plane::ControlPlane;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::wait::text;

const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";
/// Longer than the interval at which gates are asked, where a plan does not say, and than a watch lasts.
const REST: Duration = Duration::from_secs(20);
/// Longer than any text waits to be written, on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(300);
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until the operator has written nothing for a while, and then for as long again, whatever it does then. Returns when that began
/// and ended.
///
/// # Errors
/// The operator does not come to rest.
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

/// Does the operator write anything but its lease?
fn writes(event: &Value) -> bool {
    let tried = text(event, "/requestURI").contains("dryRun=All");
    let verbs = ["create", "update", "patch", "delete", "deletecollection"];
    // Reviews of access are kept nowhere.
    let kept = text(event, "/objectRef/resource") != "leases"
        && text(event, "/objectRef/apiGroup") != "authorization.k8s.io";
    text(event, "/user/username") == OPERATOR && verbs.contains(&text(event, "/verb")) && kept && !tried
}

/// What comes to a log from now on.
struct Tail {
    file: File,
    /// A line whose end has not been written yet.
    begun: Vec<u8>,
}

impl Tail {
    async fn of(path: &Path) -> Result<Self> {
        let mut file = File::open(path).await?;
        file.seek(std::io::SeekFrom::End(0)).await?;
        Ok(Self { file, begun: Vec::new() })
    }

    /// The events that have come since, once it is time to look again.
    async fn more(&mut self) -> Result<Vec<Value>> {
        tokio::time::sleep(LOOK).await;
        self.file.read_to_end(&mut self.begun).await?;
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.begun.drain(..whole).collect();
        // Whoever came in the midst of a line has only the end of it.
        Ok(lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}
