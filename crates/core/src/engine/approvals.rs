//! Approvals: who has to agree to something, and who has, by Decisions `Approve` and `Reject`.

use std::fmt;

use crate::api::Action;
use crate::api::gate::ApprovalParty;
use crate::gates::approval::{self, Approval};
use crate::plan::{Plan, ServiceId};

use super::context::digest;
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
    for _ in 0..REJECTIONS_LIMIT {
        let mut rejections: Vec<&DecisionObservation> = on(of, Action::Reject, &current).collect();
        rejections.sort_by(|a, b| a.name.cmp(&b.name));
        let Some(last) = rejections.last() else { break };
        rejected = Some(format!("rejected by {} (Decision {}): {}", last.by, last.name, last.reason));
        let names: Vec<&str> = rejections.iter().map(|rejection| rejection.name.as_str()).collect();
        current = digest(&(&current, names));
    }
    let approvals: Vec<&DecisionObservation> = on(of, Action::Approve, &current).collect();
    let mut given: Vec<String> =
        approvals.iter().map(|approval| format!("{} (Decision {})", approval.by, approval.name)).collect();
    given.sort();
    given.dedup();
    let is_beyond = on(of, Action::Reject, &current).next().is_some();
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
    Approvals { digest: current, missing, given, rejected }
}

fn on<'a>(
    of: &'a ServiceObservation,
    action: Action,
    digest: &'a str,
) -> impl Iterator<Item = &'a DecisionObservation> {
    of.decisions.iter().filter(move |decision| decision.action == action && decision.decided_on == digest)
}
