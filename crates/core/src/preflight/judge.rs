//! Checks what isolating the target namespaces would break. Ordered, a few lines each.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::PodSpec;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde_json::Value;

use super::addresses::{host, own_addresses, serves, service_namespace};
use super::{ClusterSnapshot, Finding, Kind, Severity, webhooks};
use crate::api::protected_namespace;
use crate::text::count;

/// Returns the findings against isolating the targets. Empty: no blockers found.
#[must_use]
pub fn judge(targets: &[String], snapshot: &ClusterSnapshot) -> Vec<Finding> {
    let mut judge = Judge { targets: targets.iter().map(String::as_str).collect(), found: BTreeSet::new() };
    judge.protected();
    judge.workloads(snapshot);
    judge.services(snapshot);
    judge.evidence(snapshot);
    judge.webhooks(snapshot);
    judge.intercepting(snapshot);
    judge.apiservices(snapshot);
    judge.login(snapshot);
    judge.plans(snapshot);
    judge.leases(snapshot);
    judge.unread(snapshot);
    // Risks of a protected namespace are omitted: they would hide the refusal.
    let never: BTreeSet<_> = judge.found.iter().filter(|f| f.kind.severity() == Severity::Refusal).collect();
    let never: BTreeSet<_> = never.into_iter().filter_map(|f| f.namespace.clone()).collect();
    let is_noise = |f: &Finding| {
        f.kind.severity() != Severity::Refusal && f.namespace.as_ref().is_some_and(|n| never.contains(n))
    };
    let mut found: Vec<_> = judge.found.into_iter().filter(|f| !is_noise(f)).collect();
    found.sort_by(|a, b| {
        (a.kind.severity(), a.kind, &a.namespace, &a.message).cmp(&(
            b.kind.severity(),
            b.kind,
            &b.namespace,
            &b.message,
        ))
    });
    found
}

struct Judge<'a> {
    targets: BTreeSet<&'a str>,
    found: BTreeSet<Finding>,
}

/// A workload, with the fields that the checks need.
struct Workload<'a> {
    kind: &'static str,
    meta: &'a ObjectMeta,
    pod: Option<&'a PodSpec>,
}

impl Workload<'_> {
    fn name(&self) -> String {
        format!("{} {}", self.kind, self.meta.name.as_deref().unwrap_or_default())
    }

    fn mounts(&self, folders: &[&str]) -> bool {
        let volumes = self.pod.and_then(|pod| pod.volumes.as_ref()).into_iter().flatten();
        volumes
            .filter_map(|v| v.host_path.as_ref())
            .any(|host| folders.iter().any(|folder| host.path.trim_end_matches('/').starts_with(folder)))
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.pod.into_iter().flat_map(|pod| &pod.containers).flat_map(|container| {
            let values = container.env.iter().flatten().filter_map(|variable| variable.value.as_deref());
            let words = container.args.iter().chain(&container.command).flatten().map(String::as_str);
            words.chain(values)
        })
    }

    fn images(&self) -> impl Iterator<Item = &str> {
        self.pod.into_iter().flat_map(|pod| &pod.containers).filter_map(|c| c.image.as_deref())
    }
}

fn configurations(
    snapshot: &ClusterSnapshot,
) -> (&[ValidatingWebhookConfiguration], &[MutatingWebhookConfiguration]) {
    (snapshot.validating.as_deref().unwrap_or_default(), snapshot.mutating.as_deref().unwrap_or_default())
}

/// Formats names with their number: `37 namespaces (a, b, c and 34 more)`.
fn counted(namespaces: &[&str]) -> String {
    const NAMED: usize = 3;
    let named = namespaces.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = match namespaces.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} ({named}{more})", count(namespaces.len(), "namespace"))
}

/// Sidecars that CSI drivers deploy.
const CSI_SIDECARS: [&str; 5] =
    ["node-driver-registrar", "csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter"];
/// Names of GitOps controllers.
const GITOPS: [&str; 6] = [
    "source-controller",
    "kustomize-controller",
    "helm-controller",
    "argocd-application-controller",
    "argocd-repo-server",
    "argocd-server",
];

