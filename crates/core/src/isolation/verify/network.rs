//! Verifies whether the cluster's network enforces a default-deny NetworkPolicy.
//!
//! Probe pods run in two namespaces: a listener and a connector in one without any policy, and a listener and a connector per probed node
//! in the other. First every pod must reach every other. Then the default-deny policy of isolated namespaces is written to the second
//! namespace, and nothing may get in or out of it. So only the policy can have made the difference.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::PROBE_NAMESPACES;
use crate::api::conditions::shorten;
use crate::api::quarantine::ControlState;

/// Namespace of the pods that no policy applies to.
pub const OPEN_NAMESPACE: &str = PROBE_NAMESPACES[0];
/// Namespace of the pods that are denied all traffic.
pub const DENIED_NAMESPACE: &str = PROBE_NAMESPACES[1];
/// Number of nodes probed at a time.
pub const NODES_AT_A_TIME: usize = 3;
/// Maximum number of node names in a message.
const LISTED: usize = 3;

/// Report of a connector pod, in its termination message.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectorReport {
    /// Result for each target, by the target's name.
    pub targets: BTreeMap<String, TargetResult>,
}

/// Result of connecting to a target.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TargetResult {
    /// Whether a connection was made and the listener sent the expected word.
    pub connected: bool,
    /// How the connection failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Connectivity from a pod to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// The listener was reached.
    Connected,
    /// The listener was not reached, with the error.
    Failed(String),
    /// Unknown: the pod did not run or did not report.
    Unknown(String),
}

impl Connectivity {
    /// Reads the result for one target from a connector's termination message.
    #[must_use]
    pub fn read(message: Option<&str>, target: &str) -> Self {
        let Some(message) = message.filter(|message| !message.is_empty()) else {
            return Self::Unknown("its pod ended without a report".to_owned());
        };
        let report: ConnectorReport = match serde_json::from_str(message) {
            Ok(report) => report,
            Err(error) => return Self::Unknown(format!("its pod's report is malformed: {error}")),
        };
        match report.targets.get(target) {
            None => Self::Unknown(format!("its pod's report does not name {target}")),
            Some(TargetResult { connected: true, .. }) => Self::Connected,
            Some(TargetResult { connected: false, detail }) => Self::Failed(detail.clone()),
        }
    }
}

/// Connectivity before and after the policy was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforeAfter {
    /// Before the policy.
    pub before: Connectivity,
    /// After the policy.
    pub after: Connectivity,
}

/// Probe of one node: traffic into and out of its pods in the denied namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProbe {
    /// From the open namespace into the denied one.
    pub ingress: BeforeAfter,
    /// From the denied namespace to the open one.
    pub egress: BeforeAfter,
}

/// Verdict on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeVerdict {
    /// The policy stopped traffic in both directions.
    Enforced,
    /// A denied pod was reached, or connected out, with the details.
    NotEnforced(String),
    /// The probe was inconclusive, with the reason.
    Inconclusive(String),
}

/// Returns the verdict on one node. `control`: connectivity within the open namespace, which no policy may affect.
#[must_use]
pub fn judge(control: &BeforeAfter, tried: &NodeProbe) -> NodeVerdict {
    // A connection that was made counts, whatever else failed.
    let way = |from_to: &str| format!("a connection {from_to} was made although it is denied all traffic");
    if tried.ingress.after == Connectivity::Connected {
        return NodeVerdict::NotEnforced(way("into a pod of ours"));
    }
    if tried.egress.after == Connectivity::Connected {
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
            Connectivity::Connected => {}
            Connectivity::Failed(how) => {
                return NodeVerdict::Inconclusive(format!(
                    "a connection {what} failed, so nothing is shown: {how}"
                ));
            }
            Connectivity::Unknown(why) => {
                return NodeVerdict::Inconclusive(format!("a connection {what}: {why}"));
            }
        }
    }
    for link in [&tried.ingress.after, &tried.egress.after] {
        if let Connectivity::Unknown(why) = link {
            return NodeVerdict::Inconclusive(why.clone());
        }
    }
    NodeVerdict::Enforced
}

/// Last verdict on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// The verdict.
    pub verdict: NodeVerdict,
    /// When the node was probed.
    pub at: Timestamp,
}

/// Last verdicts by node.
pub type NodeRecords = BTreeMap<String, NodeRecord>;

