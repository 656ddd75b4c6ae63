//! Decides whether a policy of another API allows traffic into or out of a namespace.
//!
//! A policy is harmless only if that can be proved: an unknown field, rule or kind counts as an allow, and an undecidable selector counts
//! as selecting.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};
use serde_json::{Map, Value};

use super::expression::{self, Label};

/// Prefix of the message about a policy that cannot be decided.
pub(super) const UNKNOWN: &str = "what it allows is not known";
/// Label that every namespace has.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A namespace with the labels that policies select it by.
#[derive(Clone, Debug)]
pub struct NamespaceLabels {
    name: String,
    labels: BTreeMap<String, String>,
}

impl NamespaceLabels {
    /// Returns the namespace of this name with these labels.
    #[must_use]
    pub fn new(name: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut labels = labels.clone();
        labels.insert(NAMESPACE_NAME.to_owned(), name.to_owned());
        Self { name: name.to_owned(), labels }
    }
}

/// A policy as its API serves it.
#[derive(Clone, Debug)]
pub struct ObservedPolicy {
    /// API group.
    pub group: String,
    /// Kind, such as `CiliumNetworkPolicy`.
    pub kind: String,
    /// Namespace of the policy. `None`: it is cluster-scoped.
    pub namespace: Option<String>,
    /// The whole object.
    pub object: Value,
}

/// Returns what the policy allows in this namespace, or why that is unknown. `None`: it does not select the namespace, or allows nothing.
#[must_use]
pub fn allowance(policy: &ObservedPolicy, namespace: &NamespaceLabels) -> Option<String> {
    if policy.namespace.as_ref().is_some_and(|own| *own != namespace.name) {
        return None;
    }
    let judge = match (policy.group.as_str(), policy.kind.as_str()) {
        ("cilium.io", "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy") => cilium,
        // The plugin does not enforce staged policies.
        (
            "crd.projectcalico.org" | "projectcalico.org",
            "StagedNetworkPolicy" | "StagedGlobalNetworkPolicy" | "StagedKubernetesNetworkPolicy",
        ) => return None,
        ("crd.projectcalico.org" | "projectcalico.org", "NetworkPolicy" | "GlobalNetworkPolicy") => calico,
        // It only restricts secondary networks, which allow everything without it.
        ("k8s.cni.cncf.io", "MultiNetworkPolicy") => return None,
        // NetworkPolicies are evaluated first, and ours decide.
        ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy") => return None,
        ("policy.networking.k8s.io", "AdminNetworkPolicy" | "ClusterNetworkPolicy") => admin,
        ("crd.antrea.io", "NetworkPolicy" | "ClusterNetworkPolicy") => antrea,
        _ => return Some(format!("{UNKNOWN} here")),
    };
    match judge(policy, namespace) {
        Ok(sides) => sides.describe(),
        Err(Unreadable(why)) => Some(format!("{UNKNOWN}: {why}")),
    }
}

/// Why a policy cannot be decided.
struct Unreadable(String);

/// Directions in which traffic is allowed.
#[derive(Clone, Copy, Default)]
struct Sides {
    ingress: bool,
    egress: bool,
}

impl Sides {
    fn describe(self) -> Option<String> {
        let text = match (self.ingress, self.egress) {
            (true, true) => "allows ingress and egress",
            (true, false) => "allows ingress",
            (false, true) => "allows egress",
            (false, false) => return None,
        };
        Some(text.to_owned())
    }

    fn add(&mut self, other: Self) {
        self.ingress |= other.ingress;
        self.egress |= other.egress;
    }
}

type Judged = Result<Sides, Unreadable>;

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Unreadable> {
    value.as_object().ok_or_else(|| Unreadable(format!("{what} is no object")))
}

fn spec(policy: &ObservedPolicy) -> Result<&Map<String, Value>, Unreadable> {
    object(policy.object.get("spec").unwrap_or(&Value::Null), "spec")
}

/// Returns the rules of one direction.
fn rules<'a>(spec: &'a Map<String, Value>, side: &str) -> Result<&'a [Value], Unreadable> {
    match spec.get(side) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(rules)) => Ok(rules),
        Some(_) => Err(Unreadable(format!("{side} is no list"))),
    }
}

