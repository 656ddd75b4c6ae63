//! Does the cluster's network enforce a default-deny NetworkPolicy? What trying it showed, and what that means.
//!
//! Pods of ours try it, in two namespaces of ours: a listener and a connector where no policy applies, a listener and a connector
//! on each tried node in the other one. Everybody must reach everybody first. Then the same default-deny policy as in
//! an isolated namespace is written into that other one, and nobody may get in or out any more. So it is the policy, and
//! nothing else, that made the difference.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::PROBE_NAMESPACES;
use crate::api::conditions::shorten;
use crate::api::quarantine::ControlState;

/// Where the pods are that no policy applies to.
pub const OPEN_NAMESPACE: &str = PROBE_NAMESPACES[0];
/// Where the pods are that are denied everything.
pub const DENIED_NAMESPACE: &str = PROBE_NAMESPACES[1];
/// Nodes tried at a time.
pub const NODES_AT_A_TIME: usize = 3;
/// Names of nodes that a message lists.
const LISTED: usize = 3;

/// What a connector reports when it ends, in its termination message.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What came of each target, by the name that it was given.
    pub targets: BTreeMap<String, Reached>,
}

/// What came of trying to reach a target.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// A connection was made, and the listener said the word that only it knew.
    pub connected: bool,
    /// How it failed, if it did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// One way from a pod to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// The listener was reached.
    Connected,
    /// It was not, and how that showed.
    Failed(String),
    /// Nobody knows: the pod did not run, or did not say.
    Unknown(String),
}

impl Link {
    /// What a connector's termination message says of one target.
    #[must_use]
    pub fn read(message: Option<&str>, target: &str) -> Self {
        let Some(message) = message.filter(|message| !message.is_empty()) else {
            return Self::Unknown("its pod ended without a report".to_owned());
        };
        let report: Report = match serde_json::from_str(message) {
            Ok(report) => report,
            Err(error) => return Self::Unknown(format!("its pod's report is malformed: {error}")),
        };
        match report.targets.get(target) {
            None => Self::Unknown(format!("its pod's report does not name {target}")),
            Some(Reached { connected: true, .. }) => Self::Connected,
            Some(Reached { connected: false, detail }) => Self::Failed(detail.clone()),
        }
    }
}

/// One way, before the policy was there and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// Without any policy.
    pub before: Link,
    /// With the policy.
    pub after: Link,
}

/// What one try showed of a node: its pods in the denied namespace, from outside and to the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTried {
    /// From the open namespace into the denied one.
    pub ingress: Ways,
    /// From the denied namespace to the open one.
    pub egress: Ways,
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeVerdict {
    /// What worked before works no more, both ways.
    Enforced,
    /// A denied pod was reached, or reached out.
    NotEnforced(String),
    /// It could not be found out.
    Unclear(String),
}

/// What a try showed of one node. `control`: from the open namespace to the open one, which no policy may touch.
#[must_use]
pub fn judge(control: &Ways, tried: &NodeTried) -> NodeVerdict {
    // Who was reached was reached, whatever else went wrong.
    let way = |from_to: &str| format!("a connection {from_to} was made although it is denied all traffic");
    if tried.ingress.after == Link::Connected {
        return NodeVerdict::NotEnforced(way("into a pod of ours"));
    }
    if tried.egress.after == Link::Connected {
        return NodeVerdict::NotEnforced(way("out of a pod of ours"));
    }
    let must_connect = [
        ("between two pods without policies", &control.before),
        ("into a pod that no policy applied to yet", &tried.ingress.before),
        ("out of a pod that no policy applied to yet", &tried.egress.before),
        ("between two pods without policies, at the end", &control.after),
    ];
    for (what, link) in must_connect {
        match link {
            Link::Connected => {}
            Link::Failed(how) => {
                return NodeVerdict::Unclear(format!(
                    "a connection {what} failed, so nothing is shown: {how}"
                ));
            }
            Link::Unknown(why) => return NodeVerdict::Unclear(format!("a connection {what}: {why}")),
        }
    }
    for link in [&tried.ingress.after, &tried.egress.after] {
        if let Link::Unknown(why) = link {
            return NodeVerdict::Unclear(why.clone());
        }
    }
    NodeVerdict::Enforced
}

/// What is known of a node, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What.
    pub verdict: NodeVerdict,
    /// When it was tried.
    pub at: Timestamp,
}

/// All that is known, node by node.
pub type Nodes = BTreeMap<String, Known>;

