//! Whether everything exists that a plan will need: condition `Prepared`, with all gaps at once. It blocks nothing.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{MESSAGE_LIMIT, PREPARED, State, find, set, shorten};
use crate::api::{Reason, RecoveryPlanStatus};

/// Maximum number of names in one part of the message.
const NAMES: usize = 8;
/// Maximum length of why one fact is unknown or a list is unusable, in bytes.
const CAUSE_LIMIT: usize = 240;

/// Something that a plan needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The plan's ServiceAccount.
    Account,
    /// The operator's right to impersonate the account.
    Impersonation,
    /// The Incident of this name.
    Incident(String),
    /// A namespace of a service.
    Namespace {
        /// The namespace.
        name: String,
        /// The service.
        service: String,
    },
    /// What a gate is configured with, such as a list of approved images.
    GateInput {
        /// The gate.
        gate: String,
        /// What it names, such as `ConfigMap recovery/approved-images`.
        input: String,
    },
    /// A kind that a step uses, with its version.
    Kind {
        /// The kind.
        kind: String,
        /// The step.
        step: String,
    },
    /// What a step is configured with, such as manifests to apply.
    StepInput {
        /// The step.
        step: String,
        /// Its service: steps of several may have the same name.
        service: String,
    },
    /// That people of a group may approve.
    Approver {
        /// The party.
        party: String,
        /// Its group.
        group: String,
        /// What asks them, such as `gate councils`.
        of: String,
    },
    /// That another account, which writes for a step, is let into the clean room: by a grant of its own, and no wildcard.
    Writer {
        /// The account's user name.
        user: String,
        /// The Quarantine, such as `quarantines.resurgam.dev/shop`.
        object: String,
        /// The step.
        step: String,
    },
    /// A right of the account.
    Right {
        /// The verb.
        verb: String,
        /// Resource and name, such as `deployments.apps/web`.
        object: String,
        /// Where. `None`: the object has no namespace.
        namespace: Option<String>,
    },
    /// The account holds `recover` on this object by an explicit grant, since a wildcard does not count.
    ExplicitGrant {
        /// Resource and name.
        object: String,
    },
}

/// Whether a need is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is met.
    Met,
    /// It is missing.
    Missing,
    /// It exists, and cannot be used, with the reason.
    Unusable(String),
    /// It could not be determined, with the reason.
    Unknown(String),
}

/// A need, and whether it is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What the plan needs.
    pub need: Need,
    /// Whether it is met.
    pub answer: Answer,
}

/// Content of the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Status of the condition.
    pub state: State,
    /// Reason of the condition.
    pub reason: Reason,
    /// Message of the condition, at most 1024 bytes.
    pub message: String,
}

/// Judges all facts of a plan. `account`: `namespace/name` of its ServiceAccount. Without any fact, the result is unknown.
#[must_use]
pub fn judge(account: &str, facts: &[Fact]) -> Judgement {
    let is_gap = |fact: &&Fact| matches!(fact.answer, Answer::Missing | Answer::Unusable(_));
    let gaps: Vec<&Fact> = facts.iter().filter(is_gap).collect();
    let unknown: Vec<&Fact> = facts.iter().filter(|fact| matches!(fact.answer, Answer::Unknown(_))).collect();
    if !gaps.is_empty() {
        let mut parts = gap_parts(account, &gaps);
        parts.extend(unknown_parts("not determined: ", account, &unknown));
        let head = format!("{} missing: ", gaps.len());
        let needs_rights = gaps.iter().any(|fact| is_right(&fact.need));
        let who = if needs_rights { RIGHTS_MISSING } else { OBJECTS_MISSING };
        let message = joined(&head, parts, who);
        return Judgement { state: State::False, reason: Reason::NotPrepared, message };
    }
    if !unknown.is_empty() || facts.is_empty() {
        let head = format!("{} of {} not determined: ", unknown.len(), facts.len());
        let message = joined(&head, unknown_parts("", account, &unknown), ". Asked again within a minute");
        return Judgement { state: State::Unknown, reason: Reason::PreparationUnknown, message };
    }
    let message =
        format!("all {} things that the plan needs exist, rights of {account} included", facts.len());
    Judgement { state: State::True, reason: Reason::Prepared, message }
}

