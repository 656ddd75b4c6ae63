//! Probes of lock, fence and guard on every API server, and the state of the controls that follows.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::api::conditions::shorten;
use crate::api::quarantine::{ControlName, ControlState};
use crate::isolation::policy_names::{ACCOUNT_GUARD, NAMESPACE_LOCK, RIGHTS_GUARD, WRITE_FENCE};

/// Maximum number of names in a message.
const LISTED: usize = 4;
/// Maximum length of a reason in a message.
const WHY: usize = 200;
/// Policies that are probed on each API server, with their control.
pub const PROBED_POLICIES: [(ControlName, &str); 4] = [
    (ControlName::Lock, NAMESPACE_LOCK),
    (ControlName::Fence, WRITE_FENCE),
    (ControlName::Guard, RIGHTS_GUARD),
    (ControlName::Guard, ACCOUNT_GUARD),
];

/// Result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The policy denied the request, at this level.
    Denied,
    /// The request was admitted: the policy or the label is not in force (yet) at that API server.
    Admitted,
    /// Another cause denied the request, so that the probe proves nothing. With that cause.
    Inconclusive(String),
    /// The API server did not answer, with the reason.
    Unreachable(String),
}

/// One probe of a policy on one API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProbe {
    /// Name of the API server.
    pub server: String,
    /// Address of the API server in the EndpointSlices, if it is listed there.
    pub listed: Option<SocketAddr>,
    /// Control that was probed.
    pub control: ControlName,
    /// Policy that should deny the request.
    pub policy: &'static str,
    /// Result of the probe.
    pub result: ProbeResult,
}

/// Results of all probes on all API servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// The probes.
    pub probes: Vec<PolicyProbe>,
    /// Why the list of API servers may be incomplete.
    pub unknown: Option<String>,
}

impl ProbeReport {
    /// Returns whether every API server that answered denied everything, and at least one answered. An API server that is down admits
    /// nothing.
    #[must_use]
    pub fn holds(&self) -> bool {
        let refused =
            |policy| self.probes.iter().any(|t| t.policy == policy && t.result == ProbeResult::Denied);
        self.probes.iter().all(|t| is_denied(&t.result) || is_unreachable(&t.result))
            && PROBED_POLICIES.iter().all(|(_, policy)| refused(*policy))
    }

    /// Returns the same as [`Self::holds`] without the lock, which goes by the label alone. The label may be missing where a list
    /// isolates.
    #[must_use]
    pub fn holds_except_lock(&self) -> bool {
        let rest = self.probes.iter().filter(|tried| tried.control != ControlName::Lock);
        let refused =
            |policy| self.probes.iter().any(|t| t.policy == policy && t.result == ProbeResult::Denied);
        rest.clone().all(|t| is_denied(&t.result) || is_unreachable(&t.result))
            && PROBED_POLICIES
                .iter()
                .filter(|(control, _)| *control != ControlName::Lock)
                .all(|(_, policy)| refused(*policy))
    }

    /// Returns whether at least one API server denied everything.
    #[must_use]
    pub fn holds_somewhere(&self) -> bool {
        let refuses_all =
            |server: &str| self.probes.iter().filter(|t| t.server == server).all(|t| is_denied(&t.result));
        self.probes.iter().any(|t| refuses_all(&t.server))
    }

    fn with(&self, of: impl Fn(&PolicyProbe) -> bool, wanted: fn(&ProbeResult) -> bool) -> Vec<&PolicyProbe> {
        self.probes.iter().filter(|t| of(t) && wanted(&t.result)).collect()
    }

