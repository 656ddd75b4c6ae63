//! Captures containers' logs, of the current and the previous run: limited in size, encrypted as they arrive, a few at a time.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, StreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::LogParams;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::encrypt::Encrypted;
use super::{Evidence, Kept, Miss};
use crate::calls::{IoError, call};

mod ends;

pub(crate) use ends::keep_ends;

/// Logs read at a time. Each encrypted log is held in memory until it is stored.
const PARALLEL: usize = 4;
/// Deadline for one log.
const DEADLINE: Duration = Duration::from_secs(120);
/// Size of a read.
const CHUNK: usize = 64 << 10;
/// Text that a kubelet sends, without an error, instead of a log that it does not have.
const UNAVAILABLE: &[u8] = b"unable to retrieve container logs for ";

/// One container in the index.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pod: String,
    pod_uid: String,
    node: String,
    container: String,
    kind: &'static str,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
    #[serde(rename = "containerID")]
    container_id: String,
    restarts: i32,
    #[serde(skip)]
    running: bool,
    log: Log,
    previous_log: Log,
}

/// Result of capturing a log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Log {
    /// Not requested.
    NotAsked,
    /// Stored.
    Kept {
        #[serde(flatten)]
        kept: Kept,
        /// Size of the clear text.
        bytes: u64,
        /// The log was longer than the limit.
        truncated: bool,
    },
    /// There is none, and none is expected.
    None(String),
    /// It existed and is gone; nobody can get it.
    Gone(String),
    /// It exists, but could not be read.
    Failed(String),
}

/// Returns all containers of the pods. Containers that never started have no logs.
pub(super) fn containers(pods: &[Pod]) -> Vec<Container> {
    let mut all = Vec::new();
    for pod in pods {
        let Some(spec) = &pod.spec else { continue };
        let status = pod.status.clone().unwrap_or_default();
        let (init, ephemeral) =
            (spec.init_containers.iter().flatten(), spec.ephemeral_containers.iter().flatten());
        let named = init
            .map(|c| ("init", &c.name, &c.image, &status.init_container_statuses))
            .chain(
                spec.containers.iter().map(|c| ("container", &c.name, &c.image, &status.container_statuses)),
            )
            .chain(ephemeral.map(|c| ("ephemeral", &c.name, &c.image, &status.ephemeral_container_statuses)));
        for (kind, name, image, statuses) in named {
            let status = statuses.iter().flatten().find(|status| &status.name == name);
            let mut container = Container {
                pod: pod.name_any(),
                pod_uid: pod.uid().unwrap_or_default(),
                node: spec.node_name.clone().unwrap_or_default(),
                container: name.clone(),
                kind,
                image: image.clone().unwrap_or_default(),
                image_id: String::new(),
                container_id: String::new(),
                restarts: 0,
                running: false,
                log: Log::None("it never started".to_owned()),
                previous_log: Log::None("it has not run before".to_owned()),
            };
            if let Some(status) = status {
                container.describe(status);
            }
            all.push(container);
        }
    }
    all
}

