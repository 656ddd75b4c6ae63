//! Control `Network`: default-deny in both directions. NetworkPolicies are additive, so each policy that allows traffic is changed to
//! select no pod, and changed back on release. That needs no record, loses nothing, and works whatever the policy's finalizers, owners
//! and name.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::ObjectMeta;
use serde_json::json;

use crate::api::{MANAGED_BY_LABEL, OPERATOR_NAMESPACE};
use crate::isolation::MANAGED_BY;

/// Name of the policy that denies all traffic in both directions.
pub const DEFAULT_DENY: &str = "resurgam-default-deny";
/// Name of the policy that allows the traffic of a clean room.
pub const CLEAN_ROOM: &str = "resurgam-clean-room";
/// Label key of the two requirements that make a neutralised policy select no pod: `Exists` and `DoesNotExist`. The write fence permits
/// exactly this change to callers with the right to isolate.
pub const NEUTRALISED: &str = "resurgam.dev/isolated";
/// Maximum number of names in a message.
const LISTED: usize = 3;

/// What a clean room may connect to, in addition to its own namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CleanRoomAccess {
    /// Namespaces, for ingress and egress.
    pub reachable: Vec<String>,
    /// Egress rules for cluster services.
    pub egress_exceptions: Vec<NetworkPolicyEgressRule>,
}

/// Returns the policies that must exist. `room`: what a clean room may connect to. The operator's pods may connect to a clean room, as
/// `http` gates connect from there.
#[must_use]
pub fn wanted(namespace: &str, room: Option<&CleanRoomAccess>) -> Vec<NetworkPolicy> {
    let both = Some(vec!["Ingress".to_owned(), "Egress".to_owned()]);
    let mut all = vec![ours(
        namespace,
        DEFAULT_DENY,
        NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            policy_types: both.clone(),
            ..NetworkPolicySpec::default()
        },
    )];
    if let Some(room) = room {
        let mut names = room.reachable.clone();
        names.push(namespace.to_owned());
        names.sort();
        names.dedup();
        let peer = pods_of(names, None);
        let operator =
            pods_of(vec![OPERATOR_NAMESPACE.to_owned()], Some(("app.kubernetes.io/name", "resurgam")));
        let to =
            |peer| NetworkPolicyEgressRule { to: Some(vec![peer]), ..NetworkPolicyEgressRule::default() };
        all.push(ours(
            namespace,
            CLEAN_ROOM,
            NetworkPolicySpec {
                pod_selector: Some(LabelSelector::default()),
                policy_types: both,
                ingress: Some(vec![NetworkPolicyIngressRule {
                    from: Some(vec![peer.clone(), operator]),
                    ..NetworkPolicyIngressRule::default()
                }]),
                egress: Some([vec![to(peer)], room.egress_exceptions.clone()].concat()),
            },
        ));
    }
    all
}

/// Returns the peer that selects pods of these namespaces: all pods, or those with a label.
#[must_use]
pub fn pods_of(namespaces: Vec<String>, label: Option<(&str, &str)>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "kubernetes.io/metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(namespaces),
            }]),
            match_labels: None,
        }),
        pod_selector: label.map(|(key, value)| LabelSelector {
            match_expressions: None,
            match_labels: Some([(key.to_owned(), value.to_owned())].into()),
        }),
        ip_block: None,
    }
}

fn ours(namespace: &str, name: &str, spec: NetworkPolicySpec) -> NetworkPolicy {
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    }
}

/// Returns whether the policy is one of the operator's, by its name.
#[must_use]
pub fn is_ours(policy: &NetworkPolicy) -> bool {
    matches!(policy.metadata.name.as_deref(), Some(DEFAULT_DENY | CLEAN_ROOM))
}

/// Returns requirements that no pod meets.
fn nothing() -> [LabelSelectorRequirement; 2] {
    ["Exists", "DoesNotExist"].map(|operator| LabelSelectorRequirement {
        key: NEUTRALISED.to_owned(),
        operator: operator.to_owned(),
        values: None,
    })
}

fn requirements(policy: &NetworkPolicy) -> Vec<LabelSelectorRequirement> {
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    selector.and_then(|selector| selector.match_expressions.clone()).unwrap_or_default()
}

