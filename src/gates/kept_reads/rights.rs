//! Which of the kept lists an account may still read: by reviews as that account, each of which counts for a minute at most and ends with
//! any change of roles and bindings. What no review allows is read again, and the API server decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use kube::api::{Api, PostParams};
use resurgam_core::baseline::KindRef;
use resurgam_core::baseline::reach::RBAC;

use crate::access::Right;
use crate::baseline::gather::PARALLEL;
use crate::calls::call;
use crate::cluster_cache::{ChangeLog, ChangeMark};
use crate::gates::permission::may;
use crate::gates::reads::{AUTHORIZED_FOR, Account};

/// For more namespaces than this, one review asks about all of the cluster first.
const FEW: usize = 4;
/// Maximum number of reviews that are kept.
const MAX_REVIEWS: usize = 20_000;

/// Reviews, by user.
#[derive(Default)]
pub(in crate::gates) struct ReviewedRights(Mutex<HashMap<(String, Scope), Reviewed>>);

/// What a review is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    /// All namespaces, and the cluster.
    Everything,
    /// One namespace.
    Namespace(String),
    /// One kind of the cluster.
    Kind(KindRef),
}

#[derive(Clone)]
struct Reviewed {
    at: Instant,
    /// Last change of roles and bindings before.
    changed: ChangeMark,
    rules: Arc<Vec<ResourceRule>>,
}

/// What an account may read, as far as reviews tell.
#[derive(Debug, Default)]
pub(in crate::gates) struct Allowed {
    everything: bool,
    namespaces: HashMap<String, Arc<Vec<ResourceRule>>>,
    kinds: HashMap<KindRef, bool>,
}

impl Allowed {
    /// Returns whether the account may list a kind in a place (empty: the cluster), or get a namespace.
    pub(in crate::gates) fn may_read(&self, place: &str, kind: &KindRef) -> bool {
        if self.everything {
            return true;
        }
        if place.is_empty() {
            return self.kinds.get(kind).copied().unwrap_or_default();
        }
        let is_namespace = kind.group.is_empty() && kind.plural == "namespaces";
        let (verb, name) = if is_namespace { ("get", Some(place)) } else { ("list", None) };
        let rules = self.namespaces.get(place);
        rules.is_some_and(|rules| rules.iter().any(|rule| grants(rule, verb, kind, name)))
    }
}

impl ReviewedRights {
    /// Reviews what an account may read. A review that fails allows nothing.
    pub(in crate::gates) async fn review(
        &self,
        account: &Account,
        log: &ChangeLog,
        namespaces: &[String],
        kinds: &[KindRef],
    ) -> Allowed {
        if namespaces.len() > FEW && self.may_read_everything(account, log).await {
            return Allowed { everything: true, ..Allowed::default() };
        }
        let namespaces = stream::iter(namespaces.to_vec()).map(|namespace| async move {
            let rules = self.rules_in(account, log, &namespace).await;
            (namespace, rules)
        });
        let kinds = stream::iter(kinds.to_vec()).map(|kind| async move {
            let right = list(None, &kind.group, &kind.plural);
            let scope = Scope::Kind(kind.clone());
            let may = self.reviewed(account, scope, log_mark(log, ""), || one(account, right)).await;
            (kind, !may.is_empty())
        });
        Allowed {
            everything: false,
            namespaces: namespaces.buffer_unordered(PARALLEL).collect().await,
            kinds: kinds.buffer_unordered(PARALLEL).collect().await,
        }
    }

    async fn may_read_everything(&self, account: &Account, log: &ChangeLog) -> bool {
        let both = || async {
            let all = one(account, list(None, "*", "*")).await?;
            let get = Right { verb: "get", ..list(None, "", "namespaces") };
            if all.is_empty() { Some(all) } else { one(account, get).await }
        };
        !self.reviewed(account, Scope::Everything, log_mark(log, ""), both).await.is_empty()
    }

    async fn rules_in(&self, account: &Account, log: &ChangeLog, namespace: &str) -> Arc<Vec<ResourceRule>> {
        let changed = log_mark(log, "").max(log_mark(log, namespace));
        let scope = Scope::Namespace(namespace.to_owned());
        self.reviewed(account, scope, changed, || rules(account, namespace)).await
    }

