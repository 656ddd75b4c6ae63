//! What an ended Job leaves: its exit codes, and where its logs are kept. No word that its programs wrote is in a message.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::api::conditions::shorten;
use crate::engine::StepProgress;
use crate::steps::listed;

/// Maximum number of logs in a message: the store's objects have long names.
const NAMED: usize = 2;
/// Maximum length of the reason why a log is not kept. A missing right is a long one.
const WHY: usize = 300;

/// Logs of an ended Job by container, or why there are none.
pub type Logs = Result<Vec<ContainerLog>, String>;

/// What became of one run's log of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerLog {
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Whether it is of the run before the last.
    pub is_previous: bool,
    /// What became of it.
    pub kept: KeptLog,
}

/// What became of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptLog {
    /// It is kept under this name in the evidence store.
    Kept(String),
    /// There is none, and none is expected.
    Nothing(String),
    /// It is not kept, with the reason.
    NotKept(String),
}

/// How a container of a pod ended.
struct Ended<'a> {
    pod: String,
    container: &'a str,
    state: &'a ContainerStateTerminated,
    is_previous: bool,
}

impl Ended<'_> {
    fn at(&self) -> Option<Timestamp> {
        self.state.finished_at.as_ref().map(|at| at.0)
    }

    fn describes(&self, log: &ContainerLog) -> bool {
        (&*log.pod, &*log.container, log.is_previous) == (&*self.pod, self.container, self.is_previous)
    }
}

/// Returns the run of a container that failed last.
fn failed(pods: &[Pod]) -> Option<Ended<'_>> {
    let runs = pods.iter().flat_map(|pod| {
        let status = pod.status.as_ref();
        let init = status.and_then(|status| status.init_container_statuses.as_ref());
        let main = status.and_then(|status| status.container_statuses.as_ref());
        init.into_iter().chain(main).flatten().flat_map(move |container| ends(pod, container))
    });
    runs.filter(|run| run.state.exit_code != 0).max_by_key(Ended::at)
}

fn ends<'a>(pod: &Pod, container: &'a ContainerStatus) -> impl Iterator<Item = Ended<'a>> + use<'a> {
    let pod = pod.name_any();
    let now = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    // While a container waits to be restarted, its log is that of the run that ended.
    let is_running = container.state.as_ref().is_some_and(|state| state.running.is_some());
    let is_previous = now.is_some() || is_running;
    [now.map(|state| (state, false)), before.map(|state| (state, is_previous))].into_iter().flatten().map(
        move |(state, is_previous)| Ended {
            pod: pod.clone(),
            container: &container.name,
            state,
            is_previous,
        },
    )
}

/// Returns the progress of an ended Job, with the exit code of the container that failed, and with where the logs are kept. `pods`: of the
/// Job, or why they cannot be listed.
#[must_use]
pub fn with_logs(progress: StepProgress, pods: &Result<Vec<Pod>, String>, logs: &Logs) -> StepProgress {
    let failed = pods.as_ref().ok().and_then(|pods| failed(pods));
    let kept = kept(failed.as_ref(), pods, logs);
    match progress {
        StepProgress::Failed(message) => {
            let why = failed.map(|failed| {
                let Ended { pod, container, state, .. } = failed;
                let reason = state.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!(
                    "; container {container} of Pod {pod} ended with exit code {}{reason}",
                    state.exit_code
                )
            });
            StepProgress::Failed(format!("{message}{}; {kept}", why.unwrap_or_default()))
        }
        StepProgress::Succeeded => StepProgress::SucceededWith(kept),
        progress => progress,
    }
}

/// Returns where the logs are kept, that of the container that failed first, and why others are not.
fn kept(failed: Option<&Ended<'_>>, pods: &Result<Vec<Pod>, String>, logs: &Logs) -> String {
    let not_kept = |why: &str| format!("no log is kept: {}", shorten(why, WHY));
    let logs = match (pods, logs) {
        (Err(why), _) | (_, Err(why)) => return not_kept(why),
        (Ok(pods), _) if pods.is_empty() => return not_kept("its pods are gone"),
        (Ok(_), Ok(logs)) => logs,
    };
    let is_first = |log: &&ContainerLog| failed.is_some_and(|failed| failed.describes(log));
    let (first, others): (Vec<_>, Vec<_>) = logs.iter().partition(is_first);
    let mut names: Vec<String> = Vec::new();
    let mut missing: Vec<String> = Vec::new();
    for log in first.iter().chain(&others) {
        let previous = if log.is_previous { "previous log" } else { "log" };
        let ContainerLog { pod, container, .. } = log;
        match &log.kept {
            // The text before it has named this container.
            KeptLog::Kept(object) if is_first(log) => names.push(format!("its {previous}: {object}")),
            KeptLog::Kept(object) => names.push(format!("{previous} of {pod}/{container}: {object}")),
            KeptLog::NotKept(why) => missing.push(format!("{previous} of {container}: {why}")),
            KeptLog::Nothing(_) => {}
        }
    }
    match (names.is_empty(), missing.first()) {
        (true, None) => not_kept("its containers have logged nothing"),
        (true, Some(why)) => not_kept(why),
        (false, None) => format!("kept as evidence, {}", listed(&names, NAMED)),
        (false, Some(why)) => {
            format!("kept as evidence, {}; not kept, {}", listed(&names, NAMED), shorten(why, WHY))
        }
    }
}
