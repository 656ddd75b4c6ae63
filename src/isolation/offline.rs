//! Isolates one namespace with the caller's credentials, without the operator. It can be repeated; an operator adopts the result.
//!
//! The isolation lists come first, for all namespaces at once ([`super::list::add`]), then each control. A control that fails is reported
//! as a problem, and the next ones proceed. The fence permits a responder to cut the network after it is in force.

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
use super::tighten::{Tightening, change, recovery_under_way, unrecorded};
use super::verify_as_caller;
use crate::api::{INCIDENT_ANNOTATION, ISOLATION_LABEL, Isolation, Quarantine, QuarantineSpec, conditions};
use crate::calls::{IoError, call, call_opt};

/// How long the fence is probed. New policies take a moment to take effect, labels some milliseconds.
const VERIFY_FOR: Duration = Duration::from_secs(30);
/// How long a running operator is waited for if it isolates the namespace first.
const OPERATOR_WAIT: Duration = Duration::from_secs(30);
/// Prefix of the problem with a label that must not be changed here.
const LABELLED: &str = "the namespace is labelled ";
/// Attempts if other writers interfere.
const ATTEMPTS: usize = 6;

/// Result of isolating one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The namespace.
    pub namespace: String,
    /// The network is cut, the fence is verified, and there are no problems.
    pub isolated: bool,
    /// The network is cut and the fence is verified, whatever else failed. For instance, a webhook that refuses the label leaves the
    /// isolation lists in force.
    pub contained: bool,
    /// Result for the Quarantine.
    pub quarantine: String,
    /// Result for the network.
    pub network: String,
    /// Observed behaviour of the fence.
    pub fence: String,
    /// Observed behaviour of the lock.
    pub lock: String,
    /// Why the namespace is not isolated, or not completely.
    pub problems: Vec<String>,
    /// Information that needs no action.
    pub notes: Vec<String>,
}

/// What to isolate, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Spec of the Quarantine to create.
    pub spec: QuarantineSpec,
    /// An operator leads, and may act on the namespace first.
    pub operator: bool,
    /// Why the namespace could not be put on the isolation lists, if so.
    pub unlisted: Option<String>,
    /// Cached network policies of other APIs.
    pub policies: Arc<PolicyReader>,
}

/// Isolates one namespace as far as possible.
pub async fn isolate(client: &Client, name: &str, request: &Request) -> Outcome {
    NamespaceIsolation::cut(client, name, request).await.finish().await
}

/// One namespace being isolated. With several, all networks are cut ([`NamespaceIsolation::cut`]) before any namespace is finished ([`NamespaceIsolation::finish`]).
pub struct NamespaceIsolation<'a> {
    client: &'a Client,
    name: &'a str,
    request: &'a Request,
    outcome: Outcome,
    /// The namespace as read before its network was cut.
    namespace: Option<Namespace>,
    /// The namespace was fenced before its network was cut, by the operator or an earlier run.
    fenced_by_others: bool,
}

impl<'a> NamespaceIsolation<'a> {
    /// Cuts the namespace's network.
    pub async fn cut(client: &'a Client, name: &'a str, request: &'a Request) -> Self {
        let outcome = Outcome { namespace: name.to_owned(), ..Outcome::default() };
        let mut isolation = Self { client, name, request, outcome, namespace: None, fenced_by_others: false };
        if let Some(why) = &request.unlisted {
            isolation.outcome.problems.push(format!(
                "it is not on the isolation lists, so that its label alone fences it, and its accounts are not watched elsewhere: {why}"
            ));
        }
        let namespace = isolation.namespace().await;
        isolation.namespace = isolation.problem(namespace);
        let uid = isolation.namespace.as_ref().and_then(ResourceExt::uid).unwrap_or_default();
        // Only the operator knows the network of a clean room, which follows from its plan; it tightens the room itself.
        if isolation.label_before() != Isolation::CleanRoom.label() {
            isolation.cut_network(&uid).await;
        }
        isolation
    }

