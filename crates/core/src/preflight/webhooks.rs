//! Admission webhooks that intercept the writes of an isolation.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use serde::Serialize;

use crate::api::{ISOLATION_LABEL, Isolation};

/// Maximum number of resources in a message.
const NAMED: usize = 6;

/// A write that isolation makes.
struct Write {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    namespaced: bool,
    operations: &'static [&'static str],
}

const fn write(
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    operations: &'static [&'static str],
) -> Write {
    Write { group, version, resource, namespaced: true, operations }
}

/// All writes of an isolation, in the order of the controls. A subresource follows a slash.
const WRITES: [Write; 15] = [
    Write { namespaced: false, ..write("resurgam.dev", "v1alpha1", "quarantines", &["CREATE", "UPDATE"]) },
    Write { namespaced: false, ..write("resurgam.dev", "v1alpha1", "quarantines/status", &["UPDATE"]) },
    Write { namespaced: false, ..write("", "v1", "namespaces", &["UPDATE"]) },
    write("networking.k8s.io", "v1", "networkpolicies", &["CREATE", "UPDATE", "DELETE"]),
    write("", "v1", "configmaps", &["CREATE", "UPDATE", "DELETE"]),
    write("snapshot.storage.k8s.io", "v1", "volumesnapshots", &["CREATE"]),
    write("apps", "v1", "deployments", &["UPDATE"]),
    write("apps", "v1", "statefulsets", &["UPDATE"]),
    write("apps", "v1", "daemonsets", &["UPDATE"]),
    write("apps", "v1", "replicasets", &["UPDATE"]),
    write("", "v1", "replicationcontrollers", &["UPDATE"]),
    write("batch", "v1", "cronjobs", &["UPDATE"]),
    write("batch", "v1", "jobs", &["UPDATE"]),
    write("", "v1", "pods", &["CREATE", "UPDATE", "DELETE"]),
    write("", "v1", "serviceaccounts", &["CREATE", "UPDATE", "DELETE"]),
];

/// A webhook whose failure blocks a write of the isolation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MatchingWebhook {
    /// Kind and name of its configuration: `ValidatingWebhookConfiguration policy`.
    pub configuration: String,
    /// Its own name, as the API server gives it in a refusal.
    pub name: String,
    /// The intercepted writes: `pods (CREATE, DELETE)`.
    pub kinds: Vec<String>,
    /// Where it is served: `Service NAMESPACE/NAME`, or its URL.
    pub served_by: String,
    /// Whether it has `matchConditions`, which may exclude some of these writes.
    pub conditional: bool,
}

impl MatchingWebhook {
    /// Returns whether the API server's answer names this webhook.
    #[must_use]
    pub fn is_named_in(&self, answer: &str) -> bool {
        answer.contains(&format!("webhook \"{}\"", self.name))
    }
}

impl fmt::Display for MatchingWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { configuration, name, served_by, .. } = self;
        let kinds = listed(&self.kinds);
        let unless = if self.conditional { ", unless its matchConditions except them" } else { "" };
        write!(f, "{configuration} ({name}, served by {served_by}) intercepts {kinds}{unless}")
    }
}

/// Fields that both kinds of webhooks have.
pub(super) struct Webhook<'a> {
    pub(super) configuration: String,
    pub(super) name: &'a str,
    pub(super) client: &'a WebhookClientConfig,
    /// Whether its failure denies the request (`failurePolicy: Fail`).
    pub(super) fails: bool,
    rules: &'a [RuleWithOperations],
    exact: bool,
    namespaces: Option<&'a LabelSelector>,
    objects: Option<&'a LabelSelector>,
    conditional: bool,
}

/// Returns all webhooks of these configurations.
pub(super) fn all<'a>(
    validating: &'a [ValidatingWebhookConfiguration],
    mutating: &'a [MutatingWebhookConfiguration],
) -> Vec<Webhook<'a>> {
    let mut all = Vec::new();
    // The two types have the same fields but share no trait.
    macro_rules! add {
        ($kind:literal, $configurations:expr) => {
            for configuration in $configurations {
                for hook in configuration.webhooks.iter().flatten() {
                    all.push(Webhook {
                        configuration: format!("{} {}", $kind, configuration.name_any()),
                        name: &hook.name,
                        client: &hook.client_config,
                        fails: hook.failure_policy.as_deref() != Some("Ignore"),
                        rules: hook.rules.as_deref().unwrap_or_default(),
                        exact: hook.match_policy.as_deref() == Some("Exact"),
                        namespaces: hook.namespace_selector.as_ref(),
                        objects: hook.object_selector.as_ref(),
                        conditional: hook.match_conditions.as_ref().is_some_and(|c| !c.is_empty()),
                    });
                }
            }
        };
    }
    add!("ValidatingWebhookConfiguration", validating);
    add!("MutatingWebhookConfiguration", mutating);
    all
}