const RIGHTS_MISSING: &str = ". Platform engineers create what does not exist; a cluster administrator grants rights: \
                              `resurgam access PLAN.yaml --check` prints those of the plan's account";
const OBJECTS_MISSING: &str = ". Platform engineers create or correct it";

fn is_right(need: &Need) -> bool {
    matches!(need, Need::Impersonation | Need::Right { .. } | Need::ExplicitGrant { .. })
}

/// Adds the condition to a plan's new status. `judgement`: `None` while the plan is checked for the first time; then what was last
/// written about the same generation still holds.
pub fn put(
    status: &mut RecoveryPlanStatus,
    before: &RecoveryPlanStatus,
    judgement: Option<&Judgement>,
    now: Timestamp,
) {
    let generation = status.observed_generation;
    if let Some(Judgement { state, reason, message }) = judgement {
        set(&mut status.conditions, PREPARED, *state, reason.as_str(), message, generation, now);
        return;
    }
    match find(&before.conditions, PREPARED).filter(|old| old.observed_generation == generation) {
        Some(old) => status.conditions.push(old.clone()),
        None => set(
            &mut status.conditions,
            PREPARED,
            State::Unknown,
            Reason::PreparationUnknown.as_str(),
            "being checked",
            generation,
            now,
        ),
    }
}

/// Part of a message, and the number of facts that it is about.
type Part = (String, usize);

/// Describes all gaps, objects first, with rights of the same kind together.
fn gap_parts(account: &str, gaps: &[&Fact]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut namespaces = Vec::new();
    let mut rights: BTreeMap<(&str, Option<&str>), Vec<&str>> = BTreeMap::new();
    let mut wildcards = Vec::new();
    for fact in gaps {
        match &fact.need {
            Need::Namespace { name, service } if name == service => namespaces.push(name.clone()),
            Need::Namespace { name, service } => namespaces.push(format!("{name} (service {service})")),
            Need::Right { verb, object, namespace } => {
                rights.entry((verb.as_str(), namespace.as_deref())).or_default().push(object);
            }
            Need::ExplicitGrant { object } => wildcards.push(object.clone()),
            Need::Account => parts.push((format!("ServiceAccount {account} does not exist"), 1)),
            Need::Impersonation => {
                parts.push((format!("the operator may not impersonate ServiceAccount {account}"), 1));
            }
            Need::Incident(name) => parts.push((format!("Incident {name} does not exist"), 1)),
            Need::Kind { kind, step } => {
                parts.push((format!("the cluster has no kind {kind}, which step {step} uses"), 1));
            }
            Need::StepInput { step, service } => {
                let how = match &fact.answer {
                    Answer::Unusable(why) => shorten(why, CAUSE_LIMIT),
                    Answer::Met | Answer::Missing | Answer::Unknown(_) => "its input is missing".to_owned(),
                };
                parts.push((format!("{how} (step {step} of {service})"), 1));
            }
            Need::Approver { party, group, of } => {
                let bind = "bind it to ClusterRole resurgam-approver";
                parts.push((format!("group {group} of party {party} may not approve ({of}): {bind}"), 1));
            }
            Need::Writer { user, object, step } => {
                let grant = "recover by a grant of its own, without a wildcard (docs/steps.md)";
                parts.push((format!("{user} needs {grant}, on {object} for step {step}"), 1));
            }
            Need::GateInput { gate, input } => {
                let how = match &fact.answer {
                    Answer::Unusable(why) => shorten(why, CAUSE_LIMIT),
                    Answer::Met | Answer::Missing | Answer::Unknown(_) => format!("{input} does not exist"),
                };
                parts.push((format!("{how} (gate {gate})"), 1));
            }
        }
    }
    if !namespaces.is_empty() {
        let (noun, verb) = if namespaces.len() == 1 { ("namespace", "does") } else { ("namespaces", "do") };
        parts.push((format!("{noun} {} {verb} not exist", few(&namespaces)), namespaces.len()));
    }
    // Namespaces that lack the same rights are named together.
    let mut alike: BTreeMap<(&str, Vec<&str>), Vec<&str>> = BTreeMap::new();
    let mut of_cluster = Vec::new();
    for ((verb, namespace), objects) in rights {
        match namespace {
            Some(namespace) => alike.entry((verb, objects)).or_default().push(namespace),
            None => of_cluster.push((verb, objects)),
        }
    }
    for (verb, objects) in of_cluster {
        parts.push((format!("{account} may not {verb} {}", few(&objects)), objects.len()));
    }
    for ((verb, objects), namespaces) in alike {
        let noun = if namespaces.len() == 1 { "namespace" } else { "namespaces" };
        let text = format!("{account} may not {verb} {} in {noun} {}", few(&objects), few(&namespaces));
        parts.push((text, objects.len() * namespaces.len()));
    }
    if !wildcards.is_empty() {
        let text =
            format!("{account} may recover {} by a wildcard only, which does not count", few(&wildcards));
        parts.push((text, wildcards.len()));
    }
    parts
}