    /// Returns whether the network was cut without a problem so far.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.namespace.is_some() && self.outcome.problems.is_empty()
    }

    /// Carries out the remaining controls. One that fails is a problem and does not stop the next.
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
        self.note_unrecorded(quarantine.as_ref());
        if label_before.is_some() {
            self.fenced_by_others = true;
        } else if let Some(namespace) = self.namespace.take() {
            // With reason and incident of the Quarantine, the operator finds nothing to change.
            let spec = quarantine.as_ref().map_or(&self.request.spec, |q| &q.spec).clone();
            let written = self.label(namespace, &spec).await;
            self.problem(written);
        }
        let is_fenced = self.verify().await;
        if self.fenced_by_others && (self.request.operator || label_before.is_none()) {
            self.await_operator().await;
        }
        let problems = self.outcome.problems.len();
        let (network, pods) = (self.check_network().await, self.check_pods().await);
        self.problem(network);
        self.problem(pods);
        let others = self.check_other_policies().await;
        self.problem(others);
        self.outcome.contained = is_fenced && self.outcome.problems.len() == problems;
        self.outcome.isolated = self.outcome.problems.is_empty();
        self.outcome
    }

    /// Reports an incident or a reason that is not written anywhere.
    fn note_unrecorded(&mut self, quarantine: Option<&Quarantine>) {
        let wished = &self.request.spec;
        if let Some(quarantine) = quarantine {
            // One that is being released is a problem of its own.
            if quarantine.metadata.deletion_timestamp.is_none() {
                self.outcome.notes.extend(unrecorded(&quarantine.spec, wished));
            }
            return;
        }
        let annotations = self.namespace.as_ref().map(ResourceExt::annotations);
        let recorded = annotations.and_then(|all| all.get(INCIDENT_ANNOTATION));
        if let (Some(_), Some(incident)) = (self.label_before(), &wished.incident_ref)
            && recorded != Some(&incident.name)
        {
            self.outcome.notes.push(format!(
                "Incident {} and its reason are not recorded: without a Quarantine, the namespace keeps what it was isolated for first ({})",
                incident.name,
                recorded.map_or("no incident", String::as_str)
            ));
        }
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

    /// Creates or tightens the Quarantine. Returns `None` if there can be none.
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

    /// Probes the fence until it refuses. Nothing else shows that a label or a policy is in force.
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
            // Only the operator removes the label of a clean room.
            let is_hopeless = !self.request.operator
                && matches!(&fence, ProbeResult::Inconclusive(why) if why.starts_with(LABELLED));
            if fence == ProbeResult::Denied || is_hopeless || start.elapsed() > VERIFY_FOR {
                break fence;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        self.outcome.fence = describe(&fence, level);
        if fence != ProbeResult::Denied {
            let why = format!(
                "the fence could not be verified within {} s: {}",
                VERIFY_FOR.as_secs(),
                self.outcome.fence
            );
            self.outcome.problems.push(why);
        }
        let lock = verify_as_caller::lock(self.client, self.name, level).await;
        self.outcome.lock = describe(&lock, level);
        if lock != ProbeResult::Denied {
            // A holder of `release` passes the lock; a dry-run cannot tell that from a missing lock.
            let why = if lock == ProbeResult::Admitted { ": you may hold `release`" } else { "" };
            self.outcome.notes.push(format!("the lock could not be verified ({}){why}", self.outcome.lock));
        }
        fence == ProbeResult::Denied
    }

    /// Waits for an operator that isolates the namespace, until it reports success.
    async fn await_operator(&mut self) {
        let api: Api<Quarantine> = Api::all(self.client.clone());
        let ready = await_condition(api, self.name, |q: Option<&Quarantine>| {
            let status =
                q.and_then(|q| q.status.as_ref().filter(|s| s.observed_generation == q.metadata.generation));
            status.is_some_and(|s| conditions::is_true(&s.conditions, conditions::READY))
        });
        if !matches!(tokio::time::timeout(OPERATOR_WAIT, ready).await, Ok(Ok(_))) {
            self.outcome
                .notes
                .push("an operator isolates it too; its Quarantine is not Ready yet".to_owned());
        }
    }

    /// Checks the network again, now that nobody can add policies.
    async fn check_network(&mut self) -> Result<(), IoError> {
        let there = network::list(self.client, self.name, Before::Open).await?;
        let observed = PolicyObservation::new(&there, &network::wanted(self.name, None));
        self.outcome.network = observed.message();
        if !observed.holds() {
            self.outcome.problems.push(format!(
                "{}. To fix it: the operator, or a holder of `repair` on quarantines/{}",
                observed.message(),
                self.name
            ));
        }
        Ok(())
    }

    /// Reports network policies of other APIs. What they allow adds to ours, and their owners have to remove them.
    async fn check_other_policies(&mut self) -> Result<(), IoError> {
        let namespace = self.namespace().await?;
        let found =
            other_policies::observe(self.client, &self.request.policies, &namespace, &[], Instant::now())
                .await;
        self.outcome.problems.extend(found.message(self.name));
        Ok(())
    }

    /// Reports pods that no NetworkPolicy affects.
    async fn check_pods(&mut self) -> Result<(), IoError> {
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

fn describe(seen: &ProbeResult, level: Isolation) -> String {
    match seen {
        ProbeResult::Denied => format!("verified ({})", level.label().unwrap_or_default()),
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
    fn result_of_a_fence_probe_is_described() {
        for (seen, says) in [
            (ProbeResult::Denied, "verified (sealed)"),
            (ProbeResult::Admitted, "lets through"),
            (ProbeResult::Inconclusive("502".into()), "502"),
            (ProbeResult::Unreachable("silent".into()), "silent"),
        ] {
            assert_eq!(describe(&seen, Isolation::Sealed), says);
        }
    }
}
