//! Keeps the ends of logs: why a program failed is in its last lines.

use std::pin::pin;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::LogParams;
use resurgam_core::steps::job::{ContainerLog, KeptLog};

use super::{CHUNK, Container, Encrypted, Log, Logs, PARALLEL, Read, UNAVAILABLE, asked, containers};
use crate::isolation::evidence::Evidence;

/// Bytes that are kept of one container's log.
const BYTES: usize = 64 << 10;
/// Lines that a node is asked for. It cannot be asked for the last bytes.
const LINES: i64 = 4096;
/// Logs that are kept at most.
const MOST: usize = 16;
/// Deadline for all of them. What is not stored then is not kept.
const WITHIN: Duration = Duration::from_secs(60);

/// Stores the ends of the logs of these pods' containers, of the current and the previous run, encrypted.
pub(crate) async fn keep_ends(
    client: &Client,
    evidence: &Evidence,
    namespace: &str,
    pods: &[Pod],
) -> Vec<ContainerLog> {
    keep_ends_within(WITHIN, client, evidence, namespace, pods).await
}

async fn keep_ends_within(
    within: Duration,
    client: &Client,
    evidence: &Evidence,
    namespace: &str,
    pods: &[Pod],
) -> Vec<ContainerLog> {
    let logs = Logs::new(client, evidence, namespace);
    let containers = containers(pods);
    let asked: Vec<_> = asked(&containers).into_iter().take(MOST).collect();
    let mut ends: Vec<ContainerLog> = asked
        .iter()
        .filter_map(|(index, is_previous)| {
            let Container { pod, container, .. } = containers.get(*index)?;
            let (pod, container, is_previous) = (pod.clone(), container.clone(), *is_previous);
            let late = format!("not stored within {} s", within.as_secs());
            Some(ContainerLog { pod, container, is_previous, kept: KeptLog::NotKept(late) })
        })
        .collect();
    let (logs, all) = (&logs, &containers);
    // Owned items: the compiler takes no future for `Send` that is made of borrowed ones.
    let kept = stream::iter(asked.into_iter().enumerate()).map(|(at, (index, previous))| async move {
        Some((at, logs.keep_end(all.get(index)?, previous).await))
    });
    let mut kept = pin!(kept.buffer_unordered(PARALLEL).take_until(tokio::time::sleep(within)));
    while let Some(outcome) = kept.next().await {
        let Some((at, log)) = outcome else { continue };
        let Some(end) = ends.get_mut(at) else { continue };
        end.kept = match log {
            Log::Kept { kept, .. } => KeptLog::Kept(kept.object),
            Log::NotAsked => KeptLog::Nothing("it was not read".to_owned()),
            Log::None(why) => KeptLog::Nothing(why),
            Log::Gone(why) | Log::Failed(why) => KeptLog::NotKept(why),
        };
    }
    ends
}

impl Logs<'_> {
    async fn keep_end(&self, container: &Container, previous: bool) -> Log {
        let part = LogParams { tail_lines: Some(LINES), ..LogParams::default() };
        let log = match self.open(container, previous, part).await {
            Ok(log) => log,
            Err(why) => return why,
        };
        self.store(container, previous, async {
            read_end(log, BYTES, Encrypted::to(&self.evidence.recipients)?).await
        })
        .await
    }
}

/// Encrypts the last `limit` bytes of a log.
async fn read_end(log: impl AsyncRead, limit: usize, mut text: Encrypted) -> std::io::Result<Read> {
    let mut log = pin!(log);
    let mut chunk = vec![0; CHUNK];
    let (mut end, mut truncated): (Vec<u8>, bool) = (Vec::new(), false);
    loop {
        let got = log.read(&mut chunk).await?;
        let new = chunk.get(..got).unwrap_or_default();
        if new.is_empty() {
            break;
        }
        end.extend(new);
        let surplus = end.len().saturating_sub(limit);
        truncated = truncated || surplus > 0;
        end.drain(..surplus);
    }
    if !truncated && end.starts_with(UNAVAILABLE) {
        return Ok(Read::Unavailable);
    }
    if end.is_empty() {
        return Ok(Read::Nothing);
    }
    text.write(&end)?;
    Ok(Read::Encrypted {
        text: text.finish()?,
        bytes: u64::try_from(end.len()).unwrap_or(u64::MAX),
        truncated,
    })
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;
    use serde_json::json;

    use super::*;
    use crate::isolation::evidence::Store;

    async fn end(log: &str, limit: usize) -> (Option<String>, bool) {
        let identity = age::x25519::Identity::generate();
        let recipients = [identity.to_public().to_string().parse().unwrap()];
        let read = read_end(Cursor::new(log.as_bytes()), limit, Encrypted::to(&recipients).unwrap());
        match read.await.unwrap() {
            Read::Encrypted { text, bytes, truncated } => {
                let clear = age::decrypt(&identity, &text).unwrap();
                assert_eq!(clear.len(), usize::try_from(bytes).unwrap());
                (Some(String::from_utf8(clear).unwrap()), truncated)
            }
            Read::Nothing | Read::Unavailable => (None, false),
        }
    }

    /// An API server that never answers, as it waits for a kubelet.
    #[tokio::test]
    async fn log_that_does_not_come_holds_nobody_up() {
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let mut evidence = Evidence::new(Store::folder("unused"));
        evidence.recipients =
            vec![age::x25519::Identity::generate().to_public().to_string().parse().unwrap()];
        let pod = json!({
            "metadata": {"name": "load-1"}, "spec": {"containers": [{"name": "main"}]},
            "status": {"containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 1}}}]},
        });
        let pods = [serde_json::from_value(pod).unwrap()];
        let (within, client) = (Duration::from_millis(100), Client::new(silent, "db"));
        let ends = keep_ends_within(within, &client, &evidence, "db", &pods).await;
        let kept = KeptLog::NotKept("not stored within 0 s".to_owned());
        let (pod, container) = ("load-1".to_owned(), "main".to_owned());
        assert_eq!(ends, [ContainerLog { pod, container, is_previous: false, kept }]);
    }

    #[tokio::test]
    async fn last_bytes_of_a_log_are_kept_encrypted() {
        let whole = |text: &str| (Some(text.to_owned()), false);
        assert_eq!(end("first, last", 64).await, whole("first, last"));
        assert_eq!(end("first, last", 11).await, whole("first, last"));
        assert_eq!(end("first, last", 4).await, (Some("last".to_owned()), true));
        let long = format!("{}last", "x".repeat(3 * CHUNK));
        assert_eq!(end(&long, BYTES).await.0.unwrap(), long[long.len() - BYTES..]);
        assert_eq!(end("", 4).await, (None, false), "nothing was logged");
        // The kubelet's own text, instead of a log that it does not have.
        assert_eq!(end("unable to retrieve container logs for containerd://1", 64).await, (None, false));
    }
}