/// Returns the directions with a rule for which `allows` holds.
fn sides(spec: &Map<String, Value>, allows: impl Fn(&Value) -> bool) -> Judged {
    Ok(Sides {
        ingress: rules(spec, "ingress")?.iter().any(&allows),
        egress: rules(spec, "egress")?.iter().any(&allows),
    })
}

/// Returns a predicate for rules with none of these actions.
fn acts_other_than(harmless: &'static [&'static str]) -> impl Fn(&Value) -> bool {
    move |rule| {
        let action = rule.get("action").and_then(Value::as_str);
        !action.is_some_and(|action| harmless.contains(&action))
    }
}

/// Returns whether a standard label selector selects the namespace. `None`: undecidable.
fn selects(selector: Option<&Value>, namespace: &NamespaceLabels) -> Option<bool> {
    let selector: LabelSelector = serde_json::from_value(selector?.clone()).ok()?;
    Some(Selector::try_from(selector).ok()?.matches(&namespace.labels))
}

// `policy.networking.k8s.io`

fn admin(policy: &ObservedPolicy, namespace: &NamespaceLabels) -> Judged {
    let spec = spec(policy)?;
    // The baseline tier is evaluated after NetworkPolicies.
    if policy.kind == "ClusterNetworkPolicy" && spec.get("tier").and_then(Value::as_str) == Some("Baseline") {
        return Ok(Sides::default());
    }
    let subject = spec.get("subject").and_then(Value::as_object);
    let selectors = subject.map(|subject| {
        let pods = subject.get("pods");
        let pods = pods.map(|pods| selects(pods.get("namespaceSelector"), namespace));
        let namespaces = subject.get("namespaces").map(|selector| selects(Some(selector), namespace));
        (pods, namespaces, subject.len())
    });
    // Exactly one of the two is set, and excludes the namespace.
    if let Some((Some(Some(false)), None, 1) | (None, Some(Some(false)), 1)) = selectors {
        return Ok(Sides::default());
    }
    // `Pass` leaves the decision to NetworkPolicies, which deny.
    sides(spec, acts_other_than(&["Deny", "Pass"]))
}

// Cilium

/// Fields of a Cilium rule that this module knows.
const CILIUM_FIELDS: [&str; 10] = [
    "endpointSelector",
    "nodeSelector",
    "ingress",
    "ingressDeny",
    "egress",
    "egressDeny",
    "enableDefaultDeny",
    "labels",
    "description",
    "log",
];
/// Label with the namespace of an endpoint.
const CILIUM_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Prefix of the labels of an endpoint's namespace.
const CILIUM_NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";

fn cilium(policy: &ObservedPolicy, namespace: &NamespaceLabels) -> Judged {
    let mut all = Vec::new();
    if let Some(spec) = policy.object.get("spec").filter(|spec| !spec.is_null()) {
        all.push(object(spec, "spec")?);
    }
    match policy.object.get("specs") {
        None | Some(Value::Null) => {}
        Some(Value::Array(specs)) => {
            for spec in specs {
                all.push(object(spec, "one of specs")?);
            }
        }
        Some(_) => return Err(Unreadable("specs is no list".to_owned())),
    }
    if all.is_empty() {
        return Err(Unreadable("it has neither spec nor specs".to_owned()));
    }
    let mut found = Sides::default();
    for spec in all {
        if policy.namespace.is_none() && cilium_selects(spec, namespace) == Some(false) {
            continue;
        }
        if let Some(field) = spec.keys().find(|field| !CILIUM_FIELDS.contains(&field.as_str())) {
            return Err(Unreadable(format!("its field {field} is not known here")));
        }
        // An empty rule only switches the default to deny.
        let is_empty = |rule: &Value| rule.is_null() || rule.as_object().is_some_and(Map::is_empty);
        found.add(sides(spec, |rule| !is_empty(rule))?);
    }
    Ok(found)
}

/// Returns whether a rule of a cluster-wide policy selects endpoints of the namespace. `None`: it may.
fn cilium_selects(spec: &Map<String, Value>, namespace: &NamespaceLabels) -> Option<bool> {
    let selector = match (spec.get("endpointSelector"), spec.get("nodeSelector")) {
        (None, Some(nodes)) if nodes.is_object() => return Some(false),
        (Some(selector), None) => selector,
        _ => return None,
    };
    let selector: LabelSelector = serde_json::from_value(selector.clone()).ok()?;
    let excluded = selector.match_labels.iter().flatten().any(|(key, value)| {
        let is = CiliumLabel::of(key, namespace);
        is.is_some_and(|label| label.value.is_none_or(|own| own != value.as_str()))
    });
    let excluded =
        excluded || selector.match_expressions.iter().flatten().any(|term| cilium_excludes(term, namespace));
    excluded.then_some(false)
}

