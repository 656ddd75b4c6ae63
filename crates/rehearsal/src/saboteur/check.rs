//! Checks of an isolated namespace, by live reads.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::policies::CILIUM;
use super::scene::pod;
use super::{Scene, Trick};
use crate::{condition, field, kind, text};

/// A promise about an isolated namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// A policy of ours denies the tenant's writes.
    WritesRefused,
    /// NetworkPolicies deny all traffic, and no other allows any.
    NetworkCut,
    /// No process is alive.
    NothingRuns,
    /// Tokens issued before are void.
    TokensVoid,
}

impl Promise {
    /// Promises about a sealed namespace.
    pub const SEALED: [Self; 4] =
        [Self::WritesRefused, Self::NetworkCut, Self::NothingRuns, Self::TokensVoid];
    /// Promises of the command without an operator.
    pub const BY_COMMAND: [Self; 2] = [Self::WritesRefused, Self::NetworkCut];
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WritesRefused => "writes refused",
            Self::NetworkCut => "network cut",
            Self::NothingRuns => "nothing runs",
            Self::TokensVoid => "tokens void",
        })
    }
}

/// Violations of each promise. Empty: it holds.
#[derive(Clone, Debug, Default)]
pub struct Violations(BTreeMap<Promise, Vec<String>>);

impl Violations {
    /// Returns whether the promise holds.
    #[must_use]
    pub fn holds(&self, promise: Promise) -> bool {
        self.0.get(&promise).is_none_or(Vec::is_empty)
    }

    /// Returns the promises that do not hold.
    #[must_use]
    pub fn broken(&self) -> Vec<Promise> {
        self.0.keys().copied().filter(|promise| !self.holds(*promise)).collect()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.iter().flat_map(|(promise, all)| {
            // Three hundred policies are told by a few of them.
            let more = (all.len() > 5).then(|| format!("{promise}: and {} more", all.len() - 5));
            all.iter().take(5).map(move |one| format!("{promise}: {one}")).chain(more)
        });
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// How attempts to write are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempts {
    /// As dry runs, where they may succeed.
    DryRun,
    /// As real writes, where they were denied before.
    InEarnest,
}

/// Returns the violations of all promises.
///
/// # Errors
/// An object cannot be read.
pub(super) async fn violations(
    scene: &Scene<'_>,
    tricks: &[Trick],
    promises: &[Promise],
    attempts: Attempts,
) -> Result<Violations> {
    let mut all = BTreeMap::new();
    for promise in promises {
        let found = match promise {
            Promise::WritesRefused => unrefused(scene, tricks, attempts).await?,
            Promise::NetworkCut => allowing_policies(scene).await?,
            Promise::NothingRuns => running(scene).await?,
            Promise::TokensVoid => good_tokens(scene).await?,
        };
        all.insert(*promise, found);
    }
    Ok(Violations(all))
}

async fn list(scene: &Scene<'_>, version: &str, what: &str) -> Result<Vec<Value>> {
    let all = scene.objects(version, what).list(&ListParams::default()).await;
    let all = all.with_context(|| format!("list {what}s in {}", scene.namespace()))?;
    all.items.iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
}

/// Returns the NetworkPolicies that allow traffic, and the missing denials.
async fn allowing_policies(scene: &Scene<'_>) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let mut denied = false;
    for policy in list(scene, "networking.k8s.io/v1", "NetworkPolicy").await? {
        let name = text(&policy, "/metadata/name");
        let has_rules = ["/spec/ingress", "/spec/egress"]
            .iter()
            .any(|at| field(&policy, at).as_array().is_some_and(|rules| !rules.is_empty()));
        if name == "resurgam-default-deny" {
            denied = !has_rules && denies_all(&policy) && policy["metadata"]["deletionTimestamp"].is_null();
            if !denied {
                all.push(format!(
                    "NetworkPolicy {name} is not default-deny: {}",
                    short(field(&policy, "/spec"))
                ));
            }
        } else if has_rules && !selects_nothing(&policy) {
            all.push(format!("NetworkPolicy {name} allows"));
        }
    }
    if !denied && all.is_empty() {
        all.push("there is no NetworkPolicy resurgam-default-deny".to_owned());
    }
    Ok(all)
}

/// Returns whether the policy requires a label that no pod has.
fn selects_nothing(policy: &Value) -> bool {
    let asked = policy["spec"]["podSelector"]["matchExpressions"].as_array();
    let asks = |key: &Value, operator: &str| {
        asked.into_iter().flatten().any(|one| one["key"] == *key && one["operator"] == operator)
    };
    asked.into_iter().flatten().any(|one| asks(&one["key"], "Exists") && asks(&one["key"], "DoesNotExist"))
}

/// Returns whether the policy selects every pod, for both directions.
fn denies_all(policy: &Value) -> bool {
    let selects = |field: &str| match &policy["spec"]["podSelector"][field] {
        Value::Null => false,
        Value::Object(labels) => !labels.is_empty(),
        Value::Array(expressions) => !expressions.is_empty(),
        _ => true,
    };
    let types = policy["spec"]["policyTypes"].as_array();
    let has = |wanted: &str| types.is_some_and(|types| types.iter().any(|one| one == wanted));
    !selects("matchLabels") && !selects("matchExpressions") && has("Ingress") && has("Egress")
}

/// Returns the pods with a live process, or one that may start.
async fn running(scene: &Scene<'_>) -> Result<Vec<String>> {
    let pods = list(scene, "v1", "Pod").await?;
    Ok(pods.iter().filter(|pod| lives(pod)).map(|pod| format!("Pod {} {}", name(pod), phase(pod))).collect())
}

fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

fn phase(pod: &Value) -> String {
    let going = if pod["metadata"]["deletionTimestamp"].is_null() { "" } else { ", being deleted" };
    format!("is {}{going}", text(pod, "/status/phase"))
}

fn lives(pod: &Value) -> bool {
    let over = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
    // No node takes it any more.
    let never = !pod["metadata"]["deletionTimestamp"].is_null() && pod["spec"]["nodeName"].is_null();
    !over && !never
}

/// Returns whether a token authenticates.
pub(super) async fn authenticates(admin: &Client, token: &str) -> Result<bool> {
    let reviews: Api<TokenReview> = Api::all(admin.clone());
    let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
    let review = TokenReview { spec, ..TokenReview::default() };
    let answer = reviews.create(&PostParams::default(), &review).await.context("a review of a token")?;
    Ok(answer.status.and_then(|status| status.authenticated).unwrap_or(false))
}

async fn good_tokens(scene: &Scene<'_>) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (account, token) in &scene.tokens {
        if authenticates(&scene.admin, token).await? {
            all.push(format!("a token of ServiceAccount {account} from before still authenticates"));
        }
    }
    Ok(all)
}

