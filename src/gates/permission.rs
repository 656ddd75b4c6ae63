//! Verifies by a review that an account may list what the cache answers with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, ResourceRule, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
    SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use kube::api::{Api, PostParams};

use super::Answer;
use super::inventory::{self, unreadable};
use super::reads::{AUTHORIZED_FOR, Account};
use crate::access::Right;
use crate::api::GateReason;

/// Positive reviews of accounts. Refusals are not cached, so that a grant takes effect at once.
#[derive(Default)]
pub(super) struct Permissions(Mutex<HashMap<(String, String), Arc<Reviewed>>>);

/// Time of the last positive review. Locked during a review, so that concurrent gates share it.
type Reviewed = tokio::sync::Mutex<Option<Instant>>;

impl Permissions {
    /// Verifies that the account may list all kinds of an inventory in a namespace.
    ///
    /// # Errors
    /// An Unknown: the account may not, or the review failed.
    pub(super) async fn may_list(&self, account: &Account, namespace: &str) -> Result<(), Answer> {
        let reviewed = self.reviewed(account, namespace);
        let mut reviewed = reviewed.lock().await;
        if reviewed.is_some_and(|at| at.elapsed() < AUTHORIZED_FOR) {
            return Ok(());
        }
        *reviewed = None;
        let asked = Instant::now();
        review(account, namespace).await?;
        *reviewed = Some(asked);
        Ok(())
    }

    fn reviewed(&self, account: &Account, namespace: &str) -> Arc<Reviewed> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (account.user.clone(), namespace.to_owned());
        if let Some(reviewed) = all.get(&key) {
            return reviewed.clone();
        }
        // Expired entries are removed whenever one is added.
        all.retain(|_, reviewed| {
            let is_current = |at: &Instant| at.elapsed() < AUTHORIZED_FOR;
            Arc::strong_count(reviewed) > 1
                || reviewed.try_lock().is_ok_and(|at| at.as_ref().is_some_and(is_current))
        });
        all.entry(key).or_default().clone()
    }
}

/// Reviews the account's rights, as the account.
async fn review(account: &Account, namespace: &str) -> Result<(), Answer> {
    let wanted = inventory::rights(&[namespace.to_owned()]);
    let reviews = Api::<SelfSubjectRulesReview>::all(account.client.clone());
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
        ..SelfSubjectRulesReview::default()
    };
    let what = || format!("cannot determine what {} may list in namespace {namespace}", account.user);
    let answer =
        reviews.create(&PostParams::default(), &review).await.map_err(|error| unreadable(&what(), &error))?;
    let refused = match answer.status {
        Some(status) if is_complete(&status) => {
            wanted.iter().find(|right| !status.resource_rules.iter().any(|rule| grants(rule, right))).cloned()
        }
        // If the authorizer cannot list its rules, each right is reviewed.
        _ => {
            let asked = wanted.iter().map(|right| may(account, right));
            let answers = try_join_all(asked).await.map_err(|error| unreadable(&what(), &error))?;
            wanted.iter().zip(answers).find(|(_, allowed)| !allowed).map(|(right, _)| right.clone())
        }
    };
    refused.map_or(Ok(()), |right| Err(forbidden(&account.user, namespace, &right)))
}

fn is_complete(status: &SubjectRulesReviewStatus) -> bool {
    !status.incomplete && status.evaluation_error.as_ref().is_none_or(String::is_empty)
}

/// Returns whether a rule grants this right on all objects.
fn grants(rule: &ResourceRule, right: &Right) -> bool {
    let has = |all: &[String], wanted: &str| all.iter().any(|one| one == "*" || one == wanted);
    let no_names = rule.resource_names.as_ref().is_none_or(Vec::is_empty);
    no_names
        && has(&rule.verbs, right.verb)
        && rule.api_groups.as_ref().is_some_and(|groups| has(groups, &right.group))
        && rule.resources.as_ref().is_some_and(|resources| has(resources, &right.resource))
}

/// Reviews one right of the account, as the account.
pub(super) async fn may(account: &Account, right: &Right) -> kube::Result<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.clone()),
                resource: Some(right.resource.clone()),
                namespace: right.namespace.clone(),
                verb: Some(right.verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(account.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Returns the Unknown for a forbidden list, in the API server's words.
fn forbidden(user: &str, namespace: &str, right: &Right) -> Answer {
    let Right { group, resource, verb, .. } = right;
    let dot = if group.is_empty() { "" } else { "." };
    Answer::unknown(
        GateReason::Forbidden,
        format!(
            "cannot {verb} {resource} in namespace {namespace}: {resource}{dot}{group} is forbidden: User \"{user}\" cannot {verb} \
             resource \"{resource}\" in API group \"{group}\" in the namespace \"{namespace}\""
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> ResourceRule {
        let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        ResourceRule {
            api_groups: Some(texts(groups)),
            resources: Some(texts(resources)),
            verbs: texts(verbs),
            resource_names: Some(texts(names)),
        }
    }

    #[test]
    fn only_a_rule_for_every_object_grants_a_list() {
        let right = &inventory::rights(&["a".to_owned()])[0];
        assert_eq!(
            (right.group.as_str(), right.resource.as_str(), right.verb),
            ("apps", "deployments", "list")
        );
        for (rule, granted) in [
            (rule(&["apps"], &["deployments"], &["get", "list"], &[]), true),
            (rule(&["*"], &["*"], &["*"], &[]), true),
            (rule(&["apps"], &["deployments"], &["list"], &["web"]), false),
            (rule(&["apps"], &["deployments"], &["get", "watch"], &[]), false),
            (rule(&["apps"], &["deployments/status"], &["list"], &[]), false),
            (rule(&[""], &["deployments"], &["list"], &[]), false),
            (rule(&["apps"], &["statefulsets"], &["list"], &[]), false),
            (ResourceRule::default(), false),
        ] {
            assert_eq!(grants(&rule, right), granted, "{rule:?}");
        }
    }

    #[test]
    fn a_review_that_is_not_complete_is_not_relied_on() {
        let status = SubjectRulesReviewStatus::default();
        assert!(is_complete(&status));
        assert!(!is_complete(&SubjectRulesReviewStatus { incomplete: true, ..status.clone() }));
        assert!(!is_complete(&SubjectRulesReviewStatus { evaluation_error: Some("x".into()), ..status }));
    }
}
