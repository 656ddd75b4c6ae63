//! Gates: one file per type, which reads as the plan's account what `resurgam_core::gates` judges.
//!
//! Every gate answers; none fails. Errors, timeouts, malformed objects and panics are Unknown, with the culprit in the message.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
pub use resurgam_core::gates::{Answer, Question};

use crate::access::Right;
use crate::api::{GateReason, GateSpec};
use crate::cluster_cache::ClusterCache;
use crate::isolation::evidence::DigestKey;

mod approval;
mod backup_before;
mod baseline;
mod bucket;
mod condition;
mod credentials_rotated;
mod dynamic;
mod evaluator;
mod http;
mod image_digests;
mod inventory;
mod job_result;
mod kept_reads;
mod permission;
mod reads;
mod workloads;

pub use http::AskerError;
pub(crate) use http::{checked_client, checked_url, request_failure, unchecked_client};
pub use kept_reads::KeptReads;
pub use reads::Account;
use reads::{Reads, SharedReads};

/// Default deadline of an evaluation.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of a message, as in the status.
const MESSAGE_LIMIT: usize = 512;

/// Returns the part of the spec for one gate type, if set.
type Asked = fn(&GateSpec) -> Option<&dyn Gate>;

/// The implementation of each of [`GATE_TYPES`](crate::api::GATE_TYPES).
const GATHERERS: [(&str, Asked); 9] = [
    ("imageDigests", |spec| spec.image_digests.as_ref().map(|gate| gate as &dyn Gate)),
    ("baseline", |spec| spec.baseline.as_ref().map(|gate| gate as &dyn Gate)),
    ("credentialsRotated", |spec| spec.credentials_rotated.as_ref().map(|gate| gate as &dyn Gate)),
    ("backupBefore", |spec| spec.backup_before.as_ref().map(|gate| gate as &dyn Gate)),
    ("jobResult", |spec| spec.job_result.as_ref().map(|gate| gate as &dyn Gate)),
    ("workloads", |spec| spec.workloads.as_ref().map(|gate| gate as &dyn Gate)),
    ("http", |spec| spec.http.as_ref().map(|gate| gate as &dyn Gate)),
    ("condition", |spec| spec.condition.as_ref().map(|gate| gate as &dyn Gate)),
    ("approval", |spec| spec.approval.as_ref().map(|gate| gate as &dyn Gate)),
];

/// The implementation of a gate type, on its part of the spec.
trait Gate: Sync {
    /// Returns the objects whose changes may alter the answer.
    fn interests(&self, question: &Question) -> Vec<Interest>;
    /// Returns the rights of the plan's account that `ask` requires.
    fn rights(&self, question: &Question) -> Vec<Right>;
    /// Returns the subject of the question for people, used if it does not answer.
    fn subject(&self) -> String {
        "the API server".to_owned()
    }
    /// Returns what an evaluation on the cache can go by.
    fn cached(&self) -> Cached {
        Cached::No
    }
    /// Reads and parses what the gate is configured with, such as a list of approved images, without evaluating the gate.
    fn check_inputs<'a>(&'a self, _: Context<'a>) -> BoxFuture<'a, Result<(), Answer>> {
        std::future::ready(Ok(())).boxed()
    }
    /// Reads, then judges.
    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer>;
}

/// What an evaluation on the cache can go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cached {
    /// Nothing: the gate takes live reads.
    No,
    /// Everything that the gate reads is in the cache. It costs no request.
    Whole,
    /// What was read before and has not changed since. It costs requests for what has changed, and a few besides.
    Kept,
}

/// What a gate needs for its answer.
#[derive(Clone, Copy)]
struct Context<'a> {
    asker: &'a Asker,
    reads: Reads<'a>,
    /// What `baseline` gates have read, if that is kept.
    kept: Option<&'a KeptReads>,
    question: &'a Question,
}

/// Objects whose changes may alter a gate's answer. Watches of them wake the gate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interest {
    /// Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers, Jobs and CronJobs.
    Workloads {
        /// Where.
        namespace: String,
    },
    /// Pods.
    Pods {
        /// Where.
        namespace: String,
    },
    /// One ConfigMap.
    ConfigMap {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
    },
    /// One namespace.
    Namespace {
        /// Which.
        name: String,
    },
    /// Objects of any kind that baselines compare, the namespace itself included.
    Anything {
        /// Where.
        namespace: String,
    },
    /// Objects of the cluster that may reach into namespaces.
    Outside,
}

/// Returns the objects whose changes may alter the answer, sorted. HTTP endpoints cannot be watched, so such a gate is evaluated at its
/// interval.
#[must_use]
pub fn interests(question: &Question) -> Vec<Interest> {
    let mut interests = gatherer(&question.spec).map_or_else(Vec::new, |gate| gate.interests(question));
    interests.sort();
    interests.dedup();
    interests
}

/// Returns what an evaluation of the gate on the cache can go by.
#[must_use]
pub(crate) fn cached(spec: &GateSpec) -> Cached {
    gatherer(spec).map_or(Cached::No, Gate::cached)
}

/// Returns the rights of the plan's account that the gate requires. A gate without exactly one type requires none.
#[must_use]
pub fn rights(question: &Question) -> Vec<Right> {
    gatherer(&question.spec).map_or_else(Vec::new, |gate| gate.rights(question))
}