/// What is known of a label of all endpoints of a namespace.
struct CiliumLabel<'a> {
    value: Option<&'a str>,
    /// Cilium can be configured to drop labels of namespaces, so that an absent one proves nothing.
    always: bool,
}

impl<'a> CiliumLabel<'a> {
    fn of(key: &str, namespace: &'a NamespaceLabels) -> Option<Self> {
        let key = key.strip_prefix("k8s:").or_else(|| key.strip_prefix("any:")).unwrap_or(key);
        if key == CILIUM_NAMESPACE {
            return Some(Self { value: Some(&namespace.name), always: true });
        }
        let label = key.strip_prefix(CILIUM_NAMESPACE_LABELS)?;
        Some(Self { value: namespace.labels.get(label).map(String::as_str), always: false })
    }
}

fn cilium_excludes(term: &LabelSelectorRequirement, namespace: &NamespaceLabels) -> bool {
    let Some(label) = CiliumLabel::of(&term.key, namespace) else { return false };
    let values = term.values.as_deref().unwrap_or_default();
    let among = label.value.is_some_and(|own| values.iter().any(|value| value == own));
    match term.operator.as_str() {
        "In" => !among,
        "NotIn" => label.always && among,
        "Exists" => label.value.is_none(),
        "DoesNotExist" => label.always,
        _ => false,
    }
}

// Calico

fn calico(policy: &ObservedPolicy, namespace: &NamespaceLabels) -> Judged {
    let spec = spec(policy)?;
    if policy.namespace.is_none() && calico_excludes(spec, namespace) {
        return Ok(Sides::default());
    }
    sides(spec, acts_other_than(&["Deny", "Log"]))
}

fn calico_excludes(spec: &Map<String, Value>, namespace: &NamespaceLabels) -> bool {
    let text = |field: &str| spec.get(field).and_then(Value::as_str);
    let of_namespace = text("namespaceSelector").and_then(|text| {
        expression::selects(text, &|key| match key {
            "projectcalico.org/name" => Label::Value(&namespace.name),
            _ => expression::of(&namespace.labels, key),
        })
    });
    // Of a pod's labels, only its namespace is known.
    let of_pod = text("selector").and_then(|text| {
        expression::selects(text, &|key| match key {
            "projectcalico.org/namespace" => Label::Value(&namespace.name),
            _ => Label::Unknown,
        })
    });
    of_namespace == Some(false) || of_pod == Some(false)
}

// Antrea

fn antrea(policy: &ObservedPolicy, namespace: &NamespaceLabels) -> Judged {
    let spec = spec(policy)?;
    // The baseline tier is evaluated after NetworkPolicies.
    if spec.get("tier").and_then(Value::as_str).is_some_and(|tier| tier.eq_ignore_ascii_case("baseline")) {
        return Ok(Sides::default());
    }
    let cluster_wide = policy.namespace.is_none();
    if cluster_wide && antrea_excludes(spec.get("appliedTo"), namespace) {
        return Ok(Sides::default());
    }
    let acts = acts_other_than(&["Drop", "Reject"]);
    sides(spec, |rule| acts(rule) && !(cluster_wide && antrea_excludes(rule.get("appliedTo"), namespace)))
}

/// Returns whether all entries exclude the namespace.
fn antrea_excludes(applied_to: Option<&Value>, namespace: &NamespaceLabels) -> bool {
    let Some(entries) = applied_to.and_then(Value::as_array).filter(|entries| !entries.is_empty()) else {
        return false;
    };
    entries.iter().all(|entry| {
        let Some(entry) = entry.as_object() else { return false };
        let account = entry.get("serviceAccount").and_then(|account| account.get("namespace")?.as_str());
        let only_nodes = entry.len() == 1 && entry.get("nodeSelector").is_some_and(Value::is_object);
        only_nodes
            || account.is_some_and(|of| of != namespace.name)
            || selects(entry.get("namespaceSelector"), namespace) == Some(false)
    })
}