/// Returns each webhook with `failurePolicy: Fail` that intercepts a write of the isolation, by its rules and selectors. What is
/// undecidable beforehand (`objectSelector` of objects yet to be written, `matchConditions`) counts as a match.
#[must_use]
pub fn webhooks_matching(
    validating: &[ValidatingWebhookConfiguration],
    mutating: &[MutatingWebhookConfiguration],
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<MatchingWebhook> {
    let labelled = labelled(namespace, labels);
    let all = all(validating, mutating);
    let mut matching: Vec<_> =
        all.iter().filter(|hook| hook.fails).filter_map(|hook| hook.matching(&labelled)).collect();
    matching.sort();
    matching
}

/// Returns kind and name of the configuration that contains the webhook named in `answer`. If several do, the one that intercepts writes
/// in this namespace.
#[must_use]
pub fn configuration_of(
    webhook: &str,
    answer: &str,
    (validating, mutating): (&[ValidatingWebhookConfiguration], &[MutatingWebhookConfiguration]),
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Option<String> {
    let matching = webhooks_matching(validating, mutating, namespace, labels);
    let intercepts = matching.into_iter().find(|found| found.name == webhook && found.is_named_in(answer));
    if let Some(found) = intercepts {
        return Some(found.configuration);
    }
    all(validating, mutating).into_iter().find(|hook| hook.name == webhook).map(|hook| hook.configuration)
}

/// Returns the labels that the namespace may have while it is isolated: its label is written first, and the API server matches the new
/// one.
fn labelled(namespace: &str, labels: &BTreeMap<String, String>) -> Vec<BTreeMap<String, String>> {
    let mut labels = labels.clone();
    labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
    if labels.contains_key(ISOLATION_LABEL) {
        return vec![labels];
    }
    let levels = [Isolation::Contained, Isolation::Sealed];
    let with = |level: Isolation| {
        let mut labels = labels.clone();
        labels.extend(level.label().map(|value| (ISOLATION_LABEL.to_owned(), value.to_owned())));
        labels
    };
    levels.map(with).into()
}

fn selects(selector: Option<&LabelSelector>, labelled: &[BTreeMap<String, String>]) -> bool {
    let Some(selector) = selector else { return true };
    let Ok(selector) = Selector::try_from(selector.clone()) else { return true };
    labelled.iter().any(|labels| selector.matches(labels))
}

impl Webhook<'_> {
    fn matching(&self, labelled: &[BTreeMap<String, String>]) -> Option<MatchingWebhook> {
        let in_namespace = selects(self.namespaces, labelled);
        let kinds = WRITES.iter().filter_map(|write| {
            // For cluster-scoped kinds the namespace selector applies to namespaces only.
            let is_namespace = write.resource == "namespaces";
            let selected = match (write.namespaced, is_namespace) {
                (true, _) => in_namespace,
                (false, true) => in_namespace && selects(self.objects, labelled),
                (false, false) => true,
            };
            let operations: Vec<_> = write
                .operations
                .iter()
                .filter(|operation| self.intercepts(write, operation))
                .copied()
                .collect();
            (selected && !operations.is_empty()).then(|| {
                let dot = if write.group.is_empty() { "" } else { "." };
                format!("{}{dot}{} ({})", write.resource, write.group, operations.join(", "))
            })
        });
        let kinds: Vec<_> = kinds.collect();
        (!kinds.is_empty()).then(|| MatchingWebhook {
            configuration: self.configuration.clone(),
            name: self.name.to_owned(),
            kinds,
            served_by: served_by(self.client),
            conditional: self.conditional,
        })
    }

    fn intercepts(&self, write: &Write, operation: &str) -> bool {
        let has = |list: &Option<Vec<String>>, wanted: &str| {
            list.iter().flatten().any(|entry| entry == "*" || entry == wanted)
        };
        self.rules.iter().any(|rule| {
            let scope = match rule.scope.as_deref() {
                Some("Namespaced") => write.namespaced,
                Some("Cluster") => !write.namespaced,
                _ => true,
            };
            scope
                && has(&rule.api_groups, write.group)
                // Without `matchPolicy: Exact`, a rule for one version intercepts the others too.
                && (!self.exact || has(&rule.api_versions, write.version))
                && has(&rule.operations, operation)
                && rule.resources.iter().flatten().any(|entry| covers(entry, write.resource))
        })
    }

    /// Returns what the webhook intercepts by its rules: `pods (CREATE)`, `everything.apps (UPDATE)`.
    pub(super) fn intercepted(&self) -> String {
        let mut all = Vec::new();
        for rule in self.rules {
            let operations = rule.operations.iter().flatten().map(|operation| match operation.as_str() {
                "*" => "every operation",
                operation => operation,
            });
            let operations = operations.collect::<Vec<_>>().join(", ");
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    let what = match (resource.as_str(), group.as_str()) {
                        ("*" | "*/*", "*") => "everything".to_owned(),
                        ("*" | "*/*", "") => "everything of the core group".to_owned(),
                        ("*" | "*/*", group) => format!("everything of {group}"),
                        (resource, "" | "*") => resource.to_owned(),
                        (resource, group) => format!("{resource}.{group}"),
                    };
                    all.push(format!("{what} ({operations})"));
                }
            }
        }
        all.sort();
        all.dedup();
        if all.is_empty() { "nothing".to_owned() } else { listed(&all) }
    }
}

/// Matches a resource: `*` is every resource without its subresources, `*/*` with them, `pods/*` those of pods, `*/scale` all of that
/// name.
fn covers(entry: &str, resource: &str) -> bool {
    let part = |entry: &str, part: &str| entry == "*" || entry == part;
    match (entry.split_once('/'), resource.split_once('/')) {
        (None, None) => part(entry, resource),
        (Some((of, sub)), Some((resource, subresource))) => part(of, resource) && part(sub, subresource),
        // `pods/*` covers pods as well.
        (Some((of, "*")), None) => part(of, resource),
        (None | Some(_), _) => false,
    }
}

fn served_by(client: &WebhookClientConfig) -> String {
    match (&client.service, &client.url) {
        (Some(service), _) => format!("Service {}/{}", service.namespace, service.name),
        (None, Some(url)) => url.clone(),
        (None, None) => "nobody".to_owned(),
    }
}

fn listed(all: &[String]) -> String {
    let named = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
#[path = "webhooks_tests.rs"]
mod tests;
