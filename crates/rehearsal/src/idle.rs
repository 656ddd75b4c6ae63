//! A span of time in which there is nothing to do, so that somebody can judge whether the operator kept quiet in it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use control_plane::ControlPlane;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::wait::text;

const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";
/// So often are the gates asked in between, for anything to be said of it.
const ROUNDS: usize = 2;
/// Longer than any text waits to be written, on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(300);
/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until the operator has written nothing for some rounds of asking the gates of `namespace`, and then for some more
/// rounds, whatever it does in them. Returns when those began and ended.
///
/// # Errors
/// The operator does not come to rest, or asks its gates no more.
pub async fn idle(cluster: &ControlPlane, namespace: &str) -> Result<(SystemTime, SystemTime)> {
    let mut log = Tail::of(cluster.audit_log()).await?;
    let watched = async {
        let mut rounds = 0;
        while rounds < ROUNDS {
            for event in log.more().await? {
                if writes(&event) {
                    rounds = 0;
                } else if asks(&event, namespace) {
                    rounds += 1;
                }
            }
        }
        let from = SystemTime::now();
        let mut rounds = 0;
        while rounds < ROUNDS {
            rounds += log.more().await?.iter().filter(|event| asks(event, namespace)).count();
        }
        anyhow::Ok((from, SystemTime::now()))
    };
    tokio::time::timeout(DEADLINE, watched).await.context("the operator did not come to rest")?
}

/// Does the operator write anything but its lease?
fn writes(event: &Value) -> bool {
    let tried = text(event, "/requestURI").contains("dryRun=All");
    let verbs = ["create", "update", "patch", "delete", "deletecollection"];
    let kept = !["leases", "subjectaccessreviews"].contains(&text(event, "/objectRef/resource"));
    text(event, "/user/username") == OPERATOR && verbs.contains(&text(event, "/verb")) && kept && !tried
}

/// Does a gate look into a namespace? Each lists the pods there, as the plan's account.
fn asks(event: &Value, namespace: &str) -> bool {
    let at = |pointer, wanted| text(event, pointer) == wanted;
    at("/verb", "list")
        && at("/objectRef/resource", "pods")
        && at("/objectRef/namespace", namespace)
        && at("/user/username", OPERATOR)
        && event["impersonatedUser"].is_object()
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