    /// Returns the result of a review: a recent one, or a new one. `changed`: the last change of roles and bindings.
    async fn reviewed<F>(
        &self,
        account: &Account,
        scope: Scope,
        changed: ChangeMark,
        review: impl FnOnce() -> F,
    ) -> Arc<Vec<ResourceRule>>
    where
        F: Future<Output = Option<Vec<ResourceRule>>>,
    {
        let key = (account.user.clone(), scope);
        let kept = self.kept().get(&key).cloned();
        if let Some(kept) = kept.filter(|kept| kept.changed == changed && kept.at.elapsed() < AUTHORIZED_FOR)
        {
            return kept.rules;
        }
        let at = Instant::now();
        let rules = Arc::new(review().await.unwrap_or_default());
        let mut all = self.kept();
        if all.len() >= MAX_REVIEWS {
            all.retain(|_, kept| kept.at.elapsed() < AUTHORIZED_FOR);
        }
        // A refusal is reviewed again, so that a grant takes effect at once.
        if rules.is_empty() || all.len() >= MAX_REVIEWS {
            all.remove(&key);
        } else {
            all.insert(key, Reviewed { at, changed, rules: rules.clone() });
        }
        rules
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<(String, Scope), Reviewed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the last change of roles and bindings of a place (empty: the cluster). Where nobody tells, only the age of a review counts.
fn log_mark(log: &ChangeLog, place: &str) -> ChangeMark {
    let kinds =
        if place.is_empty() { ["clusterroles", "clusterrolebindings"] } else { ["roles", "rolebindings"] };
    let marks = kinds.map(|plural| log.mark(&(RBAC.to_owned(), plural.to_owned()), place));
    marks.into_iter().flatten().max().unwrap_or_default()
}

fn list(namespace: Option<&str>, group: &str, resource: &str) -> Right {
    Right {
        namespace: namespace.map(str::to_owned),
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: "list",
        name: None,
    }
}

/// Reviews one right. Returns a rule if it is granted, or `None` if the review failed.
async fn one(account: &Account, right: Right) -> Option<Vec<ResourceRule>> {
    let what = format!("review whether {} may {} {}", account.user, right.verb, right.resource);
    let is_granted = call(what, may(account, &right)).await.ok()?;
    let rule = ResourceRule { verbs: vec![right.verb.to_owned()], ..ResourceRule::default() };
    Some(if is_granted { vec![rule] } else { Vec::new() })
}

/// Reviews the rights in a namespace. `None`: the review failed, or the authorizer cannot list its rules.
async fn rules(account: &Account, namespace: &str) -> Option<Vec<ResourceRule>> {
    let reviews = Api::<SelfSubjectRulesReview>::all(account.client.clone());
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let what = format!("review what {} may read in namespace {namespace}", account.user);
    let answer = call(what, reviews.create(&PostParams::default(), &review)).await.ok()?;
    // What an incomplete review says is granted is granted. Whatever else is read again.
    let SubjectRulesReviewStatus { resource_rules, .. } = answer.status?;
    Some(resource_rules)
}

/// Returns whether a rule grants the verb on a kind: on all objects, or on the one of this name.
fn grants(rule: &ResourceRule, verb: &str, kind: &KindRef, name: Option<&str>) -> bool {
    let has = |all: &[String], wanted: &str| all.iter().any(|one| one == "*" || one == wanted);
    let names = rule.resource_names.as_deref().unwrap_or_default();
    (names.is_empty() || name.is_some_and(|name| names.iter().any(|of| of == name)))
        && has(&rule.verbs, verb)
        && rule.api_groups.as_ref().is_some_and(|groups| has(groups, &kind.group))
        && rule.resources.as_ref().is_some_and(|resources| has(resources, &kind.plural))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, plural: &str) -> KindRef {
        KindRef { group: group.into(), plural: plural.into(), version: "v1".into(), kind: "K".into() }
    }

    fn rule(verb: &str, group: &str, plural: &str, names: &[&str]) -> ResourceRule {
        ResourceRule {
            verbs: vec![verb.into()],
            api_groups: Some(vec![group.into()]),
            resources: Some(vec![plural.into()]),
            resource_names: Some(names.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn only_what_a_review_grants_may_be_read() {
        let rules = vec![
            rule("list", "", "configmaps", &[]),
            rule("list", "", "secrets", &["one"]),
            rule("get", "", "namespaces", &["shop"]),
            rule("watch", "apps", "*", &[]),
        ];
        let allowed = Allowed {
            namespaces: [("shop".to_owned(), Arc::new(rules))].into(),
            kinds: [(kind(RBAC, "clusterroles"), true), (kind(RBAC, "clusterrolebindings"), false)].into(),
            ..Allowed::default()
        };
        for (place, of, expected) in [
            ("shop", kind("", "configmaps"), true),
            ("shop", kind("example.org", "configmaps"), false),
            ("shop", kind("", "secrets"), false),
            ("shop", kind("", "namespaces"), true),
            ("shop", kind("apps", "deployments"), false),
            ("other", kind("", "configmaps"), false),
            ("", kind(RBAC, "clusterroles"), true),
            ("", kind(RBAC, "clusterrolebindings"), false),
            ("", kind(RBAC, "roles"), false),
        ] {
            assert_eq!(allowed.may_read(place, &of), expected, "{place} {of:?}");
        }
        let everything = Allowed { everything: true, ..Allowed::default() };
        assert!(everything.may_read("shop", &kind("", "secrets")));
    }
}
