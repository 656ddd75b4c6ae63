//! Isolates one namespace without an operator, as whoever calls. Everything can be done again; an operator adopts what is there.
//!
//! The isolation lists come first, for all namespaces at once ([`super::list::add`]). Then each control by itself: one that fails is a problem
//! that is reported, and the next ones proceed. The fence lets who may isolate cut the network behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::label;
use super::network::{self, Before, NetworkError, PolicyObservation};
use super::other_policies::{self, PolicyReader};
use super::policies::FENCES;
use super::probe::ProbeResult;
use super::tighten::{Tightening, change, recovery_under_way};
use super::verify_as_caller;
use crate::api::{ISOLATION_LABEL, Isolation, Quarantine, QuarantineSpec, conditions};
use crate::calls::{IoError, call, call_opt};

/// How long the fence is tried for. Policies that were just made take a moment, labels some milliseconds.
const SEEING: Duration = Duration::from_secs(30);
/// How long a running operator is waited for, where it was faster than we.
const OPERATOR: Duration = Duration::from_secs(30);
/// What is said of a label that is not ours to change.
const LABELLED: &str = "the namespace is labelled ";
/// So often anew, if somebody wrote in between.
const ATTEMPTS: usize = 6;

/// What came of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Which.
    pub namespace: String,
    /// Cut off, and seen to refuse, and nothing is a problem.
    pub isolated: bool,
    /// Cut off, and seen to refuse, whatever else is a problem: a webhook that refuses the label leaves the isolation lists in force.
    pub contained: bool,
    /// What became of its Quarantine.
    pub quarantine: String,
    /// What became of its network.
    pub network: String,
    /// What the fence was seen to do.
    pub fence: String,
    /// What the lock was seen to do.
    pub lock: String,
    /// Why it is not isolated, or not wholly.
    pub problems: Vec<String>,
    /// What to know.
    pub notes: Vec<String>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The Quarantine that is wanted.
    pub spec: QuarantineSpec,
    /// An operator leads: it may be faster than we.
    pub operator: bool,
    /// Why the namespace could not be put on the isolation lists, where it could not.
    pub unlisted: Option<String>,
    /// What was read of network policies of other APIs.
    pub policies: Arc<PolicyReader>,
}

/// Isolates one namespace, as far as it gets.
pub async fn isolate(client: &Client, name: &str, request: &Request) -> Outcome {
    Work::cut(client, name, request).await.finish().await
}

/// One namespace on its way. Of many, the networks of all are cut ([`Work::cut`]) before the rest is done of any ([`Work::finish`]).
pub struct Work<'a> {
    client: &'a Client,
    name: &'a str,
    request: &'a Request,
    outcome: Outcome,
    /// As it was read before its network was cut.
    namespace: Option<Namespace>,
    /// The fence was up before our network was: the operator's work, or an earlier run's.
    fenced_by_others: bool,
}

impl<'a> Work<'a> {
    /// Cuts its network.
    pub async fn cut(client: &'a Client, name: &'a str, request: &'a Request) -> Self {
        let outcome = Outcome { namespace: name.to_owned(), ..Outcome::default() };
        let mut work = Self { client, name, request, outcome, namespace: None, fenced_by_others: false };
        if let Some(why) = &request.unlisted {
            work.outcome.problems.push(format!(
                "it is not on the isolation lists, so that its label alone fences it, and its accounts are not watched elsewhere: {why}"
            ));
        }
        let namespace = work.namespace().await;
        work.namespace = work.problem(namespace);
        let uid = work.namespace.as_ref().and_then(ResourceExt::uid).unwrap_or_default();
        // A clean room's network follows from its plan: the operator takes it back.
        if work.label_before() != Isolation::CleanRoom.label() {
            work.cut_network(&uid).await;
        }
        work
    }

