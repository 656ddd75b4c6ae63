//! Isolates one namespace without an operator, as whoever calls. Everything can be done again; an operator adopts what is laid.
//!
//! The network comes before the label, unlike with the operator: who isolates may not `repair`, so that behind the fence
//! they could not write it any more. What somebody allowed in between is looked for once the fence was seen to refuse.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::guard;
use super::label::{self, Writing};
use super::network::{self, Before, NetworkError};
use super::policies::WRITE_FENCE;
use super::probe::Seen;
use super::seen;
use super::tighten::{Change, change, recovery_under_way};
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
pub struct Laid {
    /// Which.
    pub namespace: String,
    /// Cut off, and seen to refuse.
    pub isolated: bool,
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

/// Steps, for who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The Quarantine is made or tightened.
    Quarantine,
    /// The network is cut.
    Network,
    /// The label is on.
    Label,
    /// The fence is tried.
    Seen,
}

/// What is known before.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What is asked for.
    pub spec: QuarantineSpec,
    /// An operator leads: it may be faster than we.
    pub operator: bool,
}

/// Isolates one namespace, as far as it gets.
pub async fn lay(client: &Client, name: &str, wish: &Wish, tell: impl Fn(Step)) -> Laid {
    let mut laid = Laid { namespace: name.to_owned(), ..Laid::default() };
    let mut work = Work { client, name, wish, laid: &mut laid, fenced_by_others: false };
    if let Err(error) = work.go(&tell).await {
        work.laid.problems.push(error.to_string());
    }
    laid.isolated = laid.problems.is_empty();
    laid
}

struct Work<'a> {
    client: &'a Client,
    name: &'a str,
    wish: &'a Wish,
    laid: &'a mut Laid,
    /// The fence was up before our network was: the operator's work, or an earlier run's.
    fenced_by_others: bool,
}