/// Describes what could not be determined, once for each cause, each after `prefix`.
fn unknown_parts(prefix: &str, account: &str, unknown: &[&Fact]) -> Vec<Part> {
    let mut causes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for fact in unknown {
        let Answer::Unknown(why) = &fact.answer else { continue };
        causes.entry(shorten(why, CAUSE_LIMIT)).or_default().push(subject(account, &fact.need));
    }
    let part = |(why, subjects): (String, Vec<String>)| {
        (format!("{prefix}{} ({why})", few(&subjects)), subjects.len())
    };
    causes.into_iter().map(part).collect()
}

fn subject(account: &str, need: &Need) -> String {
    match need {
        Need::Account => format!("ServiceAccount {account}"),
        Need::Impersonation => "the right to impersonate it".to_owned(),
        Need::Incident(name) => format!("Incident {name}"),
        Need::Namespace { name, .. } => format!("namespace {name}"),
        Need::GateInput { input, .. } => input.clone(),
        Need::Kind { kind, .. } => format!("kind {kind}"),
        Need::StepInput { step, service } => format!("what step {step} of {service} applies"),
        Need::Approver { group, .. } => format!("whether group {group} may approve"),
        Need::Writer { user, object, .. } => format!("whether {user} may recover {object}"),
        Need::Right { verb, object, namespace: Some(namespace) } => format!("{verb} {object} in {namespace}"),
        Need::Right { verb, object, namespace: None } => format!("{verb} {object}"),
        Need::ExplicitGrant { object } => format!("a grant on {object}"),
    }
}

/// Joins as many parts as fit between `head` and `tail`, and says how many facts the others are about.
fn joined(head: &str, parts: Vec<Part>, tail: &str) -> String {
    const MORE: usize = "; and 99999999 more".len();
    let room = MESSAGE_LIMIT.saturating_sub(head.len() + tail.len() + MORE);
    let (mut text, mut more) = (String::new(), 0);
    for (part, number) in parts {
        let separator = if text.is_empty() { "" } else { "; " };
        if text.is_empty() && part.len() > room {
            text = shorten(&part, room);
        } else if text.len() + separator.len() + part.len() <= room {
            text = format!("{text}{separator}{part}");
        } else {
            more += number;
        }
    }
    if more > 0 {
        text = format!("{text}; and {more} more");
    }
    format!("{head}{text}{tail}")
}

fn few<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
#[path = "preparation_tests.rs"]
mod tests;