/// Which nodes to try next: first those that were found not to enforce it, then those never tried, then the ones tried longest ago.
#[must_use]
pub fn choose(ready: &BTreeSet<String>, known: &Nodes) -> Vec<String> {
    let mut nodes: Vec<&String> = ready.iter().collect();
    nodes.sort_by_key(|name| match known.get(*name) {
        Some(Known { verdict: NodeVerdict::NotEnforced(_), at }) => (0, Some(*at)),
        None => (1, None),
        Some(Known { at, .. }) => (2, Some(*at)),
    });
    nodes.into_iter().take(NODES_AT_A_TIME).cloned().collect()
}

/// Remembers what a try showed. A node that was found not to enforce it stays so until a try shows otherwise; one that
/// is gone is forgotten.
pub fn remember(
    known: &mut Nodes,
    shown: BTreeMap<String, NodeVerdict>,
    existing: &BTreeSet<String>,
    at: Timestamp,
) {
    for (node, verdict) in shown {
        let stands = matches!(known.get(&node), Some(Known { verdict: NodeVerdict::NotEnforced(_), .. }));
        if stands && matches!(verdict, NodeVerdict::Unclear(_)) {
            continue;
        }
        known.insert(node, Known { verdict, at });
    }
    known.retain(|node, _| existing.contains(node));
}

/// What is said of the network in every Quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Tested`, `NotEnforced` or `Unverifiable`.
    pub state: ControlState,
    /// How that is known, or why it is not.
    pub message: String,
    /// When it was last tried.
    pub tried: Option<Timestamp>,
}

impl Verdict {
    /// It cannot be tried, and why.
    #[must_use]
    pub fn unverifiable(why: &str) -> Self {
        let message = format!(
            "policies are written; whether this cluster's network enforces them could not be tried: {why}"
        );
        Self { state: ControlState::Unverifiable, message, tried: None }
    }
}

/// What all that is known means. `existing`: how many nodes there are; `trouble`: why the last try came to nothing, if it did;
/// `fresh_since`: a network that was not seen to hold since then is not said to.
#[must_use]
pub fn verdict(known: &Nodes, existing: usize, trouble: Option<&str>, fresh_since: Timestamp) -> Verdict {
    let of = |wanted: fn(&NodeVerdict) -> bool| {
        known.iter().filter(move |(_, k)| wanted(&k.verdict)).map(|(name, k)| (name.as_str(), k))
    };
    let broken: Vec<_> = of(|v| matches!(v, NodeVerdict::NotEnforced(_))).collect();
    if let Some((node, Known { verdict: NodeVerdict::NotEnforced(how), at })) = broken.first().copied() {
        let others =
            if broken.len() > 1 { format!(" (and {} more)", broken.len() - 1) } else { String::new() };
        let message = format!(
            "tried, and not enforced: on node {node}{others} {how}. This cluster's network (CNI) ignores NetworkPolicies there: \
             whoever runs it can put in one that enforces them"
        );
        return Verdict { state: ControlState::NotEnforced, message, tried: Some(*at) };
    }
    let held: Vec<_> = of(|v| *v == NodeVerdict::Enforced).collect();
    let unclear = of(|v| matches!(v, NodeVerdict::Unclear(_))).find_map(|(name, k)| match &k.verdict {
        NodeVerdict::Unclear(why) => Some(format!("node {name}: {why}")),
        NodeVerdict::Enforced | NodeVerdict::NotEnforced(_) => None,
    });
    let trouble = trouble.map(str::to_owned).or(unclear);
    let Some(last) = held.iter().map(|(_, known)| known.at).max() else {
        return Verdict::unverifiable(trouble.as_deref().unwrap_or("no node was tried"));
    };
    if last < fresh_since {
        let why = trouble.unwrap_or_else(|| "no try has come to an end since".to_owned());
        return Verdict::unverifiable(&format!("seen to hold last at {last}, and not since: {why}"));
    }
    let names: Vec<&str> = held.iter().map(|(name, _)| *name).take(LISTED).collect();
    let more = if held.len() > LISTED { ", …" } else { "" };
    let mut message = format!(
        "pods of ours that reached each other did not any more once denied by the same policy, both ways: on {} of {existing} nodes \
         ({}{more})",
        held.len(),
        names.join(", ")
    );
    if let Some(trouble) = trouble {
        message = format!("{message}. Not all could be tried: {}", shorten(&trouble, 200));
    }
    Verdict { state: ControlState::Tested, message, tried: Some(last) }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