    /// Returns state and message of a control.
    #[must_use]
    pub fn of(&self, control: ControlName) -> (ControlState, String) {
        let with = |wanted| self.with(|t| t.control == control, wanted);
        let (refused, through) = (with(is_denied), with(is_admitted));
        let at = format!("at {}", servers(&refused));
        if !through.is_empty() {
            let but = if refused.is_empty() { String::new() } else { format!("; refused {at}") };
            let message =
                format!("tried, and not refused by {} at {}{but}", policies(&through), servers(&through));
            return (ControlState::NotEnforced, message);
        }
        let (unclear, unanswered) = (with(is_inconclusive), with(is_unreachable));
        if let Some(first) = unclear.first().or(unanswered.first().filter(|_| refused.is_empty())) {
            return (ControlState::Enforced, format!("written; could not be tried at {}", why(first)));
        }
        let mut message = format!("tried, and refused by the policy {at}");
        if control == ControlName::Guard {
            message.push_str("; that on volumes is not tried, as that would take a right to write them");
        }
        if let Some(first) = unanswered.first() {
            let others = names(&unanswered).len().saturating_sub(1);
            let others = if others > 0 { format!(", and {others} more") } else { String::new() };
            message = format!("{message}. Listed, and not tried: {}{others}", why(first));
        }
        if let Some(unknown) = &self.unknown {
            message = format!("{message}. Whether there are others is not known: {unknown}");
        }
        let everywhere = unanswered.is_empty() && self.unknown.is_none();
        (if everywhere { ControlState::Tested } else { ControlState::Unverifiable }, message)
    }

    /// Returns what keeps the controls from holding, as messages.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let obstacle = |(_, policy): &(ControlName, &'static str)| {
            let with = |wanted| self.with(|t| t.policy == *policy, wanted);
            let through = with(is_admitted);
            if !through.is_empty() {
                return Some(format!("{policy} does not refuse at this level yet at {}", servers(&through)));
            }
            let refused = !with(is_denied).is_empty();
            let (unclear, unanswered) = (with(is_inconclusive), with(is_unreachable));
            let first = unclear.first().or(unanswered.first().filter(|_| !refused));
            first.map(|t| format!("{policy} could not be tried at {}", why(t)))
        };
        PROBED_POLICIES.iter().filter_map(obstacle).collect()
    }
}

/// Returns why an API server answered no probe at all. If it answered some, it is reachable, so that its unanswered probes become
/// inconclusive.
pub fn resolve_unreachable(tried: &mut [PolicyProbe]) -> Option<String> {
    let silence = |tried: &PolicyProbe| match &tried.result {
        ProbeResult::Unreachable(why) => Some(why.clone()),
        ProbeResult::Denied | ProbeResult::Admitted | ProbeResult::Inconclusive(_) => None,
    };
    if tried.iter().all(|tried| silence(tried).is_some()) {
        return tried.first().and_then(silence);
    }
    for tried in tried {
        if let Some(why) = silence(tried) {
            tried.result = ProbeResult::Inconclusive(why);
        }
    }
    None
}

fn is_denied(seen: &ProbeResult) -> bool {
    *seen == ProbeResult::Denied
}

fn is_admitted(seen: &ProbeResult) -> bool {
    *seen == ProbeResult::Admitted
}

fn is_inconclusive(seen: &ProbeResult) -> bool {
    matches!(seen, ProbeResult::Inconclusive(_))
}

fn is_unreachable(seen: &ProbeResult) -> bool {
    matches!(seen, ProbeResult::Unreachable(_))
}

fn names<'a>(tries: &[&'a PolicyProbe]) -> BTreeSet<&'a str> {
    tries.iter().map(|t| t.server.as_str()).collect()
}

fn servers(tries: &[&PolicyProbe]) -> String {
    let names = names(tries);
    let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(LISTED);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

fn policies(tries: &[&PolicyProbe]) -> String {
    let policies: BTreeSet<_> = tries.iter().map(|t| t.policy).collect();
    policies.into_iter().collect::<Vec<_>>().join(" and ")
}

fn why(tried: &PolicyProbe) -> String {
    match &tried.result {
        ProbeResult::Inconclusive(why) | ProbeResult::Unreachable(why) => {
            format!("{}: {}", tried.server, shorten(why, WHY))
        }
        ProbeResult::Denied | ProbeResult::Admitted => tried.server.clone(),
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
