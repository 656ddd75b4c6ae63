//! What isolating a namespace would stop, read beforehand. Writes nothing: what is tried is tried as a dry-run.

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{ListParams, PostParams};
use kube::core::{Selector, SelectorExt};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use super::controls::pods;
use super::label;
use super::network;
use super::workloads::{self, Shape};
use crate::api::{ISOLATION_LABEL, Isolation, Quarantine, QuarantineSpec};
use crate::calls::{IoError, call};

/// What isolating one namespace would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Impact {
    /// Which.
    pub namespace: String,
    /// The level that it is isolated at already.
    pub already: Option<String>,
    /// What runs, and how much of it.
    pub workloads: Vec<String>,
    /// How many pods live.
    pub pods: usize,
    /// Pods that no workload brings back once they are stopped.
    pub unmanaged_pods: Vec<String>,
    /// Pods on the network of their nodes: no network policy reaches them.
    pub host_network_pods: Vec<String>,
    /// Where it answers from outside: hosts, load balancers.
    pub goes_dark: Vec<String>,
    /// Network policies that would be made to select no pod.
    pub policies: Vec<String>,
    /// Who elsewhere refers to it.
    pub referrers: Vec<String>,
    /// What the API server would not let you do.
    pub refused: Vec<String>,
    /// What could not be read, so that the above is not complete.
    pub unread: Vec<String>,
}

/// What others have that may point into the targets; read once for all.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    services: Vec<Service>,
    policies: Vec<NetworkPolicy>,
    unread: Vec<String>,
}

/// Reads what may point into any namespace.
pub async fn elsewhere(client: &Client) -> Elsewhere {
    let mut all = Elsewhere::default();
    let params = ListParams::default().match_any();
    let (services, policies): (Api<Service>, Api<NetworkPolicy>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let (services, policies) = futures::join!(
        call("list services", services.list(&params)),
        call("list networkpolicies", policies.list(&params))
    );
    match services {
        Ok(list) => all.services = list.items,
        Err(error) => all.unread.push(error.to_string()),
    }
    match policies {
        Ok(list) => all.policies = list.items,
        Err(error) => all.unread.push(error.to_string()),
    }
    all
}

/// What isolating this namespace would do.
pub async fn impact(client: &Client, name: &str, spec: &QuarantineSpec, elsewhere: &Elsewhere) -> Impact {
    let mut impact =
        Impact { namespace: name.to_owned(), unread: elsewhere.unread.clone(), ..Impact::default() };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let (namespace, found, pods, ingresses) = futures::join!(
        call(format!("get namespace {name}"), namespaces.get(name)),
        workloads::inventory(client, name),
        pods::list(client, name),
        workloads::list_kind::<Ingress>(client, name),
    );
    let namespace = read(&mut impact, namespace).unwrap_or_default();
    impact.already = namespace.labels().get(ISOLATION_LABEL).cloned();
    let found = read(&mut impact, found).unwrap_or_default();
    impact.workloads = found.workloads.iter().filter(|w| !w.is_stopped()).map(describe).collect();
    let pods = read(&mut impact, pods).unwrap_or_default();
    impact.pods = pods.iter().filter(|pod| pods::is_live(pod)).count();
    let unmanaged = pods.iter().filter(|pod| pods::is_live(pod) && pods::is_unmanaged(pod, &found.uids));
    impact.unmanaged_pods = unmanaged.map(ResourceExt::name_any).collect();
    impact.host_network_pods =
        pods.iter().filter(|pod| on_host_network(pod)).map(ResourceExt::name_any).collect();
    let hosts = read(&mut impact, ingresses).unwrap_or_default();
    impact.goes_dark = dark(name, &hosts, &elsewhere.services);
    impact.policies = others(name, &elsewhere.policies);
    impact.referrers = referrers(&namespace, elsewhere);
    if impact.already.is_none() {
        impact.refused = refused(client, &namespace, spec).await;
    }
    impact
}

fn read<T>(impact: &mut Impact, answer: Result<T, IoError>) -> Option<T> {
    answer.map_err(|error| impact.unread.push(error.to_string())).ok()
}

/// Does it live on the network of its node?
fn on_host_network(pod: &Pod) -> bool {
    pods::is_live(pod) && pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

fn describe(workload: &workloads::Workload) -> String {
    let name = workload.meta.name.as_deref().unwrap_or_default();
    match &workload.shape {
        Shape::Replicas(n) => format!("{} {name} ×{n}", workload.kind),
        Shape::Nodes(_) => format!("{} {name} on every node it fits", workload.kind),
        Shape::Suspend(_) => format!("{} {name}", workload.kind),
    }
}

fn dark(namespace: &str, ingresses: &[Ingress], services: &[Service]) -> Vec<String> {
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

/// Who says in an object that they talk to it. Who does so without saying is not seen here.
fn referrers(namespace: &Namespace, elsewhere: &Elsewhere) -> Vec<String> {
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

/// Does the selector mean this namespace? One that means all of them says nothing about it.
fn names(selector: &LabelSelector, namespace: &Namespace) -> bool {
    let Ok(selector) = Selector::try_from(selector.clone()) else { return false };
    !selector.selects_all() && selector.matches(namespace.labels())
}

/// What the API server says to the writes, without making them.
async fn refused(client: &Client, namespace: &Namespace, spec: &QuarantineSpec) -> Vec<String> {
    let name = namespace.name_any();
    let params = PostParams { dry_run: true, field_manager: None };
    let quarantines: Api<Quarantine> = Api::all(client.clone());
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), &name);
    let quarantine = Quarantine::new(&name, spec.clone());
    let deny = network::wanted(&name, None).into_iter().next().unwrap_or_default();
    let (made, denied, labelled) = futures::join!(
        call(format!("create Quarantine {name}"), quarantines.create(&params, &quarantine)),
        call(
            format!("create NetworkPolicy {name}/{}", network::DEFAULT_DENY),
            policies.create(&params, &deny)
        ),
        label::label(client, namespace, spec, Isolation::Contained, true),
    );
    let errors = [made.map(drop).err(), denied.map(drop).err(), labelled.map(drop).err()];
    // What is there already is no refusal.
    errors.into_iter().flatten().filter(|error| !error.is_conflict()).map(|error| error.to_string()).collect()
}

#[cfg(test)]
#[path = "impact_tests.rs"]
mod tests;