/// Returns the number of containers with a stored log.
pub(super) fn count(containers: &[Container]) -> i64 {
    let kept = |log: &Log| matches!(log, Log::Kept { .. });
    let count = containers.iter().filter(|c| kept(&c.log) || kept(&c.previous_log)).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Container {
    fn describe(&mut self, status: &ContainerStatus) {
        self.image_id.clone_from(&status.image_id);
        self.container_id = status.container_id.clone().unwrap_or_default();
        self.restarts = status.restart_count;
        let state = status.state.as_ref();
        self.running = state.is_some_and(|state| state.running.is_some());
        let ended = state.is_some_and(|state| state.terminated.is_some());
        let ran_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        // While a container waits to be restarted, the kubelet treats the previous run as the current one.
        if self.running || ended || ran_before {
            self.log = Log::NotAsked;
        }
        if (self.running || ended) && ran_before {
            self.previous_log = Log::NotAsked;
        }
    }

    fn is_asked(&self, previous: bool) -> bool {
        *(if previous { &self.previous_log } else { &self.log }) == Log::NotAsked
    }

    /// Returns what a refusal means for this log.
    fn judge(&self, previous: bool, error: &IoError) -> Log {
        let refused = |code| error.status().is_some_and(|status| status.code == code);
        let why = error.to_string();
        if previous && (refused(400) || refused(404)) {
            return Log::None(format!("the log of its previous run is gone: {why}"));
        }
        // The pod has ended, or the container ended and its node removed the log.
        if refused(404) || (refused(400) && !self.running) { Log::Gone(why) } else { Log::Failed(why) }
    }

    /// Returns what it means that the node does not have the log.
    fn unavailable(&self, previous: bool) -> Log {
        let away = "its node has cleared it away".to_owned();
        match (previous, self.running) {
            (true, _) => Log::None(away),
            (false, true) => Log::Failed("its node does not find it".to_owned()),
            (false, false) => Log::Gone(away),
        }
    }

    fn miss(&self, previous: bool, log: &Log) -> Option<Miss> {
        let (why, failure) = match log {
            Log::Gone(why) => (why, false),
            Log::Failed(why) => (why, true),
            Log::NotAsked | Log::Kept { .. } | Log::None(_) => return None,
        };
        let which = if previous { "previous log" } else { "log" };
        let Self { pod, container, node, .. } = self;
        Some(Miss { what: format!("{which} of {pod}/{container} on {node}: {why}"), failure })
    }
}

/// Reads and stores logs.
pub(super) struct Logs<'a> {
    evidence: &'a Evidence,
    namespace: &'a str,
    pods: Api<Pod>,
    /// Nodes that did not answer in time. They are skipped, since a dead node would cost a deadline per container.
    silent: Mutex<BTreeSet<String>>,
}

impl<'a> Logs<'a> {
    pub(super) fn new(client: &Client, evidence: &'a Evidence, namespace: &'a str) -> Self {
        let pods = Api::namespaced(client.clone(), namespace);
        Self { evidence, namespace, pods, silent: Mutex::default() }
    }

    /// Returns which logs cannot be read, by requesting one byte of each.
    pub(super) async fn unavailable(&self, containers: &[Container]) -> Vec<Miss> {
        let asked = asked(containers);
        let tried = stream::iter(asked).map(|(index, previous)| async move {
            let container = containers.get(index)?;
            let log = match self.open(container, previous, first(1)).await {
                Ok(_) => return None,
                Err(log) => log,
            };
            container.miss(previous, &log)
        });
        tried.buffered(PARALLEL).filter_map(std::future::ready).collect().await
    }

    /// Stores the logs.
    pub(super) async fn keep(&self, containers: &mut [Container], missing: &mut Vec<Miss>) {
        let outcomes: Vec<(usize, bool, Log)> = {
            let containers = &*containers;
            let kept = stream::iter(asked(containers)).map(|(index, previous)| async move {
                let log = self.keep_one(containers.get(index)?, previous).await;
                Some((index, previous, log))
            });
            kept.buffered(PARALLEL).filter_map(std::future::ready).collect().await
        };
        for (index, previous, log) in outcomes {
            let Some(container) = containers.get_mut(index) else { continue };
            missing.extend(container.miss(previous, &log));
            *(if previous { &mut container.previous_log } else { &mut container.log }) = log;
        }
    }

    async fn keep_one(&self, container: &Container, previous: bool) -> Log {
        let limit = self.evidence.log_limit;
        // One byte more than the limit shows whether the log is longer.
        let log = match self.open(container, previous, first(limit.saturating_add(1))).await {
            Ok(log) => log,
            Err(why) => return why,
        };
        self.store(container, previous, self.encrypt(log, limit)).await
    }