/// Returns the nodes to probe next: first those that did not enforce the policy, then those never probed, then those probed longest ago.
#[must_use]
pub fn choose_nodes(ready: &BTreeSet<String>, known: &NodeRecords) -> Vec<String> {
    let mut nodes: Vec<&String> = ready.iter().collect();
    nodes.sort_by_key(|name| match known.get(*name) {
        Some(NodeRecord { verdict: NodeVerdict::NotEnforced(_), at }) => (0, Some(*at)),
        None => (1, None),
        Some(NodeRecord { at, .. }) => (2, Some(*at)),
    });
    nodes.into_iter().take(NODES_AT_A_TIME).cloned().collect()
}

/// Records the verdicts of a probe. A node that did not enforce the policy keeps that verdict until a probe proves otherwise. Nodes that
/// no longer exist are removed.
pub fn record_probes(
    known: &mut NodeRecords,
    shown: BTreeMap<String, NodeVerdict>,
    existing: &BTreeSet<String>,
    at: Timestamp,
) {
    for (node, verdict) in shown {
        let stands =
            matches!(known.get(&node), Some(NodeRecord { verdict: NodeVerdict::NotEnforced(_), .. }));
        if stands && matches!(verdict, NodeVerdict::Inconclusive(_)) {
            continue;
        }
        known.insert(node, NodeRecord { verdict, at });
    }
    known.retain(|node, _| existing.contains(node));
}

/// Verdict on the network, for every Quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkVerdict {
    /// `Tested`, `NotEnforced` or `Unverifiable`.
    pub state: ControlState,
    /// How the state was determined, or why it is unknown.
    pub message: String,
    /// When the network was last probed.
    pub tried: Option<Timestamp>,
}

impl NetworkVerdict {
    /// Returns the verdict for a network that cannot be probed, with the reason.
    #[must_use]
    pub fn unverifiable(why: &str) -> Self {
        let message = format!(
            "policies are written; whether this cluster's network enforces them could not be tried: {why}"
        );
        Self { state: ControlState::Unverifiable, message, tried: None }
    }
}

/// Returns the verdict that follows from the records. `existing`: number of nodes; `trouble`: why the last probe failed, if it did;
/// `fresh_since`: verdicts before this time do not count as tested.
#[must_use]
pub fn verdict(
    known: &NodeRecords,
    existing: usize,
    trouble: Option<&str>,
    fresh_since: Timestamp,
) -> NetworkVerdict {
    let of = |wanted: fn(&NodeVerdict) -> bool| {
        known.iter().filter(move |(_, k)| wanted(&k.verdict)).map(|(name, k)| (name.as_str(), k))
    };
    let broken: Vec<_> = of(|v| matches!(v, NodeVerdict::NotEnforced(_))).collect();
    if let Some((node, NodeRecord { verdict: NodeVerdict::NotEnforced(how), at })) = broken.first().copied() {
        let others =
            if broken.len() > 1 { format!(" (and {} more)", broken.len() - 1) } else { String::new() };
        let message = format!(
            "tried, and not enforced: on node {node}{others} {how}. This cluster's network (CNI) ignores NetworkPolicies there: \
             whoever runs it can put in one that enforces them"
        );
        return NetworkVerdict { state: ControlState::NotEnforced, message, tried: Some(*at) };
    }
    let held: Vec<_> = of(|v| *v == NodeVerdict::Enforced).collect();
    let unclear = of(|v| matches!(v, NodeVerdict::Inconclusive(_))).find_map(|(name, k)| match &k.verdict {
        NodeVerdict::Inconclusive(why) => Some(format!("node {name}: {why}")),
        NodeVerdict::Enforced | NodeVerdict::NotEnforced(_) => None,
    });
    let trouble = trouble.map(str::to_owned).or(unclear);
    let Some(last) = held.iter().map(|(_, known)| known.at).max() else {
        return NetworkVerdict::unverifiable(trouble.as_deref().unwrap_or("no node was tried"));
    };
    if last < fresh_since {
        let why = trouble.unwrap_or_else(|| "no try has come to an end since".to_owned());
        return NetworkVerdict::unverifiable(&format!("seen to hold last at {last}, and not since: {why}"));
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
    NetworkVerdict { state: ControlState::Tested, message, tried: Some(last) }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