impl Judge<'_> {
    fn tell(&mut self, namespace: Option<&str>, kind: Kind, message: String) {
        self.found.insert(Finding { namespace: namespace.map(str::to_owned), kind, message });
    }

    fn is_target(&self, namespace: Option<&str>) -> bool {
        namespace.is_some_and(|namespace| self.targets.contains(namespace))
    }

    fn protected(&mut self) {
        for target in self.targets.clone() {
            if let Some(why) = protected_namespace(target) {
                self.tell(Some(target), Kind::Protected, format!("{why}: it is never isolated"));
            }
        }
    }

    fn workloads(&mut self, snapshot: &ClusterSnapshot) {
        let drivers: Vec<String> = snapshot.csi_drivers.iter().flatten().map(ResourceExt::name_any).collect();
        let daemonsets = snapshot.daemonsets.iter().flatten().map(|d| Workload {
            kind: "DaemonSet",
            meta: &d.metadata,
            pod: d.spec.as_ref().and_then(|s| s.template.spec.as_ref()),
        });
        let deployments = snapshot.deployments.iter().flatten().map(|d| Workload {
            kind: "Deployment",
            meta: &d.metadata,
            pod: d.spec.as_ref().and_then(|s| s.template.spec.as_ref()),
        });
        let statefulsets = snapshot.statefulsets.iter().flatten().map(|s| Workload {
            kind: "StatefulSet",
            meta: &s.metadata,
            pod: s.spec.as_ref().and_then(|s| s.template.spec.as_ref()),
        });
        for workload in daemonsets.chain(deployments).chain(statefulsets) {
            if self.is_target(workload.meta.namespace.as_deref()) {
                self.workload(&workload, &drivers);
            }
        }
    }

    fn workload(&mut self, workload: &Workload<'_>, drivers: &[String]) {
        let (name, namespace) = (workload.name(), workload.meta.namespace.as_deref());
        if workload.kind == "DaemonSet" && workload.mounts(&["/etc/cni", "/opt/cni"]) {
            let message =
                format!("{name} is the cluster's network plugin: without it no pod gets a network, anywhere");
            self.tell(namespace, Kind::Cni, message);
        }
        let sidecar = workload.pod.into_iter().flat_map(|pod| &pod.containers).any(|container| {
            let image = container.image.as_deref().unwrap_or_default();
            CSI_SIDECARS.iter().any(|helper| container.name.contains(helper) || image.contains(helper))
        });
        let names_a_driver = || {
            workload.words().any(|word| {
                drivers.iter().any(|driver| word.rsplit(['=', '/']).next() == Some(driver.as_str()))
            })
        };
        if sidecar || workload.mounts(&["/var/lib/kubelet/plugins"]) || names_a_driver() {
            let message = format!("{name} is a storage driver: without it no volume is mounted, anywhere");
            self.tell(namespace, Kind::Csi, message);
        }
        let part = workload.meta.labels.as_ref().and_then(|l| l.get("app.kubernetes.io/part-of"));
        let own = workload.meta.name.as_deref().unwrap_or_default();
        let images = || workload.images().any(|i| i.contains("fluxcd/") || i.contains("argoproj/argocd"));
        if part.is_some_and(|part| ["flux", "argocd"].contains(&part.as_str()))
            || GITOPS.contains(&own)
            || images()
        {
            let message = format!(
                "{name} delivers from git: nothing it carries is delivered any more, the recovery included if it is among that"
            );
            self.tell(namespace, Kind::Gitops, message);
        }
    }

    fn services(&mut self, snapshot: &ClusterSnapshot) {
        for service in snapshot
            .services
            .iter()
            .flatten()
            .filter(|s| self.targets.contains(s.namespace().unwrap_or_default().as_str()))
            .collect::<Vec<_>>()
        {
            let name = service.name_any();
            if name == "kube-dns" || service.labels().get("k8s-app").is_some_and(|app| app == "kube-dns") {
                let message =
                    format!("Service {name} is the cluster's DNS: without it no name is resolved, anywhere");
                self.tell(service.namespace().as_deref(), Kind::Dns, message);
            }
        }
    }

    fn evidence(&mut self, snapshot: &ClusterSnapshot) {
        for address in snapshot.evidence.iter().flatten() {
            let at = self.serving(address, snapshot);
            for namespace in at {
                let message =
                    format!("the evidence store ({address}) is served from here: nothing more could be kept");
                self.tell(Some(&namespace), Kind::Evidence, message);
            }
        }
    }

    fn webhooks(&mut self, snapshot: &ClusterSnapshot) {
        let (validating, mutating) = configurations(snapshot);
        for hook in webhooks::all(validating, mutating) {
            let client = serde_json::to_value(hook.client).unwrap_or_default();
            let Some(namespace) = self.served_by(&client) else { continue };
            let then = if hook.fails {
                "failurePolicy Fail: every write that it intercepts is refused, in the whole cluster"
            } else {
                "failurePolicy Ignore: what it checks goes unchecked"
            };
            let message = format!(
                "{} ({}) is served from here, {then}. It intercepts {}",
                hook.configuration,
                hook.name,
                hook.intercepted()
            );
            self.tell(Some(&namespace), Kind::Webhook, message);
        }
        for crd in snapshot.crds.iter().flatten() {
            let webhook = crd.spec.conversion.as_ref().and_then(|c| c.webhook.as_ref());
            let client = webhook.and_then(|w| serde_json::to_value(w.client_config.as_ref()?).ok());
            if let Some(namespace) = client.and_then(|client| self.served_by(&client)) {
                let message = format!(
                    "{} is converted by a webhook that is served from here: it cannot be read any more in some of its versions",
                    crd.name_any()
                );
                self.tell(Some(&namespace), Kind::Webhook, message);
            }
        }
    }

    /// Reports webhooks that intercept writes of the isolation, one finding per webhook for any number of namespaces.
    fn intercepting(&mut self, snapshot: &ClusterSnapshot) {
        let (validating, mutating) = configurations(snapshot);
        let known: BTreeMap<_, _> =
            snapshot.namespaces.iter().flatten().map(|n| (n.name_any(), n.labels())).collect();
        let mut matching: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for target in self.targets.clone() {
            let none = BTreeMap::new();
            let labels = known.get(target).copied().unwrap_or(&none);
            for webhook in webhooks::webhooks_matching(validating, mutating, target, labels) {
                matching.entry(webhook).or_default().push(target);
            }
        }
        for (webhook, targets) in matching {
            let (namespace, at) = match targets.as_slice() {
                [one] => (Some(*one), "here".to_owned()),
                many => (None, format!("in {}", counted(many))),
            };
            let message = format!(
                "{webhook} {at}, failurePolicy Fail. Isolation goes on without it: a control whose own write it refuses stays \
                 NotEnforced until the webhook answers or is removed"
            );
            self.tell(namespace, Kind::Intercepting, message);
        }
    }

    /// Returns the target that serves a webhook's client configuration.
    fn served_by(&self, client: &Value) -> Option<String> {
        let named = client.pointer("/service/namespace").and_then(Value::as_str).map(str::to_owned);
        let namespace = named.or_else(|| service_namespace(&host(client.get("url")?.as_str()?)?))?;
        self.targets.contains(namespace.as_str()).then_some(namespace)
    }

    fn apiservices(&mut self, snapshot: &ClusterSnapshot) {
        for part in snapshot.apiservices.iter().flatten() {
            let namespace = part.spec.as_ref().and_then(|s| s.service.as_ref()?.namespace.clone());
            if self.is_target(namespace.as_deref()) {
                let message = format!(
                    "APIService {} is served from here: that part of the API goes away, and with it the deletion of any namespace",
                    part.name_any()
                );
                self.tell(namespace.as_deref(), Kind::Apiservice, message);
            }
        }
    }

    fn login(&mut self, snapshot: &ClusterSnapshot) {
        let login = &snapshot.login;
        let ways = if login.others.is_empty() {
            "the kubeconfig holds no other way in".to_owned()
        } else {
            format!("another way in, not tried here: context {}", login.others.join(", "))
        };
        for (what, address) in &login.through {
            for namespace in self.serving(address, snapshot) {
                let message = format!(
                    "{what} ({address}) is served from here: you and others may not get in again; {ways}"
                );
                self.tell(Some(&namespace), Kind::Login, message);
            }
        }
        match &login.username {
            Ok(name) => {
                let account =
                    name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                if let Some((namespace, _)) =
                    account.filter(|(namespace, _)| self.targets.contains(namespace))
                {
                    let message = format!(
                        "you act as {name}, an account of this namespace: it gets no new tokens; {ways}"
                    );
                    self.tell(Some(namespace), Kind::Login, message);
                }
            }
            Err(why) => self.tell(
                None,
                Kind::Unknown,
                format!("whether your own login goes through one of them: {why}"),
            ),
        }
        if let Some(why) = &login.unclear {
            self.tell(
                None,
                Kind::Unknown,
                format!("whether your own login goes through one of them: {why}; {ways}"),
            );
        }
    }

    /// Returns the targets without which an address would not answer.
    fn serving(&self, address: &str, snapshot: &ClusterSnapshot) -> BTreeSet<String> {
        let mut at = BTreeSet::new();
        let Some(host) = host(address) else { return at };
        at.extend(service_namespace(&host));
        let mut addresses: BTreeSet<String> = [host.clone()].into();
        for ingress in snapshot.ingresses.iter().flatten() {
            let rules = ingress.spec.iter().flat_map(|s| s.rules.iter().flatten());
            if rules.filter_map(|rule| rule.host.as_deref()).any(|pattern| serves(pattern, &host)) {
                at.extend(ingress.namespace());
                let balanced =
                    ingress.status.iter().filter_map(|s| s.load_balancer.as_ref()?.ingress.as_ref());
                addresses
                    .extend(balanced.flatten().flat_map(|i| [i.ip.clone(), i.hostname.clone()]).flatten());
            }
        }
        for route in snapshot.routes.iter().flatten() {
            let names = route.data.pointer("/spec/hostnames").and_then(Value::as_array).into_iter().flatten();
            if names.filter_map(Value::as_str).any(|pattern| serves(pattern, &host)) {
                at.extend(route.namespace());
                let rules = route.data.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten();
                let backends = rules.filter_map(|r| r.get("backendRefs")?.as_array()).flatten();
                at.extend(backends.filter_map(|b| b.get("namespace")?.as_str()).map(str::to_owned));
            }
        }
        // The component in front of it, such as the load balancer Service of an ingress controller.
        for service in snapshot.services.iter().flatten() {
            if own_addresses(service).iter().any(|own| addresses.contains(own)) {
                at.extend(service.namespace());
            }
        }
        at.retain(|namespace| self.targets.contains(namespace.as_str()));
        at
    }

    fn plans(&mut self, snapshot: &ClusterSnapshot) {
        for plan in snapshot.plans.iter().flatten() {
            let (name, namespace) = (plan.name_any(), plan.namespace());
            if self.is_target(namespace.as_deref()) {
                let message = format!(
                    "RecoveryPlan {name} and its account {} live here: the plan could not be changed, nor anything decided about it",
                    plan.spec.service_account_name.0
                );
                self.tell(namespace.as_deref(), Kind::PlanAccount, message);
            }
            let by = plan.labels().iter().find(|(key, _)| key.ends_with(".toolkit.fluxcd.io/namespace"));
            if let Some((_, home)) = by.filter(|(_, home)| self.targets.contains(home.as_str())) {
                let message = format!(
                    "what delivers RecoveryPlan {}/{name} lives here: the recovery itself would stop coming",
                    namespace.unwrap_or_default()
                );
                self.tell(Some(&home.clone()), Kind::Gitops, message);
            }
        }
    }

    fn leases(&mut self, snapshot: &ClusterSnapshot) {
        for lease in snapshot.leases.iter().flatten() {
            let Some(namespace) = lease.namespace().filter(|n| self.targets.contains(n.as_str())) else {
                continue;
            };
            let Some(spec) = &lease.spec else { continue };
            let Some((holder, renewed)) = spec.holder_identity.as_deref().zip(spec.renew_time.as_ref())
            else {
                continue;
            };
            let valid = i64::from(spec.lease_duration_seconds.unwrap_or(15)).saturating_mul(2);
            if snapshot.now.duration_since(renewed.0).as_secs() > valid {
                continue;
            }
            let inside = match snapshot.pods.get(&namespace) {
                Some(Ok(pods)) => pods.iter().any(|pod| holder.contains(pod.as_str())),
                _ => continue,
            };
            if !inside {
                let message = format!(
                    "Lease {} is held by {holder}, which is no pod of this namespace: it cannot renew it, and stops leading",
                    lease.name_any()
                );
                self.tell(Some(&namespace), Kind::Leases, message);
            }
        }
    }

    /// Reports what could not be read, and what is unknown for that reason.
    fn unread(&mut self, snapshot: &ClusterSnapshot) {
        fn why<T>(list: &Result<T, String>) -> Option<&String> {
            list.as_ref().err()
        }
        let network = "whether the cluster's network or storage runs in one of them";
        let served = "whether admission would stop in the whole cluster";
        let hosts = "whether your own login or the evidence store is served from one of them";
        let reads = [
            (why(&snapshot.daemonsets), network),
            (why(&snapshot.deployments), network),
            (why(&snapshot.statefulsets), network),
            (why(&snapshot.csi_drivers), network),
            (why(&snapshot.services), "whether the cluster's DNS is served from one of them"),
            (why(&snapshot.validating), served),
            (why(&snapshot.mutating), served),
            (why(&snapshot.crds), "whether kinds are converted by a webhook in one of them"),
            (why(&snapshot.apiservices), "whether a part of the API is served from one of them"),
            (why(&snapshot.ingresses), hosts),
            (why(&snapshot.routes), hosts),
            (why(&snapshot.evidence), "where the evidence store is (say it with --evidence-endpoint)"),
            (why(&snapshot.plans), "whether a RecoveryPlan lives in one of them"),
            (
                why(&snapshot.leases),
                "whether a component elsewhere elects its leader by a Lease in one of them",
            ),
        ];
        let pods = snapshot.pods.values().filter_map(why);
        let pods = pods.map(|why| {
            (Some(why), "whether a component elsewhere elects its leader by a Lease in one of them")
        });
        for (why, what) in reads.into_iter().chain(pods) {
            if let Some(why) = why {
                self.tell(None, Kind::Unknown, format!("{what}: {why}"));
            }
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