    /// Stores a log, once it is read and encrypted.
    async fn store(
        &self,
        container: &Container,
        previous: bool,
        reading: impl Future<Output = std::io::Result<Read>>,
    ) -> Log {
        let read = tokio::time::timeout(DEADLINE, reading).await;
        let read = match read {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return Log::Failed(error.to_string()),
            Err(_) => return Log::Failed(format!("not read within {} s", DEADLINE.as_secs())),
        };
        match read {
            Read::Nothing => Log::None("it has logged nothing".to_owned()),
            Read::Unavailable => container.unavailable(previous),
            Read::Encrypted { text, bytes, truncated } => {
                match self.evidence.store.keep(self.namespace, "log.age", text).await {
                    Ok(kept) => Log::Kept { kept, bytes, truncated },
                    Err(error) => Log::Failed(error.to_string()),
                }
            }
        }
    }

    /// Opens a log. `part`: which lines or bytes of it.
    async fn open(
        &self,
        container: &Container,
        previous: bool,
        part: LogParams,
    ) -> Result<impl AsyncRead + use<>, Log> {
        let node = &container.node;
        if self.silent.lock().unwrap_or_else(PoisonError::into_inner).contains(node) {
            return Err(Log::Failed(format!("node {node} did not answer for another log: not asked again")));
        }
        let params =
            LogParams { container: Some(container.container.clone()), previous, timestamps: true, ..part };
        let what = format!("get log of Pod {}/{}", self.namespace, container.pod);
        call(what, self.pods.log_stream(&container.pod, &params)).await.map_err(|error| {
            if matches!(error, IoError::Timeout { .. }) {
                self.silent.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone());
            }
            container.judge(previous, &error)
        })
    }

    async fn encrypt(&self, log: impl AsyncRead, limit: u64) -> std::io::Result<Read> {
        read(log, limit, Encrypted::to(&self.evidence.recipients)?).await
    }
}

/// Requests the first bytes of a log.
fn first(bytes: u64) -> LogParams {
    LogParams { limit_bytes: Some(i64::try_from(bytes).unwrap_or(i64::MAX)), ..LogParams::default() }
}

/// Returns which logs to request: index of the container, and whether of the previous run.
fn asked(containers: &[Container]) -> Vec<(usize, bool)> {
    let both = containers.iter().enumerate().flat_map(|(index, c)| [(index, false, c), (index, true, c)]);
    both.filter(|(_, previous, c)| c.is_asked(*previous))
        .map(|(index, previous, _)| (index, previous))
        .collect()
}

/// Result of reading a log.
#[derive(Debug)]
enum Read {
    Nothing,
    Unavailable,
    Encrypted { text: Vec<u8>, bytes: u64, truncated: bool },
}

/// Encrypts up to `limit` bytes of a log, chunk by chunk.
async fn read(log: impl AsyncRead, limit: u64, mut text: Encrypted) -> std::io::Result<Read> {
    let mut log = pin!(log);
    let mut chunk = vec![0; CHUNK];
    let mut head: Vec<u8> = Vec::new();
    let (mut bytes, mut truncated) = (0_u64, false);
    loop {
        let got = log.read(&mut chunk).await?;
        let mut new = chunk.get(..got).unwrap_or_default();
        if new.is_empty() {
            break;
        }
        let room = usize::try_from(limit - bytes).unwrap_or(usize::MAX);
        if let Some(kept) = new.get(..room) {
            truncated = truncated || new.len() > room;
            new = kept;
        }
        head.extend(new.iter().take(UNAVAILABLE.len() - head.len()));
        text.write(new)?;
        bytes += u64::try_from(new.len()).unwrap_or_default();
    }
    // Lines of a log start with their time, so this is the kubelet's own text.
    if head == UNAVAILABLE {
        return Ok(Read::Unavailable);
    }
    if bytes == 0 {
        return Ok(Read::Nothing);
    }
    Ok(Read::Encrypted { text: text.finish()?, bytes, truncated })
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