/// Returns the implementation of a gate. `None`: it does not have exactly one type.
fn gatherer(spec: &GateSpec) -> Option<&dyn Gate> {
    let name = spec.gate_type()?.name;
    let (_, asked) = GATHERERS.iter().find(|(of, _)| *of == name)?;
    asked(spec)
}

/// Evaluates gates. Created once and shared.
pub struct Asker {
    http: http::Prober,
    evaluator: evaluator::Evaluator,
    digest_key: Option<DigestKey>,
    shared: SharedReads,
    kept: Mutex<Weak<KeptReads>>,
}

impl Asker {
    /// Creates an asker whose `http` gates may also connect to loopback, link-local and similar addresses within `http_allow`.
    ///
    /// # Errors
    /// TLS cannot be set up, for instance because the machine has no certificate authorities.
    pub fn new(http_allow: Vec<ipnet::IpNet>) -> Result<Self, AskerError> {
        Ok(Self {
            http: http::Prober::new(http_allow)?,
            evaluator: evaluator::Evaluator::default(),
            digest_key: None,
            shared: SharedReads::default(),
            kept: Mutex::default(),
        })
    }

    /// Sets the key of the digests of captured Secrets. Without one, `credentialsRotated` gates are Unknown.
    #[must_use]
    pub fn with_digest_key(self, digest_key: Option<DigestKey>) -> Self {
        Self { digest_key, ..self }
    }

    /// Sets the program whose subcommand `gate-eval` evaluates expressions. Default: this process's own.
    #[must_use]
    pub fn with_evaluator(self, program: PathBuf) -> Self {
        Self { evaluator: evaluator::Evaluator::new(program), ..self }
    }

    /// Keeps what `baseline` gates read for as long as what is returned lives, so that [`Asker::ask_cached`] reads only what has changed
    /// since. All who ask for it share it.
    #[must_use]
    pub fn keep_reads(&self, cache: &ClusterCache) -> Arc<KeptReads> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.upgrade() {
            return kept;
        }
        let new = Arc::new(KeptReads::new(cache.start_change_log()));
        *kept = Arc::downgrade(&new);
        new
    }

    fn kept(&self) -> Option<Arc<KeptReads>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Evaluates one gate by live reads as an account, within `spec.timeout` (default 10 s).
    ///
    /// Never fails and never panics: errors, timeouts and panics are Unknown.
    pub async fn ask(&self, account: &Account, question: &Question) -> Answer {
        let Some(gate) = gatherer(&question.spec) else {
            return Answer::unknown(
                GateReason::Malformed,
                format!("gate {} does not ask exactly one question", question.spec.name),
            );
        };
        self.ask_at(gate, question, Reads { shared: &self.shared, account, cache: None }).await
    }

    /// Evaluates one gate on the cache, after verifying that the account may read the same objects. `None`: the gate reads something that
    /// is not cached, or nothing is kept yet of what it reads.
    pub async fn ask_cached(
        &self,
        cache: &ClusterCache,
        account: &Account,
        question: &Question,
    ) -> Option<Answer> {
        let gate = gatherer(&question.spec)?;
        match gate.cached() {
            Cached::No => return None,
            Cached::Whole => {}
            Cached::Kept => {
                self.kept().filter(|kept| kept.has(&account.user, &question.namespaces)).map(drop)?
            }
        }
        let reads = Reads { shared: &self.shared, account, cache: Some(cache) };
        Some(self.ask_at(gate, question, reads).await)
    }

    /// Reads and parses what a gate is configured with, as an account. It does not evaluate the gate.
    ///
    /// # Errors
    /// An Unknown: it cannot be read, or the gate cannot use it.
    pub async fn check_inputs(&self, account: &Account, question: &Question) -> Result<(), Answer> {
        let Some(gate) = gatherer(&question.spec) else { return Ok(()) };
        let reads = Reads { shared: &self.shared, account, cache: None };
        let checked = gate.check_inputs(Context { asker: self, reads, kept: None, question });
        match tokio::time::timeout(DEFAULT_TIMEOUT, checked).await {
            Ok(result) => result,
            Err(_) => {
                Err(Answer::unknown(GateReason::TimedOut, format!("{} did not answer", gate.subject())))
            }
        }
    }

    async fn ask_at(&self, gate: &dyn Gate, question: &Question, reads: Reads<'_>) -> Answer {
        let timeout = crate::plan::GatePolicy::of(&question.spec, question.phase).timeout;
        let kept = self.kept();
        let answer = async {
            // The async block also catches a panic before the first await.
            gate.ask(Context { asker: self, reads, kept: kept.as_deref(), question }).await
        };
        guarded(timeout, || gate.subject(), answer).await
    }
}

/// Converts timeouts and panics to Unknown.
async fn guarded(
    timeout: Duration,
    subject: impl Fn() -> String,
    answer: impl Future<Output = Answer>,
) -> Answer {
    let mut answer = match tokio::time::timeout(timeout, AssertUnwindSafe(answer).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Answer::unknown(
            GateReason::Panicked,
            format!("the gate panicked: {}", panic_message(panic.as_ref())),
        ),
        Err(_) => {
            let timeout = crate::api::Duration(timeout);
            Answer::unknown(GateReason::TimedOut, format!("{} did not answer within {timeout}", subject()))
        }
    };
    answer.message = clipped(&answer.message, MESSAGE_LIMIT);
    answer
}

/// Returns the message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it did not say why")
}

/// Returns the first `limit` characters, with a mark if the text was longer.
fn clipped(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unknown_tests;