impl Work<'_> {
    async fn go(&mut self, tell: &impl Fn(Step)) -> Result<(), IoError> {
        let quarantine = self.quarantine().await?;
        tell(Step::Quarantine);
        if let Some(recovery) = quarantine.as_ref().and_then(recovery_under_way) {
            let hold = r#"-p '{"spec": {"hold": "Contained"}}'"#;
            self.laid.notes.push(format!(
                "the recovery {recovery} goes on, and lets it out once its gates pass. To hold it all the same: \
                 kubectl patch quarantine {} --type merge {hold}",
                self.name
            ));
        }
        let mut namespace = self.namespace().await?;
        // Reason and incident are those of the Quarantine, so that the operator finds nothing to change.
        let spec = quarantine.as_ref().map_or(&self.wish.spec, |q| &q.spec);
        let alone = quarantine.is_none();
        let seal = quarantine.as_ref().map_or_else(|| namespace.uid(), ResourceExt::uid).unwrap_or_default();
        let isolated_before = namespace.labels().contains_key(ISOLATION_LABEL);
        if isolated_before {
            self.fenced_by_others = true;
        } else {
            self.cut(&seal).await;
            tell(Step::Network);
        }
        self.tell_guards(&namespace).await;
        if !isolated_before {
            for attempt in 1.. {
                let writing = Writing { alone, dry_run: false };
                match label::label(self.client, &namespace, spec, Isolation::Contained, writing).await {
                    Ok(_) => break,
                    Err(error) => {
                        namespace = self.namespace().await?;
                        if namespace.labels().contains_key(ISOLATION_LABEL) {
                            self.fenced_by_others = true;
                            break;
                        }
                        if !error.is_conflict() || attempt == ATTEMPTS {
                            return Err(error);
                        }
                    }
                }
            }
        }
        tell(Step::Label);
        self.see().await?;
        tell(Step::Seen);
        if self.fenced_by_others && (self.wish.operator || !isolated_before) {
            self.await_operator().await;
        }
        self.look_at_network().await
    }

    async fn namespace(&self) -> Result<Namespace, IoError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        call(format!("get namespace {}", self.name), api.get(self.name)).await
    }

    /// Makes or tightens the Quarantine. `None`: there can be none.
    async fn quarantine(&mut self) -> Result<Option<Quarantine>, IoError> {
        let api: Api<Quarantine> = Api::all(self.client.clone());
        let (name, spec) = (self.name, &self.wish.spec);
        for attempt in 1.. {
            let new = Quarantine::new(name, spec.clone());
            let created =
                call(format!("create Quarantine {name}"), api.create(&PostParams::default(), &new)).await;
            let conflict = match created {
                Ok(made) => {
                    self.laid.quarantine = "made".to_owned();
                    return Ok(Some(made));
                }
                Err(error) if error.is_not_served() => {
                    self.laid.quarantine = "none: the kind is not installed".to_owned();
                    self.laid.notes.push(
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
                Change::None => {
                    self.laid.quarantine = "there already".to_owned();
                    return Ok(Some(old));
                }
                Change::Ending => {
                    self.laid.quarantine = "being released".to_owned();
                    self.laid.problems.push(format!(
                        "Quarantine {name} is being deleted, which is a release: run this again once it is gone"
                    ));
                    return Ok(Some(old));
                }
                Change::Tighten(patch, said) => {
                    let params = PatchParams::default();
                    let what = format!("tighten Quarantine {name}");
                    match call(what, api.patch(name, &params, &Patch::Merge(&patch))).await {
                        Ok(new) => {
                            self.laid.quarantine = said;
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

    /// Cuts the network. What fails is told, and does not stop the label: refused writes are better than nothing.
    async fn cut(&mut self, seal: &str) {
        for attempt in 1..=ATTEMPTS {
            let error = match network::isolate(self.client, self.name, seal, None, Before::Open).await {
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
                    self.laid.problems.push(format!("the network is not cut: {error}"));
                    return;
                }
            }
        }
    }

    /// The guards come before the label. What fails is told, and does not stop it.
    async fn tell_guards(&mut self, namespace: &Namespace) {
        let levels = [Isolation::Sealed, Isolation::CleanRoom];
        let label = namespace.labels().get(ISOLATION_LABEL).map(String::as_str);
        let level = levels.into_iter().find(|level| level.label() == label).unwrap_or(Isolation::Contained);
        if let Err(error) = guard::add(self.client, self.name, level).await {
            self.laid.problems.push(format!(
                "the guards do not know of it, so that its accounts and rights over it are not watched elsewhere: {error}"
            ));
        }
    }

    /// Tries until the fence is seen to refuse. There is no signal that a label or a policy is in force: only trying tells.
    async fn see(&mut self) -> Result<(), IoError> {
        let (start, mut pause) = (Instant::now(), Duration::from_millis(5));
        let mut level = Isolation::Contained;
        let fence = loop {
            let namespace = self.namespace().await?;
            let fence = match namespace.labels().get(ISOLATION_LABEL).map(String::as_str) {
                Some("contained") => {
                    level = Isolation::Contained;
                    seen::fence(self.client, self.name, level).await
                }
                Some("sealed") => {
                    level = Isolation::Sealed;
                    seen::fence(self.client, self.name, level).await
                }
                Some(other) => Seen::Unclear(format!("{LABELLED}{other}")),
                None => Seen::Unclear("the namespace's label was taken away again".to_owned()),
            };
            // Only an operator takes a clean room's label off.
            let vain =
                !self.wish.operator && matches!(&fence, Seen::Unclear(why) if why.starts_with(LABELLED));
            if fence == Seen::Refused || vain || start.elapsed() > SEEING {
                break fence;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        self.laid.fence = said(&fence, level);
        if fence != Seen::Refused {
            let why = format!(
                "the fence was not seen to refuse within {} s: {}",
                SEEING.as_secs(),
                self.laid.fence
            );
            self.laid.problems.push(why);
        }
        let lock = seen::lock(self.client, self.name, level).await;
        self.laid.lock = said(&lock, level);
        if lock != Seen::Refused {
            // Who may release is let through: that is no hole, and nobody can tell it from one.
            self.laid.notes.push(format!(
                "the lock was not seen to refuse you ({}): may you release it?",
                self.laid.lock
            ));
        }
        Ok(())
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
            self.laid.notes.push("an operator is at it too: its Quarantine is not Ready yet".to_owned());
        }
    }

    /// Once more, now that nobody can add any: is the network what it has to be?
    async fn look_at_network(&mut self) -> Result<(), IoError> {
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), self.name);
        let what = format!("list networkpolicies in namespace {}", self.name);
        let there = call(what, api.list(&ListParams::default())).await?.items;
        let wanted = network::wanted(self.name, None);
        let denies =
            wanted.iter().all(|w| there.iter().any(|p| p.name_any() == w.name_any() && p.spec == w.spec));
        let left: Vec<_> =
            there.iter().map(ResourceExt::name_any).filter(|name| name != network::DEFAULT_DENY).collect();
        let who = "the operator removes it, or who may repair this Quarantine";
        self.laid.network = match (denies, left.is_empty()) {
            (true, true) => "denied both ways".to_owned(),
            (false, _) => "not denied".to_owned(),
            (true, false) => format!("denied, but for what these allow: {}", left.join(", ")),
        };
        if !denies {
            let name = network::DEFAULT_DENY;
            self.laid.problems.push(format!("NetworkPolicy {name} is not in place, and the fence is up: the operator writes it, or who may repair this Quarantine"));
        }
        if !left.is_empty() {
            self.laid
                .problems
                .push(format!("network policies still allow something ({}): {who}", left.join(", ")));
        }
        Ok(())
    }
}

fn by_fence(error: &IoError) -> bool {
    error.status().is_some_and(|s| {
        s.code == 403 && s.message.contains(&format!("ValidatingAdmissionPolicy '{WRITE_FENCE}'"))
    })
}

fn said(seen: &Seen, level: Isolation) -> String {
    match seen {
        Seen::Refused => format!("seen to refuse ({})", level.label().unwrap_or_default()),
        Seen::LetThrough => "lets through".to_owned(),
        Seen::Unclear(why) | Seen::Unanswered(why) => why.clone(),
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
            (refused(403, by(WRITE_FENCE)), true),
            (refused(403, by("another")), false),
            (refused(403, "User cannot patch".into()), false),
            (refused(500, by(WRITE_FENCE)), false),
            (IoError::Timeout { what: by(WRITE_FENCE), after: std::time::Duration::ZERO }, false),
        ] {
            assert_eq!(by_fence(&error), is, "{error}");
        }
    }

    #[test]
    fn what_was_seen_of_a_fence_is_told() {
        for (seen, says) in [
            (Seen::Refused, "seen to refuse (sealed)"),
            (Seen::LetThrough, "lets through"),
            (Seen::Unclear("502".into()), "502"),
            (Seen::Unanswered("silent".into()), "silent"),
        ] {
            assert_eq!(said(&seen, Isolation::Sealed), says);
        }
    }
}
