//! Gates: one file for each type, which gathers (I/O, as the plan's account) what `resurgam_core::gates` judges.
//!
//! Every gate answers; none fails. What cannot be read, takes too long, is malformed or panics is Unknown, and says so
//! with the culprit's name.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
pub use resurgam_core::gates::{Answer, Question};

use crate::access::Right;
use crate::api::{GateReason, GateSpec};
use crate::cluster_cache::ClusterCache;

mod http;
mod image_digests;
mod inventory;
mod permission;
mod reads;
mod workloads;

pub use http::AskerError;
pub use reads::Account;
use reads::{Reads, SharedReads};

/// How long an answer may take where the plan does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of a message; the status has room for as many.
const MESSAGE_LIMIT: usize = 512;

/// Returns the part of a plan that is asked, where it is there.
type Asked = fn(&GateSpec) -> Option<&dyn Gate>;

/// Who gathers for each of [`GATE_TYPES`](crate::api::GATE_TYPES).
const GATHERERS: [(&str, Asked); 3] = [
    ("imageDigests", |spec| spec.image_digests.as_ref().map(|gate| gate as &dyn Gate)),
    ("workloads", |spec| spec.workloads.as_ref().map(|gate| gate as &dyn Gate)),
    ("http", |spec| spec.http.as_ref().map(|gate| gate as &dyn Gate)),
];

/// What each gate's part of a plan can do.
trait Gate: Sync {
    /// What a change of would alter the answer.
    fn interests(&self, question: &Question) -> Vec<Interest>;
    /// Which rights of the plan's account it takes to answer: each request that `ask` makes of the API server.
    fn rights(&self, question: &Question) -> Vec<Right>;
    /// Who is asked, as a person names them: for when they do not answer.
    fn subject(&self) -> String {
        "the API server".to_owned()
    }
    /// Is all that it reads in the cache?
    fn is_cached(&self) -> bool {
        false
    }
    /// Gathers, then judges.
    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer>;
}

/// What a gate is handed to answer with.
#[derive(Clone, Copy)]
struct Context<'a> {
    asker: &'a Asker,
    reads: Reads<'a>,
    question: &'a Question,
}

/// What a change of would alter a gate's answer: for wake-ups through watches.
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
}

/// What a change of would alter the answer, sorted. An HTTP endpoint tells nobody: such a gate is asked at its interval.
#[must_use]
pub fn interests(question: &Question) -> Vec<Interest> {
    let mut interests = gatherer(&question.spec).map_or_else(Vec::new, |gate| gate.interests(question));
    interests.sort();
    interests.dedup();
    interests
}

/// Which rights of the plan's account it takes to answer. A gate that does not ask exactly one question asks nothing.
#[must_use]
pub fn rights(question: &Question) -> Vec<Right> {
    gatherer(&question.spec).map_or_else(Vec::new, |gate| gate.rights(question))
}

/// Returns who gathers for a gate. `None`: it does not ask exactly one question.
fn gatherer(spec: &GateSpec) -> Option<&dyn Gate> {
    let name = spec.gate_type()?.name;
    let (_, asked) = GATHERERS.iter().find(|(of, _)| *of == name)?;
    asked(spec)
}

/// Asks gates. Built once, and shared.
pub struct Asker {
    http: http::Prober,
    shared: SharedReads,
}

impl Asker {
    /// An asker whose `http` gates may also connect to loopback, link-local and the like within `http_allow`.
    ///
    /// # Errors
    /// TLS cannot be set up, for instance because the machine has no certificate authorities.
    pub fn new(http_allow: Vec<ipnet::IpNet>) -> Result<Self, AskerError> {
        Ok(Self { http: http::Prober::new(http_allow)?, shared: SharedReads::default() })
    }

    /// Asks one gate by live reads as an account, within `spec.timeout` (default 10 s).
    ///
    /// Never fails and never panics: errors, timeouts and panics are Unknown and say so.
    pub async fn ask(&self, account: &Account, question: &Question) -> Answer {
        let Some(gate) = gatherer(&question.spec) else {
            return Answer::unknown(
                GateReason::Malformed,
                format!("gate {} does not ask exactly one question", question.spec.name),
            );
        };
        self.ask_at(gate, question, Reads { shared: &self.shared, account, cache: None }).await
    }

    /// The same by the cache, once a review has said that the account may read there what the cache answers with. `None` for a gate
    /// that reads anything else.
    pub async fn ask_cached(
        &self,
        cache: &ClusterCache,
        account: &Account,
        question: &Question,
    ) -> Option<Answer> {
        let gate = gatherer(&question.spec).filter(|gate| gate.is_cached())?;
        let reads = Reads { shared: &self.shared, account, cache: Some(cache) };
        Some(self.ask_at(gate, question, reads).await)
    }

    async fn ask_at(&self, gate: &dyn Gate, question: &Question, reads: Reads<'_>) -> Answer {
        let timeout = question.spec.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
        let answer = async {
            // Within an async block, so that a panic before the first await is caught as well.
            gate.ask(Context { asker: self, reads, question }).await
        };
        guarded(timeout, || gate.subject(), answer).await
    }
}

/// Turns what does not answer into Unknown.
async fn guarded(
    timeout: Duration,
    subject: impl Fn() -> String,
    answer: impl Future<Output = Answer>,
) -> Answer {
    let mut answer = match tokio::time::timeout(timeout, AssertUnwindSafe(answer).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => {
            Answer::unknown(GateReason::Panicked, format!("the gate panicked: {}", said(panic.as_ref())))
        }
        Err(_) => {
            let timeout = crate::api::Duration(timeout);
            Answer::unknown(GateReason::TimedOut, format!("{} did not answer within {timeout}", subject()))
        }
    };
    answer.message = clipped(&answer.message, MESSAGE_LIMIT);
    answer
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it did not say why")
}

/// The first `limit` characters, with a mark where more were cut.
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
