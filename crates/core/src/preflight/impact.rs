//! Impact of isolating a namespace.

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use serde::Serialize;

use crate::api::ISOLATION_LABEL;
use crate::isolation::controls::workloads::{Inventory, Shape, Workload};
use crate::isolation::controls::{network, pods};

/// Impact of isolating one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Impact {
    /// The namespace.
    pub namespace: String,
    /// Level at which it is isolated already.
    pub already: Option<String>,
    /// Running workloads, with their replicas.
    pub workloads: Vec<String>,
    /// Number of pods that are alive.
    pub pods: usize,
    /// Pods that no workload recreates once they are stopped.
    pub unmanaged_pods: Vec<String>,
    /// Pods on the host network, which no network policy isolates.
    pub host_network_pods: Vec<String>,
    /// Endpoints that stop answering from outside: hosts and load balancers.
    pub loses_connectivity: Vec<String>,
    /// Network policies that would be neutralised.
    pub policies: Vec<String>,
    /// Objects in other namespaces that refer to it.
    pub referrers: Vec<String>,
    /// What the API server would deny the caller.
    pub refused: Vec<String>,
    /// What could not be read, so that the impact is incomplete.
    pub unread: Vec<String>,
}

/// Objects of other namespaces that may refer to the targets, read once for all targets.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Services of all namespaces.
    pub services: Vec<Service>,
    /// Network policies of all namespaces.
    pub policies: Vec<NetworkPolicy>,
    /// What could not be read.
    pub unread: Vec<String>,
}

/// Objects of one namespace, or why they could not be read.
#[derive(Clone, Debug)]
pub struct NamespaceRead {
    /// The namespace itself.
    pub namespace: Result<Namespace, String>,
    /// Its workloads.
    pub inventory: Result<Inventory, String>,
    /// Its pods.
    pub pods: Result<Vec<Pod>, String>,
    /// Its Ingresses.
    pub ingresses: Result<Vec<Ingress>, String>,
}

/// Returns the impact of isolating a namespace, except what the API server would deny.
#[must_use]
pub fn judge(name: &str, read: NamespaceRead, elsewhere: &References) -> Impact {
    let mut unread = elsewhere.unread.clone();
    let namespace = read.namespace.unwrap_or_else(|why| none(&mut unread, why));
    let inventory = read.inventory.unwrap_or_else(|why| none(&mut unread, why));
    let pods = read.pods.unwrap_or_else(|why| none(&mut unread, why));
    let ingresses = read.ingresses.unwrap_or_else(|why| none(&mut unread, why));
    let live = || pods.iter().filter(|pod| pods::is_live(pod));
    let unmanaged = live().filter(|pod| pods::is_unmanaged(pod, &inventory.uids));
    Impact {
        namespace: name.to_owned(),
        already: namespace.labels().get(ISOLATION_LABEL).cloned(),
        workloads: inventory.workloads.iter().filter(|w| !w.is_stopped()).map(describe).collect(),
        pods: live().count(),
        unmanaged_pods: unmanaged.map(ResourceExt::name_any).collect(),
        host_network_pods: pods
            .iter()
            .filter(|pod| on_host_network(pod))
            .map(ResourceExt::name_any)
            .collect(),
        loses_connectivity: external_endpoints(name, &ingresses, &elsewhere.services),
        policies: others(name, &elsewhere.policies),
        referrers: referrers(&namespace, elsewhere),
        refused: Vec::new(),
        unread,
    }
}

/// Records why a read failed. Its result counts as empty.
fn none<T: Default>(unread: &mut Vec<String>, why: String) -> T {
    unread.push(why);
    T::default()
}

/// Returns whether the pod is alive on the host network.
fn on_host_network(pod: &Pod) -> bool {
    pods::is_live(pod) && pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

fn describe(workload: &Workload) -> String {
    let name = workload.meta.name.as_deref().unwrap_or_default();
    match &workload.shape {
        Shape::Replicas(n) => format!("{} {name} ×{n}", workload.kind),
        Shape::Nodes(_) => format!("{} {name} on every node it fits", workload.kind),
        Shape::Suspend(_) => format!("{} {name}", workload.kind),
    }
}

fn external_endpoints(namespace: &str, ingresses: &[Ingress], services: &[Service]) -> Vec<String> {
    let rules = ingresses.iter().flat_map(|i| i.spec.iter()).flat_map(|s| s.rules.iter().flatten());
    let hosts = rules.filter_map(|rule| rule.host.clone());
    let balancers = services.iter().filter(|s| s.namespace().as_deref() == Some(namespace)).filter_map(|s| {
        let kind = s.spec.as_ref()?.type_.as_deref()?;
        matches!(kind, "LoadBalancer" | "NodePort").then(|| format!("{kind} {}", s.name_any()))
    });
    let mut all: Vec<_> = hosts.chain(balancers).collect();
    all.sort();
    all.dedup();
    all
}

fn others(namespace: &str, policies: &[NetworkPolicy]) -> Vec<String> {
    let here = policies.iter().filter(|p| p.namespace().as_deref() == Some(namespace));
    let names = here.map(ResourceExt::name_any);
    names.filter(|name| ![network::DEFAULT_DENY, network::CLEAN_ROOM].contains(&name.as_str())).collect()
}

/// Returns the objects that refer to the namespace explicitly. Clients that use it without such an object are not found.
fn referrers(namespace: &Namespace, elsewhere: &References) -> Vec<String> {
    let name = namespace.name_any();
    let suffix = format!(".{name}.svc");
    let mut all: Vec<String> = Vec::new();
    for service in elsewhere.services.iter().filter(|s| s.namespace().as_deref() != Some(name.as_str())) {
        let external = service.spec.as_ref().and_then(|s| s.external_name.as_deref()).unwrap_or_default();
        if external.ends_with(&suffix) || external.contains(&format!("{suffix}.")) {
            all.push(format!("Service {}/{}", service.namespace().unwrap_or_default(), service.name_any()));
        }
    }
    for policy in elsewhere.policies.iter().filter(|p| p.namespace().as_deref() != Some(name.as_str())) {
        let Some(spec) = &policy.spec else { continue };
        let from = spec.ingress.iter().flatten().flat_map(|rule| rule.from.iter().flatten());
        let to = spec.egress.iter().flatten().flat_map(|rule| rule.to.iter().flatten());
        if from.chain(to).filter_map(|peer| peer.namespace_selector.as_ref()).any(|s| names(s, namespace)) {
            all.push(format!(
                "NetworkPolicy {}/{}",
                policy.namespace().unwrap_or_default(),
                policy.name_any()
            ));
        }
    }
    all.sort();
    all
}

/// Returns whether the selector selects this namespace, and not all namespaces.
fn names(selector: &LabelSelector, namespace: &Namespace) -> bool {
    let Ok(selector) = Selector::try_from(selector.clone()) else { return false };
    !selector.selects_all() && selector.matches(namespace.labels())
}

#[cfg(test)]
#[path = "impact_tests.rs"]
mod tests;
