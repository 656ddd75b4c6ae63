//! The network plugin, as far as its name shows.

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client, ResourceExt};

use super::read::{first_few, list};
use super::{Check, Fact, Outcome, delivery};

const PLUGIN: Check =
    Check::warning("network-plugin", "a network plugin that can enforce NetworkPolicies is there");

/// The checks, in display order.
pub const CHECKS: [Check; 1] = [PLUGIN];

/// Whether a plugin enforces NetworkPolicies, as far as its name shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enforces {
    Yes,
    No,
    /// Only if configured to.
    IfToldTo(&'static str),
}

/// A network plugin: its name, the names of its DaemonSets, its API group, and whether it enforces policies.
struct Plugin(&'static str, &'static [&'static str], Option<&'static str>, Enforces);

const PLUGINS: [Plugin; 10] = [
    Plugin("Cilium", &["cilium", "cilium-agent"], Some("cilium.io"), Enforces::Yes),
    Plugin("Calico", &["calico-node", "canal"], Some("crd.projectcalico.org"), Enforces::Yes),
    Plugin("Antrea", &["antrea-agent"], Some("crd.antrea.io"), Enforces::Yes),
    Plugin("OVN-Kubernetes", &["ovnkube-node"], Some("k8s.ovn.org"), Enforces::Yes),
    Plugin("kube-router", &["kube-router"], None, Enforces::IfToldTo("--run-firewall")),
    Plugin("Weave Net", &["weave-net"], None, Enforces::Yes),
    Plugin("Azure network policy manager", &["azure-npm"], None, Enforces::Yes),
    Plugin("Amazon VPC CNI", &["aws-node"], None, Enforces::IfToldTo("enableNetworkPolicy")),
    Plugin("kindnet", &["kindnet"], None, Enforces::IfToldTo("a version of 2024 or later")),
    Plugin("Flannel", &["kube-flannel-ds", "kube-flannel"], None, Enforces::No),
];

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `namespace/name` of all DaemonSets.
    pub daemonsets: Fact<Vec<String>>,
    /// API groups.
    pub groups: Fact<Vec<String>>,
}

pub(super) async fn gather(client: &Client, groups: &delivery::Facts) -> Facts {
    let daemonsets: Api<DaemonSet> = Api::all(client.clone());
    let daemonsets = list(&daemonsets, "DaemonSets").await.map_err(String::from);
    let name = |set: &DaemonSet| format!("{}/{}", set.namespace().unwrap_or_default(), set.name_any());
    Facts {
        daemonsets: daemonsets.map(|sets| sets.iter().map(name).collect()),
        groups: groups.groups.clone(),
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    vec![plugin(facts)]
}

fn plugin(facts: &Facts) -> Outcome {
    const PROOF: &str = "only a try proves that it does";
    let daemonsets = facts.daemonsets.as_deref().unwrap_or_default();
    let groups = facts.groups.as_deref().unwrap_or_default();
    let runs = |names: &[&str]| {
        daemonsets.iter().find(|set| names.iter().any(|name| set.rsplit('/').next() == Some(name)))
    };
    let found = PLUGINS.iter().filter_map(|Plugin(name, sets, group, enforces)| {
        let by = match (runs(sets), group.filter(|group| groups.iter().any(|g| g == group))) {
            (Some(set), _) => format!("{name} (DaemonSet {set})"),
            (None, Some(group)) => format!("{name} (API group {group})"),
            (None, None) => return None,
        };
        Some((by, *enforces))
    });
    let found: Vec<(String, Enforces)> = found.collect();
    let names = |wanted: fn(&Enforces) -> bool| {
        let names: Vec<&str> =
            found.iter().filter(|(_, e)| wanted(e)).map(|(name, _)| name.as_str()).collect();
        (!names.is_empty()).then(|| first_few(&names, 4))
    };
    if let Some(names) = names(|e| *e == Enforces::Yes) {
        return PLUGIN.passes(format!("{names}; {PROOF}"));
    }
    let told = found.iter().find_map(|(name, enforces)| match enforces {
        Enforces::IfToldTo(how) => Some((name, how)),
        Enforces::Yes | Enforces::No => None,
    });
    if let Some((name, how)) = told {
        return PLUGIN.warns(format!(
            "{name} enforces NetworkPolicies only if configured to ({how}). The network administrator confirms it; {PROOF}: --probe-image of the operator"
        ));
    }
    if let Some(names) = names(|e| *e == Enforces::No) {
        return PLUGIN.fails(format!(
            "{names} does not enforce NetworkPolicies, and no plugin that does is recognised: an isolated namespace goes on talking to \
             everybody. The network administrator installs one that does"
        ));
    }
    match (&facts.daemonsets, &facts.groups) {
        (Err(why), _) | (_, Err(why)) => PLUGIN.unknown(format!("which network plugin runs here: {why}")),
        _ => PLUGIN.fails(format!(
            "no network plugin is recognised by its DaemonSet or API group: whether NetworkPolicies cut an isolated namespace off is not \
             known. The network administrator says; {PROOF}: --probe-image of the operator"
        )),
    }
}
