//! Objects of kinds that this program has no type for, read as the plan's account.

use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde_json::Value;

use super::inventory::unreadable;
use super::{Answer, Context};
use crate::api::GateReason;

/// Objects to a page of a list.
const PAGE: u32 = 500;
/// Pages that one list may have.
const PAGES: usize = 20;

/// Reads one object of a kind that this program has no type for. `None`: it does not exist.
///
/// # Errors
/// The verdict Unknown: it cannot be read, or the cluster does not serve its kind.
pub(super) async fn read(
    context: Context<'_>,
    kind: &ApiResource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>, Answer> {
    let what = match namespace {
        Some(namespace) => format!("{} {namespace}/{name}", kind.kind),
        None => format!("{} {name}", kind.kind),
    };
    match context.reads.object(kind, namespace, name).await {
        Ok(object) => object
            .map(serde_json::to_value)
            .transpose()
            .map_err(|error| Answer::unknown(GateReason::Unreadable, format!("{what}: {error}"))),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(not_served(kind, &what)),
        Err(error) => Err(unreadable(&format!("cannot read {what}"), &error)),
    }
}

/// Returns a kind of version `v1`.
pub(super) fn kind(group: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural)
}

/// Lists the objects of a kind in a namespace that have a label.
///
/// # Errors
/// The verdict Unknown: they cannot be listed, there are too many, or the cluster does not serve their kind.
pub(super) async fn list(
    context: Context<'_>,
    kind: &ApiResource,
    namespace: &str,
    labels: &str,
) -> Result<Vec<Value>, Answer> {
    let client = context.reads.account.client.clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, kind);
    let what = format!("{} in namespace {namespace}", kind.plural);
    let mut params = ListParams::default().labels(labels).limit(PAGE);
    let mut all = Vec::new();
    for _ in 0..PAGES {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(not_served(kind, &what)),
            Err(error) => return Err(unreadable(&format!("cannot list {what}"), &error)),
        };
        for object in page.items {
            let unreadable = |error| Answer::unknown(GateReason::Unreadable, format!("{what}: {error}"));
            all.push(serde_json::to_value(object).map_err(unreadable)?);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
    Err(Answer::unknown(GateReason::ApiError, format!("there are too many {what} to list them")))
}

fn not_served(kind: &ApiResource, what: &str) -> Answer {
    let message = format!(
        "the cluster does not serve {}.{} ({}), so {what} cannot be read",
        kind.plural, kind.group, kind.version
    );
    Answer::unknown(GateReason::KindMissing, message)
}
