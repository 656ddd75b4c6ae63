//! Reviews of rights: the caller's own, which everybody may ask for, and other users', which takes the right to create
//! SubjectAccessReviews.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::access::Right;
use crate::calls::{IoError, call};

/// Returns whether the caller has a right.
///
/// # Errors
/// The review failed, with `what`.
pub(crate) async fn caller_may(
    client: &Client,
    attributes: ResourceAttributes,
    what: String,
) -> Result<bool, IoError> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = call(what, reviews.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Returns whether a service account has a right, by its user name and its three groups.
///
/// # Errors
/// The review failed, with `what`.
pub(crate) async fn account_may(
    client: &Client,
    (namespace, account): (&str, &str),
    attributes: ResourceAttributes,
    what: String,
) -> Result<bool, IoError> {
    let groups = vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    let user = format!("system:serviceaccount:{namespace}:{account}");
    review(client, (Some(user), groups), attributes, what).await
}

/// What a service account holds on a Quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoverRights {
    /// Verb `recover`.
    pub(crate) recover: bool,
    /// Verb `never-granted`: it holds a wildcard, which is no grant.
    pub(crate) wildcard: bool,
}

/// Returns what a service account holds on the Quarantine of this name.
///
/// # Errors
/// A review failed.
pub(crate) async fn recover_rights(
    client: &Client,
    account: (&str, &str),
    quarantine: &str,
) -> Result<RecoverRights, IoError> {
    let may = |verb: &'static str| {
        let right = Right::on_quarantine(verb, Some(quarantine));
        let what = format!("ask whether account {}/{} may {right}", account.0, account.1);
        account_may(client, account, right.attributes(), what)
    };
    let (recover, wildcard) = futures::try_join!(may("recover"), may("never-granted"))?;
    Ok(RecoverRights { recover, wildcard })
}

/// Returns whether every member of a group has a right by the group alone.
///
/// # Errors
/// The review failed, with `what`.
pub(crate) async fn group_may(
    client: &Client,
    group: &str,
    attributes: ResourceAttributes,
    what: String,
) -> Result<bool, IoError> {
    let groups = vec![group.to_owned(), "system:authenticated".to_owned()];
    review(client, (None, groups), attributes, what).await
}

async fn review(
    client: &Client,
    (user, groups): (Option<String>, Vec<String>),
    attributes: ResourceAttributes,
    what: String,
) -> Result<bool, IoError> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user,
            groups: Some(groups),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = call(what, reviews.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
