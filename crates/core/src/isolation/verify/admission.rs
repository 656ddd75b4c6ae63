//! What trying lock, fence and guard on every API server shows, and what that means.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::api::conditions::shorten;
use crate::api::quarantine::{ControlName, ControlState};
use crate::isolation::policy_names::{ACCOUNT_GUARD, NAMESPACE_LOCK, RIGHTS_GUARD, WRITE_FENCE};

/// As many names as a message lists.
const LISTED: usize = 4;
/// Longest reason that a message gives.
const WHY: usize = 200;
/// What is tried on each API server.
pub const TRIES: [(ControlName, &str); 4] = [
    (ControlName::Lock, NAMESPACE_LOCK),
    (ControlName::Fence, WRITE_FENCE),
    (ControlName::Guard, RIGHTS_GUARD),
    (ControlName::Guard, ACCOUNT_GUARD),
];

/// What a try showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Refused, by the policy, at this level.
    Refused,
    /// Let through: the policy or the label is not in force (yet) at the API server that answered.
    LetThrough,
    /// Neither: something else stood in the way, so it shows nothing. What it was.
    Unclear(String),
    /// Nobody answered, and why.
    Unanswered(String),
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// On this API server.
    pub server: String,
    /// As what it is listed, if it is.
    pub listed: Option<SocketAddr>,
    /// Of this control.
    pub control: ControlName,
    /// By which policy it was to be refused.
    pub policy: &'static str,
    /// What it showed.
    pub seen: Seen,
}

/// What trying everything everywhere showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Each try.
    pub tries: Vec<Tried>,
    /// Why it is not known which API servers there are.
    pub unknown: Option<String>,
}

impl Probed {
    /// Was everything refused wherever somebody answered, and somewhere at all? An API server that is down lets nobody through.
    #[must_use]
    pub fn holds(&self) -> bool {
        let refused = |policy| self.tries.iter().any(|t| t.policy == policy && t.seen == Seen::Refused);
        self.tries.iter().all(|t| is_refused(&t.seen) || is_unanswered(&t.seen))
            && TRIES.iter().all(|(_, policy)| refused(*policy))
    }

    /// As [`Self::holds`], but for the lock: it goes by the label alone, which may be missing where a list isolates.
    #[must_use]
    pub fn holds_but_for_the_lock(&self) -> bool {
        let rest = self.tries.iter().filter(|tried| tried.control != ControlName::Lock);
        let refused = |policy| self.tries.iter().any(|t| t.policy == policy && t.seen == Seen::Refused);
        rest.clone().all(|t| is_refused(&t.seen) || is_unanswered(&t.seen))
            && TRIES
                .iter()
                .filter(|(control, _)| *control != ControlName::Lock)
                .all(|(_, policy)| refused(*policy))
    }

    /// Was everything refused on one of them at least?
    #[must_use]
    pub fn holds_somewhere(&self) -> bool {
        let refuses_all =
            |server: &str| self.tries.iter().filter(|t| t.server == server).all(|t| is_refused(&t.seen));
        self.tries.iter().any(|t| refuses_all(&t.server))
    }

    fn with(&self, of: impl Fn(&Tried) -> bool, wanted: fn(&Seen) -> bool) -> Vec<&Tried> {
        self.tries.iter().filter(|t| of(t) && wanted(&t.seen)).collect()
    }

    /// What is known of a control, and how.
    #[must_use]
    pub fn of(&self, control: ControlName) -> (ControlState, String) {
        let with = |wanted| self.with(|t| t.control == control, wanted);
        let (refused, through) = (with(is_refused), with(is_through));
        let at = format!("at {}", servers(&refused));
        if !through.is_empty() {
            let but = if refused.is_empty() { String::new() } else { format!("; refused {at}") };
            let message =
                format!("tried, and not refused by {} at {}{but}", policies(&through), servers(&through));
            return (ControlState::NotEnforced, message);
        }
        let (unclear, unanswered) = (with(is_unclear), with(is_unanswered));
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

    /// Returns what keeps it from holding, for people.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let obstacle = |(_, policy): &(ControlName, &'static str)| {
            let with = |wanted| self.with(|t| t.policy == *policy, wanted);
            let through = with(is_through);
            if !through.is_empty() {
                return Some(format!("{policy} does not refuse at this level yet at {}", servers(&through)));
            }
            let refused = !with(is_refused).is_empty();
            let (unclear, unanswered) = (with(is_unclear), with(is_unanswered));
            let first = unclear.first().or(unanswered.first().filter(|_| !refused));
            first.map(|t| format!("{policy} could not be tried at {}", why(t)))
        };
        TRIES.iter().filter_map(obstacle).collect()
    }
}

/// Returns why nobody answered any try on one API server. Who answers some of them is there, so that those without an answer show
/// nothing: they become unclear.
pub fn silent_to_all(tried: &mut [Tried]) -> Option<String> {
    let silence = |tried: &Tried| match &tried.seen {
        Seen::Unanswered(why) => Some(why.clone()),
        Seen::Refused | Seen::LetThrough | Seen::Unclear(_) => None,
    };
    if tried.iter().all(|tried| silence(tried).is_some()) {
        return tried.first().and_then(silence);
    }
    for tried in tried {
        if let Some(why) = silence(tried) {
            tried.seen = Seen::Unclear(why);
        }
    }
    None
}

fn is_refused(seen: &Seen) -> bool {
    *seen == Seen::Refused
}

fn is_through(seen: &Seen) -> bool {
    *seen == Seen::LetThrough
}

fn is_unclear(seen: &Seen) -> bool {
    matches!(seen, Seen::Unclear(_))
}

fn is_unanswered(seen: &Seen) -> bool {
    matches!(seen, Seen::Unanswered(_))
}

fn names<'a>(tries: &[&'a Tried]) -> BTreeSet<&'a str> {
    tries.iter().map(|t| t.server.as_str()).collect()
}

fn servers(tries: &[&Tried]) -> String {
    let names = names(tries);
    let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(LISTED);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

fn policies(tries: &[&Tried]) -> String {
    let policies: BTreeSet<_> = tries.iter().map(|t| t.policy).collect();
    policies.into_iter().collect::<Vec<_>>().join(" and ")
}

fn why(tried: &Tried) -> String {
    match &tried.seen {
        Seen::Unclear(why) | Seen::Unanswered(why) => format!("{}: {}", tried.server, shorten(why, WHY)),
        Seen::Refused | Seen::LetThrough => tried.server.clone(),
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
