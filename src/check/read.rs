//! Bounded reads as the caller. A read error is kept as a fact.

use std::fmt::Debug;

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use crate::calls::{IoError, call};
use crate::reviews;

/// A fact, or why it could not be read.
pub type Fact<T> = Result<T, String>;

/// Page size of a list.
const PAGE: u32 = 500;
/// Maximum number of pages that are read.
const PAGES: usize = 10;

/// Returns why a fact is unknown, and who can read it. For a forbidden request, the API server's message adds nothing to the attempted
/// operation.
pub(super) fn why(error: &IoError) -> String {
    let (IoError::Api { what, .. } | IoError::Timeout { what, .. }) = error;
    if error.status().is_some_and(|status| matches!(status.code, 401 | 403)) {
        return format!(
            "you may not do this: {what}. Run this command as a cluster administrator, for instance"
        );
    }
    match error.unanswered() {
        Some(cause) => format!("{what}: the API server does not answer ({cause})"),
        None => error.to_string(),
    }
}

/// Lists all objects of a kind. More than [`PAGES`] pages are an error.
pub(super) async fn list<K>(api: &Api<K>, what: &str) -> Result<Vec<K>, IoErrorOrMore>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    for _ in 0..PAGES {
        let page = call(format!("list {what}"), api.list(&params)).await.map_err(IoErrorOrMore::Io)?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
    Err(IoErrorOrMore::More { what: what.to_owned(), read: all.len() })
}

/// Why a list is unknown.
#[derive(Debug)]
pub(super) enum IoErrorOrMore {
    /// The request failed.
    Io(IoError),
    /// There are more objects than the limit.
    More { what: String, read: usize },
}

impl IoErrorOrMore {
    /// Returns whether the kind is not served.
    pub(super) fn is_not_served(&self) -> bool {
        matches!(self, Self::Io(error) if error.is_not_served())
    }
}

impl From<IoErrorOrMore> for String {
    fn from(error: IoErrorOrMore) -> Self {
        match error {
            IoErrorOrMore::Io(error) => why(&error),
            IoErrorOrMore::More { what, read } => {
                format!("there are more {what} than the {read} that this command reads")
            }
        }
    }
}

/// Returns whether a service account has a right. The caller needs the right to create SubjectAccessReviews.
pub(super) async fn account_may(
    client: &Client,
    (namespace, account): (&str, &str),
    attributes: ResourceAttributes,
) -> Fact<bool> {
    let what = format!("ask for the rights of account {namespace}/{account}");
    let answer = reviews::account_may(client, (namespace, account), attributes, what).await;
    answer.map_err(|error| why(&error))
}

/// Returns a verb on a resource for [`account_may`].
pub(super) fn right(verb: &str, group: &str, resource: &str) -> ResourceAttributes {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (resource, None),
    };
    ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        ..ResourceAttributes::default()
    }
}

/// Formats the first few items, and the number of others.
pub(super) fn first_few<T: AsRef<str>>(all: &[T], most: usize) -> String {
    let shown: Vec<&str> = all.iter().take(most).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
