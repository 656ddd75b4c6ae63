//! Network policies of other APIs (Cilium, Calico, Antrea, `policy.networking.k8s.io`, and any other that the API server serves) that
//! apply to an isolated namespace. What they allow adds to our NetworkPolicies or overrides them. They are reported and never changed:
//! their owners remove them, or an administrator accepts a cluster-wide one as it is.

mod expression;
mod judge;

use std::fmt;
use std::str::FromStr;

pub use judge::{NamespaceLabels, ObservedPolicy, allowance};

/// Maximum number of policies in a message.
const NAMED: usize = 3;
/// Maximum length of a name in a message: three names, a command and a reason fit a control's message.
const NAME: usize = 80;

/// A policy that allows traffic into or out of a namespace, although its NetworkPolicies deny it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StandingPolicy {
    /// Namespace of the policy. `None`: it is cluster-scoped.
    pub namespace: Option<String>,
    /// Its kind, as its API names it.
    pub kind: String,
    /// Plural and group, as kubectl takes them: `ciliumnetworkpolicies.cilium.io`.
    pub resource: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its generation, if its API keeps one.
    pub generation: Option<i64>,
    /// What it allows, or why that is unknown.
    pub why: String,
}

impl StandingPolicy {
    /// Returns a warning for a policy that cannot be decided: it may only deny, and deleting it would then open traffic.
    fn caution(&self) -> &'static str {
        if self.why.starts_with(judge::UNKNOWN) { "looks at it, and " } else { "" }
    }
}

impl fmt::Display for StandingPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, cut(&self.name))
    }
}

/// A cluster-wide policy that an administrator accepted at one generation. Another UID or generation is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptedPolicy {
    /// Its UID.
    pub uid: String,
    /// Generation that was accepted.
    pub generation: i64,
}

impl AcceptedPolicy {
    /// Returns whether this acceptance covers the policy as it is now.
    #[must_use]
    pub fn covers(&self, policy: &StandingPolicy) -> bool {
        policy.namespace.is_none()
            && !self.uid.is_empty()
            && self.uid == policy.uid
            && policy.generation == Some(self.generation)
    }
}

impl fmt::Display for AcceptedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.uid, self.generation)
    }
}

impl FromStr for AcceptedPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, generation) = text.split_once('/').ok_or("it takes UID/GENERATION")?;
        if uid.is_empty() || !uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("'{uid}' is no UID"));
        }
        let number = generation.parse().ok().filter(|number| *number > 0);
        let generation = number.ok_or_else(|| format!("'{generation}' is no generation"))?;
        Ok(Self { uid: uid.to_owned(), generation })
    }
}

/// Policies of other APIs that apply to one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherPolicies {
    /// Policies that allow traffic.
    pub standing: Vec<StandingPolicy>,
    /// Policies that allow traffic and were accepted.
    pub accepted: Vec<StandingPolicy>,
    /// What could not be read, with cause and remedy.
    pub unknown: Vec<String>,
}

impl OtherPolicies {
    /// Returns whether no policy of another API allows traffic, or may allow it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.standing.is_empty() && self.unknown.is_empty()
    }

    /// Returns why the control `Network` is `NotEnforced`, who clears it and by which command. `None`: no policy of another API is the
    /// reason.
    #[must_use]
    pub fn message(&self, namespace: &str) -> Option<String> {
        let mut parts = Vec::new();
        if !self.standing.is_empty() {
            parts.push(self.standing_message(namespace));
        }
        if let Some(first) = self.unknown.first() {
            let more = match self.unknown.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            parts.push(format!(
                "whether policies of other APIs let traffic through is not known: {first}{more}"
            ));
        }
        (!parts.is_empty()).then(|| parts.join(". "))
    }

    fn standing_message(&self, namespace: &str) -> String {
        let count = self.standing.len();
        let named = self.standing.iter().take(NAMED).map(|policy| format!("{policy} ({})", policy.why));
        let mut message = match count {
            1 => "a network policy of another API lets traffic through: ".to_owned(),
            _ => format!("{count} network policies of other APIs let traffic through: "),
        };
        message.push_str(&named.collect::<Vec<_>>().join(", "));
        if count > NAMED {
            message.push_str(&format!(" and {} more", count - NAMED));
        }
        // Namespaced policies first: holders of `repair` can remove them.
        if let Some(policy) = self.standing.iter().find(|policy| policy.namespace.is_some()) {
            message.push_str(&format!(
                ". Who may repair quarantines/{namespace}, and delete that kind, {}deletes it: kubectl delete {} -n {namespace} {}",
                policy.caution(),
                policy.resource,
                policy.name
            ));
        }
        if let Some(policy) = self.standing.iter().find(|policy| policy.namespace.is_none()) {
            message.push_str(&format!(
                ". A cluster administrator {}narrows or deletes it: kubectl delete {} {}",
                policy.caution(),
                policy.resource,
                policy.name
            ));
            if let Some(generation) = policy.generation {
                message.push_str(&format!(
                    "; or accepts it: resurgam controller --accept-network-policy {}/{generation}",
                    policy.uid
                ));
            }
        }
        message
    }

    /// Returns the message about accepted policies. `None`: there are none.
    #[must_use]
    pub fn exceptions(&self) -> Option<String> {
        if self.accepted.is_empty() {
            return None;
        }
        let named: Vec<_> = self.accepted.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match self.accepted.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("except for {}{more}, accepted by an administrator", named.join(", ")))
    }
}

fn cut(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    name.chars().take(NAME - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
