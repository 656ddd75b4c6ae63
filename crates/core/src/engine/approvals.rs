//! Approvals: who has to agree to something, and who has, by Decisions `Approve` and `Reject`.

use std::collections::BTreeSet;
use std::fmt;

use crate::api::Action;
use crate::api::gate::ApprovalParty;
use crate::api::step::ManualSpec;
use crate::gates::approval::{self, Approval};
use crate::plan::{Plan, ServiceId};

use super::context::{ServiceContext, digest};
use super::decisions::applied;
use super::next::Next;
use super::{DecisionObservation, ServiceObservation};

/// Maximum number of rejections that are followed. More in one attempt are not people who decide.
const REJECTIONS_LIMIT: usize = 64;

/// What people have decided about one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Approvals {
    /// Digest that the next Decision repeats. Each rejection changes it, so that approvals from before it are void.
    pub digest: String,
    /// Whom it still needs. Empty: it is approved.
    pub missing: Vec<String>,
    /// Who has approved.
    pub given: Vec<String>,
    /// The last rejection.
    pub rejected: Option<String>,
    /// Decisions that count: approvals of this digest, and all rejections. Indexes of the service's Decisions.
    pub counted: Vec<usize>,
    /// It was rejected more often than is followed: nothing counts any more in this attempt.
    pub is_beyond: bool,
}

impl fmt::Display for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rejected) = &self.rejected {
            write!(f, "{rejected}; ")?;
        }
        match (self.missing.as_slice(), self.given.as_slice()) {
            ([], given) => write!(f, "approved by {}", given.join(", ")),
            (missing, []) => write!(f, "needs approval: {}", missing.join(", ")),
            (missing, given) => {
                write!(f, "approved by {}; still needs {}", given.join(", "), missing.join(", "))
            }
        }
    }
}

/// What is approved, and by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Approvable<'a> {
    /// Kind of what is approved, such as a phase, and its name.
    pub what: (&'static str, &'a str),
    /// Empty: one person who may approve.
    pub parties: &'a [ApprovalParty],
    /// Whether a person counts once only.
    pub distinct: bool,
}

/// Returns who has to approve a step `manual`.
pub(super) fn of_step<'a>(name: &'a str, manual: &'a ManualSpec) -> Approvable<'a> {
    Approvable { what: ("step", name), parties: &manual.parties, distinct: true }
}

impl ServiceContext<'_> {
    /// Records the Decisions that count.
    pub(super) fn count(&self, next: &mut Next, approvals: &Approvals) {
        for decision in approvals.counted.iter().filter_map(|&index| self.of.decisions.get(index)) {
            applied::count(next, self.of, decision, self.observed.now);
        }
    }
}

/// Returns what was decided about a question of a service. Bound to the attempt, to what the plan requires of the service, and to the
/// Incident's `compromisedSince`.
pub(super) fn judge(plan: &Plan, id: ServiceId, of: &ServiceObservation, asked: Approvable<'_>) -> Approvals {
    let service = &plan.services[id];
    let Approvable { what, parties, distinct } = asked;
    let parties_shown: Vec<(&str, &str, i32)> =
        parties.iter().map(|party| (party.name.as_str(), party.group.as_str(), party.count)).collect();
    let since = of.status.compromised_since.as_ref().map(|since| since.0.as_second());
    let bound = (
        (&plan.uid, &service.name, of.status.attempt, "approval"),
        (what, parties_shown, distinct),
        &*service.requirements,
        since,
    );
    let mut current = digest(&bound);
    let mut rejected = None;
    let mut counted = Vec::new();
    for _ in 0..REJECTIONS_LIMIT {
        let mut rejections: Vec<(usize, &DecisionObservation)> = on(of, Action::Reject, &current).collect();
        counted.extend(rejections.iter().map(|&(index, _)| index));
        rejections.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        let Some((_, last)) = rejections.last() else { break };
        rejected = Some(format!("rejected by {} (Decision {}): {}", last.by, last.name, last.reason));
        let names: Vec<&str> = rejections.iter().map(|(_, rejection)| rejection.name.as_str()).collect();
        current = digest(&(&current, names));
    }
    let is_beyond = on(of, Action::Reject, &current).next().is_some();
    let counting = if is_beyond { Vec::new() } else { counting(of, parties, &current) };
    counted.extend(counting.iter().map(|&(index, _)| index));
    let approvals: Vec<&DecisionObservation> = counting.into_iter().map(|(_, approval)| approval).collect();
    let mut given: Vec<String> =
        approvals.iter().map(|approval| format!("{} (Decision {})", approval.by, approval.name)).collect();
    given.sort();
    given.dedup();
    let missing = match parties {
        _ if is_beyond => {
            vec![format!(
                "which counts no more, as it was rejected more than {REJECTIONS_LIMIT} times in this attempt: Retry begins the next one"
            )]
        }
        [] if approvals.is_empty() => vec!["one person who may approve".to_owned()],
        [] => Vec::new(),
        _ => {
            let people: Vec<Approval<'_>> =
                approvals.iter().map(|of| Approval { by: &of.by, group: of.group.as_deref() }).collect();
            approval::judge(parties, distinct, &people)
        }
    };
    Approvals { digest: current, missing, given, rejected, counted, is_beyond }
}

/// Returns the approvals of a digest that count: one of each person for each party, or of each person where no party is asked.
fn counting<'a>(
    of: &'a ServiceObservation,
    parties: &[ApprovalParty],
    digest: &'a str,
) -> Vec<(usize, &'a DecisionObservation)> {
    let names_party = |approval: &DecisionObservation| {
        parties.is_empty() || parties.iter().any(|party| approval.group.as_ref() == Some(&party.group))
    };
    let mut approvals: Vec<(usize, &DecisionObservation)> =
        on(of, Action::Approve, digest).filter(|(_, approval)| names_party(approval)).collect();
    approvals.sort_by(|(_, a), (_, b)| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
    let mut people = BTreeSet::new();
    approvals.retain(|(_, approval)| {
        people.insert((&approval.by, approval.group.as_ref().filter(|_| !parties.is_empty())))
    });
    approvals
}

fn on<'a>(
    of: &'a ServiceObservation,
    action: Action,
    digest: &'a str,
) -> impl Iterator<Item = (usize, &'a DecisionObservation)> {
    of.decisions
        .iter()
        .enumerate()
        .filter(move |(_, decision)| decision.action == action && decision.decided_on == digest)
}