/// Returns the tenant's writes that succeed, or that no expected policy denied.
async fn unrefused(scene: &Scene<'_>, tricks: &[Trick], attempts: Attempts) -> Result<Vec<String>> {
    let dry = attempts == Attempts::DryRun;
    let create = PostParams { dry_run: dry, ..PostParams::default() };
    let patch = PatchParams { dry_run: dry, ..PatchParams::default() };
    let delete = DeleteParams { dry_run: dry, ..DeleteParams::default() };
    let of = |version: &str, what: &str| kind(&scene.mallory, version, what, Some(scene.namespace()));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "intruder"}});
    let scale = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let colour = Patch::Merge(json!({"data": {"colour": "red"}}));
    let mut outcomes = vec![
        (
            "create a pod",
            of("v1", "Pod").create(&create, &serde_json::from_value(pod("intruder"))?).await.map(drop),
        ),
        (
            "create a Secret",
            of("v1", "Secret").create(&create, &serde_json::from_value(secret)?).await.map(drop),
        ),
        (
            "scale a Deployment",
            of("apps/v1", "Deployment").patch_scale("web", &patch, &scale).await.map(drop),
        ),
        ("change a ConfigMap", of("v1", "ConfigMap").patch("settings", &patch, &colour).await.map(drop)),
    ];
    let policies = of("networking.k8s.io/v1", "NetworkPolicy");
    let first =
        policies.list_metadata(&ListParams::default().limit(1)).await.context("list NetworkPolicies")?;
    if let Some(policy) = first.items.first().and_then(|policy| policy.metadata.name.clone()) {
        outcomes.push(("delete a NetworkPolicy", policies.delete(&policy, &delete).await.map(drop)));
    }
    let others: Vec<String> = tricks.iter().filter_map(|trick| trick.refuses_with(scene)).collect();
    let mut all = Vec::new();
    for (what, outcome) in outcomes {
        let why = match outcome {
            Ok(()) => "it went through".to_owned(),
            Err(kube::Error::Api(status)) => {
                let by_policy = status.message.contains("ValidatingAdmissionPolicy 'resurgam-");
                // The Secret is refused by nothing else.
                let by_trick =
                    what != "create a Secret" && others.iter().any(|other| status.message.contains(other));
                // While ServiceAccounts are recreated, and where a quota keeps them from it.
                let no_account =
                    what == "create a pod" && status.message.contains("looking up service account");
                if by_policy || by_trick || no_account {
                    continue;
                }
                format!("refused with {} by something else: {}", status.code, status.message)
            }
            Err(error) => return Err(error).with_context(|| format!("{what} as mallory")),
        };
        all.push(format!("{what} as mallory: {why}"));
    }
    Ok(all)
}