    /// Was its network cut without a problem, as far as is known before it is looked at once more?
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.namespace.is_some() && self.outcome.problems.is_empty()
    }

    /// All else. Each step by itself: what fails is a problem, and keeps no other from being done.
    pub async fn finish(mut self) -> Outcome {
        let label_before = self.label_before().map(str::to_owned);
        let quarantine = self.quarantine().await;
        let quarantine = self.problem(quarantine).flatten();
        if let Some(recovery) = quarantine.as_ref().and_then(recovery_under_way) {
            let hold = r#"-p '{"spec": {"hold": "Contained"}}'"#;
            self.outcome.notes.push(format!(
                "the recovery {recovery} goes on, and lets it out once its gates pass. To hold it all the same: \
                 kubectl patch quarantine {} --type merge {hold}",
                self.name
            ));
        }
        if label_before.is_some() {
            self.fenced_by_others = true;
        } else if let Some(namespace) = self.namespace.take() {
            // Reason and incident are those of the Quarantine, so that the operator finds nothing to change.
            let spec = quarantine.as_ref().map_or(&self.request.spec, |q| &q.spec).clone();
            let written = self.label(namespace, &spec).await;
            self.problem(written);
        }
        let is_fenced = self.verify().await;
        if self.fenced_by_others && (self.request.operator || label_before.is_none()) {
            self.await_operator().await;
        }
        let problems = self.outcome.problems.len();
        let (network, pods) = (self.look_at_network().await, self.look_at_pods().await);
        self.problem(network);
        self.problem(pods);
        let others = self.look_at_other_policies().await;
        self.problem(others);
        self.outcome.contained = is_fenced && self.outcome.problems.len() == problems;
        self.outcome.isolated = self.outcome.problems.is_empty();
        self.outcome
    }

    fn label_before(&self) -> Option<&str> {
        let namespace = self.namespace.as_ref()?;
        namespace.labels().get(ISOLATION_LABEL).map(String::as_str)
    }

    fn problem<T>(&mut self, outcome: Result<T, IoError>) -> Option<T> {
        outcome.map_err(|error| self.outcome.problems.push(error.to_string())).ok()
    }

    async fn namespace(&self) -> Result<Namespace, IoError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        call(format!("get namespace {}", self.name), api.get(self.name)).await
    }

    async fn label(&mut self, mut namespace: Namespace, spec: &QuarantineSpec) -> Result<(), IoError> {
        for attempt in 1.. {
            let error = match label::label(self.client, &namespace, spec, Isolation::Contained, false).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            namespace = self.namespace().await?;
            if namespace.labels().contains_key(ISOLATION_LABEL) {
                self.fenced_by_others = true;
                return Ok(());
            }
            if !error.is_conflict() || attempt == ATTEMPTS {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes or tightens the Quarantine. `None`: there can be none.
    async fn quarantine(&mut self) -> Result<Option<Quarantine>, IoError> {
        let api: Api<Quarantine> = Api::all(self.client.clone());
        let (name, spec) = (self.name, &self.request.spec);
        for attempt in 1.. {
            let new = Quarantine::new(name, spec.clone());
            let created =
                call(format!("create Quarantine {name}"), api.create(&PostParams::default(), &new)).await;
            let conflict = match created {
                Ok(made) => {
                    self.outcome.quarantine = "made".to_owned();
                    return Ok(Some(made));
                }
                Err(error) if error.is_not_served() => {
                    self.outcome.quarantine = "none: the kind is not installed".to_owned();
                    self.outcome.notes.push(
                        "no Quarantine could be made, as its kind is not installed: label and network hold by \
                         themselves. Install it (resurgam crds | kubectl apply --server-side -f -) and run this again: \
                         an operator then adopts what is here"
                            .to_owned(),
                    );
                    return Ok(None);
                }
                Err(error) if error.is_conflict() => error,
                Err(error) => return Err(error),
            };
            let Some(old) = call_opt(format!("get Quarantine {name}"), api.get(name)).await? else {
                if attempt == ATTEMPTS {
                    return Err(conflict);
                }
                continue;
            };
            match change(&old, spec) {
                Tightening::None => {
                    self.outcome.quarantine = "there already".to_owned();
                    return Ok(Some(old));
                }
                Tightening::Terminating => {
                    self.outcome.quarantine = "being released".to_owned();
                    self.outcome.problems.push(format!(
                        "Quarantine {name} is being deleted, which is a release: run this again once it is gone"
                    ));
                    return Ok(Some(old));
                }
                Tightening::Tighten(patch, said) => {
                    let params = PatchParams::default();
                    let what = format!("tighten Quarantine {name}");
                    match call(what, api.patch(name, &params, &Patch::Merge(&patch))).await {
                        Ok(new) => {
                            self.outcome.quarantine = said;
                            return Ok(Some(new));
                        }
                        Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(None)
    }

    async fn cut_network(&mut self, uid: &str) {
        for attempt in 1..=ATTEMPTS {
            let error = match network::isolate(self.client, self.name, uid, None, Before::Open).await {
                Ok(_) => return,
                Err(error) => error,
            };
            match &error {
                NetworkError::Io(io) if by_fence(io) => {
                    self.fenced_by_others = true;
                    return;
                }
                NetworkError::Io(io) if io.is_transient() && attempt < ATTEMPTS => {}
                _ => {
                    self.outcome.problems.push(format!("the network is not cut: {error}"));
                    return;
                }
            }
        }
    }

    /// Tries until the fence is seen to refuse. There is no signal that a label or a policy is in force: only trying tells.
    async fn verify(&mut self) -> bool {
        let (start, mut pause) = (Instant::now(), Duration::from_millis(5));
        let mut level = Isolation::Contained;
        let fence = loop {
            let label = match self.namespace().await {
                Ok(namespace) => Ok(namespace.labels().get(ISOLATION_LABEL).cloned()),
                Err(error) => Err(error),
            };
            let fence = match label.as_ref().map(|label| label.as_deref()) {
                Ok(Some("contained") | None) => {
                    level = Isolation::Contained;
                    verify_as_caller::fence(self.client, self.name, level).await
                }
                Ok(Some("sealed")) => {
                    level = Isolation::Sealed;
                    verify_as_caller::fence(self.client, self.name, level).await
                }
                Ok(Some(other)) => ProbeResult::Inconclusive(format!("{LABELLED}{other}")),
                Err(error) => ProbeResult::Inconclusive(error.to_string()),
            };
            // Only an operator takes a clean room's label off.
            let vain = !self.request.operator
                && matches!(&fence, ProbeResult::Inconclusive(why) if why.starts_with(LABELLED));
            if fence == ProbeResult::Denied || vain || start.elapsed() > SEEING {
                break fence;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        self.outcome.fence = said(&fence, level);
        if fence != ProbeResult::Denied {
            let why = format!(
                "the fence was not seen to refuse within {} s: {}",
                SEEING.as_secs(),
                self.outcome.fence
            );
            self.outcome.problems.push(why);
        }
        let lock = verify_as_caller::lock(self.client, self.name, level).await;
        self.outcome.lock = said(&lock, level);
        if lock != ProbeResult::Denied {
            // Who may release is let through: that is no hole, and nobody can tell it from one.
            let why = if lock == ProbeResult::Admitted { ": may you release it?" } else { "" };
            self.outcome
                .notes
                .push(format!("the lock was not seen to refuse you ({}){why}", self.outcome.lock));
        }
        fence == ProbeResult::Denied
    }

    /// The operator was faster: it is doing the same, and says when it is done.
    async fn await_operator(&mut self) {
        let api: Api<Quarantine> = Api::all(self.client.clone());
        let ready = await_condition(api, self.name, |q: Option<&Quarantine>| {
            let status =
                q.and_then(|q| q.status.as_ref().filter(|s| s.observed_generation == q.metadata.generation));
            status.is_some_and(|s| conditions::is_true(&s.conditions, conditions::READY))
        });
        if !matches!(tokio::time::timeout(OPERATOR, ready).await, Ok(Ok(_))) {
            self.outcome.notes.push("an operator is at it too: its Quarantine is not Ready yet".to_owned());
        }
    }

    /// Once more, now that nobody can add any: is the network what it has to be?
    async fn look_at_network(&mut self) -> Result<(), IoError> {
        let there = network::list(self.client, self.name, Before::Open).await?;
        let observed = PolicyObservation::new(&there, &network::wanted(self.name, None));
        self.outcome.network = observed.message();
        if !observed.holds() {
            self.outcome.problems.push(format!(
                "{}. The operator mends it, or who may repair quarantines/{}",
                observed.message(),
                self.name
            ));
        }
        Ok(())
    }

    /// Network policies of other APIs: what they allow adds to ours, and is for others to remove.
    async fn look_at_other_policies(&mut self) -> Result<(), IoError> {
        let namespace = self.namespace().await?;
        let found =
            other_policies::observe(self.client, &self.request.policies, &namespace, &[], Instant::now())
                .await;
        self.outcome.problems.extend(found.message(self.name));
        Ok(())
    }

    /// Pods that no network policy reaches.
    async fn look_at_pods(&mut self) -> Result<(), IoError> {
        let found = super::controls::pods::on_node_network(self.client, self.name).await?;
        if !found.is_empty() {
            self.outcome.problems.push(format!(
                "network policies do not reach pods on the network of their node: {}. Sealing stops them: \
                 resurgam quarantine {} --isolation sealed …, with an operator",
                found.join(", "),
                self.name
            ));
        }
        Ok(())
    }
}

fn by_fence(error: &IoError) -> bool {
    error.status().is_some_and(|s| {
        s.code == 403
            && FENCES.iter().any(|fence| s.message.contains(&format!("ValidatingAdmissionPolicy '{fence}'")))
    })
}

fn said(seen: &ProbeResult, level: Isolation) -> String {
    match seen {
        ProbeResult::Denied => format!("seen to refuse ({})", level.label().unwrap_or_default()),
        ProbeResult::Admitted => "lets through".to_owned(),
        ProbeResult::Inconclusive(why) | ProbeResult::Unreachable(why) => why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::core::Status;

    use super::*;

    #[test]
    fn only_the_fences_own_refusal_is_the_fences() {
        let refused = |code: u16, message: String| {
            let status = Status { code, message, ..Status::default() };
            IoError::Api { what: "w".into(), source: Arc::new(kube::Error::Api(Box::new(status))) }
        };
        let by = |policy: &str| {
            format!("ValidatingAdmissionPolicy '{policy}' with binding 'b' denied request: no")
        };
        for (error, is) in [
            (refused(403, by(FENCES[0])), true),
            (refused(403, by(FENCES[1])), true),
            (refused(403, by("another")), false),
            (refused(403, "User cannot patch".into()), false),
            (refused(500, by(FENCES[0])), false),
            (IoError::Timeout { what: by(FENCES[0]), after: std::time::Duration::ZERO }, false),
        ] {
            assert_eq!(by_fence(&error), is, "{error}");
        }
    }

    #[test]
    fn what_was_seen_of_a_fence_is_told() {
        for (seen, says) in [
            (ProbeResult::Denied, "seen to refuse (sealed)"),
            (ProbeResult::Admitted, "lets through"),
            (ProbeResult::Inconclusive("502".into()), "502"),
            (ProbeResult::Unreachable("silent".into()), "silent"),
        ] {
            assert_eq!(said(&seen, Isolation::Sealed), says);
        }
    }
}