/// Returns whether our requirements make the policy select no pod.
#[must_use]
pub fn is_neutralised(policy: &NetworkPolicy) -> bool {
    let there = requirements(policy);
    nothing().iter().all(|nothing| there.contains(nothing))
}

/// Returns the policy as it was before it was neutralised.
#[must_use]
pub fn without_marks(mut policy: NetworkPolicy) -> NetworkPolicy {
    let selector = policy.spec.as_mut().and_then(|spec| spec.pod_selector.as_mut());
    if let Some(requirements) = selector.and_then(|selector| selector.match_expressions.as_mut()) {
        requirements.retain(|requirement| requirement.key != NEUTRALISED);
    }
    policy
}

/// Returns the merge patch that neutralises a policy, or with `back` restores it, with a resourceVersion precondition. `None`: nothing to
/// do.
#[must_use]
pub fn change(policy: &NetworkPolicy, back: bool) -> Option<serde_json::Value> {
    let mut requirements = requirements(policy);
    let before = requirements.clone();
    requirements.retain(|requirement| requirement.key != NEUTRALISED);
    if !back {
        requirements.extend(nothing());
    }
    let metadata = json!({"uid": policy.metadata.uid, "resourceVersion": policy.metadata.resource_version});
    let requirements = if requirements.is_empty() { json!(null) } else { json!(requirements) };
    let changed = if back { before.iter().any(|r| r.key == NEUTRALISED) } else { !is_neutralised(policy) };
    changed
        .then(|| json!({"metadata": metadata, "spec": {"podSelector": {"matchExpressions": requirements}}}))
}

/// Returns the policy as it is recorded, to be created again.
#[must_use]
pub fn restorable(policy: &NetworkPolicy) -> NetworkPolicy {
    NetworkPolicy {
        metadata: ObjectMeta {
            name: policy.metadata.name.clone(),
            namespace: policy.metadata.namespace.clone(),
            labels: policy.metadata.labels.clone(),
            annotations: policy.metadata.annotations.clone(),
            owner_references: policy.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec: policy.spec.clone(),
    }
}

/// Observed state of a namespace's network policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyObservation {
    /// Policies of the operator that are missing or differ.
    pub missing: Vec<String>,
    /// Other policies that still select pods.
    pub allowing: Vec<String>,
}

impl PolicyObservation {
    /// Compares the existing policies with the wanted ones.
    #[must_use]
    pub fn new(there: &[NetworkPolicy], wanted: &[NetworkPolicy]) -> Self {
        let name = |policy: &NetworkPolicy| policy.metadata.name.clone().unwrap_or_default();
        let is_wanted = |policy: &NetworkPolicy| wanted.iter().any(|w| name(w) == name(policy));
        let is_there =
            |wanted: &NetworkPolicy| there.iter().any(|p| name(p) == name(wanted) && is_as(p, wanted));
        Self {
            missing: wanted.iter().filter(|w| !is_there(w)).map(name).collect(),
            allowing: there.iter().filter(|p| !is_wanted(p) && !is_neutralised(p)).map(name).collect(),
        }
    }

    /// Returns whether all traffic is denied that should be.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.missing.is_empty() && self.allowing.is_empty()
    }

    /// Returns why the control is not in place, as a message.
    #[must_use]
    pub fn message(&self) -> String {
        let list = |names: &[String]| {
            let more = names.len().saturating_sub(LISTED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{}{more}", names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", "))
        };
        match (self.missing.is_empty(), self.allowing.is_empty()) {
            (true, true) => "denied both ways".to_owned(),
            (false, true) => format!("NetworkPolicy {} is not in place", list(&self.missing)),
            (true, false) => format!("NetworkPolicy {} still allows traffic", list(&self.allowing)),
            (false, false) => format!(
                "NetworkPolicy {} is not in place, and {} still allows traffic",
                list(&self.missing),
                list(&self.allowing)
            ),
        }
    }
}

/// Returns whether an existing policy equals the wanted one, and is not being deleted or garbage-collected.
#[must_use]
pub fn is_as(there: &NetworkPolicy, wanted: &NetworkPolicy) -> bool {
    let meta = &there.metadata;
    there.spec == wanted.spec
        && meta.deletion_timestamp.is_none()
        && meta.owner_references.as_ref().is_none_or(Vec::is_empty)
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