/// Returns the differences between a Quarantine's status and the observed state, and a missing reason for not being Ready.
pub(super) async fn status_errors(
    scene: &Scene<'_>,
    tricks: &[Trick],
    quarantine: &Value,
    violations: &Violations,
) -> Result<Vec<String>> {
    let status = field(quarantine, "/status");
    let ready = condition(quarantine, "Ready") == "True"
        && field(status, "/observedGeneration") == field(quarantine, "/metadata/generation");
    let mut all = Vec::new();
    if ready {
        all.extend(violations.broken().iter().map(|promise| format!("it is Ready, and not: {promise}")));
    }
    for trick in tricks {
        let Some(promise) = trick.exempts().filter(|promise| !violations.holds(*promise)) else { continue };
        let culprits = trick.culprits(scene);
        if !not_enforced(status).any(|message| names_one(message, &culprits)) {
            all.push(format!(
                "no control is NotEnforced and names {}, and not: {promise}",
                culprits.join(" or ")
            ));
        }
    }
    let allows = list(scene, "cilium.io/v2", "CiliumNetworkPolicy").await?;
    if allows.iter().any(|policy| name(policy) == CILIUM) {
        if ready {
            all.push(format!("it is Ready, and CiliumNetworkPolicy {CILIUM} allows everything"));
        }
        if !not_enforced(status).any(|message| message.contains(CILIUM)) {
            all.push(format!("no control is NotEnforced and names CiliumNetworkPolicy {CILIUM}"));
        }
    }
    if !ready {
        let culprits: Vec<String> = tricks.iter().flat_map(|trick| trick.culprits(scene)).collect();
        let said = [field(status, "/conditions"), field(status, "/controls")].map(Value::to_string).concat();
        if culprits.is_empty() {
            all.push("it is not Ready, and there is no reason for that".to_owned());
        } else if !names_one(&said, &culprits) {
            all.push(format!("it is not Ready, and names none of {}", culprits.join(", ")));
        }
    }
    Ok(all)
}

fn not_enforced(status: &Value) -> impl Iterator<Item = &str> {
    let controls = field(status, "/controls").as_array().into_iter().flatten();
    controls.filter(|control| control["state"] == "NotEnforced").map(|control| text(control, "/message"))
}

fn names_one(text: &str, names: &[String]) -> bool {
    names.iter().any(|name| text.contains(name))
}

/// Returns the beginning of a value as JSON.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    let end = text.char_indices().nth(300).map_or(text.len(), |(end, _)| end);
    if end < text.len() { format!("{}…", &text[..end]) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: Value) -> Value {
        json!({"spec": spec})
    }

    #[test]
    fn policy_denies_all_only_if_it_selects_all_pods_both_ways() {
        let both = json!(["Ingress", "Egress"]);
        assert!(denies_all(&policy(json!({"podSelector": {}, "policyTypes": both}))));
        assert!(!denies_all(&policy(json!({"podSelector": {}, "policyTypes": ["Ingress"]}))));
        assert!(!denies_all(&policy(
            json!({"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": both})
        )));
    }

    #[test]
    fn pod_lives_until_it_is_over_or_can_never_begin() {
        let is = |phase: &str, going: bool, node: bool| {
            lives(&json!({
                "metadata": {"deletionTimestamp": going.then_some("2025-11-24T00:00:00Z")},
                "spec": {"nodeName": node.then_some("node-1")}, "status": {"phase": phase},
            }))
        };
        assert!(is("Running", false, true) && is("Running", true, true) && is("Pending", false, false));
        assert!(!is("Succeeded", false, true) && !is("Failed", true, true) && !is("Pending", true, false));
    }
}
